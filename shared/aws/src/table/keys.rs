//! API keys: what is stored of one, and the secret that only its holder has.

use aws_sdk_dynamodb::types::{
    Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use backups_core::key::{SECRET_BODY, SECRET_PREFIX};
use backups_core::time::{Seconds, Time};

pub use backups_core::key::{Key, Permission};

use super::operation::built;
use super::{Item, Table, TableError, call, n, s, sha256, to_item};

/// A key's secret: `ld_` and 43 base64url characters, 256 random bits. Has no `Debug` that
/// shows it, and no comparison: it is looked up by its hash, so no time tells how much of it
/// somebody has guessed.
#[derive(Clone)]
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
        Self(format!(
            "{SECRET_PREFIX}{}",
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
        ))
    }

    /// Reads a secret as a client sends it. None: it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix(SECRET_PREFIX)?;
        let form = body.len() == SECRET_BODY
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        form.then(|| Self(text.to_owned()))
    }

    /// The secret in clear, for its holder alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> String {
        sha256(&[self.0.as_bytes()])
    }
}

/// What became of a key that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyWritten {
    /// It is stored, or was before.
    Yes,
    /// A later version of it is there, or it was revoked: nothing changed.
    Older,
    /// Nothing changed: its hash or its id is another key's, or its tenant another.
    Clash,
    /// It met another write: try again.
    Conflict,
}

/// How long a key is still there once its time is over, and after its last change: longer than
/// any event about it can be late (a dead letter is kept for 14 days), which would make it anew.
const LISTED: Seconds = Seconds::days(90);

/// The partition in which all keys are listed.
const KEYS: &str = "KEYS";

/// Reads a key's row. An error shows nothing of it but the key's id: what it says of a field that
/// it cannot read may quote it.
fn read(row: Item) -> Result<Key, TableError> {
    let text = |name: &str| row.get(name).and_then(|text| text.as_s().ok()).cloned();
    let name = text("key_id").or_else(|| text("sk")).unwrap_or_default();
    serde_dynamo::from_item(row)
        .map_err(|_| TableError::unreadable(name, "it is not as this release writes a key"))
}

impl Table {
    /// The key with this hash, strongly consistent.
    pub async fn key(&self, hash: &str) -> Result<Option<Key>, TableError> {
        self.get(format!("KEY#{hash}"), "KEY".to_owned()).await?.map(read).transpose()
    }

    /// The key that people call so.
    pub async fn key_called(&self, key_id: &str) -> Result<Option<Key>, TableError> {
        self.get(KEYS.to_owned(), key_id.to_owned()).await?.map(read).transpose()
    }

    /// All keys, in the order of their ids, and of a row that is none why not: it must not
    /// hide the others from who looks for a key that leaked.
    pub async fn keys(&self) -> Result<Vec<Result<Key, TableError>>, TableError> {
        let mut start = None;
        let mut keys = Vec::new();
        loop {
            let reply = self
                .client
                .query()
                .table_name(&self.name)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", s(KEYS))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| call("Query", &error))?;
            keys.extend(reply.items.unwrap_or_default().into_iter().map(read));
            start = reply.last_evaluated_key;
            if start.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Stores a key, in both rows that it has: by its hash, where each request finds it, and
    /// in the list. Neither hash nor id nor tenant of a key ever changes.
    pub async fn put_key(&self, key: &Key, now: Time) -> Result<KeyWritten, TableError> {
        // Who does not know that it was revoked does not revive it.
        let stays =
            if key.revoked_at.is_none() { " AND attribute_not_exists(revoked_at)" } else { "" };
        let put = |pk: String, sk: &str| {
            let mut item = to_item(sk, key)?;
            item.insert("pk".into(), s(pk));
            item.insert("sk".into(), s(sk));
            item.insert("ttl".into(), n((key.expires_at.max(now) + LISTED).unix()));
            let put = Put::builder()
                .table_name(&self.name)
                .set_item(Some(item))
                .condition_expression(format!(
                    "attribute_not_exists(pk) OR (#hash = :hash AND key_id = :id \
                     AND tenant_id = :tenant \
                     AND (attribute_not_exists(version) OR version < :version){stays})"
                ))
                .expression_attribute_names("#hash", "hash")
                .expression_attribute_values(":hash", s(&key.hash))
                .expression_attribute_values(":id", s(&key.key_id))
                .expression_attribute_values(":tenant", s(key.tenant_id.as_str()))
                .expression_attribute_values(":version", n(key.version))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .build();
            Ok(TransactWriteItem::builder().put(built(put)?).build())
        };
        let items =
            vec![put(format!("KEY#{}", key.hash), "KEY")?, put(KEYS.to_owned(), &key.key_id)?];
        let reasons = match self.transact(items).await? {
            Ok(()) => return Ok(KeyWritten::Yes),
            Err(reasons) => reasons,
        };
        let there = reasons.into_iter().filter_map(|reason| reason.item);
        let there = there.map(read).collect::<Result<Vec<Key>, _>>()?;
        let same = |there: &Key| {
            there.hash == key.hash && there.key_id == key.key_id && there.tenant_id == key.tenant_id
        };
        Ok(if there.is_empty() {
            KeyWritten::Conflict
        } else if !there.iter().all(same) {
            KeyWritten::Clash
        } else if there.iter().all(|there| there == key) {
            // Of an earlier try, or of an event that came twice.
            KeyWritten::Yes
        } else {
            KeyWritten::Older
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_the_documented_form_and_shows_itself_to_nobody() {
        let secret = Secret::generate().expect("randomness");
        assert_eq!(secret.expose().len(), 46);
        let read = Secret::parse(secret.expose()).expect("its own form");
        assert_eq!(read.expose(), secret.expose());
        // By another program: `sha256sum`.
        let zeroes = Secret::from_bytes([0; 32]);
        assert_eq!(
            zeroes.hash(),
            "3e80ee88cbe9d5073143a84c599e51f7713a4427c4099bab46aa021d756d206a"
        );
        assert!(!format!("{secret:?}").contains(&secret.expose()[3..]));
        for bad in ["", "ld_", "ld_short", "xx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
