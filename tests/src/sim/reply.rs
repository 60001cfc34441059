//! What the API answered.

use std::collections::BTreeMap;

use http::response::Parts;
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(parts: &Parts, body: &[u8]) -> Self {
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        Self { status: parts.status.as_u16(), headers: headers.collect(), body: body.to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The new backup's id.
    pub(crate) fn backup(&self) -> Option<u64> {
        self.header("ld-backup").parse().ok()
    }

    /// The new restore's id.
    pub(crate) fn restore(&self) -> Option<u64> {
        self.header("ld-restore").parse().ok()
    }

    /// The problem's code; empty if it is none.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
