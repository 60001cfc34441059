//! EC2's resources as its answers show them: element names as in the service
//! model (M), which are not always those of the SDK's fields.

use jiff::Timestamp;

use super::xml::{Node, elements, items, text};
use crate::Cloud;
use crate::world::{Attachment, Instance, InstanceState, Snapshot, SnapshotState, Tags, Volume};

/// A time with milliseconds, as EC2 writes it.
pub(super) fn time(at: Timestamp) -> String {
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

/// An attachment as its volume has it (`VolumeAttachment`).
pub(super) fn attachment_nodes(instance: &str, attachment: &Attachment) -> Vec<Node> {
    vec![
        text("volumeId", &attachment.volume),
        text("instanceId", instance),
        text("device", &attachment.device),
        text("status", attachment.state.name()),
        text("attachTime", time(attachment.attached_at)),
        text("deleteOnTermination", attachment.delete_on_termination),
    ]
}

/// A volume, and who has it attached.
pub(super) fn volume_nodes(
    volume: &Volume,
    state: &str,
    attached: &[(&Instance, &Attachment)],
) -> Vec<Node> {
    let attachments = attached.iter().map(|(instance, one)| attachment_nodes(&instance.id, one));
    let mut nodes = vec![
        text("volumeId", &volume.id),
        text("size", volume.size_gib),
        text("snapshotId", volume.snapshot.as_deref().unwrap_or_default()),
        text("availabilityZone", &volume.zone),
        text("status", state),
        text("createTime", time(volume.created_at)),
        items("attachmentSet", attachments),
        text("volumeType", &volume.kind),
        text("encrypted", volume.encrypted),
        text("multiAttachEnabled", volume.multi_attach),
    ];
    nodes.extend(volume.iops.map(|iops| text("iops", iops)));
    nodes.extend(volume.throughput.map(|mibs| text("throughput", mibs)));
    let rate = volume.initialization.map(|paid| paid.mib_per_second);
    nodes.extend(rate.map(|mibs| text("volumeInitializationRate", mibs)));
    nodes.extend(volume.kms_key.as_ref().map(|key| text("kmsKeyId", key)));
    if !volume.tags.is_empty() {
        nodes.push(tag_set(&volume.tags));
    }
    nodes
}

/// Its attachments as an instance has them.
pub(super) fn mapping_nodes(instance: &Instance) -> Node {
    let mappings = instance.attachments.iter().map(|attachment| {
        let ebs = vec![
            text("volumeId", &attachment.volume),
            text("status", attachment.state.name_on_instance()),
            text("attachTime", time(attachment.attached_at)),
            text("deleteOnTermination", attachment.delete_on_termination),
        ];
        vec![text("deviceName", &attachment.device), elements("ebs", ebs)]
    });
    items("blockDeviceMapping", mappings)
}

fn instance_nodes(instance: &Instance) -> Vec<Node> {
    let mut nodes = vec![
        text("instanceId", &instance.id),
        text("imageId", &instance.image),
        elements("instanceState", state_nodes(instance.state)),
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
        mapping_nodes(instance),
        text("virtualizationType", "hvm"),
        text("hypervisor", "xen"),
        tag_set(&instance.tags),
        elements("hibernationOptions", vec![text("configured", instance.traits.hibernation)]),
    ];
    if let Some(request) = &instance.spot_request {
        nodes.push(text("instanceLifecycle", "spot"));
        nodes.push(text("spotInstanceRequestId", request));
    }
    let operator = instance.traits.operator.as_ref();
    let principal = operator.map(|principal| text("principal", principal));
    let managed = [text("managed", operator.is_some())].into_iter().chain(principal);
    nodes.push(elements("operator", managed.collect()));
    if let Some(reason) = &instance.reason {
        nodes.push(text("reason", &reason.message));
        nodes.push(elements(
            "stateReason",
            vec![text("code", &reason.code), text("message", &reason.message)],
        ));
    }
    nodes
}

pub(super) fn state_nodes(state: InstanceState) -> Vec<Node> {
    vec![text("code", state.code()), text("name", state.name())]
}
