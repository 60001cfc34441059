//! The simulated AWS from outside: bytes in, bytes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod attributes;
mod bus;
mod by_hand;
mod calls;
mod create_volume;
mod describe;
mod faults;
mod keys;
mod persist;
mod power;
mod snapshots;
mod support;
mod view;
