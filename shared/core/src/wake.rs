//! What the worker is woken by, read from the EventBridge envelope.

use serde::Deserialize;
use serde_json::Value;

use crate::announce::{self, Kind, ORPHANS_AN_ORDER, OrphanRemovalOrdered, RestoreOrdered};
use crate::control_plane::{
    self, DeploymentChanged, DeploymentDeleted, KeyChanged, KeyEnded, UpgradeRequested,
};
use crate::id::{BackupId, DeploymentId, Nonce, RestoreId, SnapshotId};
use crate::reconcile::Thing;
use crate::time::Time;

/// What Lambda hands over of a queue: a message's text is an event (Lambda developer guide,
/// "Using Lambda with Amazon SQS").
#[derive(Debug, Deserialize)]
struct Messages {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// A message of a queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// By which the queue is told that it failed.
    pub id: String,
    /// The event in it. What is no JSON is a text, and that is no event.
    pub event: Value,
}

/// The messages that came from a queue, or None: it did not come from one.
pub fn messages(invoked: &Value) -> Option<Vec<Message>> {
    let messages = Messages::deserialize(invoked).ok()?.records.into_iter();
    let read = messages.map(|Record { id, body }| {
        let event = serde_json::from_str(&body).unwrap_or(Value::String(body));
        Message { id, event: unwrapped(event) }
    });
    Some(read.collect())
}

/// What was refused once, and was moved back out of the dead letters: the event in it.
fn unwrapped(mut body: Value) -> Value {
    let is_told = body["reason"].is_string() && body["source"].is_null();
    match body.get_mut("event").filter(|_| is_told) {
        Some(event) => event.take(),
        None => body,
    }
}

/// A wake-up.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    /// Look at this backup. If an announcement brought us here, the bus has it.
    Backup {
        /// Whose.
        deployment_id: DeploymentId,
        /// Which.
        id: BackupId,
        /// The announcement that the bus surely has.
        announced: Option<Nonce>,
    },
    /// Look at this restore. If an announcement brought us here, the bus has it.
    Restore {
        /// Whose.
        deployment_id: DeploymentId,
        /// Which.
        id: RestoreId,
        /// The announcement that the bus surely has.
        announced: Option<Nonce>,
    },
    /// An operator orders something of a restore.
    Ordered {
        /// What.
        ordered: RestoreOrdered,
        /// When the bus took it.
        at: Time,
    },
    /// Look at the stack's reconciliation.
    Reconciliation,
    /// An operator orders that what no row vouches for goes.
    RemovalOrdered {
        /// What.
        ordered: OrphanRemovalOrdered,
        /// When the bus took it.
        at: Time,
    },
    /// A set of snapshots moved; `smallest` names the set.
    Snapshots {
        /// The smallest snapshot id of the event.
        smallest: SnapshotId,
    },
    /// The control plane is about to upgrade a deployment.
    UpgradeRequested(UpgradeRequested),
    /// Look at the backup that an upgrade waits for.
    Upgrade {
        /// Whose.
        deployment_id: DeploymentId,
        /// The upgrade's id.
        id: String,
    },
    /// The control plane says how a deployment is.
    Changed(DeploymentChanged),
    /// The control plane says that a deployment is gone.
    Deleted(DeploymentDeleted),
    /// A key as it is now.
    KeyChanged(KeyChanged),
    /// The same, to be refused; but the key is over.
    KeyEnded {
        /// Which.
        ended: KeyEnded,
        /// Why it is refused.
        fault: String,
    },
    /// Nothing for us.
    Foreign,
}

/// The envelope, as far as it is read.
#[derive(Debug, Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    #[serde(default)]
    time: Option<Time>,
    detail: Value,
}

/// The part of an announcement that wakes the worker.
#[derive(Debug, Deserialize)]
struct Requested {
    #[serde(rename = "deployment_id")]
    deployment: DeploymentId,
    #[serde(rename = "backup_id")]
    backup: BackupId,
    #[serde(rename = "announcement_id")]
    announcement: Nonce,
}

