//! Whether a backup may be created, and the row that it starts as.
//!
//! Everything here is decided from one consistent read of the deployment. The
//! transaction that stores the row repeats each decision as a condition: what
//! is true here may be untrue a millisecond later.

use crate::backup::{Backup, BackupType, NodeRun, Status, Take};
use crate::deployment::{Deployment, Node};
use crate::error::{Code, Refusal};
use crate::id::{BackupId, NodeId, Nonce};
use crate::limits::Limits;
use crate::time::{Seconds, Time};

/// A create request, checked on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackup {
    /// 1 to 100 characters, trimmed.
    pub name: String,
    /// One node; None: all.
    pub node_id: Option<NodeId>,
    /// Default manual.
    pub backup_type: BackupType,
    /// Up to 500 characters; blank is None.
    pub remarks: Option<String>,
    /// 1 to 3650; None: never.
    pub expires_in_days: Option<u16>,
}

/// The new row, or why not. The order of the checks is the contract's.
///
/// # Errors
/// The first rule that refuses.
pub fn decide(
    deployment: &Deployment,
    request: NewBackup,
    limits: &Limits,
    token: Nonce,
    now: Time,
) -> Result<Backup, Refusal> {
    let registry = &deployment.registry;
    let Some(limit) = registry.backup_limit(limits) else {
        return Err(Refusal::new(
            Code::PlanNotSupported,
            "Backups need the Pro or Enterprise plan.",
        ));
    };
    if let Some(fault) = registry.storage_fault() {
        return Err(Refusal::new(Code::StorageNotSupported, fault));
    }
    if !registry.ready() {
        return Err(Refusal::new(
            Code::DeploymentNotReady,
            format!("The deployment is `{}`; wait until it is `initialized`.", registry.status),
        ));
    }
    let nodes = chosen(&registry.nodes, request.node_id)?;
    if let Some(active) = deployment.active_restore {
        return Err(Refusal::new(
            Code::RestoreInProgress,
            format!("Restore {active} is running; wait until it is over."),
        ));
    }
    if let Some(active) = deployment.active_backup {
        return Err(Refusal::new(
            Code::BackupInProgress,
            format!("Backup {active} is running; wait until it is completed or failed."),
        ));
    }
    let count = deployment.backup_count;
    if count >= limit {
        return Err(Refusal::new(
            Code::BackupLimitReached,
            format!(
                "The deployment has {count} backups and its limit is {limit}; delete one first."
            ),
        ));
    }
    let mut backup = Backup {
        deployment_id: deployment.deployment_id,
        id: BackupId(deployment.next_backup_id),
        tenant_id: registry.tenant_id.clone(),
        region: registry.region.clone(),
        node_id: request.node_id,
        backup_type: request.backup_type,
        created_at: now,
        token: token.clone(),
        name: request.name,
        remarks: request.remarks,
        expires_at: request.expires_in_days.map(|days| now + Seconds::days(days.into())),
        pinned_by: None,
        revision: 1,
        nonce: token,
        lease: None,
        status: Status::Pending,
        nodes,
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
        due_at: None,
    };
    backup.announce_requested(now);
    Ok(backup)
}

