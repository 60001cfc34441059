//! What the new volumes are to be like, and all that can be seen beforehand to stand
//! in the way: nothing is made before it is known that the swap can be done.

use serde::{Deserialize, Serialize};

use super::{Kept, Machine, New, Node, Restore, Seen};
use crate::backup::{Presence, Volume};
use crate::id::NodeId;
use crate::limits::OUR_TAGS;
use crate::operation::FailureCode;

/// The most tags of a resource (EC2 user guide, "Tag restrictions"); those of AWS's own
/// do not count.
const MOST_TAGS: usize = 50;

/// What a new volume is to be like. Stored before it is asked for: with the same client
/// token EC2 wants the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Of which node.
    pub node_id: NodeId,
    /// Where it goes.
    pub device: String,
    /// Where its node is now.
    pub zone: String,
    /// In GiB.
    pub size_gib: u64,
    /// `gp3`, ...
    pub volume_type: String,
    /// Provisioned IOPS, where the type has them.
    pub iops: Option<i32>,
    /// Provisioned MiB/s, where the type has them.
    pub throughput: Option<i32>,
    /// The key's ARN; None: as the snapshot is.
    pub kms_key_id: Option<String>,
    /// The tags of the one that it replaces, ordered by key.
    pub tags: Vec<(String, String)>,
}

/// What a look before the plan comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Planned {
    /// So is it done.
    Yes {
        /// The nodes with their new volumes.
        nodes: Vec<Node>,
        /// What those are to be like.
        settings: Vec<Setting>,
    },
    /// A node is between two states, or EC2 does not show everything yet.
    NotYet(String),
    /// It cannot be done.
    No(FailureCode, String),
}

/// A node as a person knows it.
pub(super) fn named(node: &Node) -> String {
    format!("Node {} ({})", node.node_id, node.instance_id)
}

/// Makes the plan, or says why not.
pub(super) fn plan(restore: &Restore, seen: &Seen) -> Planned {
    if let Some((code, reason)) = changed(restore, seen) {
        return Planned::No(code, reason);
    }
    for kept in &seen.kept {
        let id = &kept.snapshot_id;
        match seen.snapshots.get(id) {
            Some(Presence::There(snapshot)) if snapshot.state == "completed" => {}
            Some(Presence::There(snapshot)) => {
                return Planned::No(
                    FailureCode::SnapshotMissing,
                    format!(
                        "Snapshot {id} (node {}) is {} in EC2 and cannot be restored from. Restore another backup.",
                        kept.node_id, snapshot.state
                    ),
                );
            }
            Some(Presence::NotFound) => {
                return Planned::No(
                    FailureCode::SnapshotMissing,
                    format!(
                        "Snapshot {id} (node {}) is gone from EC2: somebody deleted it outside of this service. Restore another backup, and find out who deletes snapshots (CloudTrail, DeleteSnapshot).",
                        kept.node_id
                    ),
                );
            }
            Some(Presence::Unlisted) | None => {
                return Planned::NotYet(format!("EC2 does not list snapshot {id}"));
            }
        }
    }
    let mut nodes = restore.nodes.clone();
    let mut settings = Vec::new();
    let mut not_yet = None;
    for node in &mut nodes {
        match of_node(node, seen) {
            Ok(Ok(planned)) => {
                for (new, setting) in planned {
                    node.new.push(new);
                    settings.push(setting);
                }
                node.new.sort_by(|a, b| a.device.cmp(&b.device));
            }
            Ok(Err(why)) => not_yet = Some(why),
            Err((code, reason)) => return Planned::No(code, reason),
        }
    }
    match not_yet {
        Some(why) => Planned::NotYet(why),
        None => Planned::Yes { nodes, settings },
    }
}

/// The control plane's nodes are no longer those that the restore was asked for.
pub(super) fn changed(restore: &Restore, seen: &Seen) -> Option<(FailureCode, String)> {
    let now = seen.registry.as_ref()?;
    let same = now.len() == restore.nodes.len()
        && now
            .iter()
            .zip(&restore.nodes)
            .all(|(now, then)| now.node_id == then.node_id && now.instance_id == then.instance_id);
    if same {
        return None;
    }
    Some((
        FailureCode::Superseded,
        "The deployment's nodes changed after the restore was asked for, and nothing was stopped. Ask for it again.".to_owned(),
    ))
}

type Fault = (FailureCode, String);

