//! What the system says of a process: `self`, or its number.

#![allow(dead_code, unreachable_pub, reason = "each program takes what it needs")]

use std::fmt::Display;

/// Its resident memory, in KiB.
pub fn resident_kib(process: impl Display) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("Linux");
    text.split_whitespace().nth(1).expect("pages").parse::<u64>().expect("a number") * 4
}

/// Its processor time so far, in its own code and in the system's, in hundredths of a second.
pub fn processor_ticks(process: impl Display) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}
