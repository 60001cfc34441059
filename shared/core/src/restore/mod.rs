//! A restore: its row, its states, and the pure functions that move it.
//!
//! ```text
//!            preparing          stopping, swapping         starting
//!  pending ─▶ in_progress ────────────────────────────────────────────▶ completed
//!     │         │  │   └ anything lasting before a node may have written ┐    │
//!     │         │  │                                                      ▼    │
//!     │         │  └ nothing was touched yet ─▶ failed      rolling_back ─▶ rolled_back
//!     └─────────┴───────────────────────────▶ failed               │
//!                                        neither way ─▶ stuck ◀─────┘
//! ```
//!
//! The deployment runs on while every new volume is made. What it was, who ran and
//! which volume hung where, is frozen in one write before the first node is stopped;
//! from then on the next step follows from what EC2 shows: which instances run, which
//! volumes hang where. So a crash at any point is repaired by looking again, on the
//! way there and on the way back.

mod apply;
mod begin;
mod end;
mod launch;
mod order;
mod plan;
mod prepare;
mod progress;
mod seen;
mod sets;
mod step;
mod stuck;
mod swap;
#[cfg(test)]
mod tests;
mod turns;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::announce::{Kind, Pending as Announcement};
use crate::id::{
    BackupId, DeploymentId, InstanceId, NodeId, Nonce, RestoreId, SnapshotId, TenantId, VolumeId,
};
use crate::operation::{Failure, Lease, Why};
use crate::time::Time;

pub use apply::apply;
pub(crate) use begin::pinned;
pub use begin::{Asked, decide};
pub use launch::{Launch, Start};
pub use order::{Answer, Order, look_for_order, obey, shows_at};
pub use plan::Setting;
pub use seen::{Action, Attached, Call, Kept, Look, Machine, Outcome, Safety, Seen, SeenVolume};
pub use step::{Step, look, step};

/// Where a restore stands, as the API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RestoreStatus)]
pub enum Status {
    /// Asked for, nothing done.
    Pending,
    /// On the way to the backup's data.
    InProgress,
    /// Every node that ran runs on the backup's data.
    Completed,
    /// On the way back to the old volumes.
    RollingBack,
    /// Every node that ran and is there runs on its old volumes.
    RolledBack,
    /// It ended before anything of the deployment was touched, or was released.
    Failed,
    /// It can go neither way by itself: a person has to look.
    Stuck,
}

impl Status {
    /// Every status.
    pub const ALL: &'static [Self] = &[
        Self::Pending,
        Self::InProgress,
        Self::Completed,
        Self::RollingBack,
        Self::RolledBack,
        Self::Failed,
        Self::Stuck,
    ];

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
        }
    }

    /// Whether it holds the deployment's slot and pins its backup.
    pub const fn active(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress | Self::RollingBack | Self::Stuck)
    }

    /// Whether `self -> next` is an edge of the state machine.
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::InProgress | Self::Failed)
                | (
                    Self::InProgress,
                    // Rolled back at once: an operator releases what he has put back.
                    Self::Completed
                        | Self::RollingBack
                        | Self::RolledBack
                        | Self::Failed
                        | Self::Stuck
                )
                // Forward again: an operator's order.
                | (
                    Self::RollingBack,
                    Self::InProgress | Self::RolledBack | Self::Failed | Self::Stuck
                )
                | (
                    Self::Stuck,
                    Self::InProgress
                        | Self::RollingBack
                        | Self::Completed
                        | Self::RolledBack
                        | Self::Failed
                )
        )
    }
}

/// What a restore is at, as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RestorePhase)]
pub enum Phase {
    /// The safety backup of the present state is being made.
    Safeguarding,
    /// The new volumes are being made; the deployment runs.
    Preparing,
    /// The nodes are being stopped.
    Stopping,
    /// Volumes are taken off and put on.
    Swapping,
    /// The nodes that ran are being started.
    Starting,
}

impl Phase {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safeguarding => "safeguarding",
            Self::Preparing => "preparing",
            Self::Stopping => "stopping",
            Self::Swapping => "swapping",
            Self::Starting => "starting",
        }
    }
}

