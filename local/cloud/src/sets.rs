//! Multi-volume snapshot sets, and the events that EBS sends of snapshots.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Cloud;
use crate::bus::seconds;
use crate::world::{SnapshotSet, SnapshotState};

impl Cloud {
    pub(crate) fn remember_set(&mut self, set: u64, members: Vec<(String, String)>) {
        self.sets.insert(set, SnapshotSet { started_at: self.now, members });
    }

    /// The one event of a set, once all of it completed.
    pub(crate) fn end_set_if_done(&mut self, set: Option<u64>) {
        let Some(set) = set else { return };
        let Some(row) = self.sets.get(&set) else { return };
        let pending = row.members.iter().any(|(id, _)| {
            self.snapshots.get(id).is_some_and(|s| s.state == SnapshotState::Pending)
        });
        if !pending && let Some(row) = self.sets.remove(&set) {
            self.notify_set(&row, None);
        }
    }

    /// If one snapshot of a set fails, all the others show `error` too, here
    /// also those that had completed, and one `createSnapshots` event with the
    /// result `failed` is sent (E).
    pub(crate) fn fail_set(&mut self, set: u64, cause: &str) {
        let Some(row) = self.sets.remove(&set) else { return };
        for (id, _) in &row.members {
            if self.snapshots.get(id).is_some_and(crate::world::Snapshot::exists) {
                self.end_snapshot(id, SnapshotState::Error);
            }
        }
        self.notify_set(&row, Some(cause));
    }

    /// `EBS Multi-Volume Snapshots Completion Status` (E).
    fn notify_set(&mut self, set: &SnapshotSet, failed: Option<&str>) {
        let arns = self.arn_shape();
        let status = if failed.is_some() { "error" } else { "completed" };
        let snapshots: Vec<Value> = set
            .members
            .iter()
            .map(|(id, volume)| {
                json!({
                    "snapshot_id": self.arn(arns, "snapshot", id),
                    "source": self.arn(arns, "volume", volume),
                    "status": status,
                })
            })
            .collect();
        let resources = set.members.iter().map(|(id, _)| self.arn(arns, "snapshot", id)).collect();
        let detail = json!({
            "event": "createSnapshots",
            "result": if failed.is_some() { "failed" } else { "succeeded" },
            "cause": failed.map(error_cause).unwrap_or_default(),
            "request-id": "",
            "startTime": seconds(set.started_at),
            "endTime": seconds(self.now),
            "snapshots": snapshots,
        });
        self.emit("EBS Multi-Volume Snapshots Completion Status", resources, detail);
    }

    /// `EBS Snapshot Notification` (E). Whether AWS sends it for the members
    /// of a set too is not documented; this one does.
    pub(crate) fn notify_snapshot(
        &mut self,
        id: &str,
        volume: &str,
        state: SnapshotState,
        started_at: Timestamp,
    ) {
        let failed = state == SnapshotState::Error;
        let arns = self.arn_shape();
        let detail = json!({
            "event": "createSnapshot",
            "result": if failed { "failed" } else { "succeeded" },
            "cause": if failed { error_cause(id) } else { String::new() },
            "request-id": "",
            "snapshot_id": self.arn(arns, "snapshot", id),
            "source": self.arn(arns, "volume", volume),
            "startTime": seconds(started_at),
            "endTime": seconds(self.now),
        });
        let resources = vec![self.arn(arns, "snapshot", id)];
        self.emit("EBS Snapshot Notification", resources, detail);
    }

    /// The documentation's examples show three shapes of ARN (E); which one
    /// comes is drawn for each event.
    fn arn_shape(&mut self) -> u8 {
        self.rng.u8(0..3)
    }

    fn arn(&self, shape: u8, kind: &str, id: &str) -> String {
        let (region, account) = (&self.config.region, &self.config.account);
        match shape {
            0 => format!("arn:aws:ec2::{region}:{kind}/{id}"),
            1 => format!("arn:aws:ec2:{region}::{kind}/{id}"),
            _ => format!("arn:aws:ec2:{region}:{account}:{kind}/{id}"),
        }
    }
}

fn error_cause(id: &str) -> String {
    format!("Snapshot {id} is in status error")
}
