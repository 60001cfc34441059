//! What exists: instances, volumes, snapshots.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::InstanceTraits;

pub(crate) type Tags = BTreeMap<String, String>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) reservation: String,
    pub(crate) zone: String,
    pub(crate) kind: String,
    pub(crate) image: String,
    pub(crate) state: InstanceState,
    /// Why it came to its state, when that was not a start.
    pub(crate) reason: Option<StateReason>,
    pub(crate) launched_at: Timestamp,
    pub(crate) root_device: String,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) tags: Tags,
    // What follows is not in rows older than it, and not written where there
    // is none: the rows of an instance that has it not are as they were.
    #[serde(default, skip_serializing_if = "InstanceTraits::is_plain")]
    pub(crate) traits: InstanceTraits,
    /// The id of its Spot request, if it is a Spot Instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spot_request: Option<String>,
    /// When its stop or start ends; an end planned before a forced stop is
    /// passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turns_at: Option<Timestamp>,
    /// Its start ends in `stopped`, with this code; set anew by each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_fails: Option<String>,
}

impl Instance {
    pub(crate) fn attachment_mut(&mut self, volume: &str) -> Option<&mut Attachment> {
        self.attachments.iter_mut().find(|a| a.volume == volume)
    }

    /// Its stop or start is due: rows older than `turns_at` do not say when.
    pub(crate) fn turns(&self, now: Timestamp) -> bool {
        self.turns_at.is_none_or(|at| at <= now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
}

impl InstanceState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Running => "running",
            InstanceState::ShuttingDown => "shutting-down",
            InstanceState::Terminated => "terminated",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
        }
    }

    /// The number beside the name [M, `InstanceState`].
    pub(crate) fn code(self) -> u16 {
        match self {
            InstanceState::Pending => 0,
            InstanceState::Running => 16,
            InstanceState::ShuttingDown => 32,
            InstanceState::Terminated => 48,
            InstanceState::Stopping => 64,
            InstanceState::Stopped => 80,
        }
    }

    /// Whether it is on its way out, from where nothing comes back.
    pub(crate) fn ends(self) -> bool {
        matches!(self, InstanceState::ShuttingDown | InstanceState::Terminated)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StateReason {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// A volume on an instance. It is kept with the instance only; a volume's
/// attachments are looked up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) volume: String,
    pub(crate) device: String,
    pub(crate) attached_at: Timestamp,
    pub(crate) delete_on_termination: bool,
    /// Not in rows older than this field, and not written for what is
    /// attached.
    #[serde(default, skip_serializing_if = "AttachmentState::is_attached")]
    pub(crate) state: AttachmentState,
    /// When its state ends by itself; an end planned for an earlier state is
    /// passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// It will not come to be attached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fails: bool,
}

impl Attachment {
    /// One that is there at once.
    pub(crate) fn made(volume: String, device: String, at: Timestamp, goes: bool) -> Self {
        Attachment {
            volume,
            device,
            attached_at: at,
            delete_on_termination: goes,
            state: AttachmentState::Attached,
            until: None,
            fails: false,
        }
    }

    /// Its state ends now.
    pub(crate) fn ends(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AttachmentState {
    Attaching,
    #[default]
    Attached,
    /// To be detached, but in use by the instance's operating system.
    Busy,
    Detaching,
}

impl AttachmentState {
    /// As a volume shows it [M, `VolumeAttachmentState`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            AttachmentState::Attaching => "attaching",
            AttachmentState::Attached => "attached",
            AttachmentState::Busy => "busy",
            AttachmentState::Detaching => "detaching",
        }
    }

    /// As an instance shows it, which knows no `busy` [M, `AttachmentStatus`].
    pub(crate) fn name_on_instance(self) -> &'static str {
        match self {
            AttachmentState::Busy => AttachmentState::Detaching.name(),
            state => state.name(),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_attached(&self) -> bool {
        *self == AttachmentState::Attached
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) zone: String,
    pub(crate) size_gib: u32,
    pub(crate) kind: String,
    pub(crate) iops: Option<u32>,
    pub(crate) throughput: Option<u32>,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
    pub(crate) multi_attach: bool,
    pub(crate) created_at: Timestamp,
    /// The snapshot that it was made from.
    pub(crate) snapshot: Option<String>,
    pub(crate) tags: Tags,
    pub(crate) content: Option<String>,
    /// When a snapshot of it was last begun, for the rate limit.
    pub(crate) snapshot_at: Option<Timestamp>,
    // What follows is not in rows older than it, and not written where there
    // is none.
    #[serde(default, skip_serializing_if = "VolumeState::is_ready")]
    pub(crate) state: VolumeState,
    /// From when on ids and describes know it; at once, if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) visible_at: Option<Timestamp>,
    /// How its creation fails in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fails: Option<VolumeFailure>,
    /// Its paid initialization: MiB/s, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initialization: Option<Initialization>,
}

impl Volume {
    pub(crate) fn known(&self, now: Timestamp) -> bool {
        self.visible_at.is_none_or(|at| at <= now)
    }
}

/// Whether a volume is attached is kept with instances: `available` and
/// `in-use` are one here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VolumeState {
    Creating,
    #[default]
    Ready,
    Error,
    Deleting,
}

impl VolumeState {
    /// Its name [M, `VolumeState`].
    pub(crate) fn name(self, attached: bool) -> &'static str {
        match self {
            VolumeState::Creating => "creating",
            VolumeState::Ready if attached => "in-use",
            VolumeState::Ready => "available",
            VolumeState::Error => "error",
            VolumeState::Deleting => "deleting",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_ready(&self) -> bool {
        *self == VolumeState::Ready
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VolumeFailure {
    /// It is gone, as after a KMS key that cannot be used.
    Vanishes,
    /// It is left in `error`.
    Errs,
}

/// At a rate that was paid for, from the volume's creation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Initialization {
    pub(crate) mib_per_second: u32,
    pub(crate) until: Timestamp,
}

/// A `CreateVolume` that had a client token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    /// The call's parameters.
    pub(crate) asked: String,
    /// The volume as it was made.
    pub(crate) volume: Volume,
}

/// A KMS key that cannot be used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DisabledKey {
    pub(crate) since: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) volume: String,
    pub(crate) size_gib: u32,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
    pub(crate) description: String,
    pub(crate) tags: Tags,
    pub(crate) content: Option<String>,
    pub(crate) state: SnapshotState,
    pub(crate) started_at: Timestamp,
    /// When its copying would end.
    pub(crate) done_at: Timestamp,
    /// When it did end, well or not.
    pub(crate) ended_at: Option<Timestamp>,
    /// From when on ids and describes know it.
    pub(crate) visible_at: Timestamp,
    /// The multi-volume set that it is of.
    pub(crate) set: Option<u64>,
    /// Its copying will end in `error`.
    pub(crate) fails: bool,
    /// Not in rows older than this field, and not written where there is
    /// none: the rows of a snapshot that never stood still are as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stall: Option<Stall>,
    pub(crate) deletion: Deletion,
}

