//! What the control plane sends on the stack's bus, and what of it is refused.

use serde::Deserialize;

use crate::deployment::{Node, Registry};
use crate::id::{DeploymentId, TenantId};

/// `source` of the control plane's events.
pub const SOURCE: &str = "supervisor.control-plane";

/// `Deployment Changed`: the deployment as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentChanged {
    /// Grows with each change of this deployment.
    pub version: u64,
    /// Which deployment.
    pub deployment_id: DeploymentId,
    /// Who owns it.
    pub tenant_id: TenantId,
    /// `initialized` when ready.
    pub status: String,
    /// `basic`, `pro`, `enterprise`.
    pub plan: String,
    /// `aws`, ...
    pub cloud: String,
    /// `managed`, ...
    pub variant: String,
    /// `network_*`, `local_ssd`.
    pub storage_type: String,
    /// Whether the host is shared.
    pub shared: bool,
    /// The Region.
    pub region: String,
    /// The deployment's own limit of backups; null: its plan's.
    #[serde(default)]
    pub backup_limit: Option<u64>,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// `Deployment Deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentDeleted {
    /// Grows with each change of this deployment.
    pub version: u64,
    /// Which deployment.
    pub deployment_id: DeploymentId,
}

/// `Deployment Upgrade Requested`: back the deployment up, then it is upgraded. A field
/// that it does not know must not cost the upgrade its answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UpgradeRequested {
    /// Which deployment.
    pub deployment_id: DeploymentId,
    /// The control plane's id of the upgrade: 1 to [`UPGRADE_ID`] characters, none of them
    /// a control character.
    pub upgrade_id: String,
}

/// The longest id of an upgrade: with what stands before it, it is a backup's name.
pub const UPGRADE_ID: usize = 85;

impl UpgradeRequested {
    /// Checks the event on its own.
    ///
    /// # Errors
    /// What is wrong with the event, as a sentence.
    pub fn check(&self) -> Result<(), Rejected> {
        if self.deployment_id.0 == 0 {
            return Err(Rejected("deployment_id counts from 1".to_owned()));
        }
        let long = !(1..=UPGRADE_ID).contains(&self.upgrade_id.chars().count());
        if long
            || self.upgrade_id.chars().any(char::is_control)
            || self.upgrade_id.trim().is_empty()
        {
            return Err(Rejected(format!(
                "deployment {}: an upgrade_id has 1 to {UPGRADE_ID} characters, not only blanks, none of them a control character",
                self.deployment_id
            )));
        }
        Ok(())
    }
}

/// Why a control-plane event changes nothing and goes to the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected(pub String);

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Rejected {}

