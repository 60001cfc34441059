//! The parsers of what comes from outside, each as a function of any bytes that says how many
//! typed values it got out of them. What must hold of those it asserts.

mod mutate;
// By its file: the api would bring the AWS SDKs along, built with the fuzzer's instruments.
#[path = "../../functions/api/src/payload.rs"]
mod payload;

use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use backups_core::announce::{EventRejected, KEPT_WHOLE};
use backups_core::body;
use backups_core::create::decide;
use backups_core::deployment::Deployment;
use backups_core::id::{BackupId, DeploymentId, Nonce, SnapshotId};
use backups_core::key::Network;
use backups_core::limits::Limits;
use backups_core::schedule::{Cron, Schedule, Zone};
use backups_core::time::{Seconds, Time};
use backups_core::wake::{self, Wake};
use http::header::HOST;
use lambda_http::request::LambdaRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// So often it is told how many inputs reached a typed value.
const TOLD: u64 = 10_000;

/// Counts an input that reached so many typed values, and tells how many did now and then.
pub fn tell(typed: usize) {
    static ALL: AtomicU64 = AtomicU64::new(0);
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let reached = REACHED.fetch_add(u64::from(typed > 0), Relaxed) + u64::from(typed > 0);
    let all = ALL.fetch_add(1, Relaxed) + 1;
    if all.is_multiple_of(TOLD) {
        println!("{reached} of {all}");
    }
}

/// When everything happens.
const NOW: Time = Time::from_unix(1_800_000_000);

/// Bodies that are taken.
const BODIES: [&str; 6] = [
    include_str!("../../docs/published/reference-create.json"),
    include_str!("../seeds/bodies/create-all.json"),
    include_str!("../seeds/bodies/patch.json"),
    include_str!("../seeds/bodies/restore.json"),
    include_str!("../seeds/bodies/schedule.json"),
    include_str!("../seeds/bodies/schedule-list.json"),
];

/// Their fields.
const BODY_FIELDS: [&str; 10] = [
    "name",
    "node_id",
    "backup_type",
    "remarks",
    "expires_in_days",
    "allow_partial",
    "safety_backup",
    "cron",
    "timezone",
    "enabled",
];

/// Events that are taken.
const EVENTS: [&str; 9] = [
    include_str!("../../events/worker-api-key-changed.json"),
    include_str!("../../events/worker-backup-requested.json"),
    include_str!("../../events/worker-deployment-changed.json"),
    include_str!("../../events/worker-deployment-deleted.json"),
    include_str!("../../events/worker-operation-due.json"),
    include_str!("../../events/worker-orphan-removal-ordered.json"),
    include_str!("../../events/worker-restore-ordered.json"),
    include_str!("../../events/worker-snapshot-set-succeeded.json"),
    include_str!("../../events/worker-upgrade-requested.json"),
];

/// Fields of their details.
const EVENT_FIELDS: [&str; 16] = [
    "version",
    "deployment_id",
    "backup_id",
    "restore_id",
    "id",
    "operation",
    "upgrade_id",
    "tenant_id",
    "nodes",
    "backup_limit",
    "deployments",
    "allow",
    "expires_at",
    "revoked_at",
    "snapshots",
    "ids",
];

/// Payloads that the api is invoked with.
const PAYLOADS: [&str; 13] = [
    include_str!("../../events/api-create-backup.json"),
    include_str!("../../events/api-default.json"),
    include_str!("../../events/api-delete-backup.json"),
    include_str!("../../events/api-delete-schedule.json"),
    include_str!("../../events/api-get-backup.json"),
    include_str!("../../events/api-get-open-api.json"),
    include_str!("../../events/api-get-restore.json"),
    include_str!("../../events/api-get-schedule.json"),
    include_str!("../../events/api-list-backups.json"),
    include_str!("../../events/api-list-restores.json"),
    include_str!("../../events/api-patch-backup.json"),
    include_str!("../../events/api-put-schedule.json"),
    include_str!("../../events/api-restore-backup.json"),
];

