//! What the one `CreateSnapshots` of a node has come to.

use serde::{Deserialize, Serialize};

use crate::id::{SnapshotId, VolumeId};
use crate::time::Time;

/// One snapshot of a set, with the volume it was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Its volume.
    pub volume_id: VolumeId,
    /// The volume's provisioned size in GiB.
    pub size_gib: u64,
    /// Last progress seen, 0 to 100.
    #[serde(default)]
    pub progress: u8,
    /// It was asked to go, and AWS took that: from then on its absence from a list counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

/// How far the one `CreateSnapshots` of a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "take", rename_all = "snake_case")]
pub enum Take {
    /// No call is open. `attempt` is the last number used, 0 for none.
    Open {
        /// The last attempt's number.
        attempt: u32,
        /// Not to be tried before.
        #[serde(default)]
        not_before: Option<Time>,
    },
    /// A call may have been made: stored before it, so that whatever it makes
    /// can be found by its tags.
    Called {
        /// This attempt's number, tagged on the snapshots.
        attempt: u32,
        /// No later than this was the call under way.
        at: Time,
        /// The volumes that the set must have, ordered by device.
        volumes: Vec<VolumeId>,
    },
    /// The set that the backup has of this node, ordered by device.
    Taken {
        /// The attempt that made it.
        attempt: u32,
        /// Its snapshots.
        set: Vec<Taken>,
    },
}

impl Take {
    /// The set that there is of the node.
    pub(super) fn set(&self) -> &[Taken] {
        match self {
            Self::Taken { set, .. } => set,
            Self::Open { .. } | Self::Called { .. } => &[],
        }
    }

    /// The same, to be changed.
    pub(super) fn set_mut(&mut self) -> &mut [Taken] {
        match self {
            Self::Taken { set, .. } => set,
            Self::Open { .. } | Self::Called { .. } => &mut [],
        }
    }

    /// How many volumes the node's call or set has.
    pub(super) fn volumes(&self) -> usize {
        match self {
            Self::Open { .. } => 0,
            Self::Called { volumes, .. } => volumes.len(),
            Self::Taken { set, .. } => set.len(),
        }
    }
}
