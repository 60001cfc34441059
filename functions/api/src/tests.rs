//! The routes from outside, over a DynamoDB and a bus that answer by heart: the
//! order of errors, the shape of every reply, and that no log shows a secret.
//! What the table's conditions do is tested against a real one elsewhere.

pub(crate) mod cloud;
mod logs;
mod once;
mod order;
mod rate;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use backups_aws::clock::Clock;
use backups_aws::table::keys::{Key, Permission, Secret};
use backups_core::backup::Backup;
use backups_core::create::{NewBackup, decide};
use backups_core::deployment::{Deployment, Node, Registry};
use backups_core::error::Code;
use backups_core::id::{DeploymentId, NodeId, Nonce};
use backups_core::limits::Limits;
use backups_core::time::Time;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use cloud::Cloud;

/// Above 2^53, as the platform's ids are.
const DEPLOYMENT: u64 = 611_298_765_432_109_056;

/// Where the backups of [`DEPLOYMENT`] are.
pub(crate) const BACKUPS: &str = "/deployments/611298765432109056/backups";

/// A deployment that may be backed up.
pub(crate) fn deployment() -> Deployment {
    Deployment {
        deployment_id: DeploymentId(DEPLOYMENT),
        registry: Registry {
            registry_version: 1,
            tenant_id: "tenant".into(),
            status: "initialized".into(),
            plan: "pro".into(),
            cloud: "aws".into(),
            variant: "managed".into(),
            storage_type: "network_balanced".into(),
            shared: false,
            region: "us-west-1".into(),
            backup_limit: None,
            nodes: vec![Node { node_id: NodeId(1), instance_id: "i-0123456789abcdef0".into() }],
            deleted: false,
        },
        deleted_version: 0,
        next_backup_id: 1,
        backup_count: 0,
        active_backup: None,
        next_restore_id: 1,
        active_restore: None,
    }
}

/// A key of the deployment's tenant that may do everything for a very long time.
pub(crate) fn key() -> Key {
    Key {
        hash: secret().hash(),
        key_id: "key-1".into(),
        version: 1,
        tenant_id: "tenant".into(),
        permission: Permission::Manage,
        deployments: None,
        allow: None,
        revoked_at: None,
        expires_at: Time::from_unix(i64::from(u32::MAX) * 2),
    }
}

/// The secret of [`key`].
pub(crate) fn secret() -> Secret {
    Secret::from_bytes([0xA5; 32])
}

/// A backup as a create leaves it.
pub(crate) fn pending() -> Backup {
    let request = NewBackup {
        name: "pre-migration".into(),
        node_id: Some(NodeId(1)),
        backup_type: backups_core::backup::BackupType::Manual,
        remarks: None,
        expires_in_days: Some(30),
    };
    let now = "2025-01-15T10:30:00Z".parse().expect("a time");
    let limits = Limits::default();
    decide(&deployment(), request, &limits, Nonce::from("token"), now).expect("a backup").0
}

/// A reply, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The code of a problem; empty for a good reply.
    fn code(&self) -> String {
        match self.headers.get("content-type").map(String::as_str) {
            Some("application/problem+json") => {
                self.json()["code"].as_str().expect("a code").into()
            }
            _ => String::new(),
        }
    }
}

/// A request with the key and a good body.
fn request(method: &str, path: &str) -> Request<Body> {
    let body = if method == "POST" { r#"{"name": "n"}"# } else { "" };
    Request::builder()
        .method(method)
        .uri(path)
        .header("ld-api-key", secret().expose())
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("a request")
}

/// What a GET of the path is answered.
pub(crate) async fn get(cloud: &Cloud, path: &str) -> Reply {
    send(&router(cloud), request("GET", path)).await
}

/// The service over this cloud.
fn router(cloud: &Cloud) -> Router {
    service(Arc::new(api(cloud)))
}

/// The service over this cloud, at a time that goes with tokio's.
fn counted(cloud: &Cloud) -> Router {
    let now = "2025-01-15T10:30:00Z".parse().expect("a time");
    let (clock, _) = Clock::counted(now, tokio::time::Instant::now());
    service(Arc::new(Api::new(settings(), &cloud.config(&clock), clock)))
}

/// The API over this cloud.
pub(crate) fn api(cloud: &Cloud) -> Api {
    let clock = Clock::system();
    Api::new(settings(), &cloud.config(&clock), clock)
}

/// The settings of a stack.
fn settings() -> Settings {
    let variable = |name: &str| match name {
        "TABLE_NAME" | "EVENT_BUS_NAME" | "STACK_NAME" => Some("test".to_owned()),
        "REQUESTS_PER_MINUTE" => Some("600".to_owned()),
        "CORS_ORIGINS" => Some(String::new()),
        _ => Some("5".to_owned()),
    };
    Settings::from_lookup(&variable).expect("settings")
}

/// Sends a request, and checks what holds of every reply.
async fn send(router: &Router, request: Request<Body>) -> Reply {
    let head = request.method() == "HEAD";
    let public = request.uri().path() == "/docs/openapi.json";
    let (parts, body) = router.clone().oneshot(request).await.expect("a reply").into_parts();
    let headers: BTreeMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let reply = Reply { status: parts.status.as_u16(), headers, text };
    let id = &reply.headers["ld-request"];
    assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    let kept = if public && reply.status == 200 { "public, max-age=300" } else { "no-store" };
    assert_eq!(reply.headers["cache-control"], kept);
    if parts.status.as_u16() >= 400 && !head {
        let problem = reply.json();
        let code = Code::ALL.iter().find(|code| code.as_str() == problem["code"]);
        assert_eq!(code.map(|code| code.status()), Some(reply.status), "{problem}");
        assert_eq!(problem["instance"], id.as_str());
        assert_eq!(problem["status"], reply.status);
    }
    if parts.status == StatusCode::NO_CONTENT {
        assert_eq!(reply.text, "");
        assert!(!reply.headers.contains_key("content-type"));
    }
    reply
}
