//! EC2 as the rules see it: what was described, what is to be called, and what a
//! call came to.

use serde::{Deserialize, Serialize};

use super::Taken;
use crate::id::{InstanceId, NodeId, SnapshotId, VolumeId};
use crate::time::Time;

/// What a call to AWS came to, when it did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The request surely never reached AWS.
    NotApplied(String),
    /// AWS refused it; nothing was done.
    Rejected {
        /// AWS's code.
        code: String,
        /// AWS's sentence.
        message: String,
    },
    /// AWS refused it for now, because of our rate or a limit of what is pending.
    Throttled {
        /// AWS's code.
        code: String,
    },
    /// It may have happened.
    Unknown(String),
}

/// Codes of a missing right. Their messages name roles, accounts, and policies:
/// they are for our log, not for a tenant.
pub(crate) const RIGHTS: &[&str] =
    &["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

impl CallError {
    /// What a tenant may read of it.
    pub fn shown(&self) -> String {
        match self {
            Self::Rejected { code, message }
                if RIGHTS.contains(&code.as_str()) && !message.starts_with(RIGHT_MISSING) =>
            {
                format!("{code}: a right is missing.")
            }
            other => other.to_string(),
        }
    }

    /// The same, saying which call it was: a missing right is told by the name of
    /// the call, in our words and not in AWS's.
    #[must_use]
    pub fn of(self, operation: &str) -> Self {
        match self {
            Self::Rejected { code, .. } if RIGHTS.contains(&code.as_str()) => {
                Self::Rejected { code, message: format!("{RIGHT_MISSING} {operation} is missing") }
            }
            Self::Rejected { code, message } => {
                Self::Rejected { code, message: format!("{operation}: {message}") }
            }
            Self::Unknown(what) => Self::Unknown(format!("{operation}: {what}")),
            Self::NotApplied(what) => Self::NotApplied(format!("{operation}: {what}")),
            Self::Throttled { code } => Self::Throttled { code },
        }
    }
}

/// How a missing right is told.
const RIGHT_MISSING: &str = "the right to call";

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotApplied(what) => write!(f, "AWS could not be reached: {what}"),
            Self::Rejected { code, message } => write!(f, "{code}: {message}"),
            Self::Throttled { code } => write!(f, "{code} (throttled)"),
            Self::Unknown(what) => write!(f, "no certain answer from AWS: {what}"),
        }
    }
}

/// A data volume of a node, as EC2 describes it. Kept with the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The volume.
    pub volume_id: VolumeId,
    /// The device it is attached as.
    pub device: String,
    /// Provisioned size in GiB.
    pub size_gib: u64,
    /// `gp3`, ...
    pub volume_type: String,
    /// Provisioned IOPS, where the type has them.
    pub iops: Option<i32>,
    /// Provisioned MiB/s, where the type has them.
    pub throughput: Option<i32>,
    /// The key's ARN, if encrypted.
    pub kms_key_id: Option<String>,
    /// Where it is.
    pub availability_zone: String,
    /// Whether it goes when its instance is terminated.
    pub delete_on_termination: bool,
    /// Whether several instances may attach it.
    pub multi_attach: bool,
    /// Its tags, ordered by key.
    pub tags: Vec<(String, String)>,
}

/// An instance, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `running`, `stopped`, `terminated`, ...
    pub state: String,
    /// Every volume but the root, ordered by device.
    pub data_volumes: Vec<Volume>,
}

/// A snapshot, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub snapshot_id: SnapshotId,
    /// Of which volume.
    pub volume_id: VolumeId,
    /// The volume's size in GiB.
    pub size_gib: u64,
    /// `pending`, `completed`, `error`, `recoverable`, `recovering`.
    pub state: String,
    /// AWS's word on an error.
    pub state_message: Option<String>,
    /// 0 to 100.
    pub progress: u8,
    /// The node that its tags name.
    pub node_id: Option<NodeId>,
    /// The attempt that its tags name.
    pub attempt: Option<u32>,
    /// When EC2 says that it was complete.
    pub completed_at: Option<Time>,
    /// Its description.
    pub description: String,
}

/// Whether a snapshot that the row names is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// EC2 describes it.
    There(Snapshot),
    /// EC2 left it out of a list that was asked for it.
    Unlisted,
    /// EC2 said `InvalidSnapshot.NotFound` for this very id.
    NotFound,
}

/// What was seen of EC2 in one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The instances asked for; one that is missing does not exist.
    pub instances: std::collections::BTreeMap<InstanceId, Instance>,
    /// The snapshots that bear this backup's tags.
    pub tagged: Vec<Snapshot>,
    /// The snapshots asked for by id.
    pub snapshots: std::collections::BTreeMap<SnapshotId, Presence>,
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One `CreateSnapshots` of a node's data volumes.
    CreateSnapshots {
        /// The node, tagged.
        node_id: NodeId,
        /// Its instance.
        instance_id: InstanceId,
        /// The attempt, stored before and tagged.
        attempt: u32,
        /// With the backup's token.
        description: String,
        /// The volumes expected, as seen, ordered by device.
        volumes: Vec<Volume>,
    },
    /// One `DeleteSnapshot`.
    DeleteSnapshot(SnapshotId),
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `CreateSnapshots` answered with these.
    Created(Vec<Taken>),
    /// `DeleteSnapshot` was accepted, or there was nothing left to delete.
    Deleted,
    /// It was not made: the invocation's time was over.
    NotBegun,
    /// It did not succeed.
    Failed(CallError),
}

impl Outcome {
    /// Whether AWS has done what it was asked for.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Created(_) | Self::Deleted)
    }
}