/// The same of a restore.
#[derive(Debug, Deserialize)]
struct RestoreRequested {
    #[serde(rename = "deployment_id")]
    deployment: DeploymentId,
    #[serde(rename = "restore_id")]
    restore: RestoreId,
    #[serde(rename = "announcement_id")]
    announcement: Nonce,
}

/// `EBS Multi-Volume Snapshots Completion Status`.
#[derive(Debug, Deserialize)]
struct MultiVolume {
    snapshots: Vec<MultiVolumeSnapshot>,
}

#[derive(Debug, Deserialize)]
struct MultiVolumeSnapshot {
    snapshot_id: String,
}

/// `EBS Snapshot Notification`.
#[derive(Debug, Deserialize)]
struct SnapshotNotification {
    snapshot_id: String,
}

/// The longest id of an order: the restore's row keeps it.
const ORDER_ID: usize = 64;

/// Reads an event.
///
/// # Errors
/// What is wrong with it, as a sentence: it goes to the dead-letter queue.
pub fn read(event: Value) -> Result<Wake, String> {
    let envelope: Envelope = serde_json::from_value(event)
        .map_err(|error| format!("not an EventBridge event: {error}"))?;
    let Envelope { source, detail_type, time, detail } = envelope;
    match (source.as_str(), detail_type.as_str()) {
        (announce::SOURCE, announce::OPERATION_DUE) => {
            let due: announce::OperationDue = parsed(&detail_type, detail)?;
            let (deployment_id, announced) = (due.deployment_id, None);
            match due.operation.as_str() {
                "backup" => Ok(Wake::Backup { deployment_id, id: BackupId(due.id), announced }),
                "restore" => Ok(Wake::Restore { deployment_id, id: RestoreId(due.id), announced }),
                "upgrade" => match due.upgrade_id {
                    Some(id) => Ok(Wake::Upgrade { deployment_id, id }),
                    None => Err(format!("{detail_type}: an upgrade without its upgrade_id")),
                },
                "reconciliation" => Ok(Wake::Reconciliation),
                other => Err(format!("{detail_type}: no operation is called `{other}`")),
            }
        }
        (announce::SOURCE, announce::RESTORE_ORDERED) => {
            let at = time.ok_or_else(|| format!("{detail_type}: an event without a time"))?;
            let ordered: RestoreOrdered = parsed(&detail_type, detail)?;
            if ordered.version != 1 {
                return Err(format!("{detail_type}: version {} is not known", ordered.version));
            }
            let length = ordered.order_id.as_str().len();
            if !(1..=ORDER_ID).contains(&length) {
                return Err(format!("{detail_type}: an order_id has 1 to {ORDER_ID} bytes"));
            }
            Ok(Wake::Ordered { ordered, at })
        }
        (announce::SOURCE, announce::ORPHAN_REMOVAL_ORDERED) => {
            let at = time.ok_or_else(|| format!("{detail_type}: an event without a time"))?;
            let ordered: OrphanRemovalOrdered = parsed(&detail_type, detail)?;
            removal(&ordered).map_err(|why| format!("{detail_type}: {why}"))?;
            Ok(Wake::RemovalOrdered { ordered, at })
        }
        (announce::SOURCE, kind) if kind == Kind::RestoreRequested.detail_type() => {
            let requested: RestoreRequested = parsed(&detail_type, detail)?;
            Ok(Wake::Restore {
                deployment_id: requested.deployment,
                id: requested.restore,
                announced: Some(requested.announcement),
            })
        }
        (announce::SOURCE, kind) if kind == Kind::BackupRequested.detail_type() => {
            let requested: Requested = parsed(&detail_type, detail)?;
            Ok(Wake::Backup {
                deployment_id: requested.deployment,
                id: requested.backup,
                announced: Some(requested.announcement),
            })
        }
        (control_plane::SOURCE, control_plane::DEPLOYMENT_CHANGED) => {
            parsed(&detail_type, detail).map(Wake::Changed)
        }
        (control_plane::SOURCE, control_plane::KEY_CHANGED) => {
            let ended = KeyEnded::read(&detail);
            match (key_changed(&detail_type, detail), ended) {
                (Err(fault), Some(ended)) => Ok(Wake::KeyEnded { ended, fault }),
                (read, _) => read.map(Wake::KeyChanged),
            }
        }
        (control_plane::SOURCE, control_plane::UPGRADE_REQUESTED) => {
            parsed(&detail_type, detail).map(Wake::UpgradeRequested)
        }
        (control_plane::SOURCE, control_plane::DEPLOYMENT_DELETED) => {
            parsed(&detail_type, detail).map(Wake::Deleted)
        }
        ("aws.ec2", "EBS Multi-Volume Snapshots Completion Status") => {
            let set: MultiVolume = parsed(&detail_type, detail)?;
            let ids = set.snapshots.iter().filter_map(|one| SnapshotId::from_arn(&one.snapshot_id));
            Ok(ids.min().map_or(Wake::Foreign, |smallest| Wake::Snapshots { smallest }))
        }
        ("aws.ec2", "EBS Snapshot Notification") => {
            let one: SnapshotNotification = parsed(&detail_type, detail)?;
            Ok(SnapshotId::from_arn(&one.snapshot_id)
                .map_or(Wake::Foreign, |smallest| Wake::Snapshots { smallest }))
        }
        _ => Ok(Wake::Foreign),
    }
}