/// Their fields.
const PAYLOAD_FIELDS: [&str; 10] = [
    "rawPath",
    "rawQueryString",
    "headers",
    "pathParameters",
    "queryStringParameters",
    "cookies",
    "body",
    "isBase64Encoded",
    "domainName",
    "method",
];

/// The bodies of all requests that have one, and what becomes of them.
pub fn bodies(data: &[u8]) -> usize {
    let data = &mutate::json(data, &BODIES, &BODY_FIELDS)[..];
    let mut typed = 0;
    let (deployment, limits) = (&*DEPLOYMENT, Limits::default());
    match body::create(data) {
        Ok(new) => {
            typed += 1;
            assert!((1..=100).contains(&new.name.chars().count()));
            assert_eq!(new.name, new.name.trim());
            assert!(new.expires_in_days.is_none_or(|days| (1..=3650).contains(&days)));
            assert!(new.node_id.is_none_or(|node| node.0 > 0));
            if let Ok((backup, _)) = decide(deployment, new, &limits, Nonce::from("t"), NOW) {
                same_when_read_again(&backup);
            }
        }
        Err(refusal) => assert!(!refusal.issues.is_empty()),
    }
    match body::patch(data) {
        Ok(change) => {
            typed += 1;
            let days = change.expires_in_days.flatten();
            assert!(days.is_none_or(|days| (1..=3650).contains(&days)));
        }
        Err(refusal) => assert!(!refusal.issues.is_empty()),
    }
    // Nothing at all is one too.
    typed += usize::from(body::restore(data).is_ok() && !data.is_empty());
    let apart = Seconds::minutes(60);
    match body::schedule(data, apart) {
        Ok(setting) => {
            typed += 1;
            assert!(setting.plan.cron.closest().is_some_and(|closest| closest >= apart));
            // Slots go on, and never back.
            let mut at = NOW;
            for _ in 0..5 {
                let Some(next) = setting.plan.next_after(at) else { break };
                assert!(next > at);
                at = next;
            }
            let schedule = Schedule::set(None, deployment, setting, NOW);
            assert_eq!(schedule.due(NOW).is_some(), schedule.next_run(NOW).is_some());
            same_when_read_again(&schedule);
        }
        Err(refusal) => assert!(!refusal.issues.is_empty()),
    }
    typed
}

/// A row is read as it was written.
fn same_when_read_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(row: &T) {
    let written = serde_json::to_value(row).expect("a row");
    assert_eq!(serde_json::from_value::<T>(written).expect("a row"), *row);
}

/// The deployment of the event's sample, with no backup yet.
static DEPLOYMENT: LazyLock<Deployment> = LazyLock::new(|| {
    let changed = include_str!("../../events/worker-deployment-changed.json");
    let changed = wake::read(serde_json::from_str(&alone(changed)).expect("JSON"));
    let Ok(Wake::Changed(event)) = changed else { panic!("the sample is no such event") };
    let registry = event.registry("us-west-1").expect("the sample's deployment");
    Deployment {
        deployment_id: DeploymentId(42),
        registry,
        deleted_version: 0,
        next_backup_id: 4,
        backup_count: 0,
        active_backup: None,
        next_restore_id: 1,
        active_restore: None,
    }
});

/// The samples' events, each by itself.
static ALONE: LazyLock<Vec<String>> = LazyLock::new(|| EVENTS.map(alone).into());

/// The event of a sample; of a queue's message the one in it.
fn alone(sample: &str) -> String {
    let value = serde_json::from_str(sample).expect("JSON");
    match wake::messages(&value).map(|messages| messages[0].event.to_string()) {
        Some(event) => event,
        None => sample.to_owned(),
    }
}

/// What a function is invoked with: an event of EventBridge, or messages of a queue.
pub fn events(data: &[u8]) -> usize {
    let good: Vec<&str> = ALONE.iter().map(String::as_str).collect();
    let data = mutate::json(data, &good, &EVENT_FIELDS);
    let Ok(invoked) = serde_json::from_slice::<Value>(&data) else { return 0 };
    match wake::messages(&invoked) {
        Some(messages) => messages.into_iter().map(|one| event(one.event)).sum(),
        None => event(invoked),
    }
}

