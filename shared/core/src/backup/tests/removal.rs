//! What must go from EC2, and when it counts as gone.

use super::*;

#[test]
fn a_set_that_ec2_does_not_list_yet_is_not_taken_for_removed() {
    // The other node's call was throttled for a quarter of an hour, then refused.
    let throttled =
        || Outcome::Failed(CallError::Throttled { code: "RequestLimitExceeded".into() });
    let (mut row, actions) = acted(go(&backup(&[3, 7]), &instances(&[3, 7], 1), NOW));
    answer(&mut row, actions, |_| throttled(), NOW);
    let (mut row, actions) = acted(go(&row, &instances(&[3, 7], 1), after(800)));
    let outcome = |node| match node {
        3 => Outcome::Created(vec![taken(3, 0)]),
        _ => rejected("SnapshotLimitExceeded"),
    };
    answer(&mut row, actions, outcome, after(800));
    assert_eq!(failed(&row), FailureCode::Quota);
    let unlisted = absent(&row, &Presence::Unlisted);
    let (mut row, actions) = acted(go(&row, &unlisted, after(801)));
    // EC2 does not know it yet, and says NotFound to the delete too.
    answer(&mut row, actions, |_| Outcome::Deleted, after(801));
    assert!(look(&row, after(820)).confirm_missing, "each by its own id");
    let unknown = absent(&row, &Presence::NotFound);
    assert!(matches!(go(&row, &unknown, after(820)), Step::Wait { .. }), "a leak");
    assert!(matches!(go(&row, &unlisted, after(800 + VISIBLE.0)), Step::Wait { .. }), "a leak");
    assert!(matches!(go(&row, &unknown, after(800 + VISIBLE.0)), Step::Record(_)));
}

#[test]
fn a_failure_with_an_unknown_call_is_swept_until_nothing_can_show_any_more() {
    let (mut row, actions) = acted(go(&backup(&[3, 7]), &instances(&[3, 7], 1), NOW));
    let outcome = |node| match node {
        3 => Outcome::Failed(CallError::Unknown("lost".into())),
        _ => rejected("SnapshotLimitExceeded"),
    };
    answer(&mut row, actions, outcome, NOW);
    assert_eq!(failed(&row), FailureCode::Quota);
    assert!(look(&row, after(1)).tagged);
    let late = Seen { tagged: vec![snapshot(3, 0, 1, "pending", 0)], ..Seen::default() };
    let (_, actions) = acted(go(&row, &late, after(30)));
    assert_eq!(actions, [Action::DeleteSnapshot(SnapshotId::from("snap-30"))]);
    assert!(matches!(go(&row, &Seen::default(), after(30)), Step::Wait { .. }));
    assert!(!recorded(go(&row, &Seen::default(), NOW + SWEEP)).removal_open());
}

#[test]
fn a_running_backup_is_not_deletable_and_a_deleting_one_is_so_already() {
    assert_eq!(start_delete(&backup(&[3])).map_err(|r| r.code), Err(Code::BackupNotDeletable));
    assert_eq!(start_delete(&in_progress(&[3])).map_err(|r| r.code), Err(Code::BackupNotDeletable));
    let Ok(Deletion::Begin(row)) = start_delete(&completed()) else { panic!("not begun") };
    assert_eq!(start_delete(&row), Ok(Deletion::UnderWay));
}

#[test]
fn a_deleted_backups_row_goes_only_when_each_snapshot_is_gone_and_the_bus_knows() {
    let row = deleting();
    let seen = there(&row, "completed", 100);
    let (mut row, actions) = acted(go(&row, &seen, after(400)));
    assert_eq!(actions.len(), 2);
    answer(&mut row, actions, |_| Outcome::Deleted, after(400));
    let at = row.not_before.expect("a pause");
    assert_eq!(at, after(410), "EC2 lists what goes for some seconds more");
    let (_, again) = acted(go(&row, &seen, at));
    assert_eq!(again.len(), 2, "accepted is not gone");
    assert!(!look(&row, at).confirm_missing, "its delete was taken");
    let mut row = recorded(go(&row, &absent(&row, &Presence::Unlisted), at));
    assert!(row.gone && row.status == Status::Deleting);
    assert_eq!(row.outbox.last().map(|one| one.kind), Some(Kind::BackupDeleted));
    assert!(matches!(go(&row, &Seen::default(), after(500)), Step::Wait { .. }));
    row.outbox.clear();
    assert_eq!(go(&row, &Seen::default(), after(500)), Step::Remove);
}

#[test]
fn no_empty_list_stands_for_a_delete() {
    let row = deleting();
    let empty = absent(&row, &Presence::Unlisted);
    let (mut row, actions) = acted(go(&row, &empty, after(400)));
    assert_eq!(actions.len(), 2, "each is asked for");
    // One was not asked for, in the end: once more.
    let mut asked = 0;
    let outcomes: Vec<_> = actions
        .into_iter()
        .map(|action| {
            asked += 1;
            (action, if asked == 1 { Outcome::Deleted } else { Outcome::NotBegun })
        })
        .collect();
    apply(&mut row, &outcomes, after(400));
    let at = row.not_before.expect("a pause");
    let (mut row, actions) = acted(go(&row, &empty, at));
    // With hundreds of them, and a bucket that refuses half of each round, what is gone
    // would take the tokens of what is not: no round would ever be whole.
    assert_eq!(actions.len(), 1, "what AWS has taken is not asked for again");
    answer(&mut row, actions, |_| Outcome::Deleted, at);
    let at = row.not_before.expect("a pause");
    assert!(recorded(go(&row, &empty, at)).gone);
}

