//! What holds of every request, whatever its route: an id, a span that every log
//! line stands in, a deadline, and a reply even when a handler panics.
//!
//! The span has the route's pattern and never the path, a header, or the query:
//! a key that somebody pasted into the wrong place must not reach the log.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use backups_aws::random;
use backups_core::error::Code;
use backups_core::id::Nonce;
use futures_util::FutureExt as _;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use lambda_http::RequestExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::problem::Problem;

/// The header that bears the request's id.
pub(crate) const LD_REQUEST: HeaderName = HeaderName::from_static("ld-request");

/// The longest that a request may take. Shorter than the function's own time-out
/// (10 s in template.yaml), after which the gateway would answer by itself.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// When a request began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began(Instant);

impl Began {
    /// When the request with these parts did.
    pub(crate) fn of(parts: &Parts) -> Self {
        parts.extensions.get().copied().unwrap_or_else(|| Self(Instant::now()))
    }

    /// How long ago that was.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Frames one request: its reply has an id and a line in the log, whoever made it.
pub(crate) async fn frame(mut request: Request, next: Next) -> Response {
    let id = random::nonce();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        // The platform's id of the invocation, for its own lines about it.
        invocation_id = request.extensions().lambda_context_ref().map(|one| one.request_id.as_str()),
        method = word(request.method()),
        route,
        deployment_id = Empty,
        backup_id = Empty,
        restore_id = Empty,
        key_id = Empty,
    );
    let began = Began(Instant::now());
    request.extensions_mut().insert(began);
    request.extensions_mut().insert(id.clone());
    async {
        let mut response = next.run(request).await;
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            headers.insert(LD_REQUEST, value);
        }
        // One tenant's data, by a header that shared caches do not know of, unless the handler
        // knows better.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        tracing::info!(
            status = response.status().as_u16(),
            code = response.extensions().get::<Code>().map(|code| code.as_str()),
            milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
        response
    }
    .instrument(span)
    .await
}

/// Gives every request a reply of our shape, also when a handler panics or hangs.
pub(crate) async fn shaped(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<Nonce>().cloned().unwrap_or_default();
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(DEADLINE, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            // What it said is on standard error: the panic hook has told it.
            tracing::error!("a handler panicked");
            Problem::internal().into_response()
        }
        Err(_) => {
            // The work may have been done: a create that was cut off here shows
            // in the list, and a delete may be asked for again.
            tracing::error!("the request took longer than {} s", DEADLINE.as_secs());
            Problem::unavailable().into_response()
        }
    };
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let mut response = problem.render(&id);
    response.extensions_mut().insert(problem.code());
    response
}

/// The method's name, if it is one that is known: it may be any text.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn reply(router: Router) -> (http::response::Parts, serde_json::Value) {
        let router = router.layer(from_fn(shaped)).layer(from_fn(frame));
        let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
        let (parts, body) = router.oneshot(request).await.expect("a reply").into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_tells_nothing() {
        async fn broken() -> &'static str {
            panic!("SECRET")
        }
        let (parts, body) = reply(Router::new().route("/", get(broken))).await;
        assert_eq!(parts.status.as_u16(), 500);
        assert_eq!(body["code"], "internal_error");
        assert_eq!(body["retryable"], true);
        assert_eq!(body["instance"], parts.headers["ld-request"].to_str().expect("text"));
        assert!(!body.to_string().contains("SECRET"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_is_answered_before_the_functions_time_is_up() {
        let hanging = Router::new().route("/", get(std::future::pending::<&'static str>));
        let (parts, body) = reply(hanging).await;
        assert_eq!(body["code"], "unavailable");
        assert_eq!(parts.headers["retry-after"], "2");
    }
}
