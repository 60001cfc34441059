//! Until every node has its set: calls, adoption, throttling, refusals.

use super::*;

#[test]
fn every_node_is_snapshotted_at_once_and_the_attempt_is_stored_before() {
    let (intent, actions) = acted(go(&backup(&[3, 7]), &instances(&[3, 7], 2), NOW));
    assert_eq!(actions.len(), 2);
    for node in &intent.nodes {
        assert!(matches!(node.take, Take::Called { attempt: 1, at: NOW, .. }));
    }
    assert!(matches!(&actions[0], Action::CreateSnapshots { description, volumes, .. }
        if description.ends_with("token") && volumes.len() == 2));
}

#[test]
fn when_the_last_set_is_there_the_backup_is_in_progress() {
    let row = in_progress(&[3, 7]);
    assert_eq!(row.started_at, Some(NOW));
    assert_eq!(row.size_bytes, Some((4 * 50) << 30));
    let ids: Vec<_> = row.shown_snapshots().map(|taken| taken.snapshot_id.as_str()).collect();
    assert_eq!(ids, ["snap-30", "snap-31", "snap-70", "snap-71"], "ordered by node, then device");
    assert_eq!(row.owners, [SnapshotId::from("snap-30"), SnapshotId::from("snap-70")]);
    assert_eq!(row.outbox.last().map(|one| one.kind), Some(Kind::BackupStarted));
    // By the clock of a worker that is behind the API's.
    let mut early = in_progress(&[3]);
    early.created_at = after(5);
    (early.status, early.started_at) = (Status::Pending, None);
    assert!(super::super::pending::start_if_taken(&mut early, NOW));
    assert_eq!(early.started_at, Some(after(5)));
}

#[test]
fn a_pending_backup_shows_no_snapshots_even_when_some_nodes_have_theirs() {
    let (mut row, actions) = acted(go(&backup(&[3, 7]), &instances(&[3, 7], 2), NOW));
    let throttled =
        || Outcome::Failed(CallError::Throttled { code: "RequestLimitExceeded".into() });
    answer(&mut row, actions, |node| if node == 3 { created(3) } else { throttled() }, NOW);
    assert_eq!(row.status, Status::Pending);
    assert_eq!(row.shown_snapshots().count(), 0);
    assert_eq!(look(&row, after(60)).instances, [InstanceId::from("i-7")], "only what is open");
}

#[test]
fn an_unknown_outcome_is_adopted_by_tag_when_the_whole_set_shows() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 2), NOW));
    answer(&mut row, actions, |_| Outcome::Failed(CallError::Unknown("lost".into())), after(15));
    assert_eq!(row.status, Status::Pending);
    assert!(look(&row, after(16)).tagged);
    let half = Seen { tagged: vec![snapshot(3, 0, 1, "pending", 0)], ..Seen::default() };
    assert!(matches!(go(&row, &half, after(20)), Step::Wait { .. }), "half a set is not adopted");
    let whole = vec![snapshot(3, 0, 1, "pending", 0), snapshot(3, 1, 1, "pending", 0)];
    let adopted = recorded(go(&row, &Seen { tagged: whole, ..Seen::default() }, after(20)));
    assert_eq!(adopted.status, Status::InProgress);
    assert!(adopted.sweep_until.is_some(), "looked at once more later");
}

#[test]
fn a_foreign_snapshot_with_our_tags_is_neither_adopted_nor_removed() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| Outcome::Failed(CallError::Unknown("lost".into())), after(15));
    let mut copied = snapshot(3, 0, 1, "completed", 100);
    copied.description = "Copied for DestinationAmi".into();
    let seen = Seen { tagged: vec![copied.clone()], ..Seen::default() };
    assert!(matches!(go(&row, &seen, after(20)), Step::Wait { .. }));
    row.fail(FailureCode::DeadlineExceeded, "r".into(), after(30));
    let later = after(15) + SWEEP;
    assert!(matches!(go(&row, &seen, later), Step::Record(_)), "nothing of ours to remove");
}

#[test]
fn an_unknown_outcome_that_left_nothing_is_tried_again_under_a_new_number() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| Outcome::Failed(CallError::Unknown("lost".into())), after(15));
    let until = match go(&row, &Seen::default(), after(20)) {
        Step::Wait { until, .. } => until,
        other => panic!("{other:?}"),
    };
    assert_eq!(until, after(15) + SETTLE, "not before the call's set would surely show");
    let row = recorded(go(&row, &Seen::default(), until));
    assert!(matches!(row.nodes[0].take, Take::Open { attempt: 1, .. }));
    let (intent, _) = acted(go(&row, &instances(&[3], 1), until));
    assert!(matches!(intent.nodes[0].take, Take::Called { attempt: 2, .. }));
}

