//! How far a long command is: a bar on a terminal, a line now and then elsewhere, nothing if nobody wants it.
//!
//! Called by the commands. It writes to standard error only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::tell;

/// Between two lines where no terminal is.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// One task after the other.
pub(super) struct Progress {
    how: How,
    task: String,
    last: (u64, u64),
}

enum How {
    Bar(ProgressBar),
    Lines(Instant),
    Quiet,
}

impl Progress {
    /// For standard error as it is.
    pub(super) fn new(quiet: bool) -> Self {
        let how = if quiet {
            How::Quiet
        } else if std::io::stderr().is_terminal() {
            How::Bar(ProgressBar::new_spinner())
        } else {
            How::Lines(Instant::now())
        };
        Self { how, task: String::new(), last: (0, 0) }
    }

    /// So much of the task is done; `total` is 0 where nobody knows it.
    pub(super) fn at(&mut self, task: &str, done: u64, total: u64) {
        if self.task != task {
            self.end();
            self.task = task.to_owned();
            self.begin(total);
        }
        self.last = (done, total);
        match &mut self.how {
            How::Bar(bar) => {
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            How::Lines(last) if last.elapsed() >= LINE_PAUSE => {
                *last = Instant::now();
                self.say();
            }
            How::Lines(_) | How::Quiet => {}
        }
    }

    fn begin(&mut self, total: u64) {
        let How::Bar(bar) = &mut self.how else { return };
        let form = if total > 0 {
            "{msg}: {wide_bar} {human_pos}/{human_len} {eta}"
        } else {
            "{spinner} {msg}: {human_pos}"
        };
        *bar = ProgressBar::new(total);
        // A form that is none would show in the first run of it.
        bar.set_style(
            ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(self.task.clone());
    }

    fn say(&self) {
        let (done, total) = self.last;
        match total {
            0 => tell(&format!("{}: {done}", self.task)),
            total => tell(&format!("{}: {done} of {total}", self.task)),
        }
    }

    /// The last task is over: its last word stays.
    pub(super) fn end(&mut self) {
        if self.task.is_empty() {
            return;
        }
        match &self.how {
            How::Bar(bar) => bar.finish_and_clear(),
            How::Lines(_) => self.say(),
            How::Quiet => {}
        }
        self.task.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}
