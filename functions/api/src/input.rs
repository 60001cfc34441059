//! What a request brings besides its key: ids in the path, and a body.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, RawPathParams};
use backups_aws::table::LIST;
use backups_core::body::MAX_BYTES;
use backups_core::error::{Code, FieldIssue, Refusal};
use backups_core::id::{BackupId, DeploymentId, NotAnId, RestoreId};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use std::str::FromStr;
use tracing::Span;
use tracing::field::display;

use crate::problem::Problem;

/// The deployment that the path names.
pub(crate) async fn deployment(parts: &mut Parts) -> Result<DeploymentId, Problem> {
    let mut path = Path::of(parts).await;
    let deployment = path.id("deployment_id");
    path.all(deployment)
}

/// The deployment and the backup that the path names.
pub(crate) async fn backup(parts: &mut Parts) -> Result<(DeploymentId, BackupId), Problem> {
    let mut path = Path::of(parts).await;
    let deployment = path.id("deployment_id");
    let backup = path.id("backup_id");
    path.all(deployment.zip(backup))
}

/// The deployment and the restore that the path names.
pub(crate) async fn restore(parts: &mut Parts) -> Result<(DeploymentId, RestoreId), Problem> {
    let mut path = Path::of(parts).await;
    let deployment = path.id("deployment_id");
    let restore = path.id("restore_id");
    path.all(deployment.zip(restore))
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page<Id> {
    /// The most items.
    pub(crate) limit: usize,
    /// Only what is older than this one.
    pub(crate) before: Option<Id>,
}

/// The deployment that the path names, and the part of its list that the query names.
/// Parameters that the query has beside them are not ours.
pub(crate) async fn page<Id: FromStr<Err = NotAnId>>(
    parts: &mut Parts,
) -> Result<(DeploymentId, Page<Id>), Problem> {
    let mut path = Path::of(parts).await;
    let deployment = path.id("deployment_id");
    let query = parts.uri.query().unwrap_or_default();
    let limit = path.parameter(query, "limit", |text| {
        // One number has one form, as ids have.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let limit = text.parse().ok().filter(|limit| plain && (1..=LIST).contains(limit));
        limit.ok_or_else(|| format!("`limit` must be an integer from 1 to {LIST}."))
    });
    let before = path.parameter(query, "before", |text| {
        text.parse().map_err(|fault: NotAnId| format!("`before` is no id: {fault}."))
    });
    let read = deployment.filter(|_| path.issues.is_empty());
    path.all(read.map(|id| (id, Page { limit: limit.unwrap_or(LIST), before })))
}

/// The path's parameters, and what is wrong with them.
struct Path {
    /// None: they are not even UTF-8.
    parameters: Option<RawPathParams>,
    issues: Vec<FieldIssue>,
}

impl Path {
    async fn of(parts: &mut Parts) -> Self {
        let parameters = RawPathParams::from_request_parts(parts, &()).await.ok();
        Self { parameters, issues: Vec::new() }
    }

    /// One parameter as an id, which goes into the span.
    fn id<T: FromStr<Err = NotAnId> + std::fmt::Display>(&mut self, name: &str) -> Option<T> {
        let text = self
            .parameters
            .iter()
            .flatten()
            .find_map(|(parameter, text)| (parameter == name).then_some(text));
        match text.unwrap_or_default().parse::<T>() {
            Ok(id) => {
                Span::current().record(name, display(&id));
                Some(id)
            }
            Err(fault) => {
                let reason = format!("`{name}` in the path is no id: {fault}.");
                self.issues.push(FieldIssue::new(name, "value", reason));
                None
            }
        }
    }

    /// The one value of a parameter of the query, if it is there.
    fn parameter<T>(
        &mut self,
        query: &str,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
        let value = values.next()?;
        let fault = if values.next().is_some() {
            ("duplicate", format!("`{name}` stands more than once in the query; leave one."))
        } else {
            match read(&value.1) {
                Ok(read) => return Some(read),
                Err(reason) => ("value", reason),
            }
        };
        self.issues.push(FieldIssue::new(name, fault.0, fault.1));
        None
    }

    /// What was read, or every fault.
    fn all<T>(self, read: Option<T>) -> Result<T, Problem> {
        read.ok_or_else(|| Refusal::invalid(self.issues).into())
    }
}

/// The body of a request that must have one: at most 64 KiB of JSON.
pub(crate) async fn json(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let bytes = read(headers, body).await?;
    declared_json(headers)?;
    Ok(bytes)
}

/// The body of a request that need not have one: none, or as [`json`].
pub(crate) async fn optional_json(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let bytes = read(headers, body).await?;
    if !bytes.is_empty() {
        declared_json(headers)?;
    }
    Ok(bytes)
}

/// The body, as long as it is not too large.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_BYTES as u64) {
        return Err(too_large());
    }
    // The function has the whole body in hand before it begins: reading it can
    // only fail by its size.
    to_bytes(body, MAX_BYTES).await.map(Into::into).map_err(|_| too_large())
}

