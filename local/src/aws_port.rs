//! The AWS port: EC2, `DynamoDB` and `EventBridge` behind one address.
//!
//! Which service a request is for stands in the scope of its signature
//! (`.../<region>/<service>/aws4_request`), as the SDKs sign it. Signatures are
//! not checked.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use cloud::{Admission, Reply};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tower::ServiceExt as _;

use crate::driver::App;
use crate::dynamo::{self, Answer};
use crate::functions::uuid;
use crate::gateway::http_date;
use crate::serve::{Broken, Request, Response};
use crate::world::Lost;

/// `DynamoDB`'s own limit of a request, the largest of the three.
const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// The port's state.
#[derive(Debug)]
pub(crate) struct AwsPort {
    pub(crate) app: Arc<App>,
    /// The `/_local` calls.
    pub(crate) control: Router,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Ec2,
    Events,
    Dynamo,
}

impl AwsPort {
    /// Answers one request, or does not, as a fault has it.
    pub(crate) async fn handle(
        &self,
        request: Request,
        _peer: SocketAddr,
    ) -> Result<Response, Broken> {
        if request.uri().path().starts_with("/_local") {
            return Ok(self.control.clone().oneshot(request.map(Body::new)).await?);
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, LARGEST_BODY)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
        else {
            return Ok(plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request is too large, or broke off\n",
            ));
        };
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok())
            .unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        // The query protocol allows GET as well.
        let body = if body.is_empty() && query.contains("Action=") {
            Bytes::copy_from_slice(query.as_bytes())
        } else {
            body
        };
        let reply = match service(&parts.headers, query, target, &body) {
            Err(name) => {
                tracing::warn!(
                    service = name,
                    operation = action(&body),
                    "a service that is not simulated"
                );
                return Ok(self.unknown_service(&name, target));
            }
            Ok(Service::Dynamo) => self.dynamo(target, body).await,
            Ok(Service::Ec2) => {
                self.simulated(|cloud, now| cloud.ec2(now, &body), "ec2", &action(&body))
            }
            Ok(Service::Events) => {
                let operation = target.rsplit('.').next().unwrap_or_default();
                self.simulated(|cloud, now| cloud.events(now, target, &body), "events", operation)
            }
        };
        // Without the state on disk nothing may be answered.
        match reply.map_err(|Lost| Broken)? {
            Reply::LoseReply => Err(Broken),
            Reply::Hang => std::future::pending().await,
            Reply::Answer { status, content_type, headers, body } => {
                Ok(self.answer(status, content_type, &headers, body))
            }
        }
    }

    fn simulated(
        &self,
        act: impl FnOnce(&mut cloud::Cloud, jiff::Timestamp) -> Reply,
        service: &str,
        operation: &str,
    ) -> Result<Reply, Lost> {
        let reply = self.app.world.with(act)?;
        log(service, operation, &reply);
        Ok(reply)
    }

    /// `DynamoDB` stands beside the simulated cloud, but shares its faults, its
    /// call log and its counters.
    async fn dynamo(&self, target: &str, body: Bytes) -> Result<Reply, Lost> {
        const SERVICE: &str = "dynamodb";
        let world = &self.app.world;
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let resources = dynamo::resources(&body);
        let admission =
            world.with(|cloud, now| cloud.admit(now, SERVICE, &operation, &resources))?;
        let record = |outcome: &str, used: Option<dynamo::Capacity>| {
            world.with(|cloud, now| {
                cloud.record(now, SERVICE, &operation, &resources, false, outcome);
                if let Some(used) = used {
                    cloud.record_capacity(&operation, used.read, used.write);
                }
            })
        };
        let lose = match admission {
            Admission::Refuse(reply) => {
                record(reply.code().as_deref().unwrap_or("InternalServerError"), None)?;
                log(SERVICE, &operation, &reply);
                return Ok(reply);
            }
            Admission::Hang => {
                record("hang", None)?;
                log(SERVICE, &operation, &Reply::Hang);
                return Ok(Reply::Hang);
            }
            Admission::Proceed => false,
            Admission::ProceedThenLoseReply => true,
        };
        let (database, name) = (self.app.dynamo.clone(), operation.clone());
        let done = tokio::task::spawn_blocking(move || database.call(&name, &body)).await;
        let Answer { status, body, code } = done.unwrap_or_else(|_| Answer {
            status: 500,
            body: r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"it crashed"}"#.to_owned(),
            code: Some("InternalServerError".to_owned()),
        });
        record(code.as_deref().unwrap_or("ok"), dynamo::capacity(&operation, &body))?;
        let reply = if lose {
            Reply::LoseReply
        } else {
            let content_type = "application/x-amz-json-1.0";
            Reply::Answer { status, content_type, headers: Vec::new(), body: body.into_bytes() }
        };
        log(SERVICE, &operation, &reply);
        Ok(reply)
    }

    /// As the tools of that service read it, as far as can be known.
    fn unknown_service(&self, name: &str, target: &str) -> Response {
        let message =
            format!("The service {name:?} is not simulated; there are ec2, dynamodb and events.");
        let (content_type, body) = if target.is_empty() {
            let code = "InvalidAction";
            let error = format!(
                "<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            );
            (
                "text/xml",
                format!("<ErrorResponse>{error}<RequestId>local</RequestId></ErrorResponse>"),
            )
        } else {
            let error = serde_json::json!({"__type": "InvalidAction", "message": message});
            ("application/x-amz-json-1.1", error.to_string())
        };
        self.answer(400, content_type, &[], body.into_bytes())
    }

    fn answer(
        &self,
        status: u16,
        content_type: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let own = [("content-type", content_type.to_owned()), ("x-amzn-requestid", uuid())];
        let own = own.iter().map(|(name, value)| (*name, value));
        for (name, value) in own.chain(headers.iter().map(|(name, value)| (name.as_str(), value))) {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                response.headers_mut().insert(name, value);
            }
        }
        if let Some(date) = http_date(&self.app.world.clock) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }
}

