//! `restante top`: the snapshot of `status`, drawn anew every second.
//!
//! Each drawing asks anew, so that a provider which is started, stopped or restarted meanwhile shows as it is. The
//! terminal is given back as it was, however it ends.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Failure, ask_with, load, status};
use crate::app::admin::Refused;
use crate::app::output::{Format, Out};

/// Another screen, without a cursor; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// Tenths of a second between two drawings.
const PAUSE_TENTHS: u8 = 10;

pub(super) fn run(chosen: Option<PathBuf>, out: &mut Out) -> Result<(), Failure> {
    if !out.is_text() || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return ask_with(chosen, |desk| status::run(desk, out));
    }
    // Its faults belong on the ordinary screen.
    load(chosen.clone())?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let caught = signal_hook::flag::register(signal, ended.clone());
        caught.map_err(|error| Refused::new(format!("signals cannot be caught: {error}"), ""))?;
    }
    let screen = Screen::take().map_err(|error| no_terminal(&error))?;
    while !ended.load(Ordering::Relaxed) {
        let lines = drawn(chosen.clone());
        screen.draw(&lines).map_err(|error| no_terminal(&error))?;
        if screen.is_left() {
            break;
        }
    }
    Ok(())
}

fn no_terminal(error: &io::Error) -> Refused {
    Refused::new(format!("the terminal cannot be used: {error}"), "see `restante status`")
}

/// The lines of the snapshot, or why there is none.
fn drawn(chosen: Option<PathBuf>) -> Vec<String> {
    let page = Page::default();
    let mut out = Out::to(Format::Text, Box::new(page.clone()));
    let asked = ask_with(chosen, |desk| status::run(desk, &mut out));
    let trouble = match asked.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => None,
        Err(Failure::Failed(refused) | Failure::Usage(refused)) => Some(refused.to_string()),
        Err(Failure::Config(_) | Failure::Told(_)) => Some("the configuration has faults".into()),
    };
    drop(out);
    let text = String::from_utf8_lossy(&page.0.lock().unwrap_or_else(PoisonError::into_inner))
        .into_owned();
    trouble.into_iter().chain(text.lines().map(str::to_owned)).collect()
}

/// What is printed, kept.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, without its echo and its line editing.
struct Screen {
    before: Termios,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Ctrl-C stays a signal.
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = PAUSE_TENTHS;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let screen = Self { before };
        io::stdout().write_all(ENTER)?;
        Ok(screen)
    }

    fn draw(&self, lines: &[String]) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout())?;
        let (rows, columns) = (usize::from(size.ws_row.max(2)), usize::from(size.ws_col.max(10)));
        let mut frame = b"\x1b[H".to_vec();
        for line in lines.iter().take(rows - 1) {
            frame.extend(line.chars().take(columns).collect::<String>().bytes());
            frame.extend_from_slice(b"\x1b[K\r\n");
        }
        frame.extend_from_slice(b"\x1b[J-- q: leave");
        if lines.len() >= rows {
            frame.extend(format!("; {} more lines", lines.len() + 1 - rows).bytes());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame)?;
        stdout.flush()
    }

    /// Waits for the next drawing; whether somebody wants to leave.
    fn is_left(&self) -> bool {
        let mut key = [0; 16];
        match io::stdin().lock().read(&mut key) {
            Ok(count) => key[..count].iter().any(|octet| matches!(octet, b'q' | b'Q' | 4)),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell when this fails.
        let _ = io::stdout().write_all(LEAVE).and_then(|()| io::stdout().flush());
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
