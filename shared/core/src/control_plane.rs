//! What the control plane sends on the stack's bus, and what of it is refused.

use serde::Deserialize;

use crate::deployment::{Node, Registry};
use crate::id::{DeploymentId, TenantId};
use crate::key::{
    Key, LONGEST, MOST_DEPLOYMENTS, MOST_NETWORKS, Network, Permission, may_hold_secret,
};
use crate::time::Time;

/// `source` of the control plane's events.
pub const SOURCE: &str = "supervisor.control-plane";

/// The largest version of anything: one more can still be said. EventBridge takes integers up
/// to 2^63 - 1 (its API reference, `PutEvents`).
pub const LAST_VERSION: u64 = (1 << 63) - 2;

/// `detail-type` of a deployment as it is now.
pub const DEPLOYMENT_CHANGED: &str = "Deployment Changed";

/// `detail-type` of a deployment's end.
pub const DEPLOYMENT_DELETED: &str = "Deployment Deleted";

/// `detail-type` of the request of a backup before an upgrade.
pub const UPGRADE_REQUESTED: &str = "Deployment Upgrade Requested";

/// `detail-type` of a key as it is now.
pub const KEY_CHANGED: &str = "API Key Changed";

/// Every `detail-type` of the control plane's that is read.
pub const KINDS: [&str; 4] =
    [DEPLOYMENT_CHANGED, DEPLOYMENT_DELETED, UPGRADE_REQUESTED, KEY_CHANGED];

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

/// `API Key Changed`: a key as it is now. The secret itself is on no bus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChanged {
    /// Grows with each change of this key.
    pub version: u64,
    /// What people call it by: 1 to [`KEY_ID`] letters, digits, `-` and `_`.
    pub key_id: String,
    /// SHA-256 of the secret, in lower-case hex.
    pub hash: String,
    /// Whose deployments it opens.
    pub tenant_id: TenantId,
    /// What it may do.
    pub permission: Permission,
    /// The deployments it is bound to; null: all of the tenant's.
    #[serde(default)]
    pub deployments: Option<Vec<DeploymentId>>,
    /// From where it may be used; null: from anywhere.
    #[serde(default)]
    pub allow: Option<Vec<Network>>,
    /// From then on it opens nothing.
    pub expires_at: Time,
    /// Since then it opens nothing; null: it was not revoked.
    #[serde(default)]
    pub revoked_at: Option<Time>,
}

/// What is believed of an `API Key Changed` that is refused for anything else: that the key is
/// over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyEnded {
    /// Which.
    pub key_id: String,
    /// Whose.
    pub tenant_id: TenantId,
    /// Since when it opens nothing.
    pub revoked_at: Time,
}

impl KeyEnded {
    /// Reads it from a detail that may have any fault but in this.
    pub(crate) fn read(detail: &serde_json::Value) -> Option<Self> {
        Self::deserialize(detail).ok().filter(|ended| is_key_id(&ended.key_id))
    }
}

/// The longest id of a key.
pub const KEY_ID: usize = 64;

/// Whether a key may be called so. An id is shown wherever the key is meant: it is no secret.
pub(crate) fn is_key_id(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let sound = (1..=KEY_ID).contains(&text.len()) && text.bytes().all(word);
    sound && !may_hold_secret(text)
}

impl KeyChanged {
    /// The names of its fields.
    pub(crate) const FIELDS: [&str; 9] = [
        "version",
        "key_id",
        "hash",
        "tenant_id",
        "permission",
        "deployments",
        "allow",
        "expires_at",
        "revoked_at",
    ];

    /// That the key is over, if it says so.
    pub fn ended(&self) -> Option<KeyEnded> {
        let (key_id, tenant_id) = (self.key_id.clone(), self.tenant_id.clone());
        let ended = self.revoked_at.map(|revoked_at| KeyEnded { key_id, tenant_id, revoked_at });
        ended.filter(|ended| is_key_id(&ended.key_id))
    }