/// A snapshot's copying stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stall {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

impl Stall {
    pub(crate) fn holds(self, now: Timestamp) -> bool {
        (self.since..self.until).contains(&now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotState {
    Pending,
    Completed,
    Error,
}

impl SnapshotState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SnapshotState::Pending => "pending",
            SnapshotState::Completed => "completed",
            SnapshotState::Error => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deletion {
    NotAsked,
    /// Asked while pending: it takes effect when the copying ends.
    WhenDone,
    /// Gone, but describes may still show it.
    Done,
}

impl Snapshot {
    /// How much is copied, in per cent.
    pub(crate) fn progress(&self, now: Timestamp) -> i64 {
        if self.state == SnapshotState::Completed {
            return 100;
        }
        let until = self.ended_at.unwrap_or(now);
        let stall = self.stall.filter(|stall| stall.holds(until));
        let until = stall.map_or(until, |stall| stall.since);
        let total = self.done_at.duration_since(self.started_at).as_millis().max(1);
        let done = until.duration_since(self.started_at).as_millis();
        i64::try_from((done * 100 / total).clamp(0, 99)).unwrap_or(0)
    }

    pub(crate) fn exists(&self) -> bool {
        self.deletion != Deletion::Done
    }
}

/// One `CreateSnapshots` call whose snapshots have not all ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotSet {
    pub(crate) started_at: Timestamp,
    /// Snapshot and its volume: a member may be deleted before the set ends.
    pub(crate) members: Vec<(String, String)>,
}