impl DeploymentChanged {
    /// Checks the event on its own and makes the registry's part of the row.
    ///
    /// `region` is the stack's: an AWS deployment of another Region has its
    /// volumes where this stack cannot reach them.
    ///
    /// # Errors
    /// What is wrong with the event, as a sentence.
    pub fn registry(self, region: &str) -> Result<Registry, Rejected> {
        let id = self.deployment_id;
        if id.0 == 0 || self.version == 0 {
            return Err(Rejected("deployment_id and version count from 1".to_owned()));
        }
        let words = [
            ("tenant_id", self.tenant_id.as_str()),
            ("status", &self.status),
            ("plan", &self.plan),
            ("cloud", &self.cloud),
            ("variant", &self.variant),
            ("storage_type", &self.storage_type),
            ("region", &self.region),
        ];
        if let Some((name, _)) = words.into_iter().find(|(_, word)| word.is_empty()) {
            return Err(Rejected(format!("deployment {id}: {name} is empty")));
        }
        if self.cloud == "aws" && self.region != region {
            return Err(Rejected(format!(
                "deployment {id} is in {}, this stack serves {region}",
                self.region
            )));
        }
        let mut nodes = self.nodes;
        nodes.sort_by_key(|node| node.node_id);
        if nodes.windows(2).any(|pair| pair[0].node_id == pair[1].node_id) {
            return Err(Rejected(format!("deployment {id}: a node_id stands twice in nodes")));
        }
        if nodes.iter().any(|node| node.node_id.0 == 0) {
            return Err(Rejected(format!("deployment {id}: a node_id is 0")));
        }
        let is_instance = |id: &str| id.strip_prefix("i-").is_some_and(|hex| !hex.is_empty());
        let strange = nodes.iter().find(|node| !is_instance(node.instance_id.as_str()));
        if let Some(node) = strange.filter(|_| self.cloud == "aws") {
            return Err(Rejected(format!(
                "deployment {id}: `{}` of node {} is not an instance id",
                node.instance_id, node.node_id
            )));
        }
        let mut instances: Vec<_> = nodes.iter().map(|node| &node.instance_id).collect();
        instances.sort();
        if instances.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejected(format!("deployment {id}: an instance_id stands twice in nodes")));
        }
        Ok(Registry {
            registry_version: self.version,
            tenant_id: self.tenant_id,
            status: self.status,
            plan: self.plan,
            cloud: self.cloud,
            variant: self.variant,
            storage_type: self.storage_type,
            shared: self.shared,
            region: self.region,
            backup_limit: self.backup_limit,
            nodes,
            deleted: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InstanceId, NodeId};

    fn event() -> DeploymentChanged {
        DeploymentChanged {
            version: 1,
            deployment_id: DeploymentId(u64::MAX),
            tenant_id: TenantId::from("t"),
            status: "initialized".into(),
            plan: "pro".into(),
            cloud: "aws".into(),
            variant: "managed".into(),
            storage_type: "network_balanced".into(),
            shared: false,
            region: "us-west-1".into(),
            backup_limit: None,
            nodes: [7, 3]
                .map(|n| Node { node_id: NodeId(n), instance_id: InstanceId(format!("i-{n}")) })
                .to_vec(),
        }
    }

    #[test]
    fn an_upgrade_has_an_id_that_fits_into_a_backups_name() {
        let check = |id: &str, deployment| {
            let deployment_id = DeploymentId(deployment);
            UpgradeRequested { deployment_id, upgrade_id: id.to_owned() }.check().is_ok()
        };
        assert!(check("2026.11-rc1", 7) && check(&"ü".repeat(85), 7));
        assert!(!check("", 7) && !check("  ", 7) && !check("a\n", 7) && !check("u", 0));
        assert!(!check(&"ü".repeat(86), 7));
    }

    #[test]
    fn nodes_are_ordered_by_id() {
        let registry = event().registry("us-west-1").expect("good");
        let ids: Vec<_> = registry.nodes.iter().map(|node| node.node_id.0).collect();
        assert_eq!(ids, [3, 7]);
    }

    #[test]
    fn an_event_that_cannot_be_true_is_refused_with_what_is_wrong() {
        type Change = fn(&mut DeploymentChanged);
        let cases: [(Change, &str); 8] = [
            (|e| e.version = 0, "count from 1"),
            (|e| e.deployment_id = DeploymentId(0), "count from 1"),
            (|e| e.tenant_id = TenantId::from(""), "tenant_id is empty"),
            (|e| e.plan.clear(), "plan is empty"),
            (|e| e.region = "eu-west-1".into(), "serves us-west-1"),
            (|e| e.nodes[0].node_id = NodeId(3), "stands twice"),
            (|e| e.nodes[0].instance_id = InstanceId::from("i-3"), "stands twice"),
            (|e| e.nodes[0].instance_id = InstanceId::from("vol-1"), "not an instance id"),
        ];
        for (change, reason) in cases {
            let mut event = event();
            change(&mut event);
            let refused = event.registry("us-west-1").expect_err(reason);
            assert!(refused.0.contains(reason), "{refused}");
        }
        let mut elsewhere = event();
        (elsewhere.cloud, elsewhere.region) = ("gcp".into(), "europe-west3".into());
        assert!(elsewhere.registry("us-west-1").is_ok(), "another cloud has other regions");
    }
}
