//! The stack parameters that the rules read, and the spans that AWS dictates.

use crate::brake::Hold;
use crate::time::{Seconds, Time};

/// Limits and deadlines, as the stack's parameters set them and an operator's brake holds
/// them up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Backups per deployment on the Pro plan.
    pub pro_backups: u64,
    /// Backups per deployment on the Enterprise plan.
    pub enterprise_backups: u64,
    /// How long a backup may be `pending`, not counting time in which AWS throttles us.
    pub pending: Seconds,
    /// How long a backup may be `pending` in all.
    pub pending_total: Seconds,
    /// How long a backup may be `in_progress` without any snapshot's progress or state moving.
    pub in_progress: Seconds,
    /// How long a restore may prepare.
    pub preparing: Seconds,
    /// How long its nodes may take to stop.
    pub stopping: Seconds,
    /// How long their volumes may take to be swapped.
    pub swapping: Seconds,
    /// How long a start may be refused for another cause than capacity.
    pub starting: Seconds,
    /// How long the old volumes are kept.
    pub old_volumes: Seconds,
    /// The least time between two slots of a schedule.
    pub schedule_apart: Seconds,
    /// What an operator has paused: read anew for each advance, and nothing where nobody
    /// asks.
    pub hold: Hold,
}

impl Limits {
    /// How much of a deadline has passed: the time since its beginning, but that in which
    /// an operator let nothing be done.
    pub fn passed(&self, since: Time, now: Time) -> Seconds {
        self.hold.passed(since, now)
    }
}

impl Default for Limits {
    /// The contract's defaults, which template.yaml repeats (a test compares them).
    fn default() -> Self {
        Self {
            pro_backups: 5,
            enterprise_backups: 10,
            pending: Seconds::minutes(15),
            pending_total: Seconds::hours(4),
            in_progress: Seconds::hours(24),
            preparing: Seconds::minutes(60),
            stopping: Seconds::minutes(20),
            swapping: Seconds::minutes(20),
            starting: Seconds::minutes(30),
            old_volumes: Seconds::hours(24),
            schedule_apart: Seconds::minutes(60),
            hold: Hold::default(),
        }
    }
}

/// The most data volumes a backup may have. Keeps a backup's row well below
/// DynamoDB's 400 KB per item.
pub const MAX_VOLUMES: usize = 500;

/// How long one worker owns an operation. Longer than the function's own
/// time-out (45 s in template.yaml), so that a lease that ran out means a dead owner.
pub const LEASE: Seconds = Seconds(60);

/// After a `CreateSnapshots` whose outcome is unknown: how long until what it
/// may have made is surely visible. Longer than the call's own time-out (15 s)
/// and the lag of `Describe*` after it. After a crash it counts from before the
/// look that led to the call, but the lease of 60 s from after it: nobody looks
/// earlier than that.
/// Source: EC2 API reference, "Eventual consistency".
pub const SETTLE: Seconds = Seconds(60);

/// How old a snapshot must be before its absence from `DescribeSnapshots` means
/// that it is gone, and not that EC2 does not show it yet.
pub const VISIBLE: Seconds = Seconds(60);

/// The pause from one look to the next at what goes on by itself: as long as that has gone
/// on already, within these bounds. Looks are for lost events: one costs a backup no more
/// than it has taken so far, or the least pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// The least pause.
    pub least: Seconds,
    /// The longest.
    pub most: Seconds,
}

/// The looks at a backup in progress that somebody waits for.
pub const LOOKS: Looks = Looks { least: Seconds::minutes(1), most: Seconds::minutes(10) };

/// The looks at a backup that the deployment's schedule made. Nobody waits for it, and
/// 10,000 may begin within 35 minutes (docs/schedules.md has the sums): of the 20 calls a
/// second that the account's bucket of `DescribeSnapshots` takes, they need 9.5 while they
/// copy, and at most 14.3 with the looks that the events of their ends bring.
/// Source of the rate: EC2 API reference, "Request throttling", filtered describes.
pub const LOOKS_OF_SCHEDULES: Looks =
    Looks { least: Seconds::minutes(15), most: Seconds::minutes(30) };

/// How many times a node's `CreateSnapshots` is tried before the backup fails,
/// throttling not counted.
pub const MAX_ATTEMPTS: u32 = 5;

/// How many failed backups of a deployment are kept.
pub const FAILED_KEPT: usize = 20;

/// How long a deleted backup's tombstone stays: the evidence by which a
/// snapshot that shows up late may be removed.
pub const TOMBSTONE: Seconds = Seconds::days(30);

/// How many tags a restore's new volume has of ours, beside those of the one that it
/// replaces: stack, table, deployment, restore, token, and the platform's managed tag.
pub const OUR_TAGS: usize = 6;

/// How often the stack is reconciled, from beginning to beginning.
pub const RECONCILE_EVERY: Seconds = Seconds::days(1);

/// How old a snapshot or volume is before reconciliation judges it. Longer than any
/// operation needs to write down what it has made, and any lag of a describe.
pub const GRACE: Seconds = Seconds::days(1);

/// How many deletes one run of reconciliation asks for at most. More than that is no
/// litter, but a fault of the table or of this service.
pub const RECONCILED_DELETES: u64 = 100;

/// How long after `InvalidSnapshot.NotFound` the same snapshot of a completed backup is
/// asked for again, before the backup is called failed.
pub const MISSING_AGAIN: Seconds = Seconds::hours(1);