/// Whether an order to remove orphans can be carried out at all.
fn removal(ordered: &OrphanRemovalOrdered) -> Result<(), String> {
    if ordered.version != 1 {
        return Err(format!("version {} is not known", ordered.version));
    }
    if !(1..=ORDER_ID).contains(&ordered.order_id.as_str().len()) {
        return Err(format!("an order_id has 1 to {ORDER_ID} bytes"));
    }
    if !(1..=ORPHANS_AN_ORDER).contains(&ordered.ids.len()) {
        return Err(format!("an order is about 1 to {ORPHANS_AN_ORDER} ids"));
    }
    if ordered.ids.iter().all(|id| Thing::parse(id).is_some()) {
        return Ok(());
    }
    Err("an id is that of a snapshot (snap-…) or a volume (vol-…)".to_owned())
}

/// Reads what is said of a key. The fault names the field and no more: what is in it may be a
/// secret or a hash that somebody has put into the wrong one.
fn key_changed(detail_type: &str, detail: Value) -> Result<KeyChanged, String> {
    let known = |field: &str| KeyChanged::FIELDS.contains(&field);
    serde_path_to_error::deserialize(detail).map_err(|fault| {
        let path = fault.path().to_string();
        let field = path.split(['.', '[']).next().filter(|field| known(field));
        match field {
            Some(field) => format!("{detail_type}: `{field}` is not as its schema says"),
            None => format!("{detail_type}: a field is missing, or is not one of its schema"),
        }
    })
}

