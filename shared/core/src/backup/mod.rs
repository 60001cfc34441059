//! A backup: its row, its states, and the pure functions that move it.
//!
//! ```text
//!             snapshots started            every one seen completed
//!   pending ───────────────────▶ in_progress ─────────────────────▶ completed
//!      │                              │        a snapshot is missing   │
//!      └───────────▶ failed ◀─────────┴────────────────────────────────┤
//!                      │                                               │
//!                      └────────────────▶ deleting ◀───────────────────┘
//!                                            │ every snapshot seen gone,
//!                                            ▼ announcement out
//!                                         (no row)
//! ```
//!
//! What EC2 can be asked for is not stored; what it cannot be asked for is: the
//! attempt before its call, the deadlines' clocks, who holds the lease, what
//! must still be announced. [`step()`] compares the row with what was seen and
//! names the next thing to do; [`apply()`] puts the outcome of calls into the row.

mod apply;
mod missing;
mod patch;
mod pending;
mod progress;
mod removal;
mod seen;
mod step;
mod take;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::announce::{Kind, Pending as Announcement};
use crate::id::{
    BackupId, DeploymentId, InstanceId, NodeId, Nonce, RestoreId, SnapshotId, TenantId,
};
use crate::operation::{Failure, FailureCode, Lease, Why};
use crate::time::{Seconds, Time};

pub use apply::apply;
pub use missing::{Missing, note_missing};
pub use patch::{Change, patched};
pub use removal::{Deletion, start_delete, start_expiry};
pub use seen::{Action, Instance, Outcome, Presence, Seen, Snapshot, Volume};
pub use step::{Look, is_held, look, next_look, step};
pub use take::{Take, Taken};

/// Where a backup stands, as the API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BackupStatus)]
pub enum Status {
    /// Asked for, not every snapshot started.
    Pending,
    /// Every snapshot started, not every one complete.
    InProgress,
    /// Every snapshot was described as completed.
    Completed,
    /// It has no snapshots that one could restore from.
    Failed,
    /// Being removed.
    Deleting,
}

impl Status {
    /// Every status.
    pub const ALL: &'static [Self] =
        &[Self::Pending, Self::InProgress, Self::Completed, Self::Failed, Self::Deleting];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// Whether it holds the deployment's one slot.
    pub const fn active(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress)
    }

    /// Whether it counts towards the limit.
    pub const fn counts(self) -> bool {
        !matches!(self, Self::Failed | Self::Deleting)
    }

    /// Whether `self -> next` is an edge of the state machine.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::InProgress | Self::Failed)
                | (Self::InProgress, Self::Completed | Self::Failed)
                | (Self::Completed | Self::Failed, Self::Deleting)
                // By reconciliation alone: a snapshot was asked for twice, and is not there.
                | (Self::Completed, Self::Failed)
        )
    }
}

/// Who or what asked for a backup.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BackupType {
    /// A person, or a program through the API.
    #[default]
    Manual,
    /// A schedule.
    Scheduled,
    /// The control plane, before an upgrade.
    PreUpgrade,
}

/// A node of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRun {
    /// The platform's id.
    pub node_id: NodeId,
    /// The instance, as the registry named it when the backup was asked for.
    pub instance_id: InstanceId,
    /// Calls that failed and were not throttled.
    #[serde(default)]
    pub failed_calls: u32,
    /// How far its set is.
    #[serde(flatten)]
    pub take: Take,
}

/// Why a removal does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What AWS says.
    pub failure: Failure,
    /// Rounds in which it said so, for the backoff.
    pub times: u32,
}

