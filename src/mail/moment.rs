//! Time as the program passes it around. Nothing in the core reads a clock; it is told.

/// A span in whole seconds.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl From<Seconds> for std::time::Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0)
    }
}

/// A point on the wall clock: milliseconds since 1970-01-01 UTC. Used for ages, expiry and trace lines; leases
/// and time-outs use the monotonic clock of the shell instead, since the wall clock jumps.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Whole seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This much later; never wraps.
    #[must_use]
    pub const fn after(self, span: Seconds) -> Self {
        Self(self.0.saturating_add(span.0.saturating_mul(1000)))
    }

    /// How long ago `earlier` was, in whole seconds; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Seconds {
        Seconds(self.0.saturating_sub(earlier.0) / 1000)
    }

    /// The date of RFC 5322 §3.3 in UTC: `Sun, 22 Nov 2026 03:19:00 +0000`.
    #[must_use]
    pub fn rfc5322(self) -> String {
        let (year, month, day, weekday) = civil(self.seconds() / 86_400);
        let (hour, minute, second) = clock(self.seconds());
        let name = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][weekday];
        let month =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
                [month - 1];
        format!("{name}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
    }

    /// RFC 3339 in UTC with milliseconds: `2026-11-22T03:19:00.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let (year, month, day, _) = civil(self.seconds() / 86_400);
        let (hour, minute, second) = clock(self.seconds());
        format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
            self.0 % 1000
        )
    }
}

const fn clock(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Year, month (1-12), day (1-31) and weekday (0 = Thursday) of the Gregorian calendar, from days since 1970.
fn civil(days: u64) -> (u64, usize, u64, usize) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month as usize, day, (days % 7) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_moments() {
        assert_eq!(Timestamp(0).rfc5322(), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(Timestamp(951_782_400_000).rfc5322(), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(Timestamp(1_795_317_540_123).rfc3339(), "2026-11-22T03:19:00.123Z");
        assert_eq!(Timestamp(1_795_317_540_123).rfc5322(), "Sun, 22 Nov 2026 03:19:00 +0000");
    }

    #[test]
    fn spans_never_wrap() {
        assert_eq!(Timestamp(5).since(Timestamp(9000)), Seconds(0));
        assert_eq!(Timestamp(u64::MAX).after(Seconds(u64::MAX)), Timestamp(u64::MAX));
    }
}
