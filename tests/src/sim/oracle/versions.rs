//! What a row was at some time: its versions, oldest first, each with when it came.

use jiff::Timestamp;

/// The versions since then, the one of that moment among them.
pub(super) fn since<T>(rows: &[(Timestamp, T)], then: Timestamp) -> &[(Timestamp, T)] {
    let first = rows.iter().rposition(|(at, _)| *at <= then).unwrap_or(0);
    &rows[first..]
}

/// Whether the first of them is from that moment or before.
pub(super) fn was_there<T>(rows: &[(Timestamp, T)], then: Timestamp) -> bool {
    rows.iter().any(|(at, _)| *at <= then)
}
