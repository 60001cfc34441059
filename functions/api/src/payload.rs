//! The gateway's payload, made safe for `lambda_http`.
//!
//! `lambda_http` builds a URI out of host, scheme, path, and query, and panics
//! where they make none; what it reads of the path it decodes once more. But the
//! gateway hands on `rawPath` decoded, and the others as the client wrote them
//! (API Gateway developer guide, "Create AWS Lambda proxy integrations for HTTP
//! APIs"). A panic there would leave without our shape and `ld-request`, so:
//!
//! - the path is encoded again, and then read as the gateway read it;
//! - the query's bytes that no URI may have are encoded;
//! - a body that is said to be base64 and is not, which only who may invoke the function by
//!   himself can send, gives way to one that is no JSON either;
//! - the host goes: nothing here depends on what a client calls us.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HOST;
use lambda_http::request::LambdaRequest;

/// The longest path or query that is handed on. The gateway takes 10,240 bytes
/// of request line and headers in all (API Gateway developer guide, "Quotas for configuring and
/// running an HTTP API"); a URI ends at 64 KiB.
const LONGEST: usize = 30_000;

/// What stands for a query that is too long: what reads it refuses it.
const NO_QUERY: &str = "limit=";

/// What stands for a body that cannot be decoded.
const NOT_BASE64: &str = "not base64";

/// The request as `lambda_http` can read it, whatever it is.
#[must_use]
pub fn tame(mut request: LambdaRequest) -> LambdaRequest {
    if let LambdaRequest::ApiGatewayV2(request) = &mut request {
        let path = encoded(request.raw_path.as_deref().unwrap_or("/"), b"/:@!$&'()*+,;=-._~");
        // No route is that long, and none is without a slash. One with dots would
        // be tidied to another path, and so to another backup.
        let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let routable = path.starts_with('/') && path.len() <= LONGEST && !dots;
        request.raw_path = Some(if routable { path } else { "/-".to_owned() });
        request.raw_query_string = request
            .raw_query_string
            .as_deref()
            .map(|query| encoded(query, b"/:@!$&'()*+,;=-._~?%"))
            .map(|query| if query.len() <= LONGEST { query } else { NO_QUERY.to_owned() });
        let base64 = request.body.as_deref().filter(|_| request.is_base64_encoded);
        if base64.is_some_and(|body| STANDARD.decode(body).is_err()) {
            // Not none: to some routes that is an order too.
            request.body = Some(NOT_BASE64.to_owned());
            request.is_base64_encoded = false;
        }
        request.headers.remove(HOST);
        request.request_context.domain_name = None;
    }
    request
}

