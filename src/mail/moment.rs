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

    /// Reads a time of RFC 3339 §5.6 with `T`, in any offset; fractions below a millisecond are dropped. `None` if
    /// it is none, or lies before 1970.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            let digits = text.get(range)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let sign = |place: usize, wanted: u8| text.as_bytes().get(place) == Some(&wanted);
        if ![(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|(p, w)| sign(*p, *w))
        {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let rest = text.get(19..)?;
        let (fraction, zone) = match rest.strip_prefix('.') {
            None => ("", rest),
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        };
        let thousandths = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
        let offset = match zone.as_bytes() {
            b"Z" => 0,
            [s @ (b'+' | b'-'), _, _, b':', _, _] => {
                let part = |range| -> Option<i64> {
                    zone.get::<std::ops::Range<usize>>(range)?.parse().ok()
                };
                let minutes = part(1..3)? * 60 + part(4..6)?;
                if *s == b'-' { -minutes } else { minutes }
            }
            _ => return None,
        };
        let days =
            (0..20_000_000).contains(&year).then(|| days(year, month))? + day.checked_sub(1)?;
        let leaps = hour > 23 || minute > 59 || second > 60 || day > 31;
        if leaps || year < 1970 || !(1..=12).contains(&month) {
            return None;
        }
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
        let seconds = i64::try_from(seconds).ok()? - offset * 60;
        Some(Self(u64::try_from(seconds).ok()? * 1000 + thousandths))
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

/// Days from 1970 to the first of a month of the Gregorian calendar; years before 1970 give nonsense.
const fn days(year: u64, month: u64) -> u64 {
    let shifted = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).saturating_sub(719_468)
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
    fn what_is_written_can_be_read() {
        for moment in [0, 951_782_400_000, 1_795_317_540_123, 4_102_444_799_999] {
            let text = Timestamp(moment).rfc3339();
            assert_eq!(Timestamp::parse_rfc3339(&text), Some(Timestamp(moment)), "{text}");
        }
        for text in
            ["2026-11-22T04:19:00+01:00", "2026-11-22T03:19:00Z", "2026-11-21T23:49:00.0004-03:30"]
        {
            assert_eq!(
                Timestamp::parse_rfc3339(text),
                Some(Timestamp(1_795_317_540_000)),
                "{text}"
            );
        }
        for text in [
            "",
            "2026-11-22",
            "2026-13-22T03:19:00Z",
            "2026-11-22T03:19:00",
            "1969-12-31T23:59:59Z",
            "2026-11-00T03:19:00Z",
            "é026-11-22T03:19:00Z",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn spans_never_wrap() {
        assert_eq!(Timestamp(5).since(Timestamp(9000)), Seconds(0));
        assert_eq!(Timestamp(u64::MAX).after(Seconds(u64::MAX)), Timestamp(u64::MAX));
    }
}
