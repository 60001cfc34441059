//! What the runs have met: each fault, status, edge, code and turn of the
//! lifecycle with its count. A simulation that never hit something proves
//! nothing about it, so a line that stays at nought fails the run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

/// How often each line was met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(BTreeMap<String, u64>);

/// Every line that a run of many seeds must meet: the named ones, and for each
/// operation each fault that its calls can meet.
static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let of_calls = OPERATIONS.iter().flat_map(|(operation, more)| {
        FAULTS.iter().chain(*more).map(move |fault| of_call(operation, fault))
    });
    NAMED.iter().map(|&line| line.to_owned()).chain(of_calls).collect()
});

/// The line of a fault that met a call of an operation.
pub(crate) fn of_call(operation: &str, fault: &str) -> String {
    format!("{operation} {fault}")
}

/// What any call can meet.
const FAULTS: &[&str] = &[
    "crash_before",
    "crash_after",
    "crash_after_reply",
    "reply_lost",
    "refused",
    "throttled",
    "error_5xx",
    "error_5xx_applied",
    "timed_out",
    "timed_out_applied",
    "slow",
];

/// Every operation that the functions call, and what else its calls can meet.
const OPERATIONS: &[(&str, &[&str])] = &[
    ("CreateSnapshots", &["applied_late"]),
    ("DeleteSnapshot", &["applied_late"]),
    ("CreateVolume", &["applied_late"]),
    ("StopInstances", &["applied_late"]),
    ("StartInstances", &["applied_late"]),
    ("DetachVolume", &["applied_late"]),
    ("AttachVolume", &["applied_late"]),
    ("ModifyInstanceAttribute", &["applied_late"]),
    ("CreateTags", &["applied_late"]),
    ("DeleteTags", &["applied_late"]),
    ("DeleteVolume", &["applied_late"]),
    ("DescribeInstanceAttribute", &[]),
    ("DescribeInstanceTypes", &[]),
    ("DescribeInstances", &["short_page"]),
    ("DescribeVolumes", &["short_page"]),
    ("DescribeSnapshots", &["short_page"]),
    ("PutEvents", &["applied_late", "entries_refused"]),
    ("GetItem", &[]),
    ("Scan", &[]),
    ("Query", &["short_page"]),
    ("PutItem", &["applied_late", "conflict"]),
    ("UpdateItem", &["applied_late", "conflict"]),
    ("DeleteItem", &["applied_late", "conflict"]),
    ("TransactWriteItems", &["applied_late", "conflict", "transaction_in_progress"]),
];

