//! Replies as JSON, and a backup as the list shows it: the published page's 15 fields, in
//! its order; and with all that is known of it.

use std::collections::BTreeMap;

use axum::response::{IntoResponse as _, Response};
use backups_core::backup::{Backup, BackupType, Status, Taken};
use backups_core::id::{BackupId, DeploymentId, NodeId, SnapshotId, VolumeId};
use backups_core::operation::Failure;
use backups_core::restore::Kept;
use backups_core::time::Time;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// A reply whose body is this.
pub(crate) fn json(value: &impl Serialize) -> Result<Response, Problem> {
    written(value).map(json_of)
}

/// The value as JSON.
pub(crate) fn written(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "a reply cannot be written as JSON");
        Problem::internal()
    })
}

/// A reply whose body is this JSON.
pub(crate) fn json_of(body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], body).into_response()
}

// The comments of this and of the following types are the API document's words.
/// A backup, as the list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backup)]
pub(crate) struct Item<'a> {
    /// 1, 2, 3 ... per deployment, never used again.
    id: BackupId,
    deployment_id: DeploymentId,
    /// The node that was asked for. Null: every node of the deployment.
    node_id: Option<NodeId>,
    name: &'a str,
    backup_type: BackupType,
    status: Status,
    /// EBS snapshots, by node, then by device. Empty while `pending`.
    snapshot_ids: Vec<&'a SnapshotId>,
    /// The volume of each snapshot, in the same order.
    volume_ids: Vec<&'a VolumeId>,
    /// The volumes' provisioned sizes together. Null until there are snapshots.
    #[schema(format = "uint64")]
    size_bytes: Option<u64>,
    /// The AWS Region.
    region: &'a str,
    remarks: Option<&'a str>,
    /// When the snapshots were started.
    started_at: Option<Time>,
    /// When the last snapshot completed. Null before, and if the backup failed.
    completed_at: Option<Time>,
    /// When the backup deletes itself. Null: never.
    expires_at: Option<Time>,
    /// When it was asked for.
    created_at: Time,
}

impl<'a> From<&'a Backup> for Item<'a> {
    fn from(backup: &'a Backup) -> Self {
        Self {
            id: backup.id,
            deployment_id: backup.deployment_id,
            node_id: backup.node_id,
            name: &backup.name,
            backup_type: backup.backup_type,
            status: backup.status,
            snapshot_ids: backup.shown_snapshots().map(|taken| &taken.snapshot_id).collect(),
            volume_ids: backup.shown_snapshots().map(|taken| &taken.volume_id).collect(),
            size_bytes: backup.size_bytes,
            region: &backup.region,
            remarks: backup.remarks.as_deref(),
            started_at: backup.started_at,
            completed_at: backup.completed_at,
            expires_at: backup.expires_at,
            created_at: backup.created_at,
        }
    }
}

/// One backup with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackupDetail)]
pub(crate) struct Whole<'a> {
    #[serde(flatten)]
    item: Item<'a>,
    /// 0 to 100, weighed by size.
    #[schema(maximum = 100)]
    progress: u8,
    /// Why it failed, or why its delete does not get on.
    failure: Option<&'a Failure>,
    /// In the order of `snapshot_ids`.
    snapshots: Vec<ShownSnapshot<'a>>,
    /// The slot of the schedule that made it.
    schedule_slot: Option<Time>,
    /// The control plane's id of the upgrade before which it was made.
    upgrade_id: Option<&'a str>,
    /// A restore needs it: until that is over it cannot be deleted, and does not expire.
    pinned: bool,
}

/// A snapshot, and the volume that it was taken of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackupSnapshot)]
struct ShownSnapshot<'a> {
    node_id: NodeId,
    /// Where the volume hung when the snapshot was taken. Null: it was not kept.
    device: Option<&'a str>,
    volume_id: &'a VolumeId,
    snapshot_id: &'a SnapshotId,
    /// The volume's provisioned size.
    #[schema(format = "uint64")]
    size_bytes: u64,
    #[schema(maximum = 100)]
    progress: u8,
}

