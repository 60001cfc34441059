//! The gateway: an API Gateway HTTP API in front of the api function.
//!
//! It knows nothing of the API: routes come from template.yaml, and the function
//! gets the very JSON that it gets on AWS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use backups_aws::clock::Clock;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lambda_http::request::LambdaRequest;
use tokio::time::Instant;

use crate::functions::{Failed, Functions, uuid};
use crate::payload::{self, Arrival};
use crate::route::Routes;
use crate::serve::{Broken, Request, Response};
use crate::template::Name;

/// The largest body that the gateway takes: the payload quota of HTTP APIs.
const LARGEST_BODY: usize = 10 * 1024 * 1024;

/// The longest that the gateway waits for a function: the integration timeout's
/// ceiling for HTTP APIs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway's state.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) routes: Routes,
    pub(crate) functions: Arc<Functions>,
    pub(crate) clock: Clock,
    pub(crate) port: u16,
}

impl Gateway {
    /// Answers one request.
    pub(crate) async fn handle(
        &self,
        request: Request,
        peer: SocketAddr,
    ) -> Result<Response, Broken> {
        let began = Instant::now();
        // Not the path: somebody may have pasted a key into it.
        let method = request.method().clone();
        let (route, request_id, mut response) = self.answer(request, peer).await;
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            headers.insert("apigw-requestid", id);
        }
        if let Some(date) = http_date(&self.clock) {
            headers.insert(http::header::DATE, date);
        }
        let status = response.status().as_u16();
        let headers = response.headers();
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if headers.contains_key("ld-request") {
            // The api logs its own; a line a request is enough.
            tracing::debug!(%method, route, status, ms, "passed on");
        } else {
            tracing::info!(%method, route, status, ms, "the gateway answered");
        }
        Ok(response)
    }

    async fn answer(&self, request: Request, peer: SocketAddr) -> (String, String, Response) {
        let request_id = uuid();
        let (parts, body) = request.into_parts();
        let Some(found) = self.routes.find(parts.method.as_str(), parts.uri.path()) else {
            return (String::new(), request_id, payload::own(StatusCode::NOT_FOUND, "Not Found"));
        };
        let route = found.route.key.clone();
        // API Gateway serves its own domains only; lambda_http panics at what is none.
        let host = parts.headers.get(http::header::HOST).map(HeaderValue::as_bytes);
        if host.is_none_or(|host| http::uri::Authority::try_from(host).is_err()) {
            return (route, request_id, payload::own(StatusCode::BAD_REQUEST, "Bad Request"));
        }
        let body = match Limited::new(body, LARGEST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let reply = payload::own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
                return (route, request_id, reply);
            }
            Err(_) => {
                return (route, request_id, payload::own(StatusCode::BAD_REQUEST, "Bad Request"));
            }
        };
        let now = self.clock.timestamp();
        let trace_id = trace_id(now);
        let arrival = Arrival {
            found: &found,
            source: peer.ip(),
            port: self.port,
            at: now,
            request_id: &request_id,
            trace_id: &trace_id,
        };
        // Not the path: somebody may have pasted a key into it.
        let what = route.clone();
        let reply = match found.route.function {
            Name::Api => self.invoke(&parts, &body, &arrival, &what).await,
            // The template gives them no route.
            Name::Worker | Name::Scheduler => {
                payload::own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        };
        (route, request_id, reply)
    }

    async fn invoke(
        &self,
        parts: &http::request::Parts,
        body: &Bytes,
        arrival: &Arrival<'_>,
        what: &str,
    ) -> Response {
        let broken = || payload::own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        let unavailable = || payload::own(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        // Through bytes, as on AWS: what does not survive JSON shows here.
        let bytes = payload::of(parts, body, arrival).to_string();
        let event: LambdaRequest = match serde_json::from_str(&bytes) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, "the payload is none that lambda_http reads");
                return broken();
            }
        };
        let context = self.functions.context(arrival.request_id, arrival.trace_id);
        match tokio::time::timeout(PATIENCE, self.functions.http(event, context, what)).await {
            Ok(Ok(response)) => payload::reply(&response).unwrap_or_else(|| {
                tracing::error!("the function's response is none that the gateway understands");
                broken()
            }),
            Ok(Err(failed @ Failed::TimedOut(_))) => {
                tracing::error!(%failed, what, "invocation failed");
                unavailable()
            }
            Ok(Err(failed)) => {
                tracing::error!(%failed, what, "invocation failed");
                broken()
            }
            Err(_) => unavailable(),
        }
    }
}

/// The `date` header by our clock.
pub(crate) fn http_date(clock: &Clock) -> Option<HeaderValue> {
    let text = clock.timestamp().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::try_from(text).ok()
}

/// Source: AWS X-Ray developer guide, "Tracing header".
fn trace_id(now: jiff::Timestamp) -> String {
    let random = backups_aws::random::nonce().0;
    format!("Root=1-{:08x}-{}", now.as_second(), &random[..24])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        let clock = Clock::system();
        let date = http_date(&clock).expect("a date");
        let date = date.to_str().expect("ASCII");
        assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    }
}
