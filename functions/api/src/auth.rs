//! Who calls: the header `ld-api-key`, looked up by its SHA-256.
//!
//! A key that was found is kept for some 20 s, so that most requests cost no read for it, and
//! a revoked one does nothing more within 30 s. A key that was not found
//! is not kept: a new key works at once, even if it was tried a moment too early,
//! and guesses cannot fill the memory. Expiry is compared at each use.
//!
//! Missing, doubled, malformed, unknown, revoked, expired: one reply for all. A good key that
//! comes from outside of its allowlist is told so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backups_aws::table::keys::{Key, Secret};
use backups_core::error::{Code, Refusal};
use backups_core::time::{Seconds, Time};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use lambda_http::RequestExt as _;
use lambda_http::request::RequestContext;
use tracing::Span;

use crate::problem::Problem;
use crate::{Api, rate};

/// The header that bears the key.
pub(crate) const LD_API_KEY: &str = "ld-api-key";

/// How long a key is kept. A request that is let in then has the frame's 8 s, and times are cut
/// to whole seconds: 30 s after a key was revoked nothing happens by it.
const KEPT: Seconds = Seconds(21);

/// How many keys are kept.
const MOST_KEPT: usize = 1000;

/// The keys that were found lately.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// By hash.
    kept: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    key: Arc<Key>,
    /// The time before the read was begun: what was revoked later was read too early.
    read_at: Time,
}

/// The key that the request bears, if it is good at this second and has not called too often.
pub(crate) async fn caller(api: &Api, parts: &Parts) -> Result<Arc<Key>, Problem> {
    let hash = secret(&parts.headers).ok_or_else(unauthorized)?.hash();
    let now = api.clock.now();
    let key = if let Some(key) = api.keys.kept(&hash, now) {
        key
    } else {
        let row = api.table.key(&hash).await?.ok_or_else(unauthorized)?;
        let key = Arc::new(row);
        api.keys.keep(hash, Arc::clone(&key), now);
        key
    };
    // Also of one that is refused: whose key was stolen wants to know.
    Span::current().record("key_id", key.key_id.as_str());
    // Asked anew: the read took its time.
    if !key.is_good(api.clock.now()) {
        return Err(unauthorized().into());
    }
    if !key.allows(source(&parts.extensions)) {
        return Err(elsewhere().into());
    }
    rate::counted(api, &key).await?;
    Ok(key)
}

/// From where the gateway was called, as it saw it itself: what a forwarded header says is
/// whatever the client wrote (API Gateway developer guide, "Create AWS Lambda proxy
/// integrations for HTTP APIs": `requestContext.http.sourceIp`).
fn source(extensions: &Extensions) -> Option<IpAddr> {
    match extensions.request_context_ref()? {
        RequestContext::ApiGatewayV2(context) => context.http.source_ip.as_deref()?.parse().ok(),
        _ => None,
    }
}

/// The one secret that the headers bear. The gateway joins doubled headers with
/// commas, which no secret has.
fn secret(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(LD_API_KEY).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Secret::parse(value.to_str().ok()?),
        _ => None,
    }
}

/// The one reply.
pub(crate) fn unauthorized() -> Refusal {
    let reason = "Send a valid API key in the header `ld-api-key`.";
    Refusal::new(Code::Unauthorized, reason)
}

/// Without a word of what would be allowed: whoever stole the key learns nothing.
pub(crate) fn elsewhere() -> Refusal {
    let reason = "The key may not be used from this address; ask its owner for its allowlist.";
    Refusal::new(Code::IpNotAllowed, reason)
}

impl Keys {
    /// The key, if it was read lately.
    fn kept(&self, hash: &str, now: Time) -> Option<Arc<Key>> {
        self.lock().get(hash).filter(|kept| kept.fresh(now)).map(|kept| Arc::clone(&kept.key))
    }

    /// Keeps a key; the one that was read the longest time ago makes room.
    fn keep(&self, hash: String, key: Arc<Key>, now: Time) {
        let mut keys = self.lock();
        if keys.len() >= MOST_KEPT {
            keys.retain(|_, kept| kept.fresh(now));
        }
        if keys.len() >= MOST_KEPT {
            let oldest = keys.iter().min_by_key(|(_, kept)| kept.read_at);
            if let Some(hash) = oldest.map(|(hash, _)| hash.clone()) {
                keys.remove(&hash);
            }
        }
        keys.insert(hash, Kept { key, read_at: now });
    }

    /// The map is whole after any panic: each change of it is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// A clock that was set back makes nothing fresh.
    fn fresh(&self, now: Time) -> bool {
        let age = now - self.read_at;
        age >= Seconds(0) && age <= KEPT
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::tests::key;

    const SECRET: &str = "ld_0123456789abcdefghijklmnopqrstuvwxyzABCDE-_";

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(LD_API_KEY, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_well_formed_key_is_a_secret_and_all_else_is_none() {
        assert!(secret(&headers(&[SECRET])).is_some());
        let doubled = format!("{SECRET},{SECRET}").leak();
        let longer = format!("{SECRET}A").leak();
        let padded = format!("{}=", &SECRET[..45]).leak();
        for bad in [
            vec![],
            vec![""],
            vec!["ld_"],
            vec![&SECRET[3..]],
            vec![&SECRET[..45]],
            vec![SECRET, SECRET],
            vec![doubled],
            vec![longer],
            vec![padded],
            vec!["Bearer ld_0123456789abcdefghijklmnopqrstuvwxyzABCDE-_"],
        ] {
            assert!(secret(&headers(&bad)).is_none(), "{bad:?}");
        }
        let mut binary = HeaderMap::new();
        binary.insert(LD_API_KEY, HeaderValue::from_bytes(b"ld_\xFF").expect("a value"));
        assert!(secret(&binary).is_none());
    }

    #[test]
    fn a_key_is_kept_until_a_request_by_it_might_outlast_its_revocation() {
        let keys = Keys::default();
        let read = Time::from_unix(1000);
        assert!(keys.kept("h", read).is_none());
        keys.keep("h".into(), Arc::new(key()), read);
        assert!(keys.kept("h", read).is_some());
        assert!(keys.kept("h", Time::from_unix(1021)).is_some());
        assert!(keys.kept("h", Time::from_unix(1022)).is_none());
        assert!(keys.kept("h", Time::from_unix(999)).is_none(), "the clock was set back");
        assert!(keys.kept("other", read).is_none());
        let longest = KEPT.0.unsigned_abs() + 1 + crate::frame::DEADLINE.as_secs();
        assert!(longest <= 30, "{longest}");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_makes_room() {
        let keys = Keys::default();
        let at = |second: usize| Time::from_unix(i64::try_from(second / 100).expect("small"));
        for n in 0..=MOST_KEPT {
            keys.keep(n.to_string(), Arc::new(key()), at(n));
        }
        let now = at(MOST_KEPT);
        assert_eq!(keys.lock().len(), MOST_KEPT);
        assert!(keys.kept("0", now).is_none());
        assert!(keys.kept("1", now).is_some());
        keys.keep("late".into(), Arc::new(key()), Time::from_unix(1000));
        assert_eq!(keys.lock().len(), 1, "what is stale goes first");
    }
}
