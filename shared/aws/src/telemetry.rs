//! Logs as JSON lines, and metrics in CloudWatch's embedded metric format: a
//! metric is a line of the log, it costs no call.
//!
//! What must never be logged: a key's secret, a request's headers.

use std::sync::OnceLock;

use serde_json::json;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::Clock;

/// The namespace of our metrics.
pub const NAMESPACE: &str = "SupervisorBackups";

/// Set on AWS, where a metric is a line on standard output: the stack, and the time.
static STACK: OnceLock<(String, Clock)> = OnceLock::new();

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Backups that completed.
    BackupsCompleted,
    /// Backups that failed.
    BackupsFailed,
    /// Rounds in which AWS refused to delete a snapshot.
    DeletesHeld,
    /// Looks at a restore that can go neither way by itself: one each minute or two.
    RestoresStuck,
    /// Starts of a restore's nodes that were refused and are asked for again.
    RestoreStartRetries,
    /// Looks of a restore that failed, and rounds of calls of which one did, while its
    /// deployment was down.
    RestoresHindered,
    /// Volumes that a restore left, and that nobody but an operator removes.
    VolumesKept,
    /// Slots of schedules that made no backup.
    SchedulesSkipped,
    /// Snapshots and volumes that no row vouches for, and those that one run may not delete
    /// any more: once a day, also when there are none.
    OrphansFound,
    /// How long the oldest row of the `due` index has waited, in seconds; schedules have a
    /// metric of their own.
    OldestDueSeconds,
    /// How long the oldest schedule has waited for its turn, in seconds: with each tick, unless
    /// schedules are paused.
    SchedulesBehindSeconds,
    /// For how long an operator has paused anything, in seconds: with each tick, while it
    /// lasts.
    PausedSeconds,
    /// Events that were refused, counted at each try; then they are in the dead-letter queue.
    EventsRejected,
    /// Looks of the reconciliation that EC2 did not answer, and ticks that found it late by a
    /// day's run.
    ReconciliationHindered,
    /// Rows of the table that this release cannot read, at each try.
    RowsUnreadable,
}

impl Metric {
    /// Its name in CloudWatch, and its unit.
    pub const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::BackupsCompleted => ("BackupsCompleted", "Count"),
            Self::BackupsFailed => ("BackupsFailed", "Count"),
            Self::DeletesHeld => ("DeletesHeld", "Count"),
            Self::RestoresStuck => ("RestoresStuck", "Count"),
            Self::RestoreStartRetries => ("RestoreStartRetries", "Count"),
            Self::RestoresHindered => ("RestoresHindered", "Count"),
            Self::VolumesKept => ("VolumesKept", "Count"),
            Self::SchedulesSkipped => ("SchedulesSkipped", "Count"),
            Self::OrphansFound => ("OrphansFound", "Count"),
            Self::OldestDueSeconds => ("OldestDueSeconds", "Seconds"),
            Self::SchedulesBehindSeconds => ("SchedulesBehindSeconds", "Seconds"),
            Self::PausedSeconds => ("PausedSeconds", "Seconds"),
            Self::EventsRejected => ("EventsRejected", "Count"),
            Self::ReconciliationHindered => ("ReconciliationHindered", "Count"),
            Self::RowsUnreadable => ("RowsUnreadable", "Count"),
        }
    }
}

/// The crates whose lines have been looked through for secrets.
const OURS: [&str; 5] = ["api", "backups_aws", "backups_core", "scheduler", "worker"];

/// Sets up the logs of a function on AWS. `LOG_LEVEL` is a filter of `tracing`; below `info` it
/// goes for our own crates alone.
pub fn init(stack: &str, clock: &Clock) {
    let filter = EnvFilter::try_from_env("LOG_LEVEL").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(true);
    let done = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|line| may_be_logged(line.target(), *line.level())))
        .with(lines)
        .try_init();
    if done.is_ok() {
        let _ = STACK.set((stack.to_owned(), clock.clone()));
    }
}

/// Whether a line may be written at all. What a library says below `info` may be a whole
/// request, with the key in it: `lambda_runtime` has each payload at `trace`.
pub fn may_be_logged(target: &str, level: Level) -> bool {
    level <= Level::INFO || target.split("::").next().is_some_and(|name| OURS.contains(&name))
}

/// Counts `value` of `metric`, now.
pub fn count(metric: Metric, value: i64) {
    let (name, unit) = metric.name();
    let Some((stack, clock)) = STACK.get() else {
        tracing::debug!(metric = name, value, "metric");
        return;
    };
    // Source: CloudWatch user guide, "Specification: Embedded metric format".
    let line = json!({
        "_aws": {
            "Timestamp": clock.timestamp().as_millisecond(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["Stack"]],
                "Metrics": [{ "Name": name, "Unit": unit }],
            }],
        },
        "Stack": stack,
        name: value,
    });
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_tells_nothing_below_info() {
        assert!(may_be_logged("lambda_runtime::layers::api_response", Level::ERROR));
        assert!(may_be_logged("hyper", Level::INFO));
        for target in ["lambda_runtime::layers::api_response", "aws_smithy_runtime", "apish"] {
            assert!(!may_be_logged(target, Level::DEBUG), "{target}");
            assert!(!may_be_logged(target, Level::TRACE), "{target}");
        }
        assert!(may_be_logged("api::auth", Level::TRACE));
        assert!(may_be_logged("worker", Level::DEBUG));
    }
}