    /// Checks the event on its own and makes the key's row. No reason has anything of the key
    /// but its id.
    ///
    /// # Errors
    /// What is wrong with the event, as a sentence.
    pub fn key(self, now: Time) -> Result<Key, Rejected> {
        if !is_key_id(&self.key_id) {
            let reason = format!(
                "a key_id has 1 to {KEY_ID} letters, digits, `-` and `_`, and nothing of a \
                 secret in it, `ld_`"
            );
            return Err(Rejected(reason));
        }
        let id = &self.key_id;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fault = if self.version == 0 || self.version > LAST_VERSION {
            // Who ends a key writes one version more.
            Some(format!("version is 1 to {LAST_VERSION}"))
        } else if self.hash.len() != 64 || !self.hash.bytes().all(hex) {
            Some("a hash is SHA-256 in 64 lower-case hex digits".to_owned())
        } else if let Some(fault) = word_fault("tenant_id", self.tenant_id.as_str()) {
            Some(fault)
        } else if self.expires_at > now + LONGEST {
            Some(format!("a key counts for at most {} days", LONGEST.0 / 86_400))
        } else {
            let bound = self.deployments.as_deref();
            let bound = bound.is_some_and(|bound| {
                bound.is_empty()
                    || bound.len() > MOST_DEPLOYMENTS
                    || bound.contains(&DeploymentId(0))
            });
            let nowhere = self.allow.as_deref();
            let nowhere =
                nowhere.is_some_and(|allow| allow.is_empty() || allow.len() > MOST_NETWORKS);
            match (bound, nowhere) {
                (true, _) => Some(format!("deployments are null, or 1 to {MOST_DEPLOYMENTS} ids")),
                (_, true) => Some(format!("allow is null, or 1 to {MOST_NETWORKS} networks")),
                (false, false) => None,
            }
        };
        if let Some(fault) = fault {
            return Err(Rejected(format!("key {id}: {fault}")));
        }
        Ok(Key {
            hash: self.hash,
            key_id: self.key_id,
            version: self.version,
            tenant_id: self.tenant_id,
            permission: self.permission,
            deployments: self.deployments,
            allow: self.allow,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
        })
    }
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

/// Why it is no word: it is shown to people, in lines of their own.
fn word_fault(name: &str, word: &str) -> Option<String> {
    if word.is_empty() {
        return Some(format!("{name} is empty"));
    }
    word.contains(char::is_control).then(|| format!("{name} has a control character"))
}

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
        if self.version > LAST_VERSION {
            // Nothing could follow it, its deletion neither.
            return Err(Rejected(format!("deployment {id}: version is 1 to {LAST_VERSION}")));
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
        if let Some(fault) = words.into_iter().find_map(|(name, word)| word_fault(name, word)) {
            return Err(Rejected(format!("deployment {id}: {fault}")));
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
    fn a_key_that_cannot_be_is_refused_with_what_is_wrong() {
        type Change = fn(&mut KeyChanged);
        let now = Time::from_unix(1000);
        let good = || KeyChanged {
            version: 1,
            key_id: "key-1_A".into(),
            hash: "0a".repeat(32),
            tenant_id: TenantId::from("t"),
            permission: Permission::Read,
            deployments: Some(vec![DeploymentId(u64::MAX)]),
            allow: Some(vec!["192.0.2.0/24".parse().expect("a network")]),
            expires_at: now + LONGEST,
            revoked_at: None,
        };
        let key = good().key(now).expect("good");
        assert_eq!((key.key_id.as_str(), key.version), ("key-1_A", 1));
        let cases: [(Change, &str); 13] = [
            (|e| e.version = 0, "version is 1 to"),
            (|e| e.version = LAST_VERSION + 1, "version is 1 to"),
            (|e| e.key_id.clear(), "a key_id has"),
            (|e| e.key_id = "a b".into(), "a key_id has"),
            (|e| e.key_id = "x".repeat(65), "a key_id has"),
            (|e| e.hash = "0A".repeat(32), "a hash is"),
            (|e| e.hash = "0a".repeat(31), "a hash is"),
            (|e| e.tenant_id = TenantId::from(""), "tenant_id is empty"),
            (|e| e.tenant_id = TenantId::from("a\nkey-2  good"), "a control character"),
            (|e| e.deployments = Some(Vec::new()), "1 to 1000 ids"),
            (|e| e.deployments = Some(vec![DeploymentId(0)]), "1 to 1000 ids"),
            (|e| e.allow = Some(Vec::new()), "1 to 100 networks"),
            (|e| e.expires_at = Time::from_unix(1001) + LONGEST, "365 days"),
        ];
        for (change, reason) in cases {
            let mut event = good();
            change(&mut event);
            let refused = event.key(now).expect_err(reason);
            assert!(refused.0.contains(reason) && !refused.0.contains("0a0a"), "{refused}");
        }
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
        let cases: [(Change, &str); 11] = [
            (|e| e.version = 0, "count from 1"),
            (|e| e.version = LAST_VERSION + 1, "version is 1 to"),
            (|e| e.tenant_id = TenantId::from("a\u{85}"), "tenant_id has a control character"),
            (|e| e.status.push('\n'), "status has a control character"),
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
