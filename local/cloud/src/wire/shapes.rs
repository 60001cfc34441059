//! EC2's resources as its answers show them: element names as in the service
//! model (M), which are not always those of the SDK's fields.

use jiff::Timestamp;

use super::xml::{Node, elements, items, text};
use crate::Cloud;
use crate::volumes::Attached;
use crate::world::{Instance, Snapshot, SnapshotState, Tags, Volume};

/// A time with milliseconds, as EC2 writes it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn tag_set(tags: &Tags) -> Node {
    items("tagSet", tags.iter().map(|(key, value)| vec![text("key", key), text("value", value)]))
}

impl Cloud {
    /// As `CreateSnapshots` answers (`SnapshotInfo`): its state is `state`.
    pub(crate) fn snapshot_info(&self, snapshot: &Snapshot) -> Vec<Node> {
        let mut nodes = self.snapshot_common(snapshot);
        nodes.push(text("state", snapshot.state.name()));
        nodes
    }

    /// As `CreateSnapshot` answers and describes show it (`Snapshot`): its
    /// state is `status`.
    pub(crate) fn snapshot_nodes(&self, snapshot: &Snapshot, described: bool) -> Vec<Node> {
        let mut nodes = self.snapshot_common(snapshot);
        nodes.push(text("status", snapshot.state.name()));
        nodes.push(text("storageTier", "standard"));
        if let Some(key) = &snapshot.kms_key {
            nodes.push(text("kmsKeyId", key));
        }
        if snapshot.state == SnapshotState::Completed && described {
            let size = u64::from(snapshot.size_gib) << 30;
            nodes.push(text("fullSnapshotSizeInBytes", size));
            if let Some(at) = snapshot.ended_at {
                nodes.push(text("completionTime", time(at)));
            }
        }
        nodes
    }

    fn snapshot_common(&self, snapshot: &Snapshot) -> Vec<Node> {
        let mut nodes = vec![
            text("snapshotId", &snapshot.id),
            text("volumeId", &snapshot.volume),
            text("startTime", time(snapshot.started_at)),
            text("progress", format!("{}%", snapshot.progress(self.now))),
            text("ownerId", &self.config.account),
            text("volumeSize", snapshot.size_gib),
            text("description", &snapshot.description),
            text("encrypted", snapshot.encrypted),
        ];
        if !snapshot.tags.is_empty() {
            nodes.push(tag_set(&snapshot.tags));
        }
        nodes
    }

    /// A reservation of one instance.
    pub(crate) fn reservation(&self, instance: &Instance) -> Vec<Node> {
        vec![
            text("reservationId", &instance.reservation),
            text("ownerId", &self.config.account),
            items("groupSet", []),
            items("instancesSet", [instance_nodes(instance)]),
        ]
    }
}

/// A volume, and who of all has it attached.
pub(crate) fn volume_nodes(volume: &Volume, attached: &Attached<'_>) -> Vec<Node> {
    let attachments = attached.of(&volume.id).iter().map(|(instance, attachment)| {
        vec![
            text("volumeId", &volume.id),
            text("instanceId", &instance.id),
            text("device", &attachment.device),
            text("status", "attached"),
            text("attachTime", time(attachment.attached_at)),
            text("deleteOnTermination", attachment.delete_on_termination),
        ]
    });
    let mut nodes = vec![
        text("volumeId", &volume.id),
        text("size", volume.size_gib),
        text("snapshotId", volume.snapshot.as_deref().unwrap_or_default()),
        text("availabilityZone", &volume.zone),
        text("status", attached.state(&volume.id)),
        text("createTime", time(volume.created_at)),
        items("attachmentSet", attachments),
        text("volumeType", &volume.kind),
        text("encrypted", volume.encrypted),
        text("multiAttachEnabled", volume.multi_attach),
    ];
    nodes.extend(volume.iops.map(|iops| text("iops", iops)));
    nodes.extend(volume.throughput.map(|mibs| text("throughput", mibs)));
    nodes.extend(volume.kms_key.as_ref().map(|key| text("kmsKeyId", key)));
    if !volume.tags.is_empty() {
        nodes.push(tag_set(&volume.tags));
    }
    nodes
}

fn instance_nodes(instance: &Instance) -> Vec<Node> {
    let mappings = instance.attachments.iter().map(|attachment| {
        let ebs = vec![
            text("volumeId", &attachment.volume),
            text("status", "attached"),
            text("attachTime", time(attachment.attached_at)),
            text("deleteOnTermination", attachment.delete_on_termination),
        ];
        vec![text("deviceName", &attachment.device), elements("ebs", ebs)]
    });
    let mut nodes = vec![
        text("instanceId", &instance.id),
        text("imageId", &instance.image),
        elements("instanceState", state_nodes(instance)),
        text("privateDnsName", ""),
        text("dnsName", ""),
        text("amiLaunchIndex", 0),
        text("instanceType", &instance.kind),
        text("launchTime", time(instance.launched_at)),
        elements(
            "placement",
            vec![
                text("availabilityZone", &instance.zone),
                text("groupName", ""),
                text("tenancy", "default"),
            ],
        ),
        elements("monitoring", vec![text("state", "disabled")]),
        text("rootDeviceType", "ebs"),
        text("rootDeviceName", &instance.root_device),
        items("blockDeviceMapping", mappings),
        text("virtualizationType", "hvm"),
        text("hypervisor", "xen"),
        tag_set(&instance.tags),
    ];
    if let Some(reason) = &instance.reason {
        nodes.push(text("reason", &reason.message));
        nodes.push(elements(
            "stateReason",
            vec![text("code", &reason.code), text("message", &reason.message)],
        ));
    }
    nodes
}

fn state_nodes(instance: &Instance) -> Vec<Node> {
    vec![text("code", instance.state.code()), text("name", instance.state.name())]
}
