//! What becomes of each thing, rule by rule, and how a run counts.

use serde_json::{Value, json};

use super::*;
use crate::backup::Backup;
use crate::id::{BackupId, DeploymentId, NodeId, RestoreId, SnapshotId, VolumeId};
use crate::limits::{GRACE, RECONCILED_DELETES};
use crate::restore::Restore;

const NOW: Time = Time::from_unix(1_800_000_000);
const TABLE: &str = "table";

fn ago(span: Seconds) -> Time {
    NOW + Seconds(-span.0)
}

/// A backup's row, at rest, which names `snap-1`; but for `change`.
fn backup(change: &Value) -> Box<Backup> {
    let mut row = json!({
        "deployment_id": 7, "id": 3, "tenant_id": "t", "region": "us-west-1",
        "backup_type": "manual", "created_at": ago(Seconds::days(9)), "token": "token",
        "name": "n", "revision": 1, "nonce": "nonce", "status": "completed",
        "nodes": [{
            "node_id": 5, "instance_id": "i-5", "take": "taken", "attempt": 1,
            "set": [{"snapshot_id": "snap-1", "volume_id": "vol-1", "size_gib": 1}],
        }],
    });
    merge(&mut row, change);
    Box::new(serde_json::from_value(row).expect("a backup"))
}

/// A restore's row, over for two days, which made `vol-1` from `snap-1`; but for `change`.
fn restore(change: &Value) -> Box<Restore> {
    let mut row = json!({
        "deployment_id": 7, "id": 2, "tenant_id": "t", "region": "us-west-1", "backup_id": 3,
        "requested_at": ago(Seconds::hours(60)), "completed_at": ago(Seconds::hours(48)),
        "token": "token", "revision": 1, "nonce": "nonce", "status": "completed",
        "nodes": [{
            "node_id": 5, "instance_id": "i-5", "swaps": true,
            "old": [{"volume_id": "vol-0", "device": "/dev/sdf", "delete_on_termination": false}],
            "aside": [{"volume_id": "vol-9", "device": "/dev/sdf", "delete_on_termination": false}],
            "new": [{
                "device": "/dev/sdf", "snapshot_id": "snap-1", "delete_on_termination": false,
                "encrypted": false, "attempt": 2, "with_rate": false, "volume_id": "vol-1",
            }],
        }],
        "leftovers": [{"volume_id": "vol-8", "fate": "kept"}],
    });
    merge(&mut row, change);
    Box::new(serde_json::from_value(row).expect("a restore"))
}

fn merge(row: &mut Value, change: &Value) {
    for (name, value) in change.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
}

fn snapshot(id: &str) -> SeenSnapshot {
    SeenSnapshot {
        id: SnapshotId::from(id),
        started_at: Some(ago(Seconds::days(9))),
        size_gib: 1,
        description: "LaserData backup 3 of deployment 7, node 5, token".into(),
        tags: Tags {
            table: Some(TABLE.into()),
            deployment: Some(DeploymentId(7)),
            backup: Some(BackupId(3)),
            node: Some(NodeId(5)),
            ..Tags::default()
        },
    }
}

fn volume(id: &str) -> SeenVolume {
    SeenVolume {
        id: VolumeId::from(id),
        created_at: Some(ago(Seconds::hours(59))),
        size_gib: 1,
        state: "available".into(),
        attached: false,
        snapshot_id: Some(SnapshotId::from("snap-1")),
        tags: Tags {
            table: Some(TABLE.into()),
            deployment: Some(DeploymentId(7)),
            restore: Some(RestoreId(2)),
            token: Some("token".into()),
            ..Tags::default()
        },
    }
}

fn of_row(seen: &SeenSnapshot, change: &Value) -> Verdict {
    judge_snapshot(seen, TABLE, &Vouching::Row(backup(change)), NOW)
}

fn of_restore(seen: &SeenVolume, change: &Value) -> Verdict {
    judge_volume(seen, TABLE, &Some(restore(change)), NOW)
}

const NONE: &Value = &Value::Null;

#[test]
fn a_snapshot_that_its_row_names_is_needed_whatever_else_is_said_of_it() {
    assert_eq!(of_row(&snapshot("snap-1"), NONE), Verdict::Named);
    for status in ["pending", "in_progress", "completed", "failed", "deleting"] {
        assert_eq!(of_row(&snapshot("snap-1"), &json!({"status": status})), Verdict::Named);
    }
    let mut renamed = snapshot("snap-1");
    renamed.tags.table = Some("another".into());
    renamed.description = "something else".into();
    assert_eq!(of_row(&renamed, NONE), Verdict::Named);
}

