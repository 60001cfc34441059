//! EC2 as the rules see it: what was described, what is to be called, and what a
//! call came to.

use serde::{Deserialize, Serialize};

use super::Taken;
use crate::id::{InstanceId, NodeId, SnapshotId, VolumeId};
use crate::operation::CallError;
use crate::time::Time;

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
