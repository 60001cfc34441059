//! API keys: what is kept of one, what it opens, and from where.
//!
//! The secret itself is nowhere: only whoever holds it has it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, TenantId};
use crate::time::{Seconds, Time};

/// What every key's secret begins with.
pub const SECRET_PREFIX: &str = "ld_";

/// How many characters come after it: letters, digits, `-` and `_`.
pub const SECRET_BODY: usize = 43;

/// Whether a secret may stand in a text, or the beginning of one.
pub fn may_hold_secret(text: &str) -> bool {
    text.match_indices(SECRET_PREFIX).any(|(at, _)| {
        let word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let whole =
            text[at + SECRET_PREFIX.len()..].chars().take_while(word).count() >= SECRET_BODY;
        whole || !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
    })
}

/// The longest that a key may open anything.
pub const LONGEST: Seconds = Seconds::days(365);

/// The most deployments that a key may be bound to.
pub const MOST_DEPLOYMENTS: usize = 1000;

/// The most entries of an allowlist.
pub const MOST_NETWORKS: usize = 100;

/// What a key may do. `Manage` implies `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// List and show.
    #[serde(rename = "deployment:read")]
    Read,
    /// Also create, change, restore, and delete.
    #[serde(rename = "deployment:manage")]
    Manage,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 2] = [Self::Read, Self::Manage];

    /// As the contract writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "deployment:read",
            Self::Manage => "deployment:manage",
        }
    }
}

/// A key's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// SHA-256 of the secret, in hex.
    pub hash: String,
    /// What people call it by; safe to log.
    pub key_id: String,
    /// Grows with each change.
    #[serde(default)]
    pub version: u64,
    /// Whose deployments it opens.
    pub tenant_id: TenantId,
    /// What it may do.
    pub permission: Permission,
    /// The deployments it is bound to; None: all of the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<DeploymentId>>,
    /// From where it may be used; None: from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Network>>,
    /// From then on it opens nothing.
    pub expires_at: Time,
    /// Since then it opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

impl Key {
    /// Whether it counts at this second.
    pub fn is_good(&self, now: Time) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// The key as it is once it is revoked: for good, since `at` if it was not before. It is a
    /// version of its own, or no write of it would take the place of this one.
    #[must_use]
    pub fn revoked(self, at: Time) -> Self {
        if self.revoked_at.is_some() {
            return self;
        }
        Self { revoked_at: Some(at), version: self.version.saturating_add(1), ..self }
    }

    /// Whether the key may see this deployment of this tenant.
    pub fn opens(&self, deployment: DeploymentId, tenant: &TenantId) -> bool {
        self.tenant_id == *tenant
            && self.deployments.as_ref().is_none_or(|bound| bound.contains(&deployment))
    }

    /// Whether the key may do what needs `permission`.
    pub fn may(&self, permission: Permission) -> bool {
        self.permission >= permission
    }

    /// Whether the key may be used from this address. None: nobody knows from where.
    pub fn allows(&self, from: Option<IpAddr>) -> bool {
        let Some(allow) = &self.allow else { return true };
        from.is_some_and(|from| allow.iter().any(|network| network.contains(from)))
    }
}

/// An entry of an allowlist: an address, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in it. An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`)
    /// is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!("`{text}` is no address and no network such as 192.0.2.0/24 or 2001:db8::/32")
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        // ipnet takes 010.0.0.0, which is 8.0.0.0 to others; the standard library does not.
        let address = text.split('/').next().unwrap_or_default();
        address.parse::<IpAddr>().map_err(|_| fault())?;
        let network: IpNet = text.parse().map_err(|_| fault())?;
        let network = unmapped(network).unwrap_or(network);
        // Bits beyond the prefix are a slip of somebody who meant another network.
        if network.trunc() != network {
            let meant = network.trunc();
            return Err(format!("`{text}` has bits beyond its prefix: {meant} is the network"));
        }
        Ok(Self(network))
    }
}