#[test]
fn a_snapshot_that_its_row_does_not_name_goes_after_a_day() {
    let mut stray = snapshot("snap-2");
    assert_eq!(of_row(&stray, NONE), Verdict::Delete);
    stray.started_at = Some(ago(GRACE));
    assert_eq!(of_row(&stray, NONE), Verdict::Delete);
    stray.started_at = Some(ago(Seconds(GRACE.0 - 1)));
    assert_eq!(of_row(&stray, NONE), Verdict::Young);
    stray.started_at = None;
    assert_eq!(of_row(&stray, NONE), Verdict::Young);
}

#[test]
fn a_snapshot_whose_backup_is_not_at_rest_is_left_to_it() {
    let stray = snapshot("snap-2");
    let called = json!([{
        "node_id": 5, "instance_id": "i-5", "take": "called", "attempt": 1, "at": NOW,
        "volumes": ["vol-1"],
    }]);
    for change in [
        json!({"status": "pending", "nodes": called}),
        json!({"status": "pending"}),
        json!({"status": "in_progress"}),
        json!({"status": "deleting"}),
        json!({"status": "deleting", "gone": true}),
        json!({"status": "failed"}),
        json!({"status": "completed", "sweep_until": NOW}),
        json!({"status": "completed", "nodes": called}),
    ] {
        assert_eq!(of_row(&stray, &change), Verdict::UnderWay, "{change}");
    }
    // What failed has removed its own: what shows up a day later does not belong to it.
    let at_rest = json!({"status": "failed", "nodes": []});
    assert_eq!(of_row(&stray, &at_rest), Verdict::Delete);
    let lost = json!({"status": "failed", "missing": {"snapshot_id": "snap-1", "at": NOW}});
    assert_eq!(of_row(&stray, &lost), Verdict::Delete);
    assert_eq!(of_row(&snapshot("snap-1"), &lost), Verdict::Named);
}

#[test]
fn a_missing_row_is_no_licence_to_delete() {
    let judge = |vouching| judge_snapshot(&snapshot("snap-1"), TABLE, &vouching, NOW);
    assert_eq!(judge(Vouching::Nothing), Verdict::Orphan(Because::NoRow));
    assert_eq!(judge_volume(&volume("vol-1"), TABLE, &None, NOW), Verdict::Orphan(Because::NoRow));
}

#[test]
fn a_tombstone_is_evidence_with_its_own_word_alone() {
    let judge = |token: &str| {
        judge_snapshot(&snapshot("snap-1"), TABLE, &Vouching::Tombstone(token.into()), NOW)
    };
    assert_eq!(judge("token"), Verdict::Delete);
    assert_eq!(judge("another"), Verdict::Orphan(Because::NotItsOwn));
    let mut young = snapshot("snap-1");
    young.started_at = Some(NOW);
    let verdict = judge_snapshot(&young, TABLE, &Vouching::Tombstone("token".into()), NOW);
    assert_eq!(verdict, Verdict::Young);
}

#[test]
fn another_life_of_the_table_is_told_and_never_deleted() {
    let mut seen = snapshot("snap-2");
    for table in [Some("lost".to_owned()), None] {
        seen.tags.table.clone_from(&table);
        assert_eq!(of_row(&seen, NONE), Verdict::Orphan(Because::OtherTable));
        let tombstone = Vouching::Tombstone("token".into());
        let verdict = judge_snapshot(&seen, TABLE, &tombstone, NOW);
        assert_eq!(verdict, Verdict::Orphan(Because::OtherTable));
        let mut seen = volume("vol-2");
        seen.tags.table = table;
        assert_eq!(of_restore(&seen, NONE), Verdict::Orphan(Because::OtherTable));
    }
}

#[test]
fn a_copy_by_somebodys_tool_is_told_and_never_deleted() {
    let mut seen = snapshot("snap-2");
    for description in [
        "",
        "Created by CreateImage(i-5)",
        "[Copied snap-1 from us-west-1] LaserData backup 3 of deployment 7, node 5, token",
        // A backup of the same number, of a row that was lost.
        "LaserData backup 3 of deployment 7, node 5, lost",
        "LaserData backup 3 of deployment 7, node 6, token",
    ] {
        seen.description = description.into();
        assert_eq!(of_row(&seen, NONE), Verdict::Orphan(Because::NotItsOwn), "{description}");
    }
    let mut untagged = snapshot("snap-2");
    untagged.tags.backup = None;
    assert_eq!(of_row(&untagged, NONE), Verdict::Orphan(Because::Unreadable));
}

#[test]
fn a_volume_that_its_restores_row_names_is_left_to_it() {
    for id in ["vol-0", "vol-1", "vol-8", "vol-9"] {
        assert_eq!(of_restore(&volume(id), NONE), Verdict::Named, "{id}");
        assert_eq!(of_restore(&volume(id), &json!({"was_stuck": true})), Verdict::Named, "{id}");
    }
}