/// A backup's row.
///
/// Three owners share it. What a person may change (`name`, `remarks`,
/// `expires_at`) is outside of `revision`; what the request fixed never
/// changes; all the rest belongs to the operation and is written under
/// `revision` alone ([`Backup::OWNED`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Whose.
    pub deployment_id: DeploymentId,
    /// 1, 2, 3 ... per deployment.
    pub id: BackupId,
    /// The deployment's tenant.
    pub tenant_id: TenantId,
    /// The Region of the snapshots.
    pub region: String,
    /// The node asked for; None: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Who asked.
    pub backup_type: BackupType,
    /// The slot of the deployment's schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_slot: Option<Time>,
    /// The upgrade before which it was made, as the control plane names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_id: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// Random, in the description of each snapshot: other people's tools copy
    /// tags, nobody copies this.
    pub token: Nonce,

    /// A person's text.
    pub name: String,
    /// A person's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remarks: Option<String>,
    /// When it deletes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// The restore that needs it: until that is over it neither goes nor changes. Written
    /// by the restore's own writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_by: Option<RestoreId>,

    /// Grows with each write of the operation.
    pub revision: u64,
    /// The last write's mark.
    pub nonce: Nonce,
    /// Who acts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Where it stands.
    pub status: Status,
    /// The nodes, ordered by id.
    pub nodes: Vec<NodeRun>,
    /// The sum of the volumes' provisioned sizes in bytes; None until the snapshots exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// When every snapshot was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When every snapshot was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Why it failed, or why its delete does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// 0 to 100, weighed by size.
    #[serde(default)]
    pub progress: u8,
    /// When a snapshot last moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_at: Option<Time>,
    /// When a set was last taken: EC2 may not list it for some time after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Time>,
    /// Time lost to throttling while pending.
    #[serde(default)]
    pub throttled: Seconds,
    /// Throttled since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_since: Option<Time>,
    /// Looks or calls that failed in a row, for the backoff.
    #[serde(default)]
    pub troubles: u32,
    /// What AWS last said against us, for the reason of a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Nothing is to be done before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Until then snapshots of a call with an unknown outcome may still show
    /// up: they are looked for by tag and removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep_until: Option<Time>,
    /// Why its removal does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Strays are not to be deleted again before. They never hold the backup up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strays_not_before: Option<Time>,
    /// Rounds of deletes in a row, for the pause between them.
    #[serde(default)]
    pub rounds: u32,
    /// Every snapshot was seen gone: only the announcement keeps the row.
    #[serde(default)]
    pub gone: bool,
    /// The smallest snapshot id of each set that has an owner row.
    #[serde(default)]
    pub owners: Vec<SnapshotId>,
    /// What the bus has not surely taken.
    #[serde(default)]
    pub outbox: Vec<Announcement>,

    /// A snapshot of the completed backup that EC2 said is not there. Of a failed one:
    /// that is why it failed, and its other snapshots stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,

    /// When the row is due, as read. Written beside the row's value, never with it.
    #[serde(default, skip_serializing)]
    pub due_at: Option<Time>,
}

