//! The life of a backup, step by step, against a hand-made EC2.

use std::collections::BTreeMap;

use super::*;
use crate::error::Code;
use crate::limits::{LOOK_EVERY, Limits, MAX_ATTEMPTS, SETTLE, VISIBLE};

const NOW: Time = Time::from_unix(1_800_000_000);

fn after(seconds: i64) -> Time {
    NOW + Seconds(seconds)
}

fn node(id: u64) -> NodeRun {
    NodeRun {
        node_id: NodeId(id),
        instance_id: InstanceId(format!("i-{id}")),
        failed_calls: 0,
        take: Take::Open { attempt: 0, not_before: None },
    }
}

fn backup(nodes: &[u64]) -> Backup {
    let mut backup = Backup {
        deployment_id: DeploymentId(611_298_765_432_109_056),
        id: BackupId(1),
        tenant_id: TenantId::from("t"),
        region: "us-west-1".into(),
        node_id: None,
        backup_type: BackupType::Manual,
        created_at: NOW,
        token: Nonce::from("token"),
        name: "n".into(),
        remarks: None,
        expires_at: None,
        revision: 1,
        nonce: Nonce::from("nonce"),
        lease: None,
        status: Status::Pending,
        nodes: nodes.iter().copied().map(node).collect(),
        size_bytes: None,
        started_at: None,
        completed_at: None,
        failure: None,
        progress: 0,
        moved_at: None,
        taken_at: None,
        throttled: Seconds(0),
        throttled_since: None,
        troubles: 0,
        trouble: None,
        not_before: None,
        sweep_until: None,
        held: None,
        strays_not_before: None,
        rounds: 0,
        asked: false,
        gone: false,
        owners: Vec::new(),
        outbox: Vec::new(),
        due_at: None,
    };
    backup.announce_requested(NOW);
    backup
}

fn volume(node: u64, n: u64) -> Volume {
    Volume {
        volume_id: VolumeId(format!("vol-{node}-{n}")),
        device: format!("/dev/sd{n}"),
        size_gib: 50,
        volume_type: "gp3".into(),
        iops: Some(3000),
        throughput: Some(125),
        kms_key_id: None,
        availability_zone: "us-west-1a".into(),
        delete_on_termination: false,
        multi_attach: false,
        tags: Vec::new(),
    }
}

fn instances(nodes: &[u64], volumes: u64) -> Seen {
    let instance = |node: &u64| {
        let data_volumes = (0..volumes).map(|n| volume(*node, n)).collect();
        (InstanceId(format!("i-{node}")), Instance { state: "running".into(), data_volumes })
    };
    Seen { instances: nodes.iter().map(instance).collect(), ..Seen::default() }
}

fn taken(node: u64, n: u64) -> Taken {
    Taken {
        snapshot_id: SnapshotId(format!("snap-{node}{n}")),
        volume_id: VolumeId(format!("vol-{node}-{n}")),
        size_gib: 50,
        progress: 0,
    }
}

fn snapshot(node: u64, n: u64, attempt: u32, state: &str, progress: u8) -> Snapshot {
    Snapshot {
        snapshot_id: SnapshotId(format!("snap-{node}{n}")),
        volume_id: VolumeId(format!("vol-{node}-{n}")),
        size_gib: 50,
        state: state.into(),
        state_message: None,
        progress,
        node_id: Some(NodeId(node)),
        attempt: Some(attempt),
        completed_at: None,
        description: "d, token".into(),
    }
}

fn go(backup: &Backup, seen: &Seen, now: Time) -> Step {
    step(backup, Ok(seen), &Limits::default(), now)
}

/// The intent and the calls, or a panic.
fn acted(step: Step) -> (Backup, Vec<Action>) {
    match step {
        Step::Act { intent, actions } => (intent, actions),
        other => panic!("not an act: {other:?}"),
    }
}

fn recorded(step: Step) -> Backup {
    match step {
        Step::Record(next) => next,
        other => panic!("not a record: {other:?}"),
    }
}

fn noted(step: Step) -> (Time, Backup) {
    match step {
        Step::Wait { until, note: Some(note) } => (until, note),
        other => panic!("not a wait with a note: {other:?}"),
    }
}