#[test]
fn a_volume_goes_only_if_its_restore_made_it_is_over_and_does_not_name_it() {
    let stray = volume("vol-2");
    assert_eq!(of_restore(&stray, NONE), Verdict::Delete);
    for change in [
        json!({"status": "in_progress", "completed_at": null}),
        json!({"status": "stuck", "completed_at": null}),
        json!({"sweep_until": NOW}),
        json!({"completed_at": ago(Seconds::hours(23))}),
    ] {
        assert_eq!(of_restore(&stray, &change), Verdict::UnderWay, "{change}");
    }
    let held = of_restore(&stray, &json!({"was_stuck": true}));
    assert_eq!(held, Verdict::Orphan(Because::WasStuck));
    let not_its_own = Verdict::Orphan(Because::NotItsOwn);
    // A clone, tags and all: of another snapshot, of none, of a later day, of an earlier one.
    let changes: [fn(&mut SeenVolume); 5] = [
        |one| one.tags.token = Some("another".into()),
        |one| one.snapshot_id = Some("snap-7".into()),
        |one| one.snapshot_id = None,
        |one| one.created_at = Some(ago(Seconds::hours(47))),
        |one| one.created_at = Some(ago(Seconds::hours(61))),
    ];
    for change in changes {
        let mut seen = stray.clone();
        change(&mut seen);
        assert_eq!(of_restore(&seen, NONE), not_its_own, "{seen:?}");
    }
    let mut going = stray;
    going.state = "deleting".into();
    assert_eq!(of_restore(&going, NONE), Verdict::UnderWay);
}

#[test]
fn a_volume_that_is_attached_is_never_deleted() {
    let attached = SeenVolume { attached: true, ..volume("vol-2") };
    let in_use = SeenVolume { state: "in-use".into(), ..volume("vol-2") };
    for seen in [attached, in_use] {
        assert_eq!(of_restore(&seen, NONE), Verdict::Orphan(Because::Attached));
    }
    assert!(removable(Verdict::Orphan(Because::NoRow), true).is_err());
    assert!(removable(Verdict::Delete, true).is_err());
}

#[test]
fn an_order_removes_orphans_and_nothing_that_a_row_needs() {
    for verdict in [Verdict::Young, Verdict::Named, Verdict::UnderWay] {
        assert!(removable(verdict, false).is_err(), "{verdict:?}");
    }
    assert_eq!(removable(Verdict::Orphan(Because::NoRow), false), Ok(()));
    assert_eq!(removable(Verdict::Delete, false), Ok(()));
}

// ------------------------------------------------------------------- the run

fn begun() -> Reconciliation {
    let row = Reconciliation { next_at: NOW, ..Reconciliation::new("token".into(), NOW) };
    row.begun(NOW).expect("a run")
}

fn orphans(ids: &[&str]) -> Judged {
    Judged {
        seen: ids.len() as u64,
        orphans: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Judged::default()
    }
}

fn token(page: &str) -> Place {
    Place::Token(page.to_owned())
}

#[test]
fn a_run_begins_once_a_day_and_one_under_way_goes_on() {
    let idle = Reconciliation::new("0123456789abcdef".into(), NOW);
    assert!(idle.next_at >= NOW && idle.next_at < NOW + RECONCILE_EVERY);
    let other = Reconciliation::new("fedcba9876543210".into(), NOW);
    assert_ne!(idle.next_at, other.next_at, "not all at one hour");
    assert_eq!(idle.begun(idle.next_at + Seconds(-1)), None);
    assert!(!idle.is_late(idle.next_at + LATE) && idle.is_late(idle.next_at + LATE + Seconds(1)));
    let row = idle.begun(idle.next_at).expect("a run");
    assert_eq!(row.next_at, idle.next_at + RECONCILE_EVERY);
    assert!(
        !row.is_late(idle.next_at + LATE + Seconds(1))
            && row.is_late(row.next_at + RECONCILE_EVERY)
    );
    // However late it goes on, it is the same run.
    assert_eq!(row.begun(row.next_at + Seconds::days(3)), Some(row));
}

