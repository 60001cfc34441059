//! EC2's request throttling: a token bucket for each action, per account and
//! Region (T).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Cloud;

/// Tokens are kept in millionths, so that a refill rounds the same after a
/// restart.
const ONE: u64 = 1_000_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bucket {
    micro_tokens: u64,
    at: Timestamp,
}

/// How many tokens a bucket holds, and how many come back each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) capacity: u64,
    pub(crate) per_second: u64,
}

impl Limit {
    /// "Uncategorized actions" with rates of their own (T).
    pub(crate) const SNAPSHOTS: Limit = Limit { capacity: 100, per_second: 5 };
    /// `CreateVolume` and `DeleteVolume` (T).
    pub(crate) const VOLUMES: Limit = Limit { capacity: 100, per_second: 5 };
    /// Mutating actions without a rate of their own (T).
    pub(crate) const MUTATING: Limit = Limit { capacity: 50, per_second: 5 };
    /// `StartInstances` (T).
    pub(crate) const START: Limit = Limit { capacity: 5, per_second: 2 };
    pub(crate) const TAGS: Limit = Limit { capacity: 100, per_second: 10 };
    /// Describes with a filter or a page size; with ids too (inf) (T).
    pub(crate) const FILTERED: Limit = Limit { capacity: 100, per_second: 20 };
    /// Describes of everything at once (T).
    pub(crate) const UNFILTERED: Limit = Limit { capacity: 50, per_second: 10 };
}

impl Cloud {
    /// Takes a token, or says that there is none.
    pub(crate) fn take_token(&mut self, bucket: &str, limit: Limit) -> bool {
        let (now, full) = (self.now, limit.capacity * ONE);
        #[expect(clippy::cast_precision_loss, reason = "a rate is a small number")]
        let rate = limit.per_second as f64 * self.config.speed;
        let mut held = full;
        if let Some(row) = self.buckets.get(bucket) {
            let elapsed = now.duration_since(row.at).as_secs_f64().max(0.0);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounded by the bucket's capacity before the cast"
            )]
            let refill = (elapsed * rate * ONE as f64).min(full as f64) as u64;
            held = full.min(row.micro_tokens + refill);
        }
        let granted = held >= ONE;
        let micro_tokens = if granted { held - ONE } else { held };
        self.buckets.insert(bucket.to_owned(), Bucket { micro_tokens, at: now });
        granted
    }
}
