//! The life of a backup, step by step, against a hand-made EC2. Here is what the
//! tests are made of; they stand by phase.

mod brake;
mod missing;
mod patch;
mod pending;
mod progress;
mod removal;
mod rows;

use std::collections::BTreeMap;

use super::*;
use crate::error::Code;
use crate::id::VolumeId;
use crate::limits::{LOOKS, LOOKS_OF_SCHEDULES, Limits, MAX_ATTEMPTS, SETTLE, VISIBLE};
use crate::operation::CallError;

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
        schedule_slot: None,
        upgrade_id: None,
        created_at: NOW,
        token: Nonce::from("token"),
        name: "n".into(),
        remarks: None,
        expires_at: None,
        pinned_by: None,
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
        gone: false,
        owners: Vec::new(),
        outbox: Vec::new(),
        missing: None,
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
        asked: false,
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

fn deleting() -> Backup {
    match start_delete(&completed()) {
        Ok(Deletion::Begin(row)) => *row,
        other => panic!("{other:?}"),
    }
}