fn failed(backup: &Backup) -> FailureCode {
    assert_eq!(backup.status, Status::Failed);
    assert_eq!(backup.outbox.last().map(|one| one.kind), Some(Kind::BackupFailed));
    backup.failure.as_ref().expect("a failure").code
}

/// Every node's call answered with `outcome`.
fn answer(intent: &mut Backup, actions: Vec<Action>, outcome: impl Fn(u64) -> Outcome, now: Time) {
    let outcomes: Vec<_> = actions
        .into_iter()
        .map(|action| {
            let node = match &action {
                Action::CreateSnapshots { node_id, .. } => node_id.0,
                Action::DeleteSnapshot(_) => 0,
            };
            let outcome = outcome(node);
            (action, outcome)
        })
        .collect();
    apply(intent, &outcomes, now);
}

fn created(node: u64) -> Outcome {
    // In another order than the devices': the row puts them right.
    Outcome::Created(vec![taken(node, 1), taken(node, 0)])
}

fn rejected(code: &str) -> Outcome {
    Outcome::Failed(CallError::Rejected { code: code.into(), message: "said AWS.".into() })
}

fn in_progress(nodes: &[u64]) -> Backup {
    let (mut row, actions) = acted(go(&backup(nodes), &instances(nodes, 2), NOW));
    answer(&mut row, actions, created, NOW);
    assert_eq!(row.status, Status::InProgress);
    row
}

fn completed() -> Backup {
    let row = in_progress(&[3]);
    recorded(go(&row, &there(&row, "completed", 100), after(300)))
}

fn there(row: &Backup, state: &str, progress: u8) -> Seen {
    let snapshots: BTreeMap<_, _> = row
        .snapshots()
        .map(|taken| {
            let mut seen = snapshot(0, 0, 1, state, progress);
            seen.snapshot_id = taken.snapshot_id.clone();
            (taken.snapshot_id.clone(), Presence::There(seen))
        })
        .collect();
    Seen { snapshots, ..Seen::default() }
}

fn absent(row: &Backup, presence: &Presence) -> Seen {
    let snapshots =
        row.snapshots().map(|taken| (taken.snapshot_id.clone(), presence.clone())).collect();
    Seen { snapshots, ..Seen::default() }
}

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
fn completed_needs_each_snapshot_described_as_completed() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    if let Some(Presence::There(last)) = seen.snapshots.values_mut().last() {
        last.state = "pending".into();
    }
    let (_, note) = noted(go(&row, &seen, after(60)));
    assert_eq!((note.status, note.progress), (Status::InProgress, 99));
    let done = recorded(go(&row, &there(&row, "completed", 100), after(61)));
    assert_eq!((done.status, done.completed_at), (Status::Completed, Some(after(61))));
    assert_eq!(go(&done, &Seen::default(), after(62)), Step::Rest);
}

#[test]
fn one_failed_snapshot_fails_the_backup_and_all_of_it_is_removed() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    if let Some(Presence::There(last)) = seen.snapshots.values_mut().last() {
        last.state = "error".into();
    }
    let row = recorded(go(&row, &seen, after(60)));
    assert_eq!(failed(&row), FailureCode::SnapshotFailed);
    assert!(row.removal_open());
    let (mut row, actions) = acted(go(&row, &seen, after(61)));
    assert_eq!(actions.len(), 2);
    answer(&mut row, actions, |_| Outcome::Deleted, after(61));
    assert_eq!(row.status, Status::Failed);
    assert!(look(&row, after(62)).is_empty(), "a pause before the next look");
    let gone = absent(&row, &Presence::Unlisted);
    let rest = recorded(go(&row, &gone, after(120)));
    assert!(!rest.removal_open());
    assert_eq!((rest.snapshots().count(), rest.size_bytes), (0, None));
    assert_eq!(go(&rest, &Seen::default(), after(121)), Step::Rest);
}

