//! What the examples of bodies and replies show. Those of a list and of a create are the
//! published pages' own.

use serde_json::{Value, json};
use utoipa::openapi::example::{Example, ExampleBuilder};

use crate::published::{GUIDE, Page, REFERENCE};

/// The examples of both published pages, each under the name of its page.
pub(super) fn published(
    of: impl Fn(&Page) -> Value,
) -> impl Iterator<Item = (&'static str, Example)> {
    [REFERENCE, GUIDE]
        .map(|page| {
            let example = ExampleBuilder::new().value(Some(of(&page)));
            (page.name, example.build())
        })
        .into_iter()
}

/// An item of a page's list.
pub(super) fn item(page: &Page) -> Value {
    written(page.item)
}

/// The body of a page's create.
pub(super) fn new_backup(page: &Page) -> Value {
    written(page.create)
}

/// What a file of this repository has.
fn written(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

/// The reference's item with all that is known of it.
pub(super) fn backup_detail() -> Value {
    let mut detail = item(&REFERENCE);
    let more = json!({
        "progress": 100,
        "failure": null,
        "snapshots": [{
            "node_id": 1,
            "device": "/dev/sdf",
            "volume_id": "vol-0abc123def456789a",
            "snapshot_id": "snap-0abc123def456789a",
            "size_bytes": 53_687_091_200_u64,
            "progress": 100
        }],
        "schedule_slot": null,
        "upgrade_id": null,
        "pinned": false
    });
    if let (Some(detail), Value::Object(more)) = (detail.as_object_mut(), more) {
        detail.extend(more);
    }
    detail
}

/// A restore that is over.
pub(super) fn restore() -> Value {
    json!({
        "id": 1,
        "deployment_id": 611_298_765_432_109_056_u64,
        "backup_id": 1,
        "status": "completed",
        "phase": null,
        "progress": 100,
        "nodes": [{
            "node_id": 1,
            "instance_id": "i-0abc123def456789a",
            "was_running": true,
            "progress": 100,
            "volumes": [{
                "device": "/dev/sdf",
                "old_volume_id": "vol-0abc123def456789a",
                "new_volume_id": "vol-0fed987cba654321f",
                "snapshot_id": "snap-0abc123def456789a"
            }]
        }],
        "failure": null,
        "safety_backup_id": 2,
        "requested_at": "2025-01-16T08:00:00Z",
        "stopped_at": "2025-01-16T08:03:10Z",
        "started_at": "2025-01-16T08:05:40Z",
        "completed_at": "2025-01-16T08:05:41Z",
        "downtime_seconds": 150,
        "old_volumes_kept_until": "2025-01-17T08:05:41Z"
    })
}

/// The body of a PATCH.
pub(super) fn change() -> Value {
    json!({"remarks": "Keep until the audit is over", "expires_in_days": null})
}

/// The body of a PUT of a schedule.
pub(super) fn new_schedule() -> Value {
    json!({
        "cron": "0 3 * * *",
        "timezone": "Europe/Warsaw",
        "expires_in_days": 14
    })
}

/// A schedule that has run.
pub(super) fn schedule() -> Value {
    json!({
        "cron": "0 3 * * *",
        "timezone": "Europe/Warsaw",
        "expires_in_days": 14,
        "node_id": null,
        "enabled": true,
        "next_run_at": "2025-01-17T02:00:00Z",
        "last_run_at": "2025-01-16T02:00:00Z",
        "last_outcome": {
            "slot": "2025-01-16T02:00:00Z",
            "result": "completed",
            "code": null,
            "reason": null,
            "backup_id": 3
        }
    })
}