/// A volume that hung on a node when the deployment was frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Old {
    /// Which.
    pub volume_id: VolumeId,
    /// Where it hung.
    pub device: String,
    /// Whether it would have gone with its instance.
    pub delete_on_termination: bool,
    /// Somebody attached it after the freeze: it is put back like the others, and never
    /// deleted.
    #[serde(default)]
    pub late: bool,
}

/// A volume that is made from a snapshot of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of it, each by itself")]
pub struct New {
    /// Where it goes.
    pub device: String,
    /// What it is made from.
    pub snapshot_id: SnapshotId,
    /// Whether it is to go with its instance: as the one that it replaces.
    pub delete_on_termination: bool,
    /// Encrypted: a key that cannot be used shows only when it vanishes.
    pub encrypted: bool,
    /// The number of its `CreateVolume`, in the client token. A new one after a volume
    /// has vanished.
    pub attempt: u32,
    /// Whether EC2 is asked to initialize it at a rate.
    pub with_rate: bool,
    /// The calls that it will need were tried as dry runs.
    #[serde(default)]
    pub checked: bool,
    /// The volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// When EC2 said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Time>,
    /// It was described as available.
    #[serde(default)]
    pub available: bool,
    /// Its attachment was tried as a dry run.
    #[serde(default)]
    pub attachable: bool,
}

/// A node of the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The platform's id.
    pub node_id: NodeId,
    /// Its instance, as the registry named it when the restore was asked for.
    pub instance_id: InstanceId,
    /// Whether the backup has it. The others are stopped and started only.
    pub swaps: bool,
    /// The calls that it will need were tried as dry runs.
    #[serde(default)]
    pub checked: bool,
    /// Whether it ran when the deployment was frozen; None: that was not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_running: Option<bool>,
    /// EC2's launch time then: another one later means that it has run since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Time>,
    /// Its data volumes then, ordered by device.
    #[serde(default)]
    pub old: Vec<Old>,
    /// What somebody put, after the freeze, where one of these hung: it is taken off, and
    /// kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<Old>,
    /// The backup's set, ordered by device.
    #[serde(default)]
    pub new: Vec<New>,
    /// How far it is, 0 to 100.
    #[serde(default)]
    pub progress: u8,
    /// Whether it has run since the first start.
    #[serde(default)]
    pub launch: Launch,
    /// How its starts went.
    #[serde(default)]
    pub start: Start,
    /// EC2 has no such instance any more, or terminates it.
    #[serde(default)]
    pub missing: bool,
}

/// What becomes of a volume when the restore is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is the deployment's own now: our tags come off.
    Adopted,
    /// It is deleted when its time is over, unless somebody has attached it.
    Deleted,
    /// It stays until an operator removes it: it may hold what exists nowhere else.
    Kept,
}

/// A volume that is left over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Which.
    pub volume_id: VolumeId,
    /// What is to become of it.
    pub fate: Fate,
    /// Not to be deleted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Its tags say so.
    #[serde(default)]
    pub tagged: bool,
}

impl Leftover {
    fn new(volume_id: &VolumeId, fate: Fate, not_before: Option<Time>) -> Self {
        Self { volume_id: volume_id.clone(), fate, not_before, tagged: false }
    }
}

/// A restore's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts that each came about by itself")]
pub struct Restore {
    /// Whose.
    pub deployment_id: DeploymentId,
    /// 1, 2, 3 ... per deployment.
    pub id: RestoreId,
    /// The deployment's tenant.
    pub tenant_id: TenantId,
    /// The Region of the volumes.
    pub region: String,
    /// What is restored.
    pub backup_id: BackupId,
    /// The backup of the present state that goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup_id: Option<BackupId>,
    /// When it was asked for.
    pub requested_at: Time,
    /// Random, in each client token and on each volume that it makes.
    pub token: Nonce,

