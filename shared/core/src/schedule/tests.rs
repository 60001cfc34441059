//! Tests of the schedules' rules.

mod cron;
mod timing;
mod turn;
mod zone;
