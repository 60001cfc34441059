//! API keys: what is stored of one, and the secret that only its holder has.

use backups_core::id::{DeploymentId, TenantId};
use backups_core::time::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Table, TableError, from_item, s, to_item};

/// What a key may do. `Manage` implies `Read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// List.
    #[serde(rename = "deployment:read")]
    Read,
    /// List, create, restore, delete.
    #[serde(rename = "deployment:manage")]
    Manage,
}

/// A key's row. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// SHA-256 of the secret, in hex.
    pub hash: String,
    /// What people call it by; safe to log.
    pub key_id: String,
    /// Whose deployments it opens.
    pub tenant_id: TenantId,
    /// What it may do.
    pub permission: Permission,
    /// The deployments it is bound to; None: all of the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<Vec<DeploymentId>>,
    /// From then on it opens nothing.
    pub expires_at: Time,
}

impl KeyRow {
    /// Whether the key may see this deployment of this tenant.
    pub fn opens(&self, deployment: DeploymentId, tenant: &TenantId) -> bool {
        self.tenant_id == *tenant
            && self.deployments.as_ref().is_none_or(|bound| bound.contains(&deployment))
    }

    /// Whether the key may do what needs `permission`.
    pub fn may(&self, permission: Permission) -> bool {
        self.permission >= permission
    }
}

/// A key's secret: `ld_` and 43 base64url characters, 256 random bits. Has no
/// `Debug` that shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A new secret from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        #[expect(clippy::disallowed_methods, reason = "the one place that draws secrets")]
        getrandom::fill(&mut bytes)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The secret of these 256 bits.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        use base64::Engine as _;
        Self(format!("ld_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a secret as a client sends it. None: it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix("ld_")?;
        let form = body.len() == 43
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        form.then(|| Self(text.to_owned()))
    }

    /// The secret in clear, for its holder alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> String {
        use std::fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.0.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

impl Table {
    /// The key with this hash, strongly consistent.
    pub async fn key(&self, hash: &str) -> Result<Option<KeyRow>, TableError> {
        self.get(format!("KEY#{hash}"), "KEY".to_owned()).await?.map(from_item).transpose()
    }

    /// Stores a key.
    pub async fn put_key(&self, key: &KeyRow) -> Result<(), TableError> {
        let mut item = to_item("KEY", key)?;
        item.insert("pk".into(), s(format!("KEY#{}", key.hash)));
        item.insert("sk".into(), s("KEY"));
        self.put(item).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_the_documented_form_and_shows_itself_to_nobody() {
        let secret = Secret::generate().expect("randomness");
        assert_eq!(secret.expose().len(), 46);
        assert_eq!(Secret::parse(secret.expose()), Some(secret.clone()));
        // By another program: `sha256sum`.
        let zeroes = Secret::from_bytes([0; 32]);
        assert_eq!(
            zeroes.hash(),
            "3e80ee88cbe9d5073143a84c599e51f7713a4427c4099bab46aa021d756d206a"
        );
        assert!(!format!("{secret:?}").contains(&secret.expose()[3..]));
        for bad in ["", "ld_", "ld_short", "xx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(Secret::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn manage_implies_read_and_a_bound_key_opens_only_its_deployments() {
        let key = KeyRow {
            hash: String::new(),
            key_id: "k".into(),
            tenant_id: TenantId::from("a"),
            permission: Permission::Manage,
            deployments: Some(vec![DeploymentId(1)]),
            expires_at: Time::from_unix(0),
        };
        assert!(key.may(Permission::Read) && key.may(Permission::Manage));
        assert!(key.opens(DeploymentId(1), &TenantId::from("a")));
        assert!(!key.opens(DeploymentId(2), &TenantId::from("a")));
        assert!(!key.opens(DeploymentId(1), &TenantId::from("b")));
    }
}