/// One node's part of the plan. The inner error: not yet.
fn of_node(node: &Node, seen: &Seen) -> Result<Result<Vec<(New, Setting)>, String>, Fault> {
    let name = named(node);
    let Some(machine) = seen.instances.get(&node.instance_id) else {
        return Ok(Err(format!("EC2 does not show {}", node.instance_id)));
    };
    if machine.is_gone() {
        return Err((
            FailureCode::NodeMissing,
            format!(
                "{name}: EC2 has no such instance. When the deployment has its node back, restore again."
            ),
        ));
    }
    if let Some(why) = &machine.unfit {
        return Err((FailureCode::NodeNotRestorable, format!("{name}: {why}")));
    }
    if !matches!(machine.state.as_str(), "running" | "stopped") {
        return Ok(Err(format!("{} is {}", node.instance_id, machine.state)));
    }
    if !node.swaps {
        return Ok(Ok(Vec::new()));
    }
    if let Some(shared) = machine.volumes.iter().find(|volume| volume.multi_attach) {
        return Err((
            FailureCode::MultiAttach,
            format!(
                "{name}: volume {} is enabled for Multi-Attach; others may write to it while it is replaced. Detach it, then restore again.",
                shared.volume_id
            ),
        ));
    }
    let kept: Vec<&Kept> = seen.kept.iter().filter(|kept| kept.node_id == node.node_id).collect();
    if kept.is_empty() {
        return Err((
            FailureCode::SnapshotMissing,
            format!("{name}: the backup has no snapshot of it. Restore another backup."),
        ));
    }
    if let Some(most) = machine.most_volumes.filter(|most| kept.len() + 1 > *most) {
        return Err((
            FailureCode::NodeNotRestorable,
            format!(
                "{name}: its instance type takes {most} volumes, and the backup has {} beside the root. Move the node to a larger type, then restore again.",
                kept.len()
            ),
        ));
    }
    kept.into_iter()
        .map(|kept| of_snapshot(&name, node, machine, kept))
        .collect::<Result<_, _>>()
        .map(Ok)
}

/// One new volume: with the settings of the one that it replaces, as it is now; if that
/// is gone, as it was.
fn of_snapshot(
    name: &str,
    node: &Node,
    machine: &Machine,
    kept: &Kept,
) -> Result<(New, Setting), Fault> {
    let id = &kept.snapshot_id;
    let Some(was) = &kept.volume else {
        return Err((
            FailureCode::NodeNotRestorable,
            format!(
                "{name}: the backup does not say which device snapshot {id} was taken of. Restore by hand, by the tags of the snapshot, or restore another backup."
            ),
        ));
    };
    let device = was.device.clone();
    if device == machine.root_device {
        return Err((
            FailureCode::NodeNotRestorable,
            format!(
                "{name}: the backup's volume {} hung at {device}, which is the root device now. Give the node an image with another root device, then restore again.",
                was.volume_id
            ),
        ));
    }
    let now = machine.volumes.iter().find(|volume| volume.device == device);
    let like: &Volume = now.unwrap_or(was);
    let mut tags = like.tags.clone();
    tags.retain(|(key, _)| !key.starts_with("aws:") && !key.starts_with("ld:"));
    if tags.len() + OUR_TAGS > MOST_TAGS {
        return Err((
            FailureCode::Quota,
            format!(
                "{name}: volume {} at {device} has {} tags; while it is restored its successor needs {OUR_TAGS} of the {MOST_TAGS} that EC2 allows. Remove some, then restore again.",
                like.volume_id,
                tags.len()
            ),
        ));
    }
    let setting = Setting {
        node_id: node.node_id,
        device: device.clone(),
        zone: machine.zone.clone(),
        // A volume may have grown since; from a snapshot it is never smaller.
        size_gib: like.size_gib.max(kept.size_gib),
        volume_type: like.volume_type.clone(),
        // Of other types EC2 shows what they have by their size, and refuses to be told
        // (EC2 API reference, `CreateVolume`).
        iops: like.iops.filter(|_| matches!(like.volume_type.as_str(), "gp3" | "io1" | "io2")),
        throughput: like.throughput.filter(|_| like.volume_type == "gp3"),
        kms_key_id: like.kms_key_id.clone(),
        tags,
    };
    let new = New {
        device,
        snapshot_id: id.clone(),
        delete_on_termination: like.delete_on_termination,
        encrypted: like.kms_key_id.is_some() || was.kms_key_id.is_some(),
        attempt: 1,
        with_rate: true,
        checked: false,
        volume_id: None,
        made_at: None,
        available: false,
        attachable: false,
    };
    Ok((new, setting))
}
