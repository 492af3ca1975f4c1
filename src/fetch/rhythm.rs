//! When to call again: once, every so often, or at once after the provider hung up; after failures with growing
//! pauses, and with chance in them, so that a thousand customers do not come back in the same second.
//!
//! Asked after each call. It reads no clock.

use std::time::Duration;

use super::call::Report;
use super::verdict::Verdict;

/// The first pause after a call that may do better later; it doubles up to the greatest.
const LATER: (u64, u64) = (5, 600);
/// The same after a refusal: asking again will hardly help, and repeated wrong logins get addresses blocked.
const REFUSED: (u64, u64) = (60, 3600);
/// A provider that holds the reply to ATRN or the connection takes longer than this, and may be called again at
/// once; another one would be polled without end.
const HOLDING_SECONDS: u64 = 30;
/// Between two calls to a provider that does not hold.
const UNHELD_SECONDS: u64 = 60;

/// How often an account is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rhythm {
    /// Once.
    Once,
    /// With this pause between two calls.
    Every(Duration),
    /// Always.
    Follow,
}

/// How many calls in a row have failed.
#[derive(Debug, Default)]
pub(super) struct Failures(u32);

impl Rhythm {
    /// The pause before the next call; `None` if there is none. `dice` is anything from 0 to 1.
    pub(super) fn pause(
        self,
        report: &Report,
        failures: &mut Failures,
        dice: f64,
    ) -> Option<Duration> {
        if matches!(report.verdict, Verdict::Stopped) {
            return None;
        }
        let grown = match report.verdict {
            Verdict::Later(_) => Some(failures.pause(LATER, dice)),
            Verdict::Refused(_) => Some(failures.pause(REFUSED, dice)),
            _ => {
                *failures = Failures::default();
                None
            }
        };
        match self {
            Self::Once => None,
            Self::Every(every) => Some(grown.map_or(every, |grown| grown.max(every))),
            Self::Follow => Some(grown.unwrap_or_else(|| {
                let is_held = report.span > Duration::from_secs(HOLDING_SECONDS);
                let seconds = if is_held { 1 } else { UNHELD_SECONDS };
                spread(Duration::from_secs(seconds), dice)
            })),
        }
    }
}

impl Failures {
    fn pause(&mut self, (first, greatest): (u64, u64), dice: f64) -> Duration {
        let factor = 1u64 << self.0.min(16);
        self.0 = self.0.saturating_add(1);
        spread(Duration::from_secs(first.saturating_mul(factor).min(greatest)), dice)
    }
}

/// Three quarters to five quarters of `span`.
fn spread(span: Duration, dice: f64) -> Duration {
    span.mul_f64(0.75 + dice.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Trouble;
    use super::*;

    fn report(verdict: Verdict, seconds: u64) -> Report {
        Report {
            verdict,
            taken: 0,
            refused: 0,
            octets: 0,
            span: Duration::from_secs(seconds),
            was_turned: false,
        }
    }

    fn later() -> Verdict {
        Verdict::Later(Trouble { cause: "x".into(), mend: "y" })
    }

    #[test]
    fn pauses_grow_up_to_their_limit_and_start_anew() {
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(Rhythm::Follow.pause(&report(later(), 1), &mut failures, 0.5));
        }
        let seconds: Vec<_> = pauses.iter().flatten().map(Duration::as_secs).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        Rhythm::Follow.pause(&report(Verdict::Collected, 90), &mut failures, 0.5);
        let again = Rhythm::Follow.pause(&report(later(), 1), &mut failures, 0.5);
        assert_eq!(again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn chance_spreads_the_pauses() {
        let pause =
            |dice| Rhythm::Follow.pause(&report(later(), 1), &mut Failures::default(), dice);
        assert_eq!(pause(0.0), Some(Duration::from_millis(3750)));
        assert_eq!(pause(1.0), Some(Duration::from_millis(6250)));
    }

    #[test]
    fn who_does_not_hold_is_not_called_without_end() {
        let pause = |seconds| {
            let report = report(Verdict::NoMail, seconds);
            Rhythm::Follow.pause(&report, &mut Failures::default(), 0.5)
        };
        assert_eq!(pause(2), Some(Duration::from_secs(60)));
        assert_eq!(pause(300), Some(Duration::from_secs(1)));
    }

    #[test]
    fn every_keeps_its_time_and_once_is_once() {
        let every = Rhythm::Every(Duration::from_secs(300));
        let mut failures = Failures::default();
        let pause = every.pause(&report(Verdict::NoMail, 2), &mut failures, 0.9);
        assert_eq!(pause, Some(Duration::from_secs(300)));
        assert_eq!(every.pause(&report(later(), 2), &mut failures, 0.9), pause);
        assert_eq!(Rhythm::Once.pause(&report(later(), 2), &mut failures, 0.9), None);
        assert_eq!(every.pause(&report(Verdict::Stopped, 2), &mut failures, 0.9), None);
    }
}
