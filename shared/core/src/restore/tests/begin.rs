//! Whether a restore may begin.

use super::world::NOW;
use super::*;
use crate::backup::{self, Backup, BackupType};
use crate::create::{self, tests::deployment};
use crate::deployment::{self, Deployment};
use crate::error::{Code, Refusal};

const SAFE: Asked = Asked { allow_partial: false, safety_backup: true };
const PARTIAL: Asked = Asked { allow_partial: true, safety_backup: false };

/// A completed backup of the nodes that the deployment has, or of one of them.
fn backup(of: &Deployment, node_id: Option<NodeId>) -> Backup {
    let new = create::NewBackup {
        name: "n".into(),
        node_id,
        backup_type: BackupType::Manual,
        remarks: None,
        expires_in_days: None,
    };
    let token = Nonce::from("backup");
    let made = create::decide(of, new, &Limits::default(), token, NOW).expect("a backup").0;
    Backup { status: backup::Status::Completed, ..made }
}

fn begin(
    deployment: &Deployment,
    backup: Option<&Backup>,
    asked: Asked,
) -> Result<(Restore, Option<Backup>), Refusal> {
    let tokens = ["token", "safety"].map(Nonce::from);
    let (restore, safety) = decide(deployment, backup, asked, &Limits::default(), tokens, NOW)?;
    Ok((restore, safety.map(|(safety, _)| safety)))
}

fn refused(deployment: &Deployment, backup: Option<&Backup>, asked: Asked) -> Code {
    begin(deployment, backup, asked).expect_err("refused").code
}

/// Which nodes are swapped.
fn swaps(restore: &Restore) -> Vec<(u64, bool)> {
    restore.nodes.iter().map(|node| (node.node_id.0, node.swaps)).collect()
}

fn join(deployment: &mut Deployment, id: u64) {
    let node = deployment::Node { node_id: NodeId(id), instance_id: InstanceId(format!("i-{id}")) };
    deployment.registry.nodes.push(node);
}

#[test]
fn a_new_restore_is_pending_on_every_node_and_takes_a_safety_backup_only_if_asked() {
    let here = deployment();
    let of = backup(&here, None);
    let (row, safety) = begin(&here, Some(&of), Asked::default()).expect("begun");
    assert_eq!((row.id, row.status, row.backup_id), (RestoreId(1), Status::Pending, of.id));
    assert_eq!((row.safety_backup_id, safety), (None, None));
    assert_eq!(swaps(&row), [(3, true), (7, true)]);
    assert_eq!(row.outbox.len(), 1);
    let (row, safety) = begin(&here, Some(&of), SAFE).expect("begun");
    let safety = safety.expect("a safety backup");
    assert_eq!(row.safety_backup_id, Some(safety.id));
    assert_eq!(safety.name, "before restore 1");
    assert_ne!(safety.token, row.token);
}

#[test]
fn plan_storage_and_readiness_refuse_a_restore_as_they_refuse_a_create() {
    let of = backup(&deployment(), None);
    for (change, code) in [
        ((|one| one.registry.plan = "basic".into()) as fn(&mut Deployment), Code::PlanNotSupported),
        (|one| one.registry.storage_type = "local_ssd".into(), Code::StorageNotSupported),
        (|one| one.registry.status = "upgrading".into(), Code::DeploymentNotReady),
        (|one| one.registry.nodes.clear(), Code::DeploymentNotReady),
    ] {
        let mut here = deployment();
        change(&mut here);
        assert_eq!(refused(&here, Some(&of), Asked::default()), code);
        // They are told before that there is no such backup.
        assert_eq!(refused(&here, None, Asked::default()), code);
    }
}

#[test]
fn the_limit_refuses_only_a_restore_that_makes_a_backup() {
    let mut here = deployment();
    let of = backup(&here, None);
    here.backup_count = 5;
    assert_eq!(refused(&here, Some(&of), SAFE), Code::BackupLimitReached);
    let (row, safety) = begin(&here, Some(&of), Asked::default()).expect("begun");
    assert_eq!((row.safety_backup_id, safety), (None, None));
}

