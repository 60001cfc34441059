//! What API Gateway makes of an HTTP request and of a function's response:
//! HTTP APIs, payload format 2.0.
//!
//! Source: API Gateway developer guide, "Create AWS Lambda proxy integrations
//! for HTTP APIs". Where the guide is silent, what live captures show: the
//! gateway hands on `rawPath` decoded, and `rawQueryString` as it came.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::route::{Match, decode};
use crate::stack::ACCOUNT;

/// What the gateway knows of a request beside its bytes.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) found: &'a Match<'a>,
    pub(crate) source: IpAddr,
    pub(crate) port: u16,
    pub(crate) at: Timestamp,
    pub(crate) request_id: &'a str,
    pub(crate) trace_id: &'a str,
}

/// The payload for a request.
pub(crate) fn of(parts: &http::request::Parts, body: &Bytes, arrival: &Arrival<'_>) -> Value {
    let query = parts.uri.query().unwrap_or_default();
    let path = decode(parts.uri.path());
    let route_key = &arrival.found.route.key;
    let domain = parts.headers.get(HOST).map(text).unwrap_or_default();
    let headers = headers(&parts.headers, arrival);
    let mut payload = json!({
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": domain.split(['.', ':']).next().unwrap_or_default(),
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": arrival.source.to_string(),
                "userAgent": parts.headers.get(USER_AGENT).map(text).unwrap_or_default(),
            },
            "requestId": arrival.request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": arrival.at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": arrival.at.as_millisecond(),
        },
        "isBase64Encoded": false,
    });
    let cookies: Vec<String> = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| {
            text(line).split(';').map(|cookie| cookie.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    if !cookies.is_empty() {
        payload["cookies"] = json!(cookies);
    }
    if !query.is_empty() {
        payload["queryStringParameters"] =
            Value::Object(joined(form_urlencoded::parse(query.as_bytes())));
    }
    if !arrival.found.parameters.is_empty() {
        payload["pathParameters"] = Value::Object(
            arrival
                .found
                .parameters
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect(),
        );
    }
    if !body.is_empty() {
        let content_type = parts.headers.get(CONTENT_TYPE).map(text).unwrap_or_default();
        match std::str::from_utf8(body) {
            Ok(plain) if is_text(&content_type) => payload["body"] = json!(plain),
            _ => {
                payload["body"] = json!(STANDARD.encode(body));
                payload["isBase64Encoded"] = json!(true);
            }
        }
    }
    payload
}

/// Lower-case names, doubles joined by commas, cookies apart; and what the
/// gateway adds. A client's own word on its address is not taken over it.
fn headers(headers: &HeaderMap, arrival: &Arrival<'_>) -> Map<String, Value> {
    let source = arrival.source.to_string();
    let mut all = joined(
        headers
            .iter()
            .filter(|(name, _)| **name != COOKIE)
            .map(|(name, value)| (name.as_str(), text(value))),
    );
    let forwarded = match all.get("x-forwarded-for").and_then(Value::as_str) {
        Some(claimed) => format!("{claimed}, {source}"),
        None => source,
    };
    all.insert("x-forwarded-for".to_owned(), json!(forwarded));
    all.insert("x-forwarded-port".to_owned(), json!(arrival.port.to_string()));
    all.insert("x-forwarded-proto".to_owned(), json!("http"));
    all.insert("x-amzn-trace-id".to_owned(), json!(arrival.trace_id));
    all
}

/// Names with their values, those of one name joined by commas.
fn joined<K: AsRef<str>, V: AsRef<str>>(pairs: impl Iterator<Item = (K, V)>) -> Map<String, Value> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        all.entry(name.as_ref().to_owned())
            .and_modify(|list| {
                list.push(',');
                list.push_str(value.as_ref());
            })
            .or_insert_with(|| value.as_ref().to_owned());
    }
    all.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// What the gateway hands on as it is; everything else is base64.
fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty()
        || essence.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"]
            .contains(&essence.as_str())
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
}

