//! A wire in memory: two directions with bounded windows, which can be cut at any octet.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

/// How one direction behaves.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Octets that fit in before the reader takes some.
    pub window: usize,
    /// Octets given at once.
    pub gulp: usize,
    /// After so many octets the whole wire is cut.
    pub cut_after: Option<usize>,
    /// That cut is a reset: what was on its way is lost.
    pub cut_loses: bool,
    /// The wire is cut so many octets (0 to 2) behind the dot of the n-th lone dot, n from 1.
    pub cut_at_dot: Option<(usize, usize)>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            window: 64 << 10,
            gulp: usize::MAX,
            cut_after: None,
            cut_loses: false,
            cut_at_dot: None,
        }
    }
}

struct Direction {
    traits: Traits,
    queue: VecDeque<u8>,
    passed: usize,
    /// The last octets that passed, as far as they may begin a lone dot.
    tail: Vec<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What the two ends share.
pub struct Wire {
    ways: [Direction; 2],
    /// Reset: what was not read is lost.
    is_cut: bool,
    /// The sizes of the writes of end 0, for those who care about records.
    writes: Vec<Vec<u8>>,
    keeps_writes: bool,
}

impl Direction {
    /// Looks for the lone dot at which the wire is to be cut.
    fn look_for_dot(&mut self, octets: &[u8]) {
        let Some((nth, behind)) = self.traits.cut_at_dot else { return };
        let mut seen = std::mem::take(&mut self.tail);
        let begin = self.passed - seen.len();
        seen.extend_from_slice(octets);
        let found = memchr::memmem::find_iter(&seen, b"\r\n.\r\n").nth(nth - 1);
        if let Some(at) = found {
            // Before the first octet of this write nothing can be cut any more.
            let cut = (begin + at + 3 + behind).max(self.passed + 1);
            self.traits.cut_after = Some(self.traits.cut_after.map_or(cut, |other| other.min(cut)));
            self.traits.cut_at_dot = None;
            return;
        }
        let dots = memchr::memmem::find_iter(&seen, b"\r\n.\r\n").count();
        self.traits.cut_at_dot = Some((nth - dots, behind));
        self.tail = seen.split_off(seen.len().saturating_sub(4));
    }
}

impl Wire {
    fn wake(&mut self) {
        for way in &mut self.ways {
            for waker in [way.reader.take(), way.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

/// One end.
pub struct End {
    wire: Arc<Mutex<Wire>>,
    side: usize,
}

/// The ends of a new wire: ours, and the customer's. `out` is our direction.
pub fn pair(out: Traits, back: Traits) -> (End, End) {
    let way = |traits| Direction {
        traits,
        queue: VecDeque::new(),
        passed: 0,
        tail: Vec::new(),
        closed: false,
        reader: None,
        writer: None,
    };
    let wire = Wire {
        ways: [way(out), way(back)],
        is_cut: false,
        writes: Vec::new(),
        keeps_writes: false,
    };
    let wire = Arc::new(Mutex::new(wire));
    (End { wire: wire.clone(), side: 0 }, End { wire, side: 1 })
}

impl End {
    /// Cuts the wire as a reset does.
    pub fn cut(&self) {
        let mut wire = self.wire.lock().expect("whole");
        wire.is_cut = true;
        wire.wake();
    }

    /// Keeps the writes of our end from now on, and shows them.
    pub fn tap(&self) -> Tap {
        self.wire.lock().expect("whole").keeps_writes = true;
        Tap(self.wire.clone())
    }
}

/// Sees the writes of our end.
pub struct Tap(Arc<Mutex<Wire>>);

impl Tap {
    /// All of them, each for itself.
    pub fn writes(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("whole").writes.clone()
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock().expect("whole");
        if wire.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let way = &mut wire.ways[1 - self.side];
        let octets = way.queue.len().min(place.len()).min(way.traits.gulp);
        if octets == 0 {
            if way.closed {
                return Poll::Ready(Ok(0));
            }
            way.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (front, back) = way.queue.as_slices();
        let of_front = octets.min(front.len());
        place[..of_front].copy_from_slice(&front[..of_front]);
        place[of_front..octets].copy_from_slice(&back[..octets - of_front]);
        way.queue.drain(..octets);
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(octets))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock().expect("whole");
        let side = self.side;
        if wire.is_cut || wire.ways[side].closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let way = &mut wire.ways[side];
        let room = way.traits.window - way.queue.len();
        if room > 0 {
            way.look_for_dot(&octets[..octets.len().min(room)]);
        }
        let left = way.traits.cut_after.map_or(usize::MAX, |cut| cut - way.passed);
        let count = octets.len().min(room).min(left);
        if count == 0 && room == 0 {
            way.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        way.queue.extend(&octets[..count]);
        way.passed += count;
        let is_cut = way.traits.cut_after == Some(way.passed);
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        if wire.keeps_writes && side == 0 {
            wire.writes.push(octets[..count].to_vec());
        }
        if is_cut && wire.ways[side].traits.cut_loses {
            wire.is_cut = true;
            wire.wake();
        } else if is_cut {
            // What went before the cut arrives; nothing more does, in either direction.
            wire.ways[0].closed = true;
            wire.ways[1].closed = true;
            wire.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock().expect("whole");
        wire.ways[self.side].closed = true;
        wire.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut wire = self.wire.lock().expect("whole");
        wire.ways[0].closed = true;
        wire.ways[1].closed = true;
        wire.wake();
    }
}
