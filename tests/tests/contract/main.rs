//! The contract over HTTP: the life of a backup, every refusal, and what a
//! request costs.

mod bodies;
mod cors;
mod costs;
mod life;
mod once;
mod order;
mod pages;
mod rate;
mod refusals;
mod tenants;

use tests::http::Reply;

/// Codes whose requests may succeed later without a change.
const RETRYABLE: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];

/// Checks what every reply has: the request's id, in its own shape.
#[track_caller]
fn framed(reply: &Reply) {
    let id = reply.header("ld-request");
    let hex = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    assert!(hex, "ld-request is {id:?} of {reply:?}");
}

/// Checks a problem: its status and code, and every field and header that the
/// contract gives it.
#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (status, code),
        "{}: {}",
        reply.asked,
        reply.text
    );
    framed(reply);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let body = reply.json();
    assert_eq!(body["type"], "about:blank");
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"], reply.header("ld-request"));
    assert_eq!(body["retryable"], RETRYABLE.contains(&status));
    for text in ["title", "reason"] {
        assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {body}");
    }
    let mut known = vec!["type", "title", "status", "code", "reason", "instance", "retryable"];
    if code == "invalid_request" {
        let issues = body["field_issues"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!issues.is_empty(), "{body}");
        assert_eq!(body["field"], issues[0]["path"]);
        for issue in issues {
            for name in ["path", "code", "reason"] {
                assert!(issue[name].is_string(), "{issue}");
            }
        }
        known.extend(["field", "field_issues"]);
    }
    let fields: Vec<&str> =
        body.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert!(fields.iter().all(|field| known.contains(field)), "{fields:?}");
    assert_eq!(fields.len(), known.len(), "{fields:?}");
    assert_eq!(!reply.header("retry-after").is_empty(), [429, 503].contains(&status));
}
