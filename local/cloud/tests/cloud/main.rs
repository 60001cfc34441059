//! The simulated AWS from outside: bytes in, bytes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bus;
mod by_hand;
mod calls;
mod describe;
mod faults;
mod persist;
mod snapshots;
mod support;
mod view;