#[test]
fn a_run_goes_through_its_phases_and_tells_once_what_it_found() {
    let mut row = begun();
    let place = |row: &Reconciliation| row.run.as_ref().map(|run| (run.phase, run.place.clone()));
    row.page_done(&orphans(&["snap-1"]), Some(token("a")), NOW);
    assert_eq!(place(&row), Some((Phase::Snapshots, Some(token("a")))));
    row.page_done(&orphans(&["snap-2"]), None, NOW);
    assert_eq!(place(&row), Some((Phase::Volumes, None)));
    row.page_done(&orphans(&["vol-1"]), None, NOW);
    assert_eq!(place(&row), Some((Phase::Backups, None)));
    assert_eq!(row.outbox, [], "not before its end");
    let missing = Judged { seen: 5, missing: 1, ..Judged::default() };
    row.page_done(&missing, None, NOW);
    assert_eq!(place(&row), None);
    let told = Orphans { snapshots: 2, volumes: 1, deleted: 0, withheld: 0 };
    assert_eq!(row.outbox.iter().map(|one| one.orphans).collect::<Vec<_>>(), [told]);
    let report = row.last.as_ref().expect("a report");
    assert_eq!((report.orphans, report.missing), (told, 1));
    assert_eq!(report.ids, ["snap-1", "snap-2", "vol-1"]);
    // The next day's has an id of its own.
    let mut next = row.begun(row.next_at).expect("a run");
    for judged in [orphans(&["snap-1"]), orphans(&[]), orphans(&[])] {
        next.page_done(&judged, None, NOW);
    }
    assert_eq!(next.outbox.len(), 2);
    assert_ne!(next.outbox[0].announcement_id, next.outbox[1].announcement_id);
}

#[test]
fn a_run_that_finds_nothing_says_nothing() {
    let mut row = begun();
    for _ in 0..3 {
        row.page_done(&Judged { seen: 9, ..Judged::default() }, None, NOW);
    }
    assert_eq!((row.outbox.len(), row.run), (0, None));
    assert!(row.last.is_some());
}

#[test]
fn the_cap_counts_what_was_about_to_be_asked_for_over_all_phases() {
    let mut row = begun();
    let run = row.run.as_mut().expect("a run");
    run.reserve(60);
    assert_eq!(run.allowance(), RECONCILED_DELETES - 60);
    run.settle(0, 2);
    row.page_done(&Judged::default(), None, NOW);
    row.run.as_mut().expect("a run").reserve(40);
    row.page_lost();
    assert_eq!(row.run.as_ref().expect("a run").allowance(), 0, "also when a phase begins anew");
    row.page_done(&Judged { withheld: 3, ..Judged::default() }, None, NOW);
    row.page_done(&Judged::default(), None, NOW);
    let told = Orphans { snapshots: 0, volumes: 0, deleted: 98, withheld: 3 };
    assert_eq!(row.outbox[0].orphans, told, "that it is over the cap is told");
}

#[test]
fn deletes_that_were_not_begun_do_not_count() {
    let mut row = begun();
    let run = row.run.as_mut().expect("a run");
    run.reserve(50);
    run.settle(20, 1);
    assert_eq!(run.allowance(), RECONCILED_DELETES - 30);
    for _ in 0..3 {
        row.page_done(&Judged::default(), None, NOW);
    }
    assert_eq!(row.last.expect("a report").orphans.deleted, 29);
}

#[test]
fn an_id_is_that_of_a_snapshot_or_of_a_volume() {
    for id in ["snap-0123456789abcdef0", "vol-0", "snap-1"] {
        assert_eq!(Thing::parse(id).map(|thing| thing.to_string()).as_deref(), Some(id));
    }
    let long = format!("vol-{}", "0".repeat(33));
    for bad in ["", "snap-", "i-0123", "vol-*", "vol-0,vol-1", "snap", "vol-g", "Vol-1", &long] {
        assert_eq!(Thing::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_phase_whose_page_is_lost_counts_anew() {
    let mut row = begun();
    row.page_done(&orphans(&["snap-1"]), None, NOW);
    row.page_done(&orphans(&["vol-1"]), Some(token("a")), NOW);
    row.page_lost();
    for judged in [orphans(&["vol-1"]), orphans(&[])] {
        row.page_done(&judged, None, NOW);
    }
    let report = row.last.expect("a report");
    assert_eq!((report.orphans.snapshots, report.orphans.volumes), (1, 1));
    assert_eq!(report.ids, ["snap-1", "vol-1"]);
}

#[test]
fn every_attribute_of_the_row_is_written_but_its_token() {
    let mut row = begun();
    row.lease = Some(Lease { owner: "o".into(), until: NOW });
    row.trouble = Some("t".into());
    row.last = Some(Report {
        started_at: NOW,
        finished_at: NOW,
        orphans: Orphans::default(),
        missing: 0,
        ids: Vec::new(),
    });
    let value = serde_json::to_value(&row).expect("json");
    let mut names: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
    names.retain(|name| !Reconciliation::OWNED.contains(&name.as_str()));
    assert_eq!(names, ["token"]);
    assert_eq!(serde_json::from_value::<Reconciliation>(value).expect("a row"), row);
}
