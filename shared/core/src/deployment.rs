//! What the control plane says of a deployment, and what we keep beside it.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Refusal};
use crate::id::{BackupId, DeploymentId, InstanceId, NodeId, RestoreId, TenantId};
use crate::limits::Limits;
use crate::refusals;

/// A node as the registry knows it: one EC2 instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The platform's id.
    pub node_id: NodeId,
    /// The instance that the node runs on now.
    pub instance_id: InstanceId,
}

/// The registry's part of a deployment: written by control-plane events alone,
/// each under a higher `registry_version`.
///
/// The words (`status`, `plan`, ...) are the control plane's and may grow: they
/// stay texts, and the rules below ask only what they need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Grows with each change; an older one changes nothing.
    pub registry_version: u64,
    /// Who owns the deployment. Never changes.
    pub tenant_id: TenantId,
    /// `initialized` when it is ready.
    pub status: String,
    /// `basic`, `pro`, `enterprise`.
    pub plan: String,
    /// `aws`, ...
    pub cloud: String,
    /// `managed`, ...
    pub variant: String,
    /// `network_*` or `local_ssd`.
    pub storage_type: String,
    /// Whether the host is shared with other deployments.
    pub shared: bool,
    /// The AWS Region of an AWS deployment.
    pub region: String,
    /// The deployment's own limit of backups, instead of its plan's.
    pub backup_limit: Option<u64>,
    /// The nodes, ordered by id.
    pub nodes: Vec<Node>,
    /// Set by `Deployment Deleted`. The row stays for ever, with its counters.
    #[serde(default)]
    pub deleted: bool,
}

/// A deployment's row: the registry's part, and our counters and slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Which deployment.
    pub deployment_id: DeploymentId,
    /// What the control plane says.
    #[serde(flatten)]
    pub registry: Registry,
    /// The latest version at which the control plane said that it is deleted, in whatever
    /// order that came; 0: never. A schedule that was set before is not there again when the
    /// deployment comes back.
    #[serde(default)]
    pub deleted_version: u64,
    /// The id that the next backup gets. Never goes back.
    #[serde(default = "first")]
    pub next_backup_id: u64,
    /// Backups that count towards the limit: all but `failed` and `deleting`.
    #[serde(default)]
    pub backup_count: u64,
    /// The one backup that is pending or in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_backup: Option<BackupId>,
    /// The id that the next restore gets. Never goes back.
    #[serde(default = "first")]
    pub next_restore_id: u64,
    /// The one restore that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_restore: Option<RestoreId>,
}

/// The first id of a deployment's backups.
fn first() -> u64 {
    1
}

/// The plan, as far as the rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// No backups.
    Basic,
    /// `ProBackupLimit` backups.
    Pro,
    /// `EnterpriseBackupLimit` backups.
    Enterprise,
}

impl Registry {
    /// The plan. An unknown word has no backups, as Basic: a new plan gets them
    /// by a release that knows its limit.
    pub fn plan(&self) -> Plan {
        match self.plan.as_str() {
            "pro" => Plan::Pro,
            "enterprise" => Plan::Enterprise,
            _ => Plan::Basic,
        }
    }

    /// How many backups the deployment may have. None: its plan has none.
    pub fn backup_limit(&self, limits: &Limits) -> Option<u64> {
        let of_plan = match self.plan() {
            Plan::Basic => return None,
            Plan::Pro => limits.pro_backups,
            Plan::Enterprise => limits.enterprise_backups,
        };
        Some(self.backup_limit.unwrap_or(of_plan))
    }

    /// Whether so many backups are all that the deployment may have.
    pub fn is_full(&self, backups: u64, limits: &Limits) -> bool {
        self.backup_limit(limits).is_some_and(|limit| backups >= limit)
    }

    /// Whether the control plane says that the deployment is ready.
    pub fn ready(&self) -> bool {
        self.status == "initialized"
    }

    /// Why the deployment's storage has no backups, None if it has them.
    pub fn storage_fault(&self) -> Option<Refusal> {
        let fault = |reason: String| Some(Refusal::new(Code::StorageNotSupported, reason));
        if self.cloud != "aws" {
            return fault(format!(
                "Backups exist for AWS deployments only; this one runs on `{}`.",
                self.cloud
            ));
        }
        if self.variant != "managed" {
            return fault(format!(
                "Backups exist for managed deployments only; this one is `{}`.",
                self.variant
            ));
        }
        if !self.storage_type.starts_with("network_") {
            return Some(refusals::other_storage(&self.storage_type));
        }
        if self.shared {
            return fault(
                "Backups need a host of the deployment's own; this one is shared.".to_owned(),
            );
        }
        None
    }
}