/// The IPv4 network that an IPv6 one within `::ffff:0:0/96` is.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let prefix = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(network.addr().to_ipv4_mapped()?, prefix).ok().map(IpNet::V4)
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // One address is written as one.
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            hash: String::new(),
            key_id: "k".into(),
            version: 1,
            tenant_id: TenantId::from("a"),
            permission: Permission::Manage,
            deployments: Some(vec![DeploymentId(1)]),
            allow: None,
            expires_at: Time::from_unix(100),
            revoked_at: None,
        }
    }

    #[test]
    fn manage_implies_read_and_a_bound_key_opens_only_its_deployments() {
        let key = key();
        assert!(key.may(Permission::Read) && key.may(Permission::Manage));
        assert!(key.opens(DeploymentId(1), &TenantId::from("a")));
        assert!(!key.opens(DeploymentId(2), &TenantId::from("a")));
        assert!(!key.opens(DeploymentId(1), &TenantId::from("b")));
        let reader = Key { permission: Permission::Read, ..key };
        assert!(reader.may(Permission::Read) && !reader.may(Permission::Manage));
    }

    #[test]
    fn a_key_counts_until_its_second_and_until_it_is_revoked() {
        let good = |key: &Key, second| key.is_good(Time::from_unix(second));
        assert!(good(&key(), 99) && !good(&key(), 100));
        let revoked = Key { revoked_at: Some(Time::from_unix(50)), ..key() };
        assert!(!good(&revoked, 0), "by a clock that is slow, too");
        let ended = key().revoked(Time::from_unix(60));
        assert_eq!((ended.version, ended.revoked_at), (2, Some(Time::from_unix(60))));
        assert_eq!(ended.clone().revoked(Time::from_unix(70)), ended, "once is for good");
    }

    #[test]
    fn an_allowlist_lets_in_what_is_in_one_of_its_networks() {
        let from = |allow: &[&str], address: &str| {
            let allow = allow.iter().map(|text| text.parse().expect("a network")).collect();
            Key { allow: Some(allow), ..key() }.allows(address.parse().ok())
        };
        assert!(key().allows(None) && !Key { allow: Some(Vec::new()), ..key() }.allows(None));
        assert!(from(&["192.0.2.7"], "192.0.2.7") && !from(&["192.0.2.7"], "192.0.2.8"));
        assert!(from(&["192.0.2.0/24"], "192.0.2.255") && !from(&["192.0.2.0/24"], "192.0.3.0"));
        assert!(from(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1"));
        assert!(!from(&["2001:db8::/32"], "2001:db9::1") && !from(&["0.0.0.0/0"], "2001:db8::1"));
        // What a gateway of two stacks may write.
        assert!(from(&["192.0.2.0/24"], "::ffff:192.0.2.1"));
        assert!(from(&["::ffff:192.0.2.1"], "192.0.2.1"));
        assert!(from(&["::ffff:192.0.2.0/120"], "192.0.2.1"));
        assert!(!from(&["::ffff:192.0.2.0/120"], "192.0.3.1"));
        assert!(!from(&["192.0.2.0/24"], "no address"));
    }

    #[test]
    fn a_network_is_written_as_it_is_read_and_a_slip_is_named() {
        for text in ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().map(|one| one.to_string()), Ok(text.to_owned()));
        }
        let slip = "192.0.2.7/24".parse::<Network>().expect_err("refused");
        assert!(slip.contains("192.0.2.0/24"), "{slip}");
        for bad in ["", "192.0.2", "192.0.2.0/33", "192.0.2.0/", "x/8", "192.0.2.7 ", "010.0.0.0/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        // What is stored is what was given.
        for text in ["10.0.0.0/8", "::ffff:192.0.2.1/128", "::ffff:192.0.2.0/120", "::1/128"] {
            let network: Network = text.parse().expect("a network");
            let json = serde_json::to_string(&network).expect("JSON");
            assert_eq!(serde_json::from_str::<Network>(&json).ok(), Some(network), "{json}");
        }
        assert!(serde_json::from_str::<Network>(r#""localhost""#).is_err());
    }
}
