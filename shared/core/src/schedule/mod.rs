//! Backups on a schedule.

mod timing;

pub use timing::{Cron, Plan, Zone};

#[cfg(test)]
mod tests;
