//! The world as JSON, for `/_local/state`. It is the truth: no describe lag,
//! no lingering of what was deleted.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Cloud;
use crate::world::{Instance, Snapshot, Volume, VolumeState};

impl Cloud {
    /// The simulated world as docs/local.md gives its shape. Call [`Cloud::advance`]
    /// before it for a state without work overdue.
    pub fn state(&self, now: Timestamp) -> Value {
        let attached = self.attached(None);
        let volumes = self.volumes.values().filter(|v| v.state != VolumeState::Deleting);
        let snapshots = self.snapshots.values().filter(|s| s.exists());
        json!({
            "now": now,
            "instances": self.instances.values().map(instance).collect::<Vec<_>>(),
            "volumes": volumes.map(|v| volume(v, attached.state(v))).collect::<Vec<_>>(),
            "snapshots": snapshots.map(|s| snapshot(s, now)).collect::<Vec<_>>(),
            "events": self.events.iter().map(|event| json!(event)).collect::<Vec<_>>(),
            "calls": self.call_counts(),
            "capacity": self.capacity_counts(),
        })
    }
}

fn volume(volume: &Volume, state: &str) -> Value {
    json!({
        "volume_id": volume.id,
        "state": state,
        "availability_zone": volume.zone,
        "size_gib": volume.size_gib,
        "volume_type": volume.kind,
        "tags": volume.tags,
        "content": volume.content,
        "snapshot_id": volume.snapshot,
    })
}

fn instance(instance: &Instance) -> Value {
    let attachments: Vec<Value> = instance
        .attachments
        .iter()
        .map(|a| {
            json!({
                "volume_id": a.volume,
                "device": a.device,
                "delete_on_termination": a.delete_on_termination,
                "state": a.state.name(),
            })
        })
        .collect();
    json!({
        "instance_id": instance.id,
        "state": instance.state.name(),
        "availability_zone": instance.zone,
        "attachments": attachments,
        "state_reason": instance.reason.as_ref().map(|reason| &reason.code),
        "traits": instance.traits,
        "tags": instance.tags,
    })
}

fn snapshot(snapshot: &Snapshot, now: Timestamp) -> Value {
    json!({
        "snapshot_id": snapshot.id,
        "volume_id": snapshot.volume,
        "state": snapshot.state.name(),
        "progress": format!("{}%", snapshot.progress(now)),
        "tags": snapshot.tags,
        "content": snapshot.content,
    })
}