#[test]
fn what_runs_already_refuses_with_and_without_a_safety_backup() {
    let of = backup(&deployment(), None);
    for asked in [Asked::default(), SAFE] {
        let mut here = deployment();
        here.active_backup = Some(BackupId(9));
        assert_eq!(refused(&here, Some(&of), asked), Code::BackupInProgress);
        here.active_restore = Some(RestoreId(9));
        assert_eq!(refused(&here, Some(&of), asked), Code::RestoreInProgress);
    }
}

#[test]
fn only_a_completed_backup_can_be_restored() {
    let here = deployment();
    for status in backup::Status::ALL.iter().filter(|one| **one != backup::Status::Completed) {
        let of = Backup { status: *status, ..backup(&here, None) };
        let refusal = begin(&here, Some(&of), Asked::default()).expect_err("refused");
        assert_eq!(refusal.code, Code::BackupNotRestorable);
        assert!(refusal.reason.contains(status.as_str()), "{}", refusal.reason);
    }
}

#[test]
fn a_node_that_left_the_deployment_since_refuses_even_a_partial_restore() {
    let mut here = deployment();
    for of in [backup(&here, None), backup(&here, Some(NodeId(7)))] {
        here.registry.nodes.retain(|node| node.node_id != NodeId(7));
        let refusal = begin(&here, Some(&of), PARTIAL).expect_err("refused");
        assert_eq!(refusal.code, Code::BackupNotRestorable);
        assert!(refusal.reason.contains("Node 7 "), "{}", refusal.reason);
    }
}

#[test]
fn a_node_that_joined_since_is_left_alone_if_the_caller_says_so() {
    let mut here = deployment();
    let of = backup(&here, None);
    join(&mut here, 9);
    let refusal = begin(&here, Some(&of), Asked::default()).expect_err("refused");
    assert_eq!(refusal.code, Code::BackupNotRestorable);
    assert!(refusal.reason.contains("Node 9 ") && refusal.reason.contains("allow_partial"));
    let (row, _) = begin(&here, Some(&of), PARTIAL).expect("begun");
    assert_eq!(swaps(&row), [(3, true), (7, true), (9, false)]);
}

#[test]
fn a_backup_of_one_node_swaps_that_one_without_being_told_to_leave_the_others() {
    let mut here = deployment();
    let of = backup(&here, Some(NodeId(7)));
    join(&mut here, 9);
    let (row, _) = begin(&here, Some(&of), Asked::default()).expect("begun");
    assert_eq!(swaps(&row), [(3, false), (7, true), (9, false)]);
}

#[test]
fn a_node_that_has_another_instance_now_is_restored_on_that_one() {
    let mut here = deployment();
    let of = backup(&here, None);
    here.registry.nodes[1].instance_id = InstanceId::from("i-8");
    let (row, _) = begin(&here, Some(&of), Asked::default()).expect("begun");
    assert_eq!(row.nodes[1].instance_id.as_str(), "i-8");
}

#[test]
fn the_first_rule_that_refuses_a_restore_wins_in_the_contracts_order() {
    // Everything is wrong; then each is mended in the contract's order.
    let mut here = deployment();
    let of = Backup { status: backup::Status::Failed, ..backup(&here, None) };
    here.active_restore = Some(RestoreId(1));
    here.active_backup = Some(BackupId(9));
    here.backup_count = 5;
    assert_eq!(refused(&here, None, SAFE), Code::BackupNotFound);
    assert_eq!(refused(&here, Some(&of), SAFE), Code::RestoreInProgress);
    here.active_restore = None;
    assert_eq!(refused(&here, None, SAFE), Code::BackupNotFound);
    assert_eq!(refused(&here, Some(&of), SAFE), Code::BackupInProgress);
    here.active_backup = None;
    assert_eq!(refused(&here, None, SAFE), Code::BackupNotFound);
    assert_eq!(refused(&here, Some(&of), SAFE), Code::BackupLimitReached);
    here.backup_count = 0;
    assert_eq!(refused(&here, None, SAFE), Code::BackupNotFound);
    assert_eq!(refused(&here, Some(&of), SAFE), Code::BackupNotRestorable);
}
