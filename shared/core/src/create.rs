//! Whether a backup may be created, and the row that it starts as.
//!
//! Everything here is decided from one consistent read of the deployment. The
//! transaction that stores the row repeats each decision as a condition: what
//! is true here may be untrue a millisecond later.

use crate::backup::{Backup, BackupType, NodeRun, Status, Take};
use crate::deployment::{Deployment, Node, Registry};
use crate::error::{Code, Refusal};
use crate::id::{BackupId, NodeId, Nonce};
use crate::limits::Limits;
use crate::refusals;
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

/// What brings a backup about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A request of a person or a program.
    Request,
    /// A slot of the deployment's schedule. `gives_way`: a backup that the schedule made
    /// can go in exchange.
    Schedule {
        /// The slot.
        slot: Time,
        /// Whether there is one to give way.
        gives_way: bool,
    },
    /// An upgrade that the control plane is about to begin.
    Upgrade {
        /// The control plane's id of it.
        id: String,
        /// Whether a backup of the schedule can go in exchange.
        gives_way: bool,
    },
}

impl Cause {
    /// Whether another backup goes in exchange for the new one.
    const fn gives_way(&self) -> bool {
        match self {
            Self::Request => false,
            Self::Schedule { gives_way, .. } | Self::Upgrade { gives_way, .. } => *gives_way,
        }
    }
}

/// The counts of backups at which a new one may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// At least so many: it takes a place above the limit only while there is one that gives
    /// way, and by the time it is stored that one may be gone, and the count with it.
    pub at_least: u64,
    /// Fewer than so many.
    pub below: u64,
}

/// The new row of a request and the room that it needs, or why not. The order of the checks
/// is the contract's.
///
/// # Errors
/// The first rule that refuses.
pub fn decide(
    deployment: &Deployment,
    request: NewBackup,
    limits: &Limits,
    token: Nonce,
    now: Time,
) -> Result<(Backup, Room), Refusal> {
    decide_for(Cause::Request, deployment, request, limits, token, now)
}

/// The new row and the room that it needs, or why not.
///
/// At the limit a backup of the schedule or of an upgrade may be one more while it runs,
/// if another gives way when it completes; above a lowered limit too.
///
/// # Errors
/// The first rule that refuses.
pub fn decide_for(
    cause: Cause,
    deployment: &Deployment,
    request: NewBackup,
    limits: &Limits,
    token: Nonce,
    now: Time,
) -> Result<(Backup, Room), Refusal> {
    let registry = &deployment.registry;
    let limit = supported(registry, limits)?;
    // An upgrade may have begun by now: its backup does not ask.
    if !registry.ready() && !matches!(cause, Cause::Upgrade { .. }) {
        return Err(refusals::not_ready(&registry.status));
    }
    let nodes = chosen(&registry.nodes, request.node_id)?;
    if let Some(active) = deployment.active_restore {
        return Err(refusals::restore_runs(active));
    }
    if let Some(active) = deployment.active_backup {
        return Err(refusals::backup_runs(active));
    }
    let count = deployment.backup_count;
    let full = count >= limit;
    if full && !cause.gives_way() {
        return Err(refusals::full(count, limit));
    }
    let room = if full {
        Room { at_least: count, below: count + 1 }
    } else {
        Room { at_least: 0, below: limit }
    };
    let (schedule_slot, upgrade_id) = match cause {
        Cause::Request => (None, None),
        Cause::Schedule { slot, .. } => (Some(slot), None),
        Cause::Upgrade { id, .. } => (None, Some(id)),
    };
    let mut backup = Backup {
        deployment_id: deployment.deployment_id,
        id: BackupId(deployment.next_backup_id),
        tenant_id: registry.tenant_id.clone(),
        region: registry.region.clone(),
        node_id: request.node_id,
        backup_type: request.backup_type,
        schedule_slot,
        upgrade_id,
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
        missing: None,
        due_at: None,
    };
    backup.announce_requested(now);
    Ok((backup, room))
}

/// How many backups the deployment may have, if its plan and its storage have any.
///
/// # Errors
/// `plan_not_supported`, `storage_not_supported`.
pub(crate) fn supported(registry: &Registry, limits: &Limits) -> Result<u64, Refusal> {
    let limit = registry.backup_limit(limits).ok_or_else(refusals::no_plan)?;
    match registry.storage_fault() {
        Some(fault) => Err(fault),
        None => Ok(limit),
    }
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
            None => Err(refusals::no_node(id)),
        },
        None => Ok(nodes.iter().map(run).collect()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
            deleted_version: 0,
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
        let (backup, _) =
            decide(&deployment(), request(), &Limits::default(), Nonce::from("t"), now)
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
    fn at_the_limit_a_backup_of_the_schedule_may_be_one_more_if_another_gives_way() {
        let made = |count, limit, gives_way| {
            let mut other = deployment();
            (other.backup_count, other.registry.backup_limit) = (count, Some(limit));
            let slot = Time::from_unix(60);
            let (limits, now) = (Limits::default(), Time::from_unix(61));
            let cause = Cause::Schedule { slot, gives_way };
            decide_for(cause, &other, request(), &limits, Nonce::from("t"), now)
                .map(|(backup, room)| (backup.schedule_slot, room))
                .map_err(|refusal| refusal.code)
        };
        let slot = Some(Time::from_unix(60));
        let room = |at_least, below| Ok((slot, Room { at_least, below }));
        assert_eq!(made(4, 5, false), room(0, 5));
        assert_eq!(made(5, 5, false), Err(Code::BackupLimitReached));
        assert_eq!(made(5, 5, true), room(5, 6));
        assert_eq!(made(9, 5, true), room(9, 10), "above a lowered limit");
        assert_eq!(made(2, 5, true), room(0, 5));
    }

    #[test]
    fn an_upgrades_backup_does_not_ask_whether_the_deployment_is_ready() {
        let mut other = deployment();
        other.registry.status = "upgrading".into();
        let (limits, now) = (Limits::default(), Time::from_unix(0));
        let made = |cause| decide_for(cause, &other, request(), &limits, Nonce::from("t"), now);
        let upgrade = Cause::Upgrade { id: "u-1".into(), gives_way: false };
        let (backup, _) = made(upgrade).expect("made");
        assert_eq!(backup.upgrade_id.as_deref(), Some("u-1"));
        let slot = Cause::Schedule { slot: now, gives_way: false };
        assert_eq!(made(slot).expect_err("refused").code, Code::DeploymentNotReady);
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
