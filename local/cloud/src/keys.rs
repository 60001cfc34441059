//! KMS keys: every key can be used unless it was disabled.

use jiff::Timestamp;

use crate::Cloud;
use crate::world::DisabledKey;

impl Cloud {
    /// From now on the key of this ARN cannot be used: volumes that are being
    /// created with it vanish at the end of it, and instances that have a
    /// volume with it do not start. Both are seen only afterwards, as on AWS
    /// (M), (E).
    pub fn disable_key(&mut self, now: Timestamp, arn: &str) {
        self.advance(now);
        if !self.unusable(arn) {
            self.disabled_keys.insert(arn.to_owned(), DisabledKey { since: self.now });
        }
    }

    /// The key of this ARN can be used again.
    pub fn enable_key(&mut self, now: Timestamp, arn: &str) {
        self.advance(now);
        self.disabled_keys.remove(&arn.to_owned());
    }

    /// The ARNs of the keys that cannot be used, and since when.
    pub fn disabled_keys(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.disabled_keys.iter().map(|(arn, key)| (arn.as_str(), key.since))
    }

    pub(crate) fn unusable(&self, arn: &str) -> bool {
        self.disabled_keys.get(arn).is_some()
    }

    /// The ARN of a key that a call names by its id, its alias, or either's
    /// ARN (M). Aliases are not resolved: one is a key of its own.
    pub(crate) fn key_arn(&self, named: &str) -> String {
        let (region, account) = (&self.config.region, &self.config.account);
        let key = |rest: &str| format!("arn:aws:kms:{region}:{account}:{rest}");
        match named {
            arn if arn.starts_with("arn:") => arn.to_owned(),
            alias if alias.starts_with("alias/") => key(alias),
            id => key(&format!("key/{id}")),
        }
    }

    /// "your KMS key for Amazon EBS" [M, `KmsKeyId`].
    pub(crate) fn default_key(&self) -> String {
        self.key_arn("00000000-0000-4000-8000-0000000eb500")
    }
}
