//! Sizes and times as people write them: `50 MiB`, `30d`.
//!
//! Called by the configuration, the customers' settings and the queue's filters, so that one spelling holds
//! everywhere. It never guesses: a number without a unit is refused with the spelling that was probably meant.

/// Units of size with their octets, largest first.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of time with their seconds, largest first.
const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Reads a size in octets: a whole number and one of `B KiB MiB GiB TiB`, with or without a space between.
///
/// # Errors
/// What is wrong and how to write it.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<u64>() else {
        return Err(format!(
            "`{text}` is not a size; write a whole number and a unit, as in \"50 MiB\""
        ));
    };
    if unit.is_empty() {
        return Err(bare_size(number));
    }
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let Some(factor) = factor else {
        return Err(format!("`{text}`: {}", unknown_size_unit(number, unit)));
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

/// What to say about a size without a unit.
#[must_use]
pub fn bare_size(number: u64) -> String {
    format!("{number} has no unit; write \"{}\"", show_size(number))
}

fn unknown_size_unit(number: u64, unit: &str) -> String {
    let letter = unit.chars().next().unwrap_or('B').to_ascii_uppercase();
    match SIZES.iter().find(|(name, _)| name.starts_with(letter)) {
        Some((name, _)) => {
            format!("the unit `{unit}` is not one of B KiB MiB GiB; write \"{number} {name}\"")
        }
        None => format!("the unit `{unit}` is not one of B KiB MiB GiB"),
    }
}

/// A size in the largest unit that divides it: `50 MiB`, `1000 B`.
#[must_use]
pub fn show_size(octets: u64) -> String {
    let fits = SIZES.iter().find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor));
    let (name, factor) = fits.unwrap_or(&("B", 1));
    format!("{} {name}", octets / factor)
}

/// A size for people, to one decimal: `1.2 MiB`. Not read back.
#[must_use]
pub fn about_size(octets: u64) -> String {
    match SIZES.iter().find(|(_, factor)| octets >= *factor) {
        Some((name, factor)) if *factor > 1 => {
            let tenths = (u128::from(octets) * 10 + u128::from(*factor) / 2) / u128::from(*factor);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        _ => format!("{octets} B"),
    }
}

/// Reads a time in seconds: a whole number and one of `s m h d`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn time(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let Ok(number) = number.parse::<u64>() else {
        return Err(format!(
            "`{text}` is not a time; write a whole number and a unit, as in \"30d\""
        ));
    };
    if unit.is_empty() {
        return Err(bare_time(number));
    }
    match TIMES.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => {
            number.checked_mul(*factor).ok_or_else(|| format!("`{text}` is too long"))
        }
        None => Err(unknown_time_unit(text, number, unit)),
    }
}

fn unknown_time_unit(text: &str, number: u64, unit: &str) -> String {
    let what = format!("`{text}`: the unit `{unit}` is not one of s m h d");
    let meant = match unit.to_lowercase().as_str() {
        "w" | "wk" | "week" | "weeks" => format!("{}d", number.saturating_mul(7)),
        "min" | "minute" | "minutes" => format!("{number}m"),
        "sec" | "second" | "seconds" => format!("{number}s"),
        "hour" | "hours" => format!("{number}h"),
        "day" | "days" => format!("{number}d"),
        _ => "30d".to_owned(),
    };
    format!("{what}; write it as in \"{meant}\"")
}

/// What to say about a time without a unit.
#[must_use]
pub fn bare_time(number: u64) -> String {
    format!("{number} has no unit; write \"{number}s\" for seconds, or use m, h, d")
}

/// A time in the largest unit that divides it: `30d`, `90s`.
#[must_use]
pub fn show_time(seconds: u64) -> String {
    let fits =
        TIMES.iter().find(|(_, factor)| seconds >= *factor && seconds.is_multiple_of(*factor));
    let (name, factor) = fits.unwrap_or(&("s", 1));
    format!("{}{name}", seconds / factor)
}

/// A time for people, in its two largest units: `2d 3h`, `5m`. Not read back.
#[must_use]
pub fn about_time(seconds: u64) -> String {
    let Some(first) = TIMES.iter().position(|(_, factor)| seconds >= *factor) else {
        return "0s".into();
    };
    let (name, factor) = TIMES[first];
    let whole = format!("{}{name}", seconds / factor);
    match TIMES.get(first + 1).map(|(name, next)| (name, seconds % factor / next)) {
        Some((name, rest)) if rest > 0 => format!("{whole} {rest}{name}"),
        _ => whole,
    }
}

/// Digits, and what follows them without spaces between.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("50 MiB"), Ok(50 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("0 B"), Ok(0));
        for (text, part) in [
            ("50", "write \"50 B\""),
            ("52428800", "write \"50 MiB\""),
            ("50 MB", "write \"50 MiB\""),
            ("50M", "write \"50 MiB\""),
            ("1.5 GiB", "unit"),
            ("much", "not a size"),
            ("-1 B", "not a size"),
            ("99999999999 TiB", "too large"),
            ("5 parsecs", "not one of"),
        ] {
            let said = size(text).expect_err(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time("30d"), Ok(30 * 86_400));
        assert_eq!(time("0s"), Ok(0));
        assert_eq!(time("5 m"), Ok(300));
        for (text, part) in
            [("30", "write \"30s\""), ("1w", "s m h d"), ("soon", "not a time"), ("", "not a time")]
        {
            let said = time(text).expect_err(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for octets in [0, 1, 1023, 1024, 1 << 20, 50 << 20, 3 << 30, 1_000_000] {
            assert_eq!(size(&show_size(octets)), Ok(octets));
        }
        for seconds in [0, 1, 59, 60, 3600, 86_400, 90_000] {
            assert_eq!(time(&show_time(seconds)), Ok(seconds));
        }
        assert_eq!(about_size(1_300_000), "1.2 MiB");
        assert_eq!(about_time(183_600), "2d 3h");
        assert_eq!(about_time(0), "0s");
    }
}