/// The nodes to back up.
fn chosen(nodes: &[Node], asked: Option<NodeId>) -> Result<Vec<NodeRun>, Refusal> {
    let run = |node: &Node| NodeRun {
        node_id: node.node_id,
        instance_id: node.instance_id.clone(),
        failed_calls: 0,
        take: Take::Open { attempt: 0, not_before: None },
    };
    if nodes.is_empty() {
        return Err(Refusal::new(
            Code::DeploymentNotReady,
            "The deployment has no nodes yet; wait until the control plane reports them.",
        ));
    }
    match asked {
        Some(id) => match nodes.iter().find(|node| node.node_id == id) {
            Some(node) => Ok(vec![run(node)]),
            None => {
                Err(Refusal::new(Code::NodeNotFound, format!("The deployment has no node {id}.")))
            }
        },
        None => Ok(nodes.iter().map(run).collect()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::deployment::Registry;
    use crate::id::{DeploymentId, InstanceId, TenantId};

    pub(crate) fn deployment() -> Deployment {
        Deployment {
            deployment_id: DeploymentId(611_298_765_432_109_056),
            registry: Registry {
                registry_version: 1,
                tenant_id: TenantId::from("t"),
                status: "initialized".into(),
                plan: "pro".into(),
                cloud: "aws".into(),
                variant: "managed".into(),
                storage_type: "network_balanced".into(),
                shared: false,
                region: "us-west-1".into(),
                backup_limit: None,
                nodes: [3, 7]
                    .map(|n| Node { node_id: NodeId(n), instance_id: InstanceId(format!("i-{n}")) })
                    .to_vec(),
                deleted: false,
            },
            next_backup_id: 4,
            backup_count: 0,
            active_backup: None,
            next_restore_id: 1,
            active_restore: None,
        }
    }

    fn request() -> NewBackup {
        NewBackup {
            name: "n".into(),
            node_id: None,
            backup_type: BackupType::Manual,
            remarks: None,
            expires_in_days: Some(30),
        }
    }

    fn refused(deployment: &Deployment, request: NewBackup) -> Code {
        let limits = Limits::default();
        let now = Time::from_unix(0);
        decide(deployment, request, &limits, Nonce::from("t"), now).expect_err("refused").code
    }

    #[test]
    fn a_new_backup_is_pending_on_every_node_and_expires_days_after_creation() {
        let now = Time::from_unix(1000);
        let backup = decide(&deployment(), request(), &Limits::default(), Nonce::from("t"), now)
            .expect("created");
        assert_eq!((backup.id, backup.status), (BackupId(4), Status::Pending));
        assert_eq!(backup.nodes.len(), 2);
        assert_eq!(backup.expires_at, Some(now + Seconds::days(30)));
        assert_eq!(backup.outbox.len(), 1);
    }

    #[test]
    fn the_first_rule_that_refuses_wins_in_the_contracts_order() {
        // Everything is wrong; then each is mended in the contract's order.
        let mut all = deployment();
        all.registry.plan = "basic".into();
        all.registry.storage_type = "local_ssd".into();
        all.registry.status = "upgrading".into();
        all.active_backup = Some(BackupId(3));
        all.backup_count = 5;
        let mut body = request();
        body.node_id = Some(NodeId(99));
        assert_eq!(refused(&all, body.clone()), Code::PlanNotSupported);
        all.registry.plan = "pro".into();
        assert_eq!(refused(&all, body.clone()), Code::StorageNotSupported);
        all.registry.storage_type = "network_fast".into();
        assert_eq!(refused(&all, body.clone()), Code::DeploymentNotReady);
        all.registry.status = "initialized".into();
        assert_eq!(refused(&all, body.clone()), Code::NodeNotFound);
        body.node_id = Some(NodeId(7));
        assert_eq!(refused(&all, body.clone()), Code::BackupInProgress);
        all.active_backup = None;
        assert_eq!(refused(&all, body), Code::BackupLimitReached);
    }

    #[test]
    fn storage_that_has_no_backups_is_named() {
        for change in [
            (|r: &mut Registry| r.cloud = "gcp".into()) as fn(&mut Registry),
            |r| r.variant = "byoc".into(),
            |r| r.storage_type = "local_ssd".into(),
            |r| r.shared = true,
        ] {
            let mut other = deployment();
            change(&mut other.registry);
            assert_eq!(refused(&other, request()), Code::StorageNotSupported);
        }
    }

    #[test]
    fn the_limit_is_the_plans_unless_the_deployment_has_its_own() {
        let mut other = deployment();
        other.backup_count = 5;
        assert_eq!(refused(&other, request()), Code::BackupLimitReached);
        other.registry.plan = "enterprise".into();
        other.backup_count = 9;
        let limits = Limits::default();
        assert!(decide(&other, request(), &limits, Nonce::from("t"), Time::from_unix(0)).is_ok());
        other.registry.backup_limit = Some(0);
        assert_eq!(refused(&other, request()), Code::BackupLimitReached);
    }
}
