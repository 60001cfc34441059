//! The row itself: its edges, its owners, its size, and what is looked at.

use super::*;

#[test]
fn a_look_and_its_step_are_of_one_time() {
    // Between the two times the pause ends: what the look left out is not gone.
    let (mut row, actions) = acted(go(&deleting(), &there(&completed(), "completed", 100), NOW));
    answer(&mut row, actions, |_| Outcome::Deleted, NOW);
    assert!(look(&row, NOW).is_empty());
    assert!(matches!(go(&row, &Seen::default(), NOW), Step::Wait { .. }));
}

#[test]
fn the_row_of_the_largest_backup_is_far_below_what_dynamodb_takes() {
    // Ids as long as AWS's, 4 nodes of 125 volumes.
    let mut row = in_progress(&[1, 2, 3, 4]);
    for node in &mut row.nodes {
        let Take::Taken { set, .. } = &mut node.take else { continue };
        *set = (0..125)
            .map(|n| Taken {
                snapshot_id: SnapshotId(format!("snap-{n:017x}")),
                volume_id: VolumeId(format!("vol-{n:017x}")),
                size_gib: 16_384,
                progress: 100,
                asked: true,
            })
            .collect();
    }
    assert_eq!(row.snapshots().count(), crate::limits::MAX_VOLUMES);
    let bytes = serde_json::to_vec(&row).expect("json").len();
    assert!(bytes < 100_000, "{bytes} of 400,000 bytes");
}

#[test]
fn nothing_is_looked_at_when_nothing_can_be_decided() {
    assert!(look(&completed(), NOW).is_empty());
    let row = in_progress(&[3]);
    assert_eq!(look(&row, after(LOOKS.least.0)).snapshots.len(), 2);
}

#[test]
fn every_status_change_of_the_rules_is_an_edge() {
    let legal: Vec<_> = Status::ALL
        .iter()
        .flat_map(|from| Status::ALL.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    assert_eq!(legal.len(), 7);
    assert!(Status::Completed.may_become(Status::Failed), "by reconciliation");
    assert!(!Status::Deleting.may_become(Status::Completed));
}

#[test]
fn every_attribute_of_a_row_has_one_owner() {
    // Every optional attribute is there, or it would not be seen.
    let row = Backup {
        node_id: Some(NodeId(3)),
        remarks: Some("r".into()),
        expires_at: Some(NOW),
        lease: Some(Lease { owner: Nonce::from("o"), until: NOW }),
        failure: Some(Failure { code: FailureCode::Quota, reason: "r".into() }),
        throttled_since: Some(NOW),
        trouble: Some("t".into()),
        not_before: Some(NOW),
        sweep_until: Some(NOW),
        held: Some(Held {
            failure: Failure { code: FailureCode::Quota, reason: "r".into() },
            times: 1,
        }),
        strays_not_before: Some(NOW),
        missing: Some(Missing { snapshot_id: SnapshotId::from("s"), at: NOW }),
        ..deleting()
    };
    let value = serde_json::to_value(row).expect("json");
    assert_eq!(value.as_object().expect("an object").len(), Backup::OWNED.len() + 11);
    let theirs = [
        "deployment_id",
        "id",
        "tenant_id",
        "region",
        "node_id",
        "backup_type",
        "created_at",
        "token",
        "name",
        "remarks",
        "expires_at",
    ];
    for name in value.as_object().expect("an object").keys() {
        let owners = usize::from(Backup::OWNED.contains(&name.as_str()))
            + usize::from(theirs.contains(&name.as_str()));
        assert_eq!(owners, 1, "{name}");
    }
}
