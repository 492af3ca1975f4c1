//! Ten thousand held connections: what each costs, and how soon new mail is on its wire.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_std::task::block_on;
use futures::io::{AsyncRead, AsyncWrite};
use restante::mail::Seconds;
use restante::net::deliver::deliver_dialed;
use restante::net::stop::Stop;
use restante::net::wire::Wire;

use super::place::{Kind, Place, put, resident};
use super::row;

const CUSTOMERS: usize = 10_000;

/// A server inside the wire: it answers at once, and notes when MAIL came. So that only our side is measured.
#[derive(Default)]
struct Inside {
    input: Vec<u8>,
    output: Vec<u8>,
    reader: Option<Waker>,
    mail: Option<Instant>,
    in_content: bool,
}

#[derive(Clone)]
struct Line(Arc<Mutex<Inside>>);

impl Line {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Inside { output: b"220 x\r\n".to_vec(), ..Inside::default() })))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut inside = self.0.lock().expect("whole");
        let octets = inside.output.len().min(place.len());
        if octets == 0 {
            inside.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        place[..octets].copy_from_slice(&inside.output[..octets]);
        inside.output.drain(..octets);
        Poll::Ready(Ok(octets))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut inside = self.0.lock().expect("whole");
        inside.input.extend_from_slice(octets);
        while let Some(end) = inside.input.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = inside.input.drain(..=end).collect();
            let reply: &[u8] = match &line[..line.len().min(4)] {
                b".\r\n" => {
                    inside.in_content = false;
                    b"250 taken\r\n"
                }
                _ if inside.in_content => b"",
                b"EHLO" => b"250-x\r\n250 PIPELINING\r\n",
                b"DATA" => {
                    inside.in_content = true;
                    b"354 go\r\n"
                }
                b"MAIL" => {
                    inside.mail = Some(Instant::now());
                    b"250 fine\r\n"
                }
                _ => b"250 fine\r\n",
            };
            inside.output.extend_from_slice(reply);
        }
        inside.input.shrink_to_fit();
        if let Some(reader) = inside.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// See the module's head.
pub(crate) fn rows() {
    println!("\n# hold: {CUSTOMERS} customers held open on lines in memory");
    let place = Place::spread(Kind::Memory, CUSTOMERS, CUSTOMERS, 64);
    let mut policy = (*place.office.policy()).clone();
    policy.drain.hold_open = Some(Seconds(3600));
    place.office.set_policy(policy);
    let (giver, stop) = Stop::new();
    let before = resident();
    let lines: Vec<Line> = (0..CUSTOMERS).map(|_| Line::new()).collect();
    let drains: Vec<_> = lines
        .iter()
        .enumerate()
        .map(|(owner, line)| {
            let (office, stop, line) = (place.office.clone(), stop.clone(), line.clone());
            async_std::task::spawn(async move {
                let place = Place { office: office.clone(), messages: 0 };
                let lease = place.lease(owner).await;
                let peer = "192.0.2.1:25".parse().expect("valid");
                let wire = Wire { stream: Box::new(line), peer, tls: None };
                deliver_dialed(wire, lease, &office, &stop).await
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let queued = |place: &Place| {
        let all = restante::store::Filter::default();
        block_on(place.office.store.query(all, None, 1)).expect("a listing").len()
    };
    while queued(&place) > 0 {
        assert!(Instant::now() < deadline, "not all were drained in a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    let each = resident().saturating_sub(before) as f64 / CUSTOMERS as f64 / 1024.0;
    row("memory of each", each, "KiB", each / 20.0, "20 KiB");
    let mut spans = Vec::new();
    for number in 0..1000 {
        let owner = (number * 7919) % CUSTOMERS;
        lines[owner].0.lock().expect("whole").mail = None;
        let begin = Instant::now();
        block_on(put(&*place.office.store, 1_000_000 + number as u128, owner, owner, b"x\r\n"));
        let mail = loop {
            if let Some(mail) = lines[owner].0.lock().expect("whole").mail {
                break mail;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "never pushed");
            std::thread::yield_now();
        };
        spans.push(mail.saturating_duration_since(begin).as_secs_f64() * 1e3);
    }
    spans.sort_by(f64::total_cmp);
    row("from commit to MAIL, 50 %", spans[500], "ms", spans[500] / 50.0, "50 ms");
    row("from commit to MAIL, 99 %", spans[990], "ms", spans[990] / 50.0, "50 ms");
    giver.give();
    let ends = block_on(futures::future::join_all(drains));
    assert!(ends.iter().all(|last| last.ended == "shutdown"));
}