/// The lines that stand for more than a call.
const NAMED: &[&str] = &[
    // Calls that go wrong: see `OPERATIONS`. And answers that are old.
    "fault stale_index",
    "fault describe_lag",
    // Events and the tick.
    "fault event_lost",
    "fault event_doubled",
    "fault event_late",
    "fault event_reordered",
    "fault event_foreign",
    "fault event_malformed",
    "fault tick_skipped",
    "fault tick_doubled",
    "fault clock_skew",
    // What goes wrong for a while.
    "spell ec2_down",
    "spell ec2_slow",
    "spell dynamodb_down",
    "spell dynamodb_slow",
    "spell events_down",
    "spell describe_throttled",
    "spell describe_denied",
    "spell lists_nothing",
    "spell create_throttled",
    "spell create_denied",
    "spell create_kms",
    "spell create_quota",
    "spell delete_in_use",
    "spell delete_locked",
    "spell delete_denied",
    "spell start_full",
    "spell start_refused",
    "spell stop_refused",
    "spell attach_refused",
    "spell detach_denied",
    "spell volume_refused",
    "spell ticks_away",
    // What operators pause, and what waits for the end of it.
    "paused deletions",
    "paused schedules",
    "paused writes",
    "paused writes even restores",
    "turn create was paused",
    "turn delete was paused",
    "turn restore was paused",
    "turn downtime was paused",
    "turn tick saw a pause",
    // What people and machines do to AWS behind our back.
    "accident snapshot_fails",
    "accident snapshot_stalls",
    "accident snapshot_deleted",
    "accident node_stopped",
    "accident node_started",
    "accident node_terminated",
    "accident node_replaced",
    "accident volume_attached",
    "accident volume_detached",
    "accident multi_attach",
    "accident tags_copied",
    "accident key_disabled",
    "accident rowless",
    "accident volume_left",
    "accident forged",
    "accident flood",
    // The state machine.
    "edge new>pending",
    "edge pending>in_progress",
    "edge pending>failed",
    "edge in_progress>completed",
    "edge in_progress>failed",
    "edge completed>deleting",
    "edge completed>failed",
    "edge failed>deleting",
    "edge deleting>gone",
    // Why backups failed.
    "failure deadline_exceeded",
    "failure snapshot_failed",
    "failure snapshot_missing",
    "failure permission_denied",
    "failure kms_unavailable",
    "failure quota",
    "failure node_missing",
    "failure no_volumes",
    "failure multi_attach",
    "failure too_many_volumes",
    "held snapshot_in_use",
    "held snapshot_locked",
    "held permission_denied",
    // Schedules, rotation, and upgrades.
    "schedule set",
    "schedule deleted",
    "schedule waits backup_in_progress",
    "schedule waits deployment_not_ready",
    "schedule waits restore_in_progress",
    "schedule waiting dropped",
    "schedule skipped backup_in_progress",
    "schedule skipped backup_limit_reached",
    "schedule skipped deployment_not_ready",
    "schedule skipped plan_not_supported",
    "schedule skipped restore_in_progress",
    "schedule skipped storage_not_supported",
    "schedule skipped superseded",
    "schedule skipped unavailable",
    "slot in a repeated hour",
    "slot in a skipped hour",
    "reconciliation begun",
    "reconciliation ended",
    "reconciliation cap met",
    "turn one gave way",
    "turn release reserved",
    "upgrade new>answered",
    "upgrade new>running",
    "upgrade new>waiting",
    "upgrade running>answered",
    "upgrade waiting>answered",
    "upgrade waiting>running",
    "announced Orphans Found",
    "announced Scheduled Backup Skipped",
    "api 200 schedule",
    "api 204 schedule",
    "api 204 no schedule",
    "api schedule_not_found",
    // Restores: the state machine, the phases as they were observed, why they failed,
    // and what operators ordered.
    "restore new>pending",
    "restore pending>in_progress",
    "restore in_progress>completed",
    "restore in_progress>failed",
    "restore in_progress>rolling_back",
    "restore in_progress>stuck",
    "restore rolling_back>rolled_back",
    "restore rolling_back>failed",
    "restore rolling_back>stuck",
    "restore stuck>in_progress",
    "restore stuck>rolling_back",
    "restore phase safeguarding",
    "restore phase preparing",
    "restore phase stopping",
    "restore phase swapping",
    "restore phase starting",
    "restore failure deadline_exceeded",
    "restore failure multi_attach",
    "restore failure node_missing",
    "restore failure of another kind",
    "restore failure permission_denied",
    "restore failure quota",
    "restore failure safety_backup_failed",
    "restore failure snapshot_missing",
    "restore failure stop_failed",
    "restore failure superseded",
    "order retry",
    "order roll_back",
    "order roll_forward",
    "order release",
    // The turns of a lifecycle, as they show in the row and the calls.
    "turn called",
    "turn taken by its reply",
    "turn adopted by tag",
    "turn attempt given up",
    "turn stray removed",
    "turn snapshot removed",
    "turn sweep begun",
    "turn sweep over",
    "turn worker looks",
    "turn lease met",
    "turn owner row",
    "turn volumes kept",
    "turn tombstone",
    "turn unreadable row planted",
    "turn unreadable row ended",
    "turn expiry began the delete",
    "turn failed one pruned",
    "turn outbox published late",
    "turn log line searched",
    "turn revoked key known",
    "turn requests counted",
    "turn request recorded",
    // The API.
    "api 200 list",
    "api next page of backups",
    "api next page of restores",
    "api 200 backup",
    "api 204 patch",
    "api 204 replayed create",
    "api 204 replayed patch",
    "api 204 replayed restore",
    "api 204 replayed schedule",
    "api idempotency_error",
    "api backup_deleting",
    "api 204 create",
    "api 204 delete",
    "api 204 restore",
    "api 200 restore",
    "api 200 restores",
    "api restore_not_found",
    "api restore_in_progress",
    "api backup_not_restorable",
    "api no answer",
    "api given up",
    "api invalid_request",
    "api storage_not_supported",
    "api unauthorized",
    "api rate_limited",
    "api came again",
    "api insufficient_permissions",
    "api plan_not_supported",
    "api deployment_not_found",
    "api backup_not_found",
    "api node_not_found",
    "api route_not_found",
    "api method_not_allowed",
    "api deployment_not_ready",
    "api backup_in_progress",
    "api backup_limit_reached",
    "api backup_not_deletable",
    "api body_too_large",
    "api unsupported_media_type",
    "api unavailable",
    // The control plane.
    "registry changed",
    "registry key changed",
    "registry older event",
    "registry deleted",
    "registry deleted first",
    "registry back at once",
    "api 204 twice at once",
    "registry other tenant",
    "registry other region",
    "registry malformed",
    // Announcements that the bus took.
    "announced Backup Requested",
    "announced Backup Started",
    "announced Backup Completed",
    "announced Backup Failed",
    "announced Backup Deleted",
    "announced Backup Expired",
    "announced Restore Requested",
    "announced Restore Started",
    "announced Restore Completed",
    "announced Restore Failed",
    "announced Restore Rolled Back",
    "announced Restore Stuck",
    "announced Event Rejected",
    // The functions.
    "invoked api",
    "invoked worker",
    "invoked scheduler",
    "invoked side by side",
    "delivery tried again",
    "control plane tried a fourth time",
    "expiry under a restore",
    "crowd told of",
    "crowd known",
    "crowd taken back",
    "dead letter",
];