/// One event.
fn event(event: Value) -> usize {
    let rejected = EventRejected::new("for a try", event.clone());
    assert!(serde_json::to_string(&rejected).expect("JSON").len() <= KEPT_WHOLE + 1_000);
    match wake::read(event) {
        Err(reason) => {
            assert!(!reason.is_empty());
            0
        }
        Ok(Wake::Foreign) => 0,
        Ok(Wake::KeyEnded { ended, fault }) => {
            assert!(!fault.is_empty() && !ended.key_id.is_empty());
            0
        }
        Ok(Wake::Changed(event)) => match event.registry("us-west-1") {
            Ok(registry) => {
                same_when_read_again(&registry);
                let _ = (registry.storage_fault(), registry.backup_limit(&Limits::default()));
                1
            }
            Err(rejected) => {
                assert!(!rejected.0.is_empty());
                0
            }
        },
        Ok(Wake::KeyChanged(event)) => match event.key(NOW) {
            Ok(key) => {
                same_when_read_again(&key);
                let _ = (key.is_good(NOW), key.allows(Some(IpAddr::from([192, 0, 2, 1]))));
                1
            }
            Err(rejected) => {
                assert!(!rejected.0.is_empty());
                0
            }
        },
        Ok(_) => 1,
    }
}

/// What API Gateway invokes the api with, up to the request that its routes get.
pub fn payloads(data: &[u8]) -> usize {
    let data = mutate::json(data, &PAYLOADS, &PAYLOAD_FIELDS);
    let Ok(payload) = serde_json::from_slice::<LambdaRequest>(&data) else { return 0 };
    let LambdaRequest::ApiGatewayV2(gateway) = &payload else { return 0 };
    // Ours has the one stage that is no part of the path; no stranger chooses it.
    if gateway.request_context.stage.as_deref() != Some("$default") {
        return 0;
    }
    // What the gateway has read of the path, all that is behind it reads too.
    let raw = gateway.raw_path.clone();
    let request: lambda_http::Request = payload::tame(payload).into();
    let path = request.uri().path();
    assert!(path.starts_with('/'));
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")));
    assert!(!request.headers().contains_key(HOST));
    if path == "/-" {
        return 0;
    }
    assert_eq!(decoded(path), raw.unwrap_or_else(|| "/".to_owned()).into_bytes());
    1
}

/// A path as its bytes were before they were encoded.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let digits = [bytes.clone().next(), bytes.clone().nth(1)];
        let read = |digit: Option<u8>| char::from(digit?).to_digit(16);
        match (byte, digits.map(read)) {
            (b'%', [Some(high), Some(low)]) => {
                out.extend(u8::try_from(high * 16 + low));
                bytes.nth(1);
            }
            _ => out.push(byte),
        }
    }
    out
}

/// The words of paths, queries, headers and fields.
pub fn words(data: &[u8]) -> usize {
    let data = mutate::word(data);
    let Ok(text) = std::str::from_utf8(&data) else { return 0 };
    let mut typed = 0;
    if let Ok(id) = text.parse::<DeploymentId>() {
        typed += 1;
        // One id has one name.
        assert_eq!(id.to_string(), text);
        assert!(id.0 > 0);
        assert_eq!(text.parse::<BackupId>().map(|id| id.0), Ok(id.0));
    }
    if let Ok(cron) = Cron::parse(text) {
        typed += 1;
        let again = Cron::parse(&cron.to_string());
        assert_eq!(again.map(|again| again.closest()), Ok(cron.closest()));
    }
    if let Ok(zone) = Zone::parse(text) {
        typed += 1;
        assert_eq!(zone.to_string(), text);
    }
    if let Ok(network) = text.parse::<Network>() {
        typed += 1;
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    if let Ok(time) = text.parse::<Time>() {
        typed += 1;
        assert_eq!(time.to_string().parse().ok(), Some(time));
    }
    if let Some(id) = SnapshotId::from_arn(text) {
        typed += 1;
        assert!(text.ends_with(id.as_str()));
    }
    typed
}