#[test]
fn a_snapshot_that_is_deleted_while_pending_is_not_asked_again_until_it_ends() {
    let row = in_progress(&[3]);
    let mut row = row;
    row.fail(FailureCode::DeadlineExceeded, "r".into(), after(100));
    let (mut row, actions) = acted(go(&row, &there(&row, "pending", 10), after(101)));
    answer(&mut row, actions, |_| Outcome::Deleted, after(101));
    // It may copy for days: nobody asks EC2 for it each minute.
    let (mut pauses, mut at) = (Vec::new(), after(200));
    for _ in 0..8 {
        let (until, note) = noted(go(&row, &there(&row, "pending", 50), at));
        pauses.push(until - at);
        (row, at) = (note, until);
    }
    assert!(pauses.is_sorted() && pauses[0] <= Seconds(10), "{pauses:?}");
    assert_eq!(pauses.last(), Some(&Seconds(300)));
    let (_, again) = acted(go(&row, &there(&row, "completed", 100), after(300)));
    assert_eq!(again.len(), 2, "the first delete was lost");
}

#[test]
fn a_stray_that_cannot_be_deleted_holds_up_neither_pending_nor_progress() {
    let mut row = in_progress(&[3]);
    row.sweep_until = Some(after(600));
    let mut late = snapshot(3, 0, 7, "completed", 100);
    late.snapshot_id = SnapshotId::from("snap-late");
    let mut seen = there(&row, "pending", 10);
    seen.tagged = vec![late];
    let (mut row, actions) = acted(go(&row, &seen, after(60)));
    answer(&mut row, actions, |_| rejected("OperationNotPermitted"), after(60));
    assert!(!look(&row, after(61)).is_empty(), "looked at all the same");
    let mut done = there(&row, "completed", 100);
    done.tagged = seen.tagged;
    assert_eq!(recorded(go(&row, &done, after(61))).status, Status::Completed);
}

#[test]
fn a_missing_right_to_look_keeps_a_delete_and_says_so() {
    let denied = CallError::Rejected { code: "UnauthorizedOperation".into(), message: "m".into() };
    let (until, row) = noted(step(&deleting(), Err(&denied), &Limits::default(), after(400)));
    assert_eq!(until, after(460));
    assert_eq!(row.failure.map(|failure| failure.code), Some(FailureCode::PermissionDenied));
}

#[test]
fn a_held_delete_says_why_and_backs_off_up_to_hourly() {
    let mut row = deleting();
    let mut at = after(400);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let (intent, actions) = acted(go(&row, &there(&row, "completed", 100), at));
        row = intent;
        answer(&mut row, actions, |_| rejected("InvalidSnapshot.InUse"), at);
        let next = row.not_before.expect("a pause");
        pauses.push((next - at).0);
        at = next;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
    let failure = row.failure.clone().expect("a reason");
    assert_eq!(failure.code, FailureCode::SnapshotInUse);
    let rest = recorded(go(&row, &absent(&row, &Presence::NotFound), at));
    assert_eq!((rest.failure, rest.held), (None, None));
}

#[test]
fn a_reply_that_meets_a_users_delete_is_merged_and_what_it_made_is_swept() {
    let (intent, actions) = acted(go(&backup(&[3]), &instances(&[3], 2), NOW));
    let mut other = intent.clone();
    other.fail(FailureCode::DeadlineExceeded, "r".into(), after(10));
    answer(&mut other, actions, created, after(20));
    assert_eq!(other.status, Status::Failed);
    assert_eq!(other.sweep_until, Some(after(20) + SWEEP));
}

#[test]
fn an_expiry_takes_the_path_of_a_delete_and_says_so() {
    let row = start_expiry(&completed(), after(999)).expect("expires");
    assert_eq!(row.status, Status::Deleting);
    assert_eq!(row.outbox.last().map(|one| one.kind), Some(Kind::BackupExpired));
    assert_eq!(start_expiry(&in_progress(&[3]), after(999)), None);
}

/// Found by seed 27: a right to look that was missing for a while was still told when all
/// that the delete waited for was the end of a snapshot.
#[test]
fn a_delete_that_only_waits_is_not_called_held_any_more() {
    let mut row = in_progress(&[3]);
    row.status = Status::Deleting;
    for node in &mut row.nodes {
        if let Take::Taken { set, .. } = &mut node.take {
            for taken in set {
                taken.asked = true;
            }
        }
    }
    let denied = CallError::Rejected { code: "UnauthorizedOperation".into(), message: "m".into() };
    let (_, row) = noted(step(&row, Err(&denied), &Limits::default(), NOW));
    assert!(row.held.is_some() && row.failure.is_some());
    let (_, row) = noted(go(&row, &there(&row, "pending", 50), after(3600)));
    assert_eq!((&row.held, &row.failure), (&None, &None));
}