/// The service that a request is for; else what it says that it is for.
fn service(headers: &HeaderMap, query: &str, target: &str, body: &[u8]) -> Result<Service, String> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scope = authorization
        .and_then(|text| text.split_once("Credential="))
        .map(|(_, scope)| scope.to_owned());
    // A presigned request has it in the query.
    let presigned = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "X-Amz-Credential")
        .map(|(_, scope)| scope.into_owned());
    let named = scope.or(presigned).and_then(|scope| {
        let end = scope.find([',', ' ']).unwrap_or(scope.len());
        scope[..end].split('/').nth(3).map(str::to_owned)
    });
    match named.as_deref() {
        Some("ec2") => Ok(Service::Ec2),
        Some("events") => Ok(Service::Events),
        Some("dynamodb") => Ok(Service::Dynamo),
        // It goes into logs and replies.
        Some(other) => Err(other.chars().filter(char::is_ascii_alphanumeric).take(32).collect()),
        // Unsigned, from a curl line.
        None if target.starts_with("DynamoDB_") => Ok(Service::Dynamo),
        None if target.starts_with("AWSEvents.") => Ok(Service::Events),
        None if !action(body).is_empty() => Ok(Service::Ec2),
        None => Err(String::new()),
    }
}

/// `Action` of a form.
fn action(body: &[u8]) -> String {
    form_urlencoded::parse(body)
        .find(|(name, _)| name == "Action")
        .map(|(_, action)| action.into_owned())
        .unwrap_or_default()
}

/// One line a call. Looking is quieter than doing, and `DynamoDB` too: the tick
/// alone makes some ten of them.
fn log(service: &str, operation: &str, reply: &Reply) {
    let outcome = match reply {
        Reply::LoseReply => "reply lost".to_owned(),
        Reply::Hang => "hangs".to_owned(),
        Reply::Answer { status: 200..=299, .. } => "ok".to_owned(),
        Reply::Answer { body, .. } => {
            reply.code().or_else(|| xml_code(body)).unwrap_or_else(|| "an error".to_owned())
        }
    };
    if outcome == "InvalidAction" {
        tracing::warn!(service, operation, "an operation that is not simulated");
    } else if service == "dynamodb" || operation.starts_with("Describe") {
        tracing::debug!(service, operation, outcome, "call");
    } else {
        tracing::info!(service, operation, outcome, "call");
    }
}

fn xml_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code.to_owned())
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_signature() {
        let told = |authorization: &str, query: &str, target: &str, body: &str| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(authorization) {
                headers.insert(header::AUTHORIZATION, value);
            }
            service(&headers, query, target, body.as_bytes())
        };
        let signed = |service: &str| {
            format!(
                "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
            )
        };
        assert_eq!(told(&signed("ec2"), "", "", ""), Ok(Service::Ec2));
        assert_eq!(told(&signed("events"), "", "", ""), Ok(Service::Events));
        assert_eq!(told(&signed("dynamodb"), "", "", ""), Ok(Service::Dynamo));
        assert_eq!(told(&signed("s3"), "", "", ""), Err("s3".to_owned()));
        assert_eq!(
            told("", "X-Amz-Credential=A%2F1%2Fr%2Fec2%2Faws4_request", "", ""),
            Ok(Service::Ec2)
        );
        assert_eq!(told("", "", "DynamoDB_20120810.Scan", "{}"), Ok(Service::Dynamo));
        assert_eq!(told("", "", "", "Action=DescribeVolumes&Version=2016-11-15"), Ok(Service::Ec2));
        assert_eq!(told("", "", "", "hello"), Err(String::new()));
    }

    #[test]
    fn an_errors_code_is_found_for_the_log() {
        let body = b"<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>";
        assert_eq!(xml_code(body).as_deref(), Some("RequestLimitExceeded"));
        assert_eq!(xml_code(b"{}"), None);
    }
}
