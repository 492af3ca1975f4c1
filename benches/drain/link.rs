//! A link with a round trip of 40 ms and 100 Mbit/s: a proxy that holds every octet back for 20 ms and gives it on
//! at that rate.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::place::{Kind, Place};
use super::row;
use super::sink::{self, Sink};

const ONE_WAY: Duration = Duration::from_millis(20);
const OCTETS_PER_SECOND: f64 = 100e6 / 8.0;
/// What a link of that kind holds on its way and in its queue: its product of rate and delay, and as much again.
const HELD_MAX: usize = 1 << 20;

#[derive(Default)]
struct Pipe {
    parts: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    is_closed: bool,
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let pipe = Arc::new((Mutex::new(Pipe::default()), Condvar::new()));
    let giving = pipe.clone();
    std::thread::spawn(move || {
        let mut free = Instant::now();
        loop {
            let (state, changed) = &*giving;
            let mut state = state.lock().expect("whole");
            while state.parts.is_empty() && !state.is_closed {
                state = changed.wait(state).expect("whole");
            }
            let Some((due, part)) = state.parts.pop_front() else { break };
            drop(state);
            // The rate: each part occupies the line for its time, one after the other.
            free = free.max(due) + Duration::from_secs_f64(part.len() as f64 / OCTETS_PER_SECOND);
            std::thread::sleep(free.saturating_duration_since(Instant::now()));
            if to.write_all(&part).is_err() {
                break;
            }
            let mut state = giving.0.lock().expect("whole");
            state.held -= part.len();
            giving.1.notify_all();
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut place = vec![0; 16 << 10];
    loop {
        let octets = from.read(&mut place).unwrap_or(0);
        let (state, changed) = &*pipe;
        let mut state = state.lock().expect("whole");
        if octets == 0 {
            state.is_closed = true;
            changed.notify_all();
            return;
        }
        while state.held > HELD_MAX {
            state = changed.wait(state).expect("whole");
        }
        state.held += octets;
        state.parts.push_back((Instant::now() + ONE_WAY, place[..octets].to_vec()));
        changed.notify_all();
    }
}

/// The address behind which `to` stands at the far end of the link.
pub(crate) fn link(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(to).expect("connected");
            for stream in [&near, &far] {
                stream.set_nodelay(true).expect("a socket");
            }
            let (near_again, far_again) =
                (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
            std::thread::spawn(move || carry(near, far));
            std::thread::spawn(move || carry(far_again, near_again));
        }
    });
    address
}

/// Each way of sending beside one stream of the same octets.
pub(crate) fn rows() {
    println!("\n# link: one connection, 40 ms round trip, 100 Mbit/s, messages of 4 KiB");
    let round_trips = |seconds: f64| seconds / (2.0 * ONE_WAY.as_secs_f64());
    for (name, keywords) in super::ways() {
        let messages = match name {
            "lock-step" => 40,
            "PIPELINING" => 200,
            _ => 20_000,
        };
        let place = Place::new(Kind::Memory, messages, 4096);
        let sink = Sink::start(keywords);
        let begin = Instant::now();
        let last = place.drain(link(sink.address));
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!((last.ended.as_str(), last.messages), ("quit", messages as u64), "{last:?}");
        let stream = Sink::swallow();
        let begin = Instant::now();
        sink::pour(link(stream.address), last.bytes);
        let plain = begin.elapsed().as_secs_f64();
        row(
            name,
            messages as f64 / seconds,
            "messages/s",
            plain / seconds,
            "one TCP stream of these octets",
        );
        let each = messages as f64 / round_trips(seconds);
        row("", each, "messages", each, "a round trip");
    }
}