#[test]
fn a_missing_snapshot_counts_only_by_its_own_not_found_and_when_it_is_old_enough() {
    let row = in_progress(&[3]);
    let early = go(&row, &absent(&row, &Presence::NotFound), after(5));
    assert!(matches!(early, Step::Wait { .. }), "EC2 does not show it yet: {early:?}");
    let unlisted = go(&row, &absent(&row, &Presence::Unlisted), after(VISIBLE.0 + 60));
    assert!(matches!(unlisted, Step::Wait { .. }), "an empty list proves nothing: {unlisted:?}");
    let gone = recorded(go(&row, &absent(&row, &Presence::NotFound), after(VISIBLE.0)));
    assert_eq!(failed(&gone), FailureCode::SnapshotMissing);
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
    assert!(matches!(go(&row, &unlisted, after(820)), Step::Wait { .. }), "a leak");
    assert!(matches!(go(&row, &unlisted, after(800 + VISIBLE.0)), Step::Record(_)));
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
fn a_backup_that_does_not_move_for_a_day_fails_and_one_that_moves_does_not() {
    let limits = Limits::default();
    let row = in_progress(&[3]);
    let (_, moved) = noted(go(&row, &there(&row, "pending", 10), after(3600)));
    assert_eq!(moved.moved_at, Some(after(3600)));
    let day = NOW + limits.in_progress;
    let stuck = there(&moved, "pending", 10);
    assert!(matches!(go(&moved, &stuck, day), Step::Wait { .. }));
    let late = after(3600) + limits.in_progress;
    assert_eq!(failed(&recorded(go(&moved, &stuck, late))), FailureCode::DeadlineExceeded);
}

#[test]
fn looks_that_fail_back_off_and_keep_the_cause() {
    let row = in_progress(&[3]);
    let error = CallError::Unknown("HTTP 500".into());
    let (first, row) = noted(step(&row, Err(&error), &Limits::default(), NOW));
    let (second, _) = noted(step(&row, Err(&error), &Limits::default(), NOW));
    assert!(first < second);
    assert!(row.trouble.is_some());
}

#[test]
fn a_running_backup_is_not_deletable_and_a_deleting_one_is_so_already() {
    assert_eq!(start_delete(&backup(&[3])).map_err(|r| r.code), Err(Code::BackupNotDeletable));
    assert_eq!(start_delete(&in_progress(&[3])).map_err(|r| r.code), Err(Code::BackupNotDeletable));
    let Ok(Deletion::Begin(row)) = start_delete(&completed()) else { panic!("not begun") };
    assert_eq!(start_delete(&row), Ok(Deletion::UnderWay));
}

fn deleting() -> Backup {
    match start_delete(&completed()) {
        Ok(Deletion::Begin(row)) => *row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deleted_backups_row_goes_only_when_each_snapshot_is_gone_and_the_bus_knows() {
    let row = deleting();
    let seen = there(&row, "completed", 100);
    let (mut row, actions) = acted(go(&row, &seen, after(400)));
    assert_eq!(actions.len(), 2);
    answer(&mut row, actions, |_| Outcome::Deleted, after(400));
    let at = row.not_before.expect("a pause");
    let (_, again) = acted(go(&row, &seen, at));
    assert_eq!(again.len(), 2, "accepted is not gone");
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
    assert!(matches!(go(&row, &there(&row, "pending", 50), after(200)), Step::Wait { .. }));
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
fn a_missing_right_to_look_keeps_a_delete_and_says_so() {
    let denied = CallError::Rejected { code: "UnauthorizedOperation".into(), message: "m".into() };
    let (until, row) = noted(step(&deleting(), Err(&denied), &Limits::default(), after(400)));
    assert_eq!(until, after(460));
    assert_eq!(row.failure.map(|failure| failure.code), Some(FailureCode::PermissionDenied));
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

#[test]
fn a_backup_is_completed_when_ec2_says_that_its_last_snapshot_was() {
    let row = in_progress(&[3]);
    let mut seen = there(&row, "completed", 100);
    for (presence, at) in seen.snapshots.values_mut().zip([70, 50]) {
        if let Presence::There(snapshot) = presence {
            snapshot.completed_at = Some(after(at));
        }
    }
    assert_eq!(recorded(go(&row, &seen, after(300))).completed_at, Some(after(70)));
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
    assert_eq!(look(&row, after(LOOK_EVERY.0)).snapshots.len(), 2);
}

#[test]
fn every_status_change_of_the_rules_is_an_edge() {
    let legal: Vec<_> = Status::ALL
        .iter()
        .flat_map(|from| Status::ALL.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    assert_eq!(legal.len(), 6);
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
