//! The pure rules of the backups service: types, validation, and step functions.
//!
//! Nothing here does I/O, reads a clock, draws a random number, or iterates in
//! hash order: the shell (`backups-aws` and the functions) hands in what was
//! read, the time, and ids, and carries out what these functions decide. That is
//! why the rules can be tested by the thousand, and why a simulation replays.
//!
//! ```text
//!  request ──▶ body ──▶ create::decide ──▶ a row `pending`
//!                                             │
//!  EC2 as seen ──▶ backup::step(row, seen) ◀──┘
//!                        │
//!                        └──▶ Record | Act | Wait | Remove ──▶ the shell
//! ```

pub mod announce;
pub mod backup;
pub mod body;
pub mod brake;
pub mod control_plane;
pub mod create;
pub mod deployment;
pub mod error;
pub mod id;
pub mod json;
pub mod key;
pub mod limits;
pub mod operation;
pub mod reconcile;
pub mod refusals;
pub mod restore;
pub mod schedule;
pub mod time;
pub mod upgrade;
pub mod wake;