/// The text with every byte percent-encoded but letters, digits, and `kept`.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
            out.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backups_aws::table::keys::Key;
    use lambda_http::{Adapter, Context, LambdaEvent, Service as _};
    use serde_json::{Value, json};

    use super::*;
    use crate::service;
    use crate::tests::cloud::Cloud;
    use crate::tests::{BACKUPS, api, deployment, key, secret};

    /// A payload as the gateway makes it.
    fn payload(method: &str, path: &str, query: &str, host: &str) -> Value {
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": {
                "host": host,
                "x-forwarded-proto": "https",
                "ld-api-key": secret().expose(),
                "content-type": "application/json",
            },
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "a",
                "domainName": host,
                "domainPrefix": "a",
                "http": {
                    "method": method,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.1",
                    "userAgent": "",
                },
                "requestId": "r=",
                "routeKey": "$default",
                "stage": "$default",
                "time": "21/Nov/2026:09:00:00 +0000",
                "timeEpoch": 1_795_251_600_000_u64,
            },
            "body": "{\"name\": \"n\"}",
            "isBase64Encoded": false,
        })
    }

    /// What Lambda hands back to the gateway.
    async fn invoke(payload: Value) -> Value {
        invoke_with(&key(), payload).await
    }

    /// The same with a key like this.
    async fn invoke_with(key: &Key, payload: Value) -> Value {
        let cloud = Cloud::with(Some(key), Some(&deployment()));
        let router = service(Arc::new(api(&cloud)));
        let request = tame(serde_json::from_value(payload).expect("a payload"));
        let event = LambdaEvent::new(request, Context::default());
        let response = Adapter::from(router).call(event).await.expect("a response");
        let response = serde_json::to_value(&response).expect("JSON");
        assert_eq!(response["headers"]["ld-request"].as_str().map(str::len), Some(32));
        assert_eq!(response["isBase64Encoded"], false);
        response
    }

    /// With everything that a payload may have (API Gateway developer guide, as above, "Payload
    /// format structure").
    #[tokio::test]
    async fn the_payload_of_the_gateways_documentation_is_read() {
        let documented: Value = serde_json::from_str(include_str!("tests/http-api-2.0.json"))
            .expect("the file is JSON");
        let response = invoke(documented.clone()).await;
        assert_eq!(response["statusCode"], 404);
        // The same to a route of ours.
        let mut ours = documented;
        ours["rawPath"] = json!(BACKUPS);
        ours["headers"]["ld-api-key"] = json!(secret().expose());
        let response = invoke(ours.clone()).await;
        assert_eq!(response["statusCode"], 415, "it does not say that its body is JSON");
        ours["headers"]["content-type"] = json!("application/json");
        let response = invoke(ours.clone()).await;
        assert_eq!(response["statusCode"], 400);
        ours["body"] = json!("eyJuYW1lIjogIm4ifQ==");
        ours["isBase64Encoded"] = json!(true);
        let response = invoke(ours).await;
        assert_eq!(
            (&response["statusCode"], &response["headers"]["ld-backup"]),
            (&json!(204), &json!("1"))
        );
    }

    #[tokio::test]
    async fn an_allowlist_asks_the_gateway_and_no_header() {
        let only =
            |network: &str| Key { allow: network.parse().ok().map(|one| vec![one]), ..key() };
        let from = |address: &str| {
            let mut payload = payload("GET", BACKUPS, "", "h");
            payload["requestContext"]["http"]["sourceIp"] = json!(address);
            payload["headers"]["x-forwarded-for"] = json!("198.51.100.1");
            payload["headers"]["forwarded"] = json!("for=198.51.100.1");
            payload
        };
        for (network, address, status) in [
            ("192.0.2.0/24", "192.0.2.1", 200),
            ("198.51.100.0/24", "192.0.2.1", 403),
            ("2001:db8::/32", "2001:db8::7", 200),
            ("2001:db8::/32", "2001:db9::7", 403),
            ("192.0.2.1", "::ffff:192.0.2.1", 200),
            ("0.0.0.0/0", "", 403),
            ("0.0.0.0/0", "unknown", 403),
        ] {
            let reply = invoke_with(&only(network), from(address)).await;
            assert_eq!(reply["statusCode"], status, "{network} {address}: {reply}");
            if status == 403 {
                let body = reply["body"].to_string();
                assert!(body.contains("ip_not_allowed") && !body.contains(network), "{body}");
            }
        }
        // What is wrong with the key itself comes first, and what it may not do after.
        let elsewhere = only("198.51.100.0/24");
        let revoked = Key { revoked_at: "2026-01-01T00:00:00Z".parse().ok(), ..elsewhere.clone() };
        assert_eq!(invoke_with(&revoked, from("192.0.2.1")).await["statusCode"], 401);
        let mut bad = from("192.0.2.1");
        bad["rawPath"] = json!("/deployments/x/backups");
        assert_eq!(invoke_with(&elsewhere, bad).await["statusCode"], 403);
    }

    #[test]
    fn what_is_no_separator_to_the_gateway_is_none_here() {
        for (raw, path) in [
            ("/a/1?x", "/a/1%3Fx"),
            ("/a/1#x", "/a/1%23x"),
            ("/a/1%3Fx", "/a/1%253Fx"),
            ("/a/9/../1", "/-"),
            ("/a/./1", "/-"),
        ] {
            let request = serde_json::from_value(payload("GET", raw, "", "api.example.com"));
            let request: lambda_http::Request = tame(request.expect("a payload")).into();
            assert_eq!((request.uri().path(), request.uri().query()), (path, None), "{raw}");
        }
    }

    #[tokio::test]
    async fn the_gateways_payloads_are_answered() {
        let listed = invoke(payload("GET", BACKUPS, "", "api.example.com")).await;
        assert_eq!((&listed["statusCode"], &listed["body"]), (&json!(200), &json!("[]")));
        let mut create = payload("POST", BACKUPS, "", "api.example.com");
        let created = invoke(create.clone()).await;
        assert_eq!(created["statusCode"], 204);
        assert_eq!(created["headers"]["ld-backup"], "1");
        create["body"] = json!("eyJuYW1lIjogIm4ifQ==");
        create["isBase64Encoded"] = json!(true);
        assert_eq!(invoke(create).await["statusCode"], 204);
        let refused = invoke(payload("GET", "/", "", "api.example.com")).await;
        assert_eq!(refused["headers"]["content-type"], "application/problem+json");
        assert!(refused["body"].as_str().expect("text").contains("route_not_found"));
    }

    #[tokio::test]
    async fn a_body_that_is_not_what_the_payload_says_is_refused_as_any_bad_one() {
        for body in ["{\"name\": \"n\"}", "e30", "e30=\n", "=", "é"] {
            let mut create = payload("POST", BACKUPS, "", "h");
            create["body"] = json!(body);
            create["isBase64Encoded"] = json!(true);
            let refused = invoke(create).await;
            assert_eq!(refused["statusCode"], 400, "{body:?}");
            assert!(refused["body"].as_str().expect("text").contains("invalid_request"));
        }
    }

    #[tokio::test]
    async fn nothing_that_a_client_writes_breaks_the_reading() {
        for host in ["", "a b", "[::", "x:99999", "é", "a/b?c#d", "@"] {
            assert_eq!(
                invoke(payload("GET", BACKUPS, "", host)).await["statusCode"],
                200,
                "{host}"
            );
        }
        for query in
            ["a=<b>", "é=ü", "\u{1}", "a b", "%", "%zz", "#", "\\^`{|}", &"q".repeat(30_000)]
        {
            let reply = invoke(payload("GET", BACKUPS, query, "h")).await;
            assert_eq!(reply["statusCode"], 200, "{query:?}");
        }
        // It may have said which part of the list was meant.
        let long = format!("limit=1&{}", "q".repeat(30_000));
        let reply = invoke(payload("GET", BACKUPS, &long, "h")).await;
        assert_eq!(reply["statusCode"], 400);
        for (path, status) in [
            ("", 404),
            ("x", 404),
            (":99999/", 404),
            ("/\u{0}", 404),
            ("/é <>\"{}|\\^`", 404),
            ("//", 404),
            ("/deployments/1 /backups", 400),
            ("/deployments/é/backups", 400),
            // Decoded once by the gateway, these are other texts than `1`.
            ("/deployments/%31/backups", 400),
            ("/deployments/1?/backups", 400),
            ("/deployments/1#/backups", 400),
            ("/deployments/1/backups?", 404),
            (&"/é".repeat(20_000), 404),
        ] {
            let reply = invoke(payload("GET", path, "", "h")).await;
            assert_eq!(reply["statusCode"], status, "{path:?}");
        }
    }
}
