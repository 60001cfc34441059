//! A plain HTTP client: one connection a request, no retry, no redirect.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{Failed, Result};

/// The longest that a reply may take. A `/_local` call may wait for a worker's
/// whole time-out.
const PATIENCE: Duration = Duration::from_secs(150);

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What was asked: method and path.
    pub asked: String,
    /// The status.
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub text: String,
}

impl Call {
    /// A request without headers and body.
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.to_owned(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The header that bears the API key.
    #[must_use]
    pub fn key(self, secret: &str) -> Self {
        self.header("ld-api-key", secret)
    }

    /// A body, whatever it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// A body that says that it is JSON.
    #[must_use]
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    /// Sends it.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn send(self, to: SocketAddr) -> Result<Reply> {
        let what = format!("{} {}", self.method, self.path);
        match tokio::time::timeout(PATIENCE, self.exchange(to)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failed(format!("{what}: {error}"))),
            Err(_) => Err(Failed(format!("{what}: no reply within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn exchange(self, to: SocketAddr) -> Result<Reply> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder().method(self.method.as_str()).uri(&self.path);
        request = request.header("host", to.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body)))?;
        let reply = sender.send_request(request).await?;
        let status = reply.status().as_u16();
        let headers = reply
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = reply.into_body().collect().await?.to_bytes();
        connection.abort();
        let asked = format!("{} {}", self.method, self.path);
        Ok(Reply { asked, status, headers, text: String::from_utf8_lossy(&body).into_owned() })
    }
}

impl Reply {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The problem's code; empty if it is none.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The id of the backup that a create made.
    ///
    /// # Errors
    /// It made none.
    pub fn backup(&self) -> Result<u64> {
        let id = self.header("ld-backup").parse();
        match (self.status, id) {
            (204, Ok(id)) => Ok(id),
            _ => Err(Failed(format!("no backup was made: {} {}", self.status, self.text))),
        }
    }

    /// The faults of an input, as (path, code).
    pub fn issues(&self) -> Vec<(String, String)> {
        let text = |issue: &Value, name: &str| issue[name].as_str().unwrap_or("?").to_owned();
        let body = self.json();
        let issues = body["field_issues"].as_array().cloned().unwrap_or_default();
        issues.iter().map(|issue| (text(issue, "path"), text(issue, "code"))).collect()
    }
}