impl<'a> Whole<'a> {
    /// `kept`: what was kept of the volumes.
    pub(crate) fn new(backup: &'a Backup, kept: &'a [Kept]) -> Self {
        let devices: BTreeMap<&SnapshotId, &str> = kept
            .iter()
            .filter_map(|kept| Some((&kept.snapshot_id, kept.volume.as_ref()?.device.as_str())))
            .collect();
        let shown = |(node_id, taken): (NodeId, &'a Taken)| ShownSnapshot {
            node_id,
            device: devices.get(&taken.snapshot_id).copied(),
            volume_id: &taken.volume_id,
            snapshot_id: &taken.snapshot_id,
            size_bytes: taken.size_gib << 30,
            progress: taken.progress,
        };
        Self {
            item: Item::from(backup),
            progress: backup.progress,
            failure: backup.failure.as_ref(),
            snapshots: backup.shown_by_node().map(shown).collect(),
            schedule_slot: backup.schedule_slot,
            upgrade_id: backup.upgrade_id.as_deref(),
            pinned: backup.pinned_by.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use backups_core::backup::Take;

    use super::*;
    use crate::published;
    use crate::tests::pending;

    fn written(backup: &Backup) -> String {
        serde_json::to_string(&Item::from(backup)).expect("JSON")
    }

    /// An example without the blanks between its tokens: the order stays.
    fn squeezed(example: &str) -> String {
        example.lines().map(|line| line.trim().replace("\": ", "\":")).collect()
    }

    fn completed(deployment_id: u64, name: &str) -> Backup {
        let mut backup = pending();
        backup.deployment_id = DeploymentId(deployment_id);
        backup.name = name.into();
        backup.status = Status::Completed;
        backup.started_at = "2025-01-15T10:30:00Z".parse().ok();
        backup.completed_at = "2025-01-15T10:45:00Z".parse().ok();
        backup.size_bytes = Some(53_687_091_200);
        let taken = Taken {
            snapshot_id: "snap-0abc123def456789a".into(),
            volume_id: "vol-0abc123def456789a".into(),
            size_gib: 50,
            progress: 100,
            asked: false,
        };
        backup.nodes[0].take = Take::Taken { attempt: 1, set: vec![taken] };
        backup
    }

    #[test]
    fn an_item_is_byte_for_byte_the_published_one() {
        let reference = completed(611_298_765_432_109_056, "pre-migration");
        assert_eq!(written(&reference), squeezed(published::REFERENCE.item));
        assert_eq!(written(&completed(42, "pre-upgrade-backup")), squeezed(published::GUIDE.item));
    }

    #[test]
    fn a_whole_one_is_the_item_and_what_more_is_known() {
        let mut backup = completed(42, "n");
        backup.progress = 100;
        backup.pinned_by = Some(backups_core::id::RestoreId(1));
        let whole = serde_json::to_string(&Whole::new(&backup, &[])).expect("JSON");
        let item = written(&backup);
        let more = concat!(
            r#","progress":100,"failure":null,"snapshots":[{"node_id":1,"device":null,"#,
            r#""volume_id":"vol-0abc123def456789a","snapshot_id":"snap-0abc123def456789a","#,
            r#""size_bytes":53687091200,"progress":100}],"schedule_slot":null,"#,
            r#""upgrade_id":null,"pinned":true}"#
        );
        assert_eq!(whole, format!("{}{more}", item.trim_end_matches('}')));
    }

    #[test]
    fn a_pending_one_has_empty_lists_and_nulls() {
        let mut backup = pending();
        backup.node_id = None;
        backup.expires_at = None;
        assert_eq!(
            written(&backup),
            concat!(
                r#"{"id":1,"deployment_id":611298765432109056,"node_id":null,"#,
                r#""name":"pre-migration","backup_type":"manual","status":"pending","#,
                r#""snapshot_ids":[],"volume_ids":[],"size_bytes":null,"region":"us-west-1","#,
                r#""remarks":null,"started_at":null,"completed_at":null,"expires_at":null,"#,
                r#""created_at":"2025-01-15T10:30:00Z"}"#
            )
        );
    }
}