/// The HTTP reply for a function's response, or None if it is none that the
/// gateway understands.
pub(crate) fn reply(response: &Value) -> Option<http::Response<Body>> {
    let status = response["statusCode"].as_u64().and_then(|code| u16::try_from(code).ok())?;
    let body = match (&response["body"], response["isBase64Encoded"].as_bool().unwrap_or_default())
    {
        (Value::String(body), true) => STANDARD.decode(body).ok()?,
        (Value::String(body), false) => body.clone().into_bytes(),
        _ => Vec::new(),
    };
    let mut reply = http::Response::new(Body::from(body));
    *reply.status_mut() = StatusCode::from_u16(status).ok()?;
    let headers = reply.headers_mut();
    for (name, value) in response["headers"].as_object().into_iter().flatten() {
        headers
            .append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.as_str()?).ok()?);
    }
    for (name, values) in response["multiValueHeaders"].as_object().into_iter().flatten() {
        for value in values.as_array().into_iter().flatten() {
            headers.append(
                HeaderName::try_from(name).ok()?,
                HeaderValue::from_str(value.as_str()?).ok()?,
            );
        }
    }
    for cookie in response["cookies"].as_array().into_iter().flatten() {
        headers.append(SET_COOKIE, HeaderValue::from_str(cookie.as_str()?).ok()?);
    }
    // The gateway counts the bytes itself.
    headers.remove(http::header::CONTENT_LENGTH);
    Some(reply)
}

