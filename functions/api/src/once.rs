//! A request that may come again: the header `idempotency-key` on POST, PUT and PATCH.
//!
//! What was carried out is answered again as it was, for ten minutes, also when what it made
//! is gone; what was refused is not kept. The record is written by the transaction that does
//! the work, so a request that was cut off before its answer is found by the next one.
//!
//! Access comes first, each time: a replay shows nothing that the key may not see now.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use backups_aws::random;
use backups_aws::table::keys::Key;
use backups_aws::table::requests::{Answer, Known, Once, Record};
use backups_aws::table::{TableError, Written};
use backups_core::error::{Code, FieldIssue, Refusal};
use backups_core::time::Time;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::Api;
use crate::problem::Problem;

/// The header that bears a new backup's id.
pub(crate) const LD_BACKUP: HeaderName = HeaderName::from_static("ld-backup");

/// The header that bears a new restore's id.
pub(crate) const LD_RESTORE: HeaderName = HeaderName::from_static("ld-restore");

/// The header by which a client calls its request.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of an answer that was given before.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest that a client may call a request.
pub(crate) const LONGEST: usize = 255;

/// How often a write that met another one is decided anew.
const TRIES: u32 = 8;

/// The longest pause before the first new try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(25);

/// A request that changes something, as its body and headers describe it.
#[derive(Debug)]
pub(crate) struct Sent<T> {
    /// What its body asks for.
    pub(crate) wanted: T,
    /// What its client calls it.
    pub(crate) once: Option<Once>,
}

impl<T> Sent<T> {
    /// The request with this body, which was read as `wanted`; or all that is wrong with
    /// either.
    pub(crate) fn new(
        key: &Key,
        parts: &Parts,
        body: &[u8],
        wanted: Result<T, Refusal>,
    ) -> Result<Self, Refusal> {
        match (wanted, called(&parts.headers)) {
            (Ok(wanted), Ok(called)) => {
                let (method, path) = (parts.method.as_str(), parts.uri.path());
                let once = called.map(|called| Once::new(key, called, method, path, body));
                Ok(Self { wanted, once })
            }
            (Ok(_), Err(issue)) => Err(Refusal::invalid(vec![issue])),
            (Err(refusal), Err(issue)) if refusal.code == Code::InvalidRequest => {
                let issues = refusal.issues.into_iter().chain([issue]).collect();
                Err(Refusal::invalid(issues))
            }
            (Err(refusal), _) => Err(refusal),
        }
    }
}

/// What the client calls the request: 1 to 255 visible characters.
fn called(headers: &HeaderMap) -> Result<Option<&str>, FieldIssue> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let issue = |code, reason: String| FieldIssue::new(IDEMPOTENCY_KEY.as_str(), code, reason);
    if values.next().is_some() {
        let reason = "The header `idempotency-key` stands more than once; leave one.";
        return Err(issue("duplicate", reason.to_owned()));
    }
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = format!(
            "The header `idempotency-key` must be 1 to {LONGEST} visible ASCII characters."
        );
        return Err(issue("value", reason));
    }
    Ok(Some(text))
}

/// Carries out a request, once.
///
/// Whatever refuses it may be what the very same request has made a moment ago: then that
/// one's answer is the answer, unless the key may not see the deployment any more. If that
/// cannot be found out nobody knows whether the refusal is true: the request is to be sent
/// again.
pub(crate) async fn once(
    api: &Api,
    once: Option<&Once>,
    act: impl Future<Output = Result<Answer, Problem>>,
) -> Result<Response, Problem> {
    let Some(asked) = once else { return act.await.and_then(done) };
    if let Some(answer) = replay(api, asked).await? {
        return Ok(answer);
    }
    match act.await {
        Ok(answer) => done(answer),
        Err(problem) if problem.code() == Code::DeploymentNotFound => Err(problem),
        Err(problem) => replay(api, asked).await?.ok_or(problem),
    }
}

/// The answer that was given to the same request.
async fn replay(api: &Api, once: &Once) -> Result<Option<Response>, Problem> {
    let answer = match api.table.known(once, api.clock.now()).await? {
        Known::Nothing => return Ok(None),
        Known::Answered(answer) => answer,
        Known::Other => return Err(other_request()),
    };
    tracing::info!("answered as before");
    let mut response = done(answer)?;
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Ok(Some(response))
}

/// 204, with the ids of what was made.
fn done(answer: Answer) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let restore = answer.restore_id.map(|id| (LD_RESTORE, id.to_string()));
    let backup = answer.backup_id.map(|id| (LD_BACKUP, id.to_string()));
    for (name, id) in restore.into_iter().chain(backup) {
        let id = HeaderValue::from_str(&id).map_err(|_| Problem::internal())?;
        response.headers_mut().insert(name, id);
    }
    Ok(response)
}

/// The record of a request that has a name.
pub(crate) fn record(
    api: &Api,
    once: Option<&Once>,
    answer: Answer,
    now: Time,
) -> Result<Option<Record>, TableError> {
    once.map(|once| api.table.record(once, answer, now)).transpose()
}

/// The tries of a write: if what it was decided on has changed in between, it is read and
/// decided on anew. So of ten creates at once one is stored, and the others learn from a new
/// read that it is running.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    api: &'a Api,
    once: Option<&'a Once>,
    made: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(api: &'a Api, once: Option<&'a Once>) -> Self {
        Self { api, once, made: 0 }
    }

    /// Whether it is stored now. If not it is to be tried again, as long as no error says
    /// that it was tried enough.
    pub(crate) async fn stored(&mut self, written: impl Into<Written>) -> Result<bool, Problem> {
        let written = written.into();
        if written == Written::Stored {
            return Ok(true);
        }
        self.made += 1;
        if self.made >= TRIES {
            tracing::warn!("gave up after {TRIES} writes that met others");
            let met = self.once.is_some() && written == Written::InProgress;
            return Err(if met { in_progress() } else { Problem::unavailable() });
        }
        // Lets others finish, by a different time for each.
        let clock = &self.api.clock;
        clock.sleep(random::jitter(PAUSE * 2_u32.pow(self.made - 1))).await;
        // One of them may have been this very request.
        if let Some(once) = self.once
            && self.api.table.known(once, clock.now()).await? != Known::Nothing
        {
            return Err(in_progress());
        }
        Ok(false)
    }
}

/// The name stands for another request.
pub(crate) fn other_request() -> Problem {
    let reason = "This idempotency key was used for another request in the last ten minutes; \
                  send a new key, or the same method, path and body.";
    Problem::new(Code::IdempotencyError, reason)
}

/// The request with this name is at work.
pub(crate) fn in_progress() -> Problem {
    let reason = "The same request is being carried out at this moment; send it again in a few \
                  seconds for its answer.";
    Problem::new(Code::IdempotentRequestInProgress, reason)
}
