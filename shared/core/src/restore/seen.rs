//! EC2 as a restore sees it: what was described, what is to be called, and what a
//! call came to.

use std::collections::BTreeMap;

use super::Setting;
use crate::backup::{self, Presence, Volume};
use crate::deployment;
use crate::id::{BackupId, InstanceId, NodeId, RestoreId, SnapshotId, VolumeId};
use crate::operation::CallError;
use crate::time::Time;

/// What must be asked before the next step can be decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each asks for something of its own")]
pub struct Look {
    /// Describe these instances. One that is left out is asked for by its own id.
    pub instances: Vec<InstanceId>,
    /// And what of them can stand in a restore's way: protection, type, Spot.
    pub traits: bool,
    /// And their data volumes with all their settings.
    pub settings_of_volumes: bool,
    /// Describe these volumes. One that is left out is asked for by its own id.
    pub volumes: Vec<VolumeId>,
    /// Describe the volumes that bear this restore's tags.
    pub tagged: bool,
    /// Read the backup and what was kept of its volumes, and describe its snapshots. One
    /// that is left out is asked for by its own id.
    pub kept: bool,
    /// Read what the new volumes are to be like.
    pub settings: bool,
    /// Read the deployment's nodes.
    pub registry: bool,
    /// Read where the safety backup stands.
    pub safety: Option<BackupId>,
}

impl Look {
    /// Whether nothing need be asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A data volume on an instance, as `DescribeInstances` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Which.
    pub volume_id: VolumeId,
    /// Where.
    pub device: String,
    /// `attaching`, `attached`, `busy`, `detaching`, `detached`.
    pub state: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// `running`, `stopped`, `terminated`, ... One that EC2 does not know any more is
    /// `terminated`.
    pub state: String,
    /// AWS's code for how it came to its state.
    pub state_reason: Option<String>,
    /// Where it is.
    pub zone: String,
    /// When it was last launched.
    pub launched_at: Option<Time>,
    /// The device of its root volume.
    pub root_device: String,
    /// Every volume but the root, ordered by device.
    pub attached: Vec<Attached>,
    /// The same with their settings, if they were asked for.
    pub volumes: Vec<Volume>,
    /// Why it cannot be stopped and started, as a sentence; if it was asked for.
    pub unfit: Option<String>,
    /// How many volumes it may have, the root among them; None: not known.
    pub most_volumes: Option<usize>,
}

impl Machine {
    /// Whether it is on its way out, from where nothing comes back.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "terminated" | "shutting-down")
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenVolume {
    /// EC2 describes it.
    There {
        /// `creating`, `available`, `in-use`, `deleting`, `error`.
        state: String,
        /// What it was made from.
        snapshot_id: Option<SnapshotId>,
        /// On which instances.
        instances: Vec<InstanceId>,
        /// Which restore of this deployment its tags name.
        of: Option<RestoreId>,
    },
    /// EC2 left it out of a list, and did not deny it.
    Unlisted,
    /// EC2 said `InvalidVolume.NotFound` for this very id.
    NotFound,
}

impl Action {
    /// A call that is meant.
    pub(super) const fn real(call: Call) -> Self {
        Self { call, dry: false }
    }

    /// A call that is tried.
    pub(super) const fn dry(call: Call) -> Self {
        Self { call, dry: true }
    }
}

impl SeenVolume {
    /// Whether it can be attached.
    pub fn is_available(&self) -> bool {
        matches!(self, Self::There { state, .. } if state == "available")
    }

    /// Whether it is no more, or on its way out, from where nothing comes back.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::There { state, .. } => matches!(state.as_str(), "error" | "deleting" | "deleted"),
            Self::Unlisted => false,
            Self::NotFound => true,
        }
    }
}

/// A snapshot of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of which node.
    pub node_id: NodeId,
    /// Which.
    pub snapshot_id: SnapshotId,
    /// Its size: a volume made from it is no smaller.
    pub size_gib: u64,
    /// What its volume was like; None: that was not kept.
    pub volume: Option<Volume>,
}

/// Where a safety backup stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Safety {
    /// It is there.
    There(backup::Status, Option<String>),
    /// It is gone.
    Gone,
}

/// What was seen in one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The instances asked for. One that is not in it was neither shown nor denied.
    pub instances: BTreeMap<InstanceId, Machine>,
    /// The volumes asked for.
    pub volumes: BTreeMap<VolumeId, SeenVolume>,
    /// The volumes that bear this restore's tags.
    pub tagged: BTreeMap<VolumeId, SeenVolume>,
    /// The snapshots asked for.
    pub snapshots: BTreeMap<SnapshotId, Presence>,
    /// The backup's snapshots, and what was kept of their volumes.
    pub kept: Vec<Kept>,
    /// What the new volumes are to be like.
    pub settings: Vec<Setting>,
    /// The deployment's nodes as the control plane has them.
    pub registry: Option<Vec<deployment::Node>>,
    /// The safety backup.
    pub safety: Option<Safety>,
}

/// A call of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `CreateVolume`.
    CreateVolume {
        /// Of which node.
        node_id: NodeId,
        /// What it is to be like.
        setting: Setting,
        /// What it is made from.
        snapshot_id: SnapshotId,
        /// Its number, in the client token.
        attempt: u32,
        /// With a rate of initialization.
        with_rate: bool,
    },
    /// `StopInstances` of one.
    Stop(InstanceId),
    /// `StartInstances` of one.
    Start(InstanceId),
    /// `DetachVolume`.
    Detach {
        /// From which instance.
        instance_id: InstanceId,
        /// Which volume.
        volume_id: VolumeId,
        /// Where it hangs.
        device: String,
    },
    /// `AttachVolume`.
    Attach {
        /// To which instance.
        instance_id: InstanceId,
        /// Which volume.
        volume_id: VolumeId,
        /// Where.
        device: String,
    },
    /// `ModifyInstanceAttribute` of one block device.
    SetDeleteOnTermination {
        /// Of which instance.
        instance_id: InstanceId,
        /// Where.
        device: String,
        /// To what.
        to: bool,
    },
    /// `CreateTags` on a volume that is kept: whose it was.
    Keep(VolumeId),
    /// `DeleteTags` of ours.
    Release(VolumeId),
    /// `DeleteVolume`.
    DeleteVolume(VolumeId),
}

impl Call {
    /// The operation's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateVolume { .. } => "CreateVolume",
            Self::Stop(_) => "StopInstances",
            Self::Start(_) => "StartInstances",
            Self::Detach { .. } => "DetachVolume",
            Self::Attach { .. } => "AttachVolume",
            Self::SetDeleteOnTermination { .. } => "ModifyInstanceAttribute",
            Self::Keep(_) => "CreateTags",
            Self::Release(_) => "DeleteTags",
            Self::DeleteVolume(_) => "DeleteVolume",
        }
    }
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Which.
    pub call: Call,
    /// Only tried: EC2 says whether it would.
    pub dry: bool,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// EC2 took it; or it was so already; or it would take it.
    Done,
    /// `CreateVolume` answered with this one.
    Created(VolumeId),
    /// It was not made: the invocation's time was over.
    NotBegun,
    /// It did not succeed.
    Failed(CallError),
}

impl Outcome {
    /// Whether AWS has done what it was asked for.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Done | Self::Created(_))
    }
}
