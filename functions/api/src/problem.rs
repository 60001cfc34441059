//! HTTP's face of a refusal: `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]; the frame, which alone knows the request's
//! id, renders it. So no error can leave without `instance`, and each is
//! rendered in one place.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use backups_aws::table::TableError;
use backups_core::error::{Code, FieldIssue, Refusal};
use backups_core::id::Nonce;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which a request is worth trying again that failed on a dependency.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Why a request is not done, and the headers that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    refusal: Refusal,
    /// The methods of the path, for a 405.
    allow: Option<&'static str>,
    /// Seconds after which it is worth trying again.
    retry_after: Option<u64>,
}

// In the contract's order; the comments are the API document's words.
/// Why a request was not done (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Shape<'a> {
    /// `about:blank`: nothing but the status and the code tells the kind.
    #[schema(value_type = String)]
    r#type: &'static str,
    /// The status in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Which rule refused: what programs should look at.
    #[schema(value_type = String)]
    code: &'static str,
    /// A sentence that says what to do.
    reason: &'a str,
    /// The request's id, as in the header `ld-request`.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    instance: &'a str,
    /// Whether the same request may succeed in a few seconds, by the status alone: what a 409
    /// waits for, its reason says.
    retryable: bool,
    /// Of input errors: where the first fault is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// Of input errors: every fault that was found.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    field_issues: &'a [FieldIssue],
}

impl Problem {
    pub(crate) fn new(code: Code, reason: &str) -> Self {
        Refusal::new(code, reason).into()
    }

    /// There is no such path.
    pub(crate) fn no_route() -> Self {
        Self::new(Code::RouteNotFound, "There is no such path.")
    }

    /// The path is there, and takes `allow` alone.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let reason = format!("This path has no such method; it has {allow}.");
        Self { allow: Some(allow), ..Refusal::new(Code::MethodNotAllowed, reason).into() }
    }

    /// A dependency failed. Which one, and how, is for the log.
    pub(crate) fn unavailable() -> Self {
        let reason = "The service cannot do this at the moment; try again in a few seconds.";
        Self::new(Code::Unavailable, reason)
    }

    /// The key has made all the requests that it may, for so many seconds.
    pub(crate) fn rate_limited(seconds: u64) -> Self {
        let reason = "The key has made too many requests in this minute; try again after \
                      `retry-after` seconds.";
        Self { retry_after: Some(seconds), ..Self::new(Code::RateLimited, reason) }
    }

    /// A fault of ours. What it was is for the log.
    pub(crate) fn internal() -> Self {
        let reason = "The service failed to handle this request; if it happens again, report \
                      the request id in `instance`.";
        Self::new(Code::Internal, reason)
    }

    /// Which rule refused.
    pub(crate) fn code(&self) -> Code {
        self.refusal.code
    }

    /// The body of the reply to the request with this id.
    pub(crate) fn shape<'a>(&'a self, instance: &'a Nonce) -> Shape<'a> {
        let Refusal { code, reason, issues } = &self.refusal;
        Shape {
            r#type: "about:blank",
            title: status(*code).canonical_reason().unwrap_or("Error"),
            status: code.status(),
            code: code.as_str(),
            reason,
            instance: instance.as_str(),
            retryable: code.retryable(),
            field: issues.first().map(|issue| issue.path.as_str()),
            field_issues: issues,
        }
    }

    /// The reply to the request with this id.
    pub(crate) fn render(&self, instance: &Nonce) -> Response {
        let code = self.code();
        // A struct of texts and numbers always serializes.
        let body = serde_json::to_vec(&self.shape(instance)).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status(code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // RFC 9110, 11.6.1: a 401 names the scheme. Ours is a header of its own.
        if code == Code::Unauthorized {
            let scheme = HeaderValue::from_static("ApiKey header=\"ld-api-key\"");
            headers.insert(WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The status of a code.
pub(crate) fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let soon = (refusal.code == Code::Unavailable).then_some(RETRY_AFTER_SECONDS);
        Self { refusal, allow: None, retry_after: soon }
    }
}

impl From<TableError> for Problem {
    /// Here the error is handled, so it is logged here: the caller learns only
    /// that a dependency failed.
    fn from(error: TableError) -> Self {
        tracing::error!(%error, "the table did not answer");
        Self::unavailable()
    }
}

impl IntoResponse for Problem {
    /// An empty response that carries the problem to the frame.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;

    async fn rendered(problem: Problem) -> (Response<()>, Vec<u8>) {
        let (parts, body) = problem.render(&Nonce::from("0123")).into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (Response::from_parts(parts, ()), bytes.to_vec())
    }

    #[tokio::test]
    async fn every_code_has_the_contracts_shape() {
        for code in Code::ALL {
            let (reply, body) = rendered(Problem::new(*code, "Do this.")).await;
            assert_eq!(reply.status().as_u16(), code.status());
            assert_eq!(reply.headers()["content-type"], "application/problem+json");
            let status = code.status();
            let retryable = [408, 425, 429, 500, 502, 503, 504];
            let expected = json!({
                "type": "about:blank",
                "title": reply.status().canonical_reason(),
                "status": status,
                "code": code.as_str(),
                "reason": "Do this.",
                "instance": "0123",
                "retryable": retryable.contains(&status),
            });
            assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), expected);
            assert_eq!(reply.headers().contains_key("retry-after"), status == 503, "{code}");
            assert_eq!(reply.headers().contains_key("www-authenticate"), status == 401, "{code}");
        }
    }

    #[tokio::test]
    async fn an_input_error_names_its_first_field_and_lists_all() {
        let issues = vec![
            FieldIssue::new("name", "required", "`name` is required."),
            FieldIssue::new("remarks", "type", "`remarks` must be a string."),
        ];
        let (_, body) = rendered(Refusal::invalid(issues).into()).await;
        let text = String::from_utf8(body).expect("UTF-8");
        assert_eq!(
            text,
            r#"{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid_request","#
                .to_owned()
                + r#""reason":"The request has 2 faults; see `field_issues`.","instance":"0123","#
                + r#""retryable":false,"field":"name","field_issues":["#
                + r#"{"path":"name","code":"required","reason":"`name` is required."},"#
                + r#"{"path":"remarks","code":"type","reason":"`remarks` must be a string."}]}"#
        );
    }

    #[tokio::test]
    async fn a_405_says_which_methods_there_are() {
        let (reply, _) = rendered(Problem::method_not_allowed("GET, POST")).await;
        assert_eq!(reply.headers()["allow"], "GET, POST");
    }
}