/// The body is larger than any may be.
pub(crate) fn too_large() -> Problem {
    let reason = format!("The body is larger than {} KiB; send less.", MAX_BYTES / 1024);
    Problem::new(Code::BodyTooLarge, &reason)
}

/// Refuses a body that is not declared as JSON.
fn declared_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_json(headers) { Ok(()) } else { Err(not_json()) }
}

/// The body is not declared as JSON, or is compressed.
pub(crate) fn not_json() -> Problem {
    let reason = "Send the body as JSON, with the header `content-type: application/json` and \
                  without `content-encoding`.";
    Problem::new(Code::UnsupportedMediaType, reason)
}

/// Whether the headers declare JSON: `application/json` or `…+json`, with any
/// parameters, once, and not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(declared), None) = (types.next(), types.next()) else {
        return false;
    };
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    plain && declared.to_str().is_ok_and(is_json_type)
}

/// Whether a media type is `application/json` or has the suffix `+json` (RFC 6839).
fn is_json_type(declared: &str) -> bool {
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let suffixed = || subtype.strip_suffix("+json").is_some_and(token);
    token(kind) && ((kind == "application" && subtype == "json") || suffixed())
}

/// A token of RFC 9110, 5.6.2.
fn token(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn json_by_its_type() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json ;x=y",
            "application/merge-patch+json",
            "application/vnd.laserdata+json; version=1",
        ] {
            assert!(is_json(&headers(&[("content-type", good)])), "{good}");
        }
        for bad in [
            "",
            "json",
            "text/json",
            "text/plain",
            "application/jsonx",
            "application/+json",
            "application/x json",
            "application/json, text/plain",
            "/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
        ] {
            assert!(!is_json(&headers(&[("content-type", bad)])), "{bad}");
        }
    }

    #[test]
    fn no_type_two_types_or_a_compressed_body_are_not_json() {
        let json = ("content-type", "application/json");
        assert!(!is_json(&headers(&[])));
        assert!(!is_json(&headers(&[json, json])));
        assert!(!is_json(&headers(&[json, ("content-encoding", "gzip")])));
        assert!(is_json(&headers(&[json, ("content-encoding", "identity")])));
    }

    #[tokio::test]
    async fn size_comes_before_type_and_type_before_content() {
        let json_type = headers(&[("content-type", "application/json")]);
        let code = async |headers: &HeaderMap, size: usize| {
            json(headers, Body::from(vec![b'x'; size])).await.map_err(|problem| problem.code())
        };
        assert_eq!(code(&HeaderMap::new(), MAX_BYTES + 1).await, Err(Code::BodyTooLarge));
        assert_eq!(code(&json_type, MAX_BYTES + 1).await, Err(Code::BodyTooLarge));
        assert_eq!(code(&HeaderMap::new(), MAX_BYTES).await, Err(Code::UnsupportedMediaType));
        assert_eq!(code(&json_type, MAX_BYTES).await.map(|bytes| bytes.len()), Ok(MAX_BYTES));
        let announced = headers(&[("content-length", "65537")]);
        assert_eq!(code(&announced, 0).await, Err(Code::BodyTooLarge));
    }

    #[tokio::test]
    async fn a_body_that_need_not_be_there_is_held_to_the_same() {
        let json_type = headers(&[("content-type", "application/json")]);
        let code = async |headers: &HeaderMap, size: usize| {
            let read = optional_json(headers, Body::from(vec![b'x'; size])).await;
            read.map(|bytes| bytes.len()).map_err(|problem| problem.code())
        };
        assert_eq!(code(&HeaderMap::new(), 0).await, Ok(0));
        assert_eq!(code(&HeaderMap::new(), 1).await, Err(Code::UnsupportedMediaType));
        assert_eq!(code(&json_type, MAX_BYTES).await, Ok(MAX_BYTES));
        for size in [MAX_BYTES + 1, MAX_BYTES + 2, 2 * MAX_BYTES] {
            assert_eq!(code(&json_type, size).await, Err(Code::BodyTooLarge), "{size}");
        }
    }
}
