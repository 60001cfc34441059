//! The wire protocols, bytes in and bytes out.

mod describe;
mod ec2;
mod events;
mod filter;
mod instances;
mod query;
mod requests;
mod shapes;
mod volumes;
mod xml;

use serde_json::{Value, json};

pub(crate) use ec2::operations as ec2_operations;
pub(crate) use events::PUT_EVENTS;
pub(crate) use filter::wildcard_matches;

/// What goes back to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer, good or bad.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The header of that name.
        content_type: &'static str,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// The call was applied; break the connection.
    LoseReply,
    /// The call was not applied; never answer.
    Hang,
}

impl Reply {
    /// The error's code, if it is an error in JSON: what to
    /// [`record`](crate::Cloud::record) as the outcome.
    pub fn code(&self) -> Option<String> {
        let Reply::Answer { body, .. } = self else { return None };
        let body: Value = serde_json::from_slice(body).ok()?;
        let code = body.get("__type")?.as_str()?;
        Some(code.rsplit('#').next().unwrap_or(code).to_owned())
    }
}

/// The service's own code for an internal error.
pub(crate) fn internal_error(service: &str) -> &'static str {
    match service {
        "dynamodb" => "InternalServerError",
        "events" => "InternalException",
        _ => "InternalError",
    }
}

/// An error of a service that speaks AWS's JSON protocol.
pub(crate) fn json_error(service: &str, code: &str, message: Option<&str>) -> Reply {
    let (content_type, namespace) = match service {
        "dynamodb" => ("application/x-amz-json-1.0", "com.amazonaws.dynamodb.v20120810#"),
        _ => ("application/x-amz-json-1.1", ""),
    };
    let message = message.unwrap_or(match code {
        "ThrottlingException" => "Rate exceeded",
        _ => "A fault was armed for this call.",
    });
    Reply::Answer {
        status: crate::error::status_of(code),
        content_type,
        headers: Vec::new(),
        body: json!({"__type": format!("{namespace}{code}"), "message": message})
            .to_string()
            .into_bytes(),
    }
}