#[test]
fn a_late_duplicate_of_an_earlier_attempt_is_removed_and_never_adopted() {
    let mut row = in_progress(&[3]);
    row.sweep_until = Some(after(600));
    let mut late = snapshot(3, 0, 7, "pending", 0);
    late.snapshot_id = SnapshotId::from("snap-late");
    let mut seen = there(&row, "pending", 10);
    seen.tagged = vec![late.clone(), snapshot(3, 0, 1, "pending", 10)];
    let (_, actions) = acted(go(&row, &seen, after(60)));
    assert_eq!(actions, [Action::DeleteSnapshot(SnapshotId::from("snap-late"))]);
}

#[test]
fn throttled_time_does_not_count_towards_the_pending_deadline_but_the_total_does() {
    let limits = Limits::default();
    let throttled = CallError::Throttled { code: "RequestLimitExceeded".into() };
    let mut row = backup(&[3]);
    row.throttled_since = Some(after(60));
    let at = after(limits.pending.0 + 30);
    assert!(matches!(step(&row, Err(&throttled), &limits, at), Step::Wait { .. }));
    let at = NOW + limits.pending_total;
    assert_eq!(
        failed(&recorded(step(&row, Err(&throttled), &limits, at))),
        FailureCode::DeadlineExceeded
    );
    row.throttled_since = None;
    let lost = CallError::Unknown("lost".into());
    let at = NOW + limits.pending;
    let row = recorded(step(&row, Err(&lost), &limits, at));
    assert_eq!(failed(&row), FailureCode::DeadlineExceeded);
    assert!(row.failure.is_some_and(|failure| failure.reason.contains("lost")), "names the cause");
}

#[test]
fn a_throttled_call_is_tried_again_later_and_its_time_is_written_down() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    let code = "SnapshotCreationPerVolumeRateExceeded";
    let throttled = Outcome::Failed(CallError::Throttled { code: code.into() });
    answer(&mut row, actions, |_| throttled.clone(), NOW);
    assert_eq!(row.nodes[0].take, Take::Open { attempt: 1, not_before: Some(after(15)) });
    assert_eq!(row.nodes[0].failed_calls, 0);
    let (mut row, actions) = acted(go(&row, &instances(&[3], 1), after(15)));
    answer(&mut row, actions, |node| Outcome::Created(vec![taken(node, 0)]), after(15));
    assert_eq!((row.status, row.throttled), (Status::InProgress, Seconds(15)));
}

#[test]
fn a_backup_that_aws_throttles_all_the_time_has_the_whole_time() {
    let limits = Limits::default();
    let throttled = Outcome::Failed(CallError::Throttled { code: "RequestLimitExceeded".into() });
    let (mut row, mut at) = (backup(&[3]), NOW);
    while row.status == Status::Pending {
        // As the worker does: it asks at once what comes next, and waits for that.
        match go(&row, &instances(&[3], 1), at) {
            Step::Act { intent, actions } => {
                row = intent;
                answer(&mut row, actions, |_| throttled.clone(), at);
            }
            Step::Wait { until, note } => {
                row = note.unwrap_or(row);
                at = until;
            }
            Step::Record(next) => row = next,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed(&row), FailureCode::DeadlineExceeded);
    assert!(at - NOW >= limits.pending_total, "failed after {} s", (at - NOW).0);
}

#[test]
fn what_never_reached_aws_is_tried_again_and_not_for_ever() {
    let mut row = backup(&[3]);
    let mut at = NOW;
    for _ in 0..MAX_ATTEMPTS {
        let (intent, actions) = acted(go(&row, &instances(&[3], 1), at));
        row = intent;
        let refused = Outcome::Failed(CallError::NotApplied("connection refused".into()));
        answer(&mut row, actions, |_| refused.clone(), at);
        at = match row.nodes[0].take {
            Take::Open { not_before: Some(next), .. } => next,
            _ => panic!("{row:?}"),
        };
    }
    assert_eq!(failed(&recorded(go(&row, &instances(&[3], 1), at))), FailureCode::SnapshotFailed);
}

#[test]
fn a_refused_call_fails_the_backup_with_its_cause_and_the_other_nodes_set_is_removed() {
    for (code, kind) in [
        ("UnauthorizedOperation", FailureCode::PermissionDenied),
        ("InvalidInstanceID.NotFound", FailureCode::NodeMissing),
        ("SnapshotLimitExceeded", FailureCode::Quota),
        ("KMSKeyNotAccessibleFault", FailureCode::KmsUnavailable),
        ("InvalidParameterValue", FailureCode::SnapshotFailed),
    ] {
        let (mut row, actions) = acted(go(&backup(&[3, 7]), &instances(&[3, 7], 2), NOW));
        answer(&mut row, actions, |node| if node == 3 { created(3) } else { rejected(code) }, NOW);
        assert_eq!(failed(&row), kind, "{code}");
        let (_, actions) = acted(go(&row, &there(&row, "pending", 0), after(1)));
        assert_eq!(actions.len(), 2, "node 3's set goes");
    }
}

#[test]
fn a_set_of_other_volumes_than_planned_is_not_taken() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, created, NOW);
    assert_eq!(row.status, Status::Pending);
    assert!(row.sweep_until.is_some(), "what it made goes as a stray");
    let mut seen = instances(&[3], 2);
    seen.tagged = vec![snapshot(3, 0, 1, "pending", 0), snapshot(3, 1, 1, "pending", 0)];
    let (row, strays) = acted(go(&row, &seen, after(1)));
    assert_eq!(strays.len(), 2, "not tried again at once: an attachment takes seconds");
    let (_, actions) = acted(go(&row, &seen, after(10)));
    let creates = actions.iter().filter(|a| matches!(a, Action::CreateSnapshots { .. })).count();
    assert_eq!((creates, actions.len()), (1, 3));
}

