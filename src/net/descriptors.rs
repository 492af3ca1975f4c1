//! File descriptors: how many sessions fit, so that a flood leaves some for everything else.
//!
//! Called by the listeners. The control socket, the store, the drains that run and the bodies that come in need descriptors
//! too; a session is refused with 421 before they run short.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a session may hold at once: its socket, and the body it writes or reads.
const EACH: u64 = 2;
/// Kept free for the control socket, pages, certificates, the ETRN path and connections that are being refused.
const RESERVED: u64 = 16;
/// Fewer would be no service.
const SESSIONS_MIN: usize = 4;

/// Lets the process have as many descriptors as the system allows it, and says how many that are.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            log::debug!("the limit on descriptors stays: {error}");
            current
        }
    }
}

/// How many sessions fit at most: `usize::MAX` if there is no limit.
#[must_use]
pub fn sessions_that_fit() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").map_or(RESERVED, |all| all.count() as u64);
    fitting(getrlimit(Resource::Nofile).current, open)
}

fn fitting(limit: Option<u64>, open: u64) -> usize {
    let Some(limit) = limit else { return usize::MAX };
    let fit = limit.saturating_sub(open + RESERVED) / EACH;
    usize::try_from(fit).unwrap_or(usize::MAX).max(SESSIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_descriptors_for_the_rest() {
        assert_eq!(fitting(None, 50), usize::MAX);
        assert_eq!(fitting(Some(65_536), 36), 32_742);
        assert_eq!(fitting(Some(64), 20), 14);
        assert_eq!(fitting(Some(16), 20), SESSIONS_MIN);
    }
}