impl Backup {
    /// The attributes that the operation owns: written under `revision`, and
    /// removed when a write no longer has them. Everything else of a row is
    /// left as it stands by the operation's writes.
    pub const OWNED: &'static [&'static str] = &[
        "revision",
        "nonce",
        "lease",
        "status",
        "nodes",
        "size_bytes",
        "started_at",
        "completed_at",
        "failure",
        "progress",
        "moved_at",
        "taken_at",
        "throttled",
        "throttled_since",
        "troubles",
        "trouble",
        "not_before",
        "sweep_until",
        "held",
        "strays_not_before",
        "rounds",
        "gone",
        "owners",
        "outbox",
        "missing",
    ];

    /// The snapshots that the backup has, ordered by node, then device.
    pub fn snapshots(&self) -> impl Iterator<Item = &Taken> {
        self.nodes.iter().flat_map(|node| node.take.set())
    }

    /// The same, to be changed.
    fn snapshots_mut(&mut self) -> impl Iterator<Item = &mut Taken> {
        self.nodes.iter_mut().flat_map(|node| node.take.set_mut())
    }

    /// Whether the deployment's schedule made it: only such a backup ever gives way to
    /// another.
    pub fn is_the_schedules(&self) -> bool {
        self.schedule_slot.is_some()
    }

    /// Whether another gives way when it completes above the limit: the schedule's own
    /// backups and those of upgrades push out the schedule's oldest.
    pub fn rotates(&self) -> bool {
        self.schedule_slot.is_some() || self.upgrade_id.is_some()
    }

    /// What the API shows of the snapshots: none before all were started.
    pub fn shown_snapshots(&self) -> impl Iterator<Item = &Taken> {
        self.shown_by_node().map(|(_, taken)| taken)
    }

    /// The same, each with its node.
    pub fn shown_by_node(&self) -> impl Iterator<Item = (NodeId, &Taken)> {
        let started = self.started_at.is_some();
        let nodes = self.nodes.iter().filter(move |_| started);
        nodes.flat_map(|node| node.take.set().iter().map(|taken| (node.node_id, taken)))
    }

    /// What each snapshot of a node's set says of itself, for a person who
    /// finds it, and with the token for us. At most 255 characters (EC2 API
    /// reference, `CreateSnapshots`).
    pub fn description(&self, node: NodeId) -> String {
        described(self.deployment_id, self.id, node, &self.token)
    }

    /// Whether nothing is left to be said, asked, or looked for: but for a removal, it is as it
    /// stays.
    pub fn rests(&self) -> bool {
        self.outbox.is_empty() && self.missing.is_none() && self.sweep_until.is_none()
    }

    /// Whether EC2 may still have something that this row must remove.
    pub fn removal_open(&self) -> bool {
        match self.status {
            Status::Failed if self.is_lost() => self.sweep_until.is_some(),
            Status::Failed => self.sweep_until.is_some() || self.snapshots().next().is_some(),
            Status::Deleting => !self.gone,
            Status::Pending | Status::InProgress | Status::Completed => self.sweep_until.is_some(),
        }
    }

    /// Whether it was completed and failed since, for want of a snapshot: what is left of
    /// its set may be all that there is, and goes only with a user's delete or its expiry.
    pub fn is_lost(&self) -> bool {
        self.status == Status::Failed && self.missing.is_some()
    }

    /// Puts an announcement of the present state into the outbox. Its id is
    /// made of the backup and the kind: a backup announces each kind once.
    fn announce(&mut self, kind: Kind, now: Time) {
        let word = kind.word();
        self.outbox.push(Announcement {
            announcement_id: Nonce(format!("{}-{word}", self.token)),
            kind,
            at: now,
            status: self.status,
            failure: if kind == Kind::BackupFailed {
                self.failure.clone().map(Why::from)
            } else {
                None
            },
        });
    }

    /// The first announcement, put into a new row.
    pub fn announce_requested(&mut self, now: Time) {
        self.announce(Kind::BackupRequested, now);
    }

    /// Ends the backup as failed, for tests of what follows from that.
    #[cfg(test)]
    pub(crate) fn end_as_failed_for_test(&mut self, now: Time) {
        self.fail(FailureCode::DeadlineExceeded, "It took too long.".to_owned(), now);
    }

    /// Ends the backup as failed. A call that may have happened is swept after;
    /// the slot is freed by the write that stores this.
    fn fail(&mut self, code: FailureCode, reason: String, now: Time) {
        self.status = Status::Failed;
        self.failure = Some(Failure { code, reason });
        self.not_before = None;
        self.troubles = 0;
        self.rounds = 0;
        let mut sweep = self.sweep_until;
        for node in &mut self.nodes {
            if let Take::Called { attempt, at, .. } = node.take {
                sweep = sweep.max(Some(at + SWEEP));
                node.take = Take::Open { attempt, not_before: None };
            }
        }
        self.sweep_until = sweep;
        self.announce(Kind::BackupFailed, now);
    }
}

/// What a snapshot of a backup says of itself.
pub fn described(
    deployment: DeploymentId,
    backup: BackupId,
    node: NodeId,
    token: &Nonce,
) -> String {
    format!("LaserData backup {backup} of deployment {deployment}, node {node}, {token}")
}

/// How long after a call with an unknown outcome its tags are looked for. The
/// set is adopted or given up after `SETTLE`; this is the second look, for what
/// EC2 applied or showed very late.
pub const SWEEP: Seconds = Seconds::minutes(10);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Store this, then go on.
    Record(Backup),
    /// Store this, make the calls, put their outcomes in with [`apply()`], store that.
    Act {
        /// The row with what the calls are about to do.
        intent: Backup,
        /// The calls, safe to be made side by side.
        actions: Vec<Action>,
    },
    /// Nothing before this time; `note` is the row with what the look taught, if anything.
    Wait {
        /// When to look again.
        until: Time,
        /// The row to store with it.
        note: Option<Backup>,
    },
    /// Nothing more, until a person, an expiry, or an event asks.
    Rest,
    /// Every trace in EC2 is gone and the bus knows: the row may go.
    Remove,
}