#[test]
fn nodes_that_cannot_be_backed_up_fail_the_backup_with_the_reason() {
    let row = backup(&[3]);
    let mut terminated = instances(&[3], 1);
    for instance in terminated.instances.values_mut() {
        instance.state = "terminated".into();
    }
    let mut shared = instances(&[3], 1);
    for instance in shared.instances.values_mut() {
        instance.data_volumes[0].multi_attach = true;
    }
    for (seen, code) in [
        (Seen::default(), FailureCode::NodeMissing),
        (terminated, FailureCode::NodeMissing),
        (instances(&[3], 0), FailureCode::NoVolumes),
        (shared, FailureCode::MultiAttach),
        (instances(&[3], 129), FailureCode::TooManyVolumes),
    ] {
        assert_eq!(failed(&recorded(go(&row, &seen, after(VISIBLE.0)))), code);
    }
    let (until, waiting) = noted(go(&row, &Seen::default(), NOW));
    assert_eq!((waiting.status, until), (Status::Pending, after(20)), "it may not be listed yet");
    let five = backup(&[1, 2, 3, 4, 5]);
    let seen = instances(&[1, 2, 3, 4, 5], 101);
    assert_eq!(failed(&recorded(go(&five, &seen, NOW))), FailureCode::TooManyVolumes);
}

#[test]
fn throttled_time_ends_with_the_throttling() {
    let limits = Limits::default();
    let throttled = CallError::Throttled { code: "RequestLimitExceeded".into() };
    let denied =
        CallError::Rejected { code: "UnauthorizedOperation".into(), message: "secret".into() };
    let (_, row) = noted(step(&backup(&[3]), Err(&throttled), &limits, after(10)));
    let (_, row) = noted(step(&row, Err(&denied), &limits, after(20)));
    assert_eq!((row.throttled, row.throttled_since), (Seconds(10), None));
    let row = recorded(step(&row, Err(&denied), &limits, after(910)));
    let reason = row.failure.expect("failed").reason;
    assert!(reason.contains("UnauthorizedOperation") && !reason.contains("secret"), "{reason}");
}

#[test]
fn a_node_that_cannot_be_backed_up_leaves_no_call_behind_that_was_never_made() {
    let mut seen = instances(&[3, 7], 1);
    seen.instances.remove(&InstanceId::from("i-7"));
    let row = recorded(go(&backup(&[3, 7]), &seen, after(VISIBLE.0)));
    assert_eq!((failed(&row), row.sweep_until), (FailureCode::NodeMissing, None));
}

#[test]
fn an_instance_between_two_states_is_tried_again() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| rejected("IncorrectInstanceState"), NOW);
    assert_eq!((row.status, row.nodes[0].failed_calls), (Status::Pending, 1));
}

#[test]
fn a_call_that_was_not_begun_is_no_failed_one() {
    let (mut row, actions) = acted(go(&backup(&[3]), &instances(&[3], 1), NOW));
    answer(&mut row, actions, |_| Outcome::NotBegun, NOW);
    assert_eq!(row.nodes[0].failed_calls, 0);
    assert_eq!(row.nodes[0].take, Take::Open { attempt: 1, not_before: None });
}