/// Reads a detail as `T`.
fn parsed<T: serde::de::DeserializeOwned>(detail_type: &str, detail: Value) -> Result<T, String> {
    serde_json::from_value(detail).map_err(|error| format!("{detail_type}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::announce::{EventRejected, KEPT_WHOLE};

    #[test]
    fn a_queues_messages_are_the_events_in_them() {
        let invoked = |bodies: &[&str]| {
            let record = |body: &&str| json!({"messageId": body.len().to_string(), "body": body});
            json!({"Records": bodies.iter().map(record).collect::<Vec<_>>()})
        };
        assert_eq!(messages(&invoked(&[])), Some(Vec::new()));
        // Ids of more than 53 bits stay exact, and what is no JSON is no event.
        let two = messages(&invoked(&[r#"{"id":18446744073709551615}"#, "{"])).expect("two");
        let message = |id: &str, event: Value| Message { id: id.to_owned(), event };
        assert_eq!(two, [message("27", json!({"id": u64::MAX})), message("1", json!("{"))]);
        assert!(read(two[1].event.clone()).is_err());
        // A refused one that somebody has moved back.
        let event = json!({"source": "s", "detail": {"reason": "r", "event": 7}});
        let told = serde_json::to_string(&EventRejected::new("why", event.clone())).expect("JSON");
        for body in [told, event.to_string()] {
            assert_eq!(messages(&invoked(&[&body])).expect("one")[0].event, event);
        }
        for event in [json!({}), json!([]), json!({"Records": [{"Sns": {}}]}), json!(null)] {
            assert_eq!(messages(&event), None);
        }
    }

    #[test]
    fn what_is_told_of_a_refused_event_fits_on_the_bus() {
        let event = |detail: &str| {
            json!({"id": "1", "source": "s", "detail-type": "t", "time": "now", "account": "2",
                "detail": {"field": detail}})
        };
        let small = event("small");
        assert_eq!(EventRejected::new("why", small.clone()).event, small);
        let large = EventRejected::new(&"é".repeat(2_000), event(&"x".repeat(KEPT_WHOLE)));
        let said = json!({"id": "1", "source": "s", "detail-type": "t", "time": "now"});
        assert_eq!(large.event, said);
        assert_eq!(large.reason.chars().count(), 1_000);
        // Whatever somebody has put into a field of a key.
        let secret = format!("ld_{}", "A".repeat(43));
        for field in ["tenant_id", "key_id", "version", "hash"] {
            let mut event = json!({"id": "1", "detail-type": "API Key Changed",
                "resources": [secret],
                "detail": {"key_id": "key-1", "version": 7, "hash": "0", "tenant_id": "t"}});
            event["detail"][field] = json!(secret);
            let told = serde_json::to_string(&EventRejected::new("why", event)).expect("JSON");
            assert!(!told.contains("AAAA") && told.contains("\"id\":\"1\""), "{told}");
            assert_eq!(told.contains("key-1"), field != "key_id");
        }
        for (id, kept) in [
            ("old_key", true),
            (&format!("x{secret}"), false),
            (&format!("key-{secret}"), false),
            ("key-ld_AAAA", false),
        ] {
            let event = json!({"detail-type": "API Key Changed", "detail": {"key_id": id}});
            let told = EventRejected::new("why", event).event;
            assert_eq!(told["detail"]["key_id"].is_string(), kept, "{id}");
        }
        let text = EventRejected::new("why", json!("x".repeat(KEPT_WHOLE)));
        assert!(text.event["id"].is_null() && text.event["time"].is_null());
    }

    #[test]
    fn a_fault_in_what_is_said_of_a_key_shows_nothing_of_it() {
        for before in ["", "x", "key-", "a_"] {
            shows_nothing_of(&format!("{before}ld_{}", "A".repeat(43)));
        }
    }

    fn shows_nothing_of(secret: &str) {
        let good = json!({
            "version": 1, "key_id": "key-1", "hash": "0".repeat(64), "tenant_id": "t",
            "permission": "deployment:read", "expires_at": "2026-11-24T00:00:00Z",
            "revoked_at": "2026-11-23T00:00:00Z", "deployments": [1], "allow": ["192.0.2.1"],
        });
        let read = |detail: Value| {
            let event = json!({
                "source": "supervisor.control-plane", "detail-type": "API Key Changed",
                "detail": detail,
            });
            match read(event)? {
                Wake::KeyEnded { fault, .. } => Err(fault),
                Wake::KeyChanged(event) => {
                    event.key(Time::from_unix(1_795_000_000)).map_err(|rejected| rejected.0)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(good.clone()).map(|key| key.key_id), Ok("key-1".to_owned()));
        let fields: Vec<String> =
            good.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        assert_eq!(fields.len(), KeyChanged::FIELDS.len());
        for field in fields {
            for wrong in [json!(secret), json!([secret]), json!({ secret: secret })] {
                // A tenant may be called anything.
                if field == "tenant_id" && wrong.is_string() {
                    continue;
                }
                let mut detail = good.clone();
                detail[&field] = wrong;
                let fault = read(detail).expect_err("refused");
                assert!(!fault.contains("AAAA"), "{field}: {fault}");
                assert!(fault.contains(&field), "{field}: {fault}");
            }
            let mut less = good.clone();
            less.as_object_mut().map(|detail| detail.remove(&field));
            assert_eq!(
                read(less).is_err(),
                !matches!(&*field, "deployments" | "allow" | "revoked_at")
            );
        }
        let mut more = good;
        more[&secret] = json!(secret);
        let fault = read(more).expect_err("refused");
        assert!(!fault.contains("AAAA"), "{fault}");
    }
}