/// What the gateway says by itself.
pub(crate) fn own(status: StatusCode, message: &str) -> http::Response<Body> {
    let mut reply = http::Response::new(Body::from(json!({"message": message}).to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    use crate::template::Name;

    fn payload(request: http::Request<&'static [u8]>) -> Value {
        let route =
            Route::new("POST", "/deployments/{deployment_id}/backups", Name::Api).expect("a route");
        let found =
            Match { route: &route, parameters: vec![("deployment_id".to_owned(), "7".to_owned())] };
        let arrival = Arrival {
            found: &found,
            source: IpAddr::from([127, 0, 0, 1]),
            port: 3000,
            at: "2025-01-15T10:30:00.5Z".parse().expect("a time"),
            request_id: "request",
            trace_id: "Root=1-0-0",
        };
        let (parts, body) = request.into_parts();
        of(&parts, &Bytes::from_static(body), &arrival)
    }

    #[test]
    fn a_request_becomes_the_payload_of_the_guide() {
        let request = http::Request::builder()
            .method("POST")
            .uri("/deployments/7%20x/backups?a=1&a=2&b=%20")
            .header("Host", "127.0.0.1:3000")
            .header("X-Twice", "1")
            .header("x-twice", "2")
            .header("cookie", "a=b; c=d")
            .header("x-forwarded-for", "6.6.6.6")
            .header("content-type", "application/json; charset=utf-8")
            .body(&b"{\"name\":\"x\"}"[..])
            .expect("a request");
        let payload = payload(request);
        assert_eq!(payload["rawPath"], "/deployments/7 x/backups");
        assert_eq!(payload["rawQueryString"], "a=1&a=2&b=%20");
        assert_eq!(payload["queryStringParameters"], json!({"a": "1,2", "b": " "}));
        assert_eq!(payload["headers"]["x-twice"], "1,2");
        assert_eq!(payload["headers"]["x-forwarded-for"], "6.6.6.6, 127.0.0.1");
        assert_eq!(payload["headers"].get("cookie"), None);
        assert_eq!(payload["cookies"], json!(["a=b", "c=d"]));
        assert_eq!(payload["pathParameters"], json!({"deployment_id": "7"}));
        assert_eq!(payload["body"], "{\"name\":\"x\"}");
        assert_eq!(payload["isBase64Encoded"], false);
        let context = &payload["requestContext"];
        assert_eq!(context["http"]["sourceIp"], "127.0.0.1");
        assert_eq!(context["stage"], "$default");
        assert_eq!(context["timeEpoch"], 1_736_937_000_500_i64);
        assert_eq!(context["time"], "15/Jan/2025:10:30:00 +0000");
        let read = serde_json::from_value::<lambda_http::request::LambdaRequest>(payload);
        assert!(read.is_ok(), "lambda_http reads it");
    }

    /// The names in a payload, but for the headers, which are the client's.
    fn names(value: &Value, path: &str, into: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            if name != "headers" {
                names(value, &path, into);
            }
            into.push(path);
        }
    }

    #[test]
    fn the_sample_payloads_have_the_same_shape() {
        for sample in [
            include_str!("../../events/api-create-backup.json"),
            include_str!("../../events/api-list-backups.json"),
            include_str!("../../events/api-delete-backup.json"),
            include_str!("../../events/api-default.json"),
        ] {
            let sample: Value = serde_json::from_str(sample).expect("JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let route_key = text(&sample["routeKey"]);
            let route = match route_key.split_once(' ') {
                Some((method, path)) => Route::new(method, path, Name::Api).expect("a route"),
                None => Route::fallback(Name::Api),
            };
            let routes = crate::route::Routes::new(vec![route]);
            let method = text(&sample["requestContext"]["http"]["method"]);
            let (path, query) = (text(&sample["rawPath"]), text(&sample["rawQueryString"]));
            let found = routes.find(&method, &path).expect("the sample's own route");
            let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
            let mut request = http::Request::builder().method(method.as_str()).uri(uri);
            for (name, value) in sample["headers"].as_object().expect("headers") {
                if !name.starts_with("x-") {
                    request = request.header(name, text(value));
                }
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let arrival = Arrival {
                found: &found,
                source: IpAddr::from([203, 0, 113, 7]),
                port: 443,
                at: Timestamp::from_millisecond(
                    sample["requestContext"]["timeEpoch"].as_i64().expect("a time"),
                )
                .expect("a time"),
                request_id: "",
                trace_id: "",
            };
            let made = of(&parts, &Bytes::from(text(&sample["body"])), &arrival);
            let (mut of_sample, mut of_made) = (Vec::new(), Vec::new());
            names(&sample, "", &mut of_sample);
            names(&made, "", &mut of_made);
            of_sample.sort_unstable();
            of_made.sort_unstable();
            assert_eq!(of_made, of_sample, "{route_key}");
            for field in [
                "routeKey",
                "rawPath",
                "rawQueryString",
                "pathParameters",
                "body",
                "isBase64Encoded",
            ] {
                assert_eq!(made[field], sample[field], "{route_key}: {field}");
            }
            for field in ["http", "stage", "time", "timeEpoch", "domainPrefix", "accountId"] {
                assert_eq!(
                    made["requestContext"][field], sample["requestContext"][field],
                    "{route_key}: {field}"
                );
            }
            for (name, _) in sample["headers"].as_object().expect("headers") {
                assert!(made["headers"].get(name).is_some(), "{route_key}: {name}");
            }
        }
    }

    #[test]
    fn a_body_that_is_no_text_is_base64() {
        let body = |content_type: &str, body: &'static [u8]| {
            let request =
                http::Request::builder().uri("/").header("content-type", content_type).body(body);
            let payload = payload(request.expect("a request"));
            (payload["isBase64Encoded"].clone(), payload["body"].clone())
        };
        assert_eq!(body("application/octet-stream", b"hi"), (json!(true), json!("aGk=")));
        assert_eq!(body("application/x-www-form-urlencoded", b"hi"), (json!(true), json!("aGk=")));
        assert_eq!(body("application/json", b"\xff"), (json!(true), json!("/w==")));
        assert_eq!(body("text/plain", b"hi"), (json!(false), json!("hi")));
        assert_eq!(body("text/plain", b""), (json!(false), Value::Null));
    }

    #[test]
    fn a_response_becomes_the_reply() {
        let reply = reply(&json!({
            "statusCode": 201,
            "headers": {"ld-backup": "1", "content-length": "99"},
            "multiValueHeaders": {},
            "cookies": ["a=b", "c=d"],
            "body": "aGk=",
            "isBase64Encoded": true,
        }));
        let reply = reply.expect("a reply");
        assert_eq!(reply.status(), 201);
        assert_eq!(reply.headers()["ld-backup"], "1");
        assert_eq!(reply.headers().get_all(SET_COOKIE).iter().count(), 2);
        assert_eq!(reply.headers().get("content-length"), None);
        for bad in [
            json!({}),
            json!({"statusCode": 99}),
            json!({"statusCode": 200, "headers": {"a b": "c"}}),
        ] {
            assert!(super::reply(&bad).is_none(), "{bad}");
        }
    }
}