/// What is met too seldom to be demanded: a node that a schedule names leaves between two of
/// its slots.
const SELDOM: &[&str] = &["schedule skipped node_not_found", "api idempotent_request_in_progress"];

impl Reach {
    /// Once more.
    pub(crate) fn hit(&mut self, line: &str) {
        self.add(line, 1);
    }

    fn add(&mut self, line: &str, count: u64) {
        if let Some(known) = self.0.get_mut(line) {
            *known += count;
        } else {
            self.0.insert(line.to_owned(), count);
        }
    }

    /// How often a line was met.
    pub fn count(&self, line: &str) -> u64 {
        self.0.get(line).copied().unwrap_or(0)
    }

    /// Adds what another run met.
    pub fn merge(&mut self, other: &Self) {
        for (line, count) in &other.0 {
            self.add(line, *count);
        }
    }

    /// The lines that were met fewer than `least` times.
    pub fn below(&self, least: u64) -> Vec<&'static str> {
        LINES.iter().map(String::as_str).filter(|line| self.count(line) < least).collect()
    }

    /// What was met and stands in no line: the table would not miss it.
    pub fn unlisted(&self) -> Vec<&str> {
        let known = |line: &String| LINES.contains(line) || SELDOM.contains(&line.as_str());
        self.0.keys().filter(|line| !known(line)).map(String::as_str).collect()
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &*LINES {
            writeln!(f, "{:>10}  {line}", self.count(line))?;
        }
        for line in SELDOM {
            writeln!(f, "{:>10}  {line} (not demanded)", self.count(line))?;
        }
        for line in self.unlisted() {
            writeln!(f, "{:>10}  {line} (in no line of the table)", self.count(line))?;
        }
        Ok(())
    }
}