    /// Grows with each write.
    pub revision: u64,
    /// The last write's mark.
    pub nonce: Nonce,
    /// Who acts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Where it stands.
    pub status: Status,
    /// What it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The furthest phase in this direction, and since when: its deadline's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<(Phase, Time)>,
    /// The mean of the nodes that the backup has: 100 when it is completed and only then.
    #[serde(default)]
    pub progress: u8,
    /// Every node of the deployment, ordered by id.
    pub nodes: Vec<Node>,
    /// What each new volume is to be like is stored, beside the row.
    #[serde(default)]
    pub planned: bool,
    /// When it was written down who ran and what hung where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_at: Option<Time>,
    /// When a call was first about to touch the deployment: from then on the way back
    /// leads over its old volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched_at: Option<Time>,
    /// EC2 took such a call, or may have, or shows what it did.
    #[serde(default)]
    pub disturbed: bool,
    /// The old volumes are the goal.
    #[serde(default)]
    pub back: bool,
    /// It was ordered forward again after a node may have written to its new volumes: it
    /// does not turn back by itself any more.
    #[serde(default)]
    pub committed: bool,
    /// When AWS last answered, or did not, a call that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted_at: Option<Time>,
    /// Since when EC2 shows nothing, or not all of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_since: Option<Time>,
    /// When the first node was about to be stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Time>,
    /// When a node was first about to be started on the new volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Time>,
    /// When the last node that had run ran again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Why it failed, rolled back, or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What became of an operator's last orders.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// It was stuck once, or released: its volumes are kept.
    #[serde(default)]
    pub was_stuck: bool,
    /// What is left over, when it is over.
    #[serde(default)]
    pub leftovers: Vec<Leftover>,
    /// Until when the old volumes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_volumes_kept_until: Option<Time>,
    /// Until then a volume of a call with an unknown outcome may still show up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep_until: Option<Time>,
    /// Looks or calls that failed in a row, for the backoff.
    #[serde(default)]
    pub troubles: u32,
    /// What AWS last said against us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Nothing is to be done before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// What the bus has not surely taken.
    #[serde(default)]
    pub outbox: Vec<Announcement<Status>>,

    /// When the row is due, as read. Written beside the row's value, never with it.
    #[serde(default, skip_serializing)]
    pub due_at: Option<Time>,
}

impl Node {
    /// Whether it is to run when the restore is over; before the freeze nobody knows.
    fn ran(&self) -> bool {
        self.was_running == Some(true)
    }
}

impl Restore {
    /// The attributes that the operation owns: all that its writes may change.
    pub const OWNED: &'static [&'static str] = &[
        "revision",
        "nonce",
        "lease",
        "status",
        "phase",
        "reached",
        "progress",
        "nodes",
        "planned",
        "frozen_at",
        "touched_at",
        "disturbed",
        "back",
        "committed",
        "acted_at",
        "unseen_since",
        "stopped_at",
        "launched_at",
        "started_at",
        "completed_at",
        "failure",
        "answers",
        "was_stuck",
        "leftovers",
        "old_volumes_kept_until",
        "sweep_until",
        "troubles",
        "trouble",
        "not_before",
        "outbox",
    ];

    /// Whether the deployment is down, or about to be: then every second counts, and
    /// nobody waits for a tick.
    pub fn is_urgent(&self) -> bool {
        let moves = matches!(self.status, Status::InProgress | Status::RollingBack);
        moves && self.touched_at.is_some()
    }

    /// The nodes whose volumes are swapped.
    fn swapping(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.swaps)
    }

    /// Every volume that it makes.
    pub fn new_volumes(&self) -> impl Iterator<Item = (&Node, &New)> {
        self.nodes.iter().flat_map(|node| node.new.iter().map(move |new| (node, new)))
    }

    /// What became of an order, if it has been answered.
    pub fn answer_to(&self, order_id: &Nonce) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.order_id == *order_id)
    }

    /// Whether it goes forward only, since acknowledged writes may be on new volumes. What
    /// somebody else started before the restore did is not the restore's to mind.
    fn is_closed(&self) -> bool {
        self.committed || (self.launched_at.is_some() && self.may_have_written())
    }

    /// Whether a node may have written to a new volume.
    fn may_have_written(&self) -> bool {
        self.nodes.iter().any(|node| node.launch != Launch::No)
    }

    /// Puts an announcement of the present state into the outbox. One that was stuck
    /// may be so again: its id has the revision.
    fn announce(&mut self, kind: Kind, now: Time) {
        let announcement_id = match kind {
            Kind::RestoreStuck => format!("{}-{}-{}", self.token, kind.word(), self.revision),
            _ => format!("{}-{}", self.token, kind.word()),
        };
        self.outbox.push(Announcement {
            announcement_id: Nonce(announcement_id),
            kind,
            at: now,
            status: self.status,
            failure: self.failure.clone().map(Why::from),
        });
    }
}
