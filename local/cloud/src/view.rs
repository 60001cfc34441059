//! The world as an oracle outside sees it: the truth, without describe lag.
//! Call [`Cloud::advance`] before it for a world without work overdue.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::world::{Attachment, Deletion, Instance, Snapshot, Volume};
use crate::{Cloud, InstanceTraits};

/// A snapshot as it is. A deleted one is there as long as describes may still
/// show it.
#[derive(Debug, Clone)]
pub struct SnapshotView<'a> {
    /// Its id.
    pub snapshot_id: &'a str,
    /// The volume that it was taken of, which may be gone.
    pub volume_id: &'a str,
    /// The volume's size.
    pub size_gib: u32,
    /// `pending`, `completed` or `error`.
    pub state: &'static str,
    /// Not deleted. A delete of a pending one takes effect at its end (E).
    pub exists: bool,
    /// A delete waits for its end, or is done.
    pub delete_asked: bool,
    /// What the call that made it said.
    pub description: &'a str,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// What stood on the volume when it was begun.
    pub content: Option<&'a str>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When its copying ended, well or not.
    pub ended_at: Option<Timestamp>,
    /// Since when and until when its copying stands still.
    pub stalled: Option<(Timestamp, Timestamp)>,
}

/// An instance as it is. A terminated one is there for an AWS hour.
#[derive(Debug, Clone)]
pub struct InstanceView<'a> {
    /// Its id.
    pub instance_id: &'a str,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down` or
    /// `terminated`.
    pub state: &'static str,
    /// Volume id and device of all its volumes but the root's, in the order
    /// of the devices.
    pub data_volumes: Vec<(&'a str, &'a str)>,
    /// The code of the reason why it came to its state, when that was not a
    /// start.
    pub state_reason: Option<&'a str>,
    /// What else it is.
    pub traits: &'a InstanceTraits,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
}

/// A volume as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView<'a> {
    /// Its id.
    pub volume_id: &'a str,
    /// Where it is.
    pub zone: &'a str,
    /// Its size.
    pub size_gib: u32,
    /// `gp3`, ...
    pub volume_type: &'a str,
    /// Its provisioned IOPS, where the type has them.
    pub iops: Option<u32>,
    /// Its throughput in MiB/s, where the type has it.
    pub throughput: Option<u32>,
    /// The KMS key's ARN, if it is encrypted.
    pub kms_key_id: Option<&'a str>,
    /// Whether several instances may have it at once.
    pub multi_attach: bool,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// The device that it is attached as, and whether it goes with its
    /// instance; also while it is being attached or detached.
    pub attached: Option<(&'a str, bool)>,
    /// `creating`, `available`, `in-use`, `error` or `deleting`.
    pub state: &'static str,
    /// The instance that has it, and `attaching`, `attached`, `busy` or
    /// `detaching`.
    pub attachment: Option<(&'a str, &'static str)>,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<&'a str>,
    /// What stands on it.
    pub content: Option<&'a str>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Cloud {
    /// The volume of that id, also one that is being deleted.
    pub fn volume(&self, id: &str) -> Option<VolumeView<'_>> {
        let volume = self.volumes.get(id)?;
        let all = self.instances.values();
        let mut attachments = all.flat_map(|one| one.attachments.iter().map(move |a| (one, a)));
        Some(VolumeView::of(volume, attachments.find(|(_, one)| one.volume == id)))
    }

    /// All volumes in the order of their ids, also those that are being
    /// deleted.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeView<'_>> {
        let attached = self.attached(None);
        self.volumes
            .values()
            .map(move |volume| VolumeView::of(volume, attached.of(&volume.id).first().copied()))
    }

    /// The snapshot of that id, also a deleted one that lingers.
    pub fn snapshot(&self, id: &str) -> Option<SnapshotView<'_>> {
        self.snapshots.get(id).map(SnapshotView::of)
    }

    /// All snapshots in the order of their ids, also deleted ones that linger.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotView<'_>> {
        self.snapshots.values().map(SnapshotView::of)
    }

    /// The instance of that id, also a terminated one that is described yet.
    pub fn instance(&self, id: &str) -> Option<InstanceView<'_>> {
        self.instances.get(id).map(InstanceView::of)
    }

    /// All instances in the order of their ids, also terminated ones that are
    /// described yet.
    pub fn instances(&self) -> impl Iterator<Item = InstanceView<'_>> {
        self.instances.values().map(InstanceView::of)
    }
}

impl<'a> SnapshotView<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        SnapshotView {
            snapshot_id: &snapshot.id,
            volume_id: &snapshot.volume,
            size_gib: snapshot.size_gib,
            state: snapshot.state.name(),
            exists: snapshot.exists(),
            delete_asked: snapshot.deletion != Deletion::NotAsked,
            description: &snapshot.description,
            tags: &snapshot.tags,
            content: snapshot.content.as_deref(),
            started_at: snapshot.started_at,
            ended_at: snapshot.ended_at,
            stalled: snapshot.stall.map(|stall| (stall.since, stall.until)),
        }
    }
}

impl<'a> VolumeView<'a> {
    fn of(volume: &'a Volume, attachment: Option<(&'a Instance, &'a Attachment)>) -> Self {
        VolumeView {
            volume_id: &volume.id,
            zone: &volume.zone,
            size_gib: volume.size_gib,
            volume_type: &volume.kind,
            iops: volume.iops,
            throughput: volume.throughput,
            kms_key_id: volume.kms_key.as_deref(),
            multi_attach: volume.multi_attach,
            tags: &volume.tags,
            attached: attachment.map(|(_, one)| (one.device.as_str(), one.delete_on_termination)),
            state: volume.state.name(attachment.is_some()),
            attachment: attachment.map(|(instance, one)| (instance.id.as_str(), one.state.name())),
            snapshot_id: volume.snapshot.as_deref(),
            content: volume.content.as_deref(),
            created_at: volume.created_at,
        }
    }
}

impl<'a> InstanceView<'a> {
    fn of(instance: &'a Instance) -> Self {
        let data = instance.attachments.iter().filter(|a| a.device != instance.root_device);
        let mut data_volumes: Vec<(&str, &str)> =
            data.map(|a| (a.volume.as_str(), a.device.as_str())).collect();
        // A freed device is given again, so they need not stand in order; as
        // texts they sort as they are given.
        data_volumes.sort_by_key(|(_, device)| *device);
        InstanceView {
            instance_id: &instance.id,
            state: instance.state.name(),
            data_volumes,
            state_reason: instance.reason.as_ref().map(|reason| reason.code.as_str()),
            traits: &instance.traits,
            tags: &instance.tags,
        }
    }
}
