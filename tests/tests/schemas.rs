//! The schemas of docs/events are true: of what the service sends, and of what it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use backups_aws::clock::Clock;
use backups_aws::sdk;
use backups_core::announce::{self, Kind};
use backups_core::control_plane::{self, UpgradeRequested};
use backups_core::error::Code;
use backups_core::operation::FailureCode;
use backups_core::wake;
use serde_json::{Value, json};
use tests::http::Call;
use tests::rows::{items, text};
use tests::schemas::Schemas;
use tests::{Failed, Here, Result, Setup, fail, root};
use worker::Worker;

/// As long as Lambda would give it.
const TIMEOUT: Duration = Duration::from_secs(45);

/// What goes over the bus under our source, and is no announcement.
const INTERNAL: [&str; 3] =
    [announce::OPERATION_DUE, announce::RESTORE_ORDERED, announce::ORPHAN_REMOVAL_ORDERED];

/// A file of the repository as JSON.
fn file(path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(root().join(path))?)?)
}

/// The event of a sample; of a queue's message the one in it.
fn sample(path: &str) -> Result<Value> {
    let sample = file(path)?;
    let Some(mut messages) = wake::messages(&sample) else { return Ok(sample) };
    let message = messages.pop().ok_or_else(|| Failed(format!("{path} holds no event")))?;
    Ok(message.event)
}

#[test]
fn what_is_sent_or_read_has_a_schema_and_nothing_else_has() -> Result<()> {
    let mut wanted = BTreeSet::new();
    let ours = Kind::ALL.iter().map(|kind| kind.detail_type());
    for name in ours.chain(INTERNAL) {
        wanted.insert((announce::SOURCE, name));
    }
    wanted.insert((announce::REJECTED_SOURCE, announce::EVENT_REJECTED));
    let source = std::fs::read_to_string(root().join("shared/core/src/wake.rs"))?;
    // A backup's and a restore's request, and the internal ones.
    let read = INTERNAL.len() + 2;
    assert_eq!(source.matches("(announce::SOURCE, ").count(), read, "the worker reads another");
    let read = control_plane::KINDS.len();
    assert_eq!(
        source.matches("(control_plane::SOURCE, ").count(),
        read,
        "the worker reads another"
    );
    wanted.extend(control_plane::KINDS.map(|name| (control_plane::SOURCE, name)));
    let schemas = Schemas::load()?;
    assert_eq!(schemas.names().collect::<BTreeSet<_>>(), wanted);
    let page = std::fs::read_to_string(root().join("docs/events/README.md"))?;
    for (source, name) in wanted {
        let path = format!("{source}/{}.schema.json", name.to_lowercase().replace(' ', "-"));
        assert!(page.contains(&format!("[`{name}`]({path})")), "README.md has no {path}");
    }
    Ok(())
}

#[test]
fn the_codes_of_failures_are_those_of_the_service() -> Result<()> {
    let all: BTreeSet<&str> = FailureCode::ALL.iter().map(|code| code.as_str()).collect();
    let refusals: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let values = file("docs/events/values.schema.json")?;
    let listed = &values["$defs"]["failure"]["properties"]["code"]["enum"];
    assert_eq!(items(listed).filter_map(Value::as_str).collect::<BTreeSet<_>>(), all);
    let skipped = file("docs/events/supervisor.backups/scheduled-backup-skipped.schema.json")?;
    let failed = file("docs/events/supervisor.backups/backup-failed.schema.json")?;
    for properties in [&skipped["properties"], &failed["then"]["properties"]] {
        let codes = &properties["failure"]["properties"]["code"]["enum"];
        assert!(items(codes).count() > 5, "{codes}");
        for code in items(codes).filter_map(Value::as_str) {
            assert!(refusals.contains(code) || all.contains(code), "{code}");
        }
    }
    Ok(())
}

#[test]
fn the_samples_are_as_their_schemas_say() -> Result<()> {
    let schemas = Schemas::load()?;
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("events"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let event = sample(&format!("events/{stem}.json"))?;
        let source = text(&event, "source");
        if source == announce::SOURCE || source == control_plane::SOURCE {
            schemas.check(source, text(&event, "detail-type"), &event["detail"])?;
            checked += 1;
        }
    }
    assert_eq!(checked, 9);
    Ok(())
}

#[test]
fn ids_are_compared_exactly_up_to_the_last() -> Result<()> {
    let schemas = Schemas::load()?;
    let takes = |id: &str| -> Result<bool> {
        let detail = serde_json::from_str(&format!(r#"{{"version": 1, "deployment_id": {id}}}"#))?;
        Ok(schemas.check(control_plane::SOURCE, "Deployment Deleted", &detail).is_ok())
    };
    for good in ["1", "9007199254740993", "9223372036854775806", "9223372036854775807"] {
        assert!(takes(good)?, "{good}");
    }
    for bad in
        ["0", "-1", "9223372036854775808", "18446744073709551616", "1e20", "1.5", "\"1\"", "null"]
    {
        assert!(!takes(bad)?, "{bad}");
    }
    Ok(())
}

#[test]
fn an_upgrades_id_is_what_the_service_takes() -> Result<()> {
    let schemas = Schemas::load()?;
    let (long, longer) = ("\u{fc}".repeat(85), "\u{fc}".repeat(86));
    for id in
        ["u", " u ", "2026.11-rc1", &long, &longer, "", " ", "\u{a0}", "a\nb", "\u{85}", "\u{7f}"]
    {
        let mut detail = json!({"deployment_id": i64::MAX, "upgrade_id": id, "colour": "blue"});
        for deployment in [json!(i64::MAX), json!(0), json!("1")] {
            detail["deployment_id"] = deployment;
            let read = serde_json::from_value::<UpgradeRequested>(detail.clone());
            let taken = read.is_ok_and(|event| event.check().is_ok());
            let checked =
                schemas.check(control_plane::SOURCE, "Deployment Upgrade Requested", &detail);
            assert_eq!(checked.is_ok(), taken, "{detail}: {checked:?}");
        }
    }
    Ok(())
}

/// The worker, against a running cloud.
async fn worker_of(here: &Here) -> Result<(Worker, Clock)> {
    let demo = &here.demo;
    let settings = here.settings()?;
    let (clock, _) = Clock::adjustable();
    let sdk = sdk::local_config(&clock, &demo.aws_endpoint, &demo.region).await;
    Ok((Worker::new(&settings, &sdk, clock.clone()), clock))
}

/// Whether the worker takes an event.
async fn takes(worker: &Worker, event: Value) -> Result<bool> {
    match Box::pin(worker::handle(worker, event, TIMEOUT)).await {
        Ok(()) => Ok(true),
        // An order that was read: of a restore that is not there no more can be asked.
        Err(worker::Error::Rejected(why)) => Ok(why == "there is no such restore"),
        Err(error) => fail(error.to_string()),
    }
}

/// A field, as a JSON pointer, and what it is set to; None: it is taken away.
type Change = (String, Option<Value>);

/// A detail with a change.
fn with(detail: &Value, (path, value): &Change) -> Value {
    let mut detail = detail.clone();
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    if let Some(Value::Object(fields)) = detail.pointer_mut(parent) {
        match value {
            Some(value) => fields.insert(name.to_owned(), value.clone()),
            None => fields.remove(name),
        };
    }
    detail
}

/// Each field of a detail without it, and with each of a handful of values; and one field
/// more.
fn changes(detail: &Value) -> Result<Vec<Change>> {
    let values: Vec<Value> = serde_json::from_str(
        r#"[null, true, 0, 1, 2, -1, 1.5, 1.0, 9007199254740993, 9223372036854775806,
            9223372036854775807, 18446744073709551616, "", "x", "i-", [], [1], {}, {"retry": null}]"#,
    )?;
    let mut all = Vec::new();
    for parent in ["", "/nodes/0"] {
        let Some(fields) = detail.pointer(parent).and_then(Value::as_object) else { continue };
        all.push((format!("{parent}/colour"), Some(json!("blue"))));
        for name in fields.keys() {
            let path = format!("{parent}/{name}");
            all.push((path.clone(), None));
            all.extend(values.iter().map(|value| (path.clone(), Some(value.clone()))));
        }
    }
    Ok(all)
}

/// What only one of the two refuses, and why.
struct Difference {
    detail_type: &'static str,
    path: &'static str,
    value: Value,
    /// Else the worker does.
    schema_takes: bool,
    why: &'static str,
}

fn differences() -> Vec<Difference> {
    let new = |detail_type, path, value, schema_takes, why| Difference {
        detail_type,
        path,
        value,
        schema_takes,
        why,
    };
    let mut all = Vec::new();
    for (detail_type, path) in [
        ("Deployment Changed", "/version"),
        ("Deployment Changed", "/deployment_id"),
        ("Deployment Changed", "/backup_limit"),
        ("Deployment Changed", "/nodes/0/node_id"),
        ("Deployment Deleted", "/version"),
        ("Deployment Deleted", "/deployment_id"),
        ("API Key Changed", "/version"),
        ("Restore Ordered", "/version"),
        ("Restore Ordered", "/deployment_id"),
        ("Restore Ordered", "/restore_id"),
    ] {
        all.push(new(detail_type, path, json!(1.0), true, "to JSON Schema 1.0 is an integer"));
    }
    let twice = |first: u64, second: u64, instance| {
        let node = |id, instance| json!({"node_id": id, "instance_id": instance});
        json!([node(first, "i-1"), node(second, instance)])
    };
    for (path, value, why) in [
        ("/region", json!("x"), "it does not know the stack's Region"),
        ("/region", json!("i-"), "it does not know the stack's Region"),
        ("/nodes", twice(1, 2, "i-1"), "it does not compare single fields"),
        ("/nodes", twice(1, 1, "i-2"), "it does not compare single fields"),
    ] {
        all.push(new("Deployment Changed", path, value, true, why));
    }
    for (path, value, why) in [
        ("/allow", json!(["192.0.2.1/24"]), "it does not know what a network is"),
        ("/expires_at", json!("2999-01-01T00:00:00Z"), "it does not know the time"),
    ] {
        all.push(new("API Key Changed", path, value, true, why));
    }
    let order_id = json!("\u{fc}".repeat(64));
    all.push(new("Restore Ordered", "/order_id", order_id, true, "it counts no bytes"));
    for path in ["/deployment_id", "/restore_id"] {
        let why = "the worker looks for it, and it is not there";
        all.push(new("Restore Ordered", path, json!(0), false, why));
    }
    let why = "serde reads a struct by position, and a word as a key, too";
    all.push(new("Deployment Changed", "/nodes", json!([[7, "i-7"]]), false, why));
    all.push(new("Restore Ordered", "/order", json!({"retry": null}), false, why));
    all
}

#[tokio::test]
async fn what_the_worker_refuses_its_schema_refuses_and_the_other_way_round() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (worker, clock) = worker_of(&here).await?;
    let schemas = Schemas::load()?;
    let mut different = differences();
    let (mut faults, mut taken, mut refused) = (Vec::new(), 0_u64, 0_u64);
    for name in ["deployment-changed", "deployment-deleted", "restore-ordered", "api-key-changed"] {
        let mut event = sample(&format!("events/worker-{name}.json"))?;
        event["time"] = json!(clock.now().to_string());
        let sample = event["detail"].clone();
        let (source, detail_type) = (text(&event, "source"), text(&event, "detail-type"));
        let (source, detail_type) = (source.to_owned(), detail_type.to_owned());
        let mut all = changes(&sample)?;
        // And those that no single value is.
        for one in different.iter().filter(|one| one.detail_type == detail_type) {
            let change = (one.path.to_owned(), Some(one.value.clone()));
            if !all.contains(&change) {
                all.push(change);
            }
        }
        for change in all {
            // A deployment or key of its own: nothing is older, or another tenant's.
            let number = taken + refused;
            let mut own = sample.clone();
            for (field, value) in [
                ("deployment_id", json!(9_100_000_000_000_000_000 + number)),
                ("key_id", json!(format!("key-{number}"))),
                ("hash", json!(format!("{number:064x}"))),
            ] {
                if let Some(field) = own.get_mut(field) {
                    *field = value;
                }
            }
            let detail = with(&own, &change);
            event["detail"] = detail.clone();
            let by_worker = takes(&worker, event.clone()).await?;
            let checked = schemas.check(&source, &detail_type, &detail);
            let known = different.iter().position(|one| {
                let same = one.detail_type == detail_type && one.path == change.0;
                same && Some(&one.value) == change.1.as_ref()
            });
            let known = known.map(|found| different.swap_remove(found));
            let wanted = known.as_ref().map_or(by_worker, |one| one.schema_takes);
            let agreed = known.is_some() && by_worker == wanted;
            if checked.is_ok() != wanted || agreed {
                let why = known.map_or("", |one| one.why);
                faults.push(format!("worker: {by_worker}, schema: {checked:?} {why}: {detail}"));
            }
            if by_worker {
                taken += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    let left: Vec<_> = different.iter().map(|one| (one.detail_type, one.path, one.why)).collect();
    assert_eq!(left, [], "never tried");
    assert!(taken > 40 && refused > 200, "{taken} taken, {refused} refused");
    here.stop().await;
    Ok(())
}

/// Every event of ours and of the control plane so far is as its schema says. Gives the
/// kinds of ours but the nudges.
async fn announced(here: &Here) -> Result<BTreeSet<String>> {
    let schemas = Schemas::load()?;
    let mut kinds = BTreeSet::new();
    let state = here.state().await?;
    for event in items(&state["events"]) {
        let (source, kind) = (text(event, "source"), text(event, "detail_type"));
        if source == announce::SOURCE || source == control_plane::SOURCE {
            schemas.check(source, kind, &event["detail"])?;
        }
        if source == announce::SOURCE && kind != announce::OPERATION_DUE {
            kinds.insert(kind.to_owned());
        }
    }
    Ok(kinds)
}

/// Waits, without touching the clock.
async fn until_announced(here: &Here, kind: &str) -> Result<()> {
    for _ in 0..1800 {
        if !here.announced(kind).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fail(format!("{kind} was never announced: {:?}", announced(here).await?))
}

/// The kinds, as `announced` gives them.
fn kinds<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn what_is_announced_of_backups_is_as_its_schema_says() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let deployment = here.demo.deployment_id;
    let gone = "";
    let id = here.create("to be deleted").await?;
    here.until_status(id, "completed").await?;
    here.delete(id).await?;
    here.until_status(id, gone).await?;
    // One of its snapshots ends in an error.
    here.arm(&json!({"on": "CreateSnapshots", "do": "fail_later"})).await?;
    let id = here.create("to fail").await?;
    here.until_status(id, "failed").await?;
    let node = here.demo.nodes[0].node_id;
    let body = json!({"name": "to expire", "expires_in_days": 1, "node_id": node});
    let id = here.create_on(deployment, &body).await?.backup()?;
    here.until_status(id, "completed").await?;
    here.advance(86_400).await?;
    here.until_status(id, gone).await?;
    // A plan that has no backups, by the time of the slot.
    let call = Call::new("PUT", format!("{}/schedule", here.backups()));
    let call = call.key(here.manager_of(deployment)).json(r#"{"cron": "0 * * * *"}"#);
    assert_eq!(here.send(call).await?.status, 204);
    here.register(deployment, 1_000, &json!({"plan": "basic"})).await?;
    here.advance(3_700).await?;
    here.tick().await?;
    here.tick().await?;
    let nowhere = json!({"deployment_id": 404, "upgrade_id": "nowhere"});
    here.put_event(control_plane::SOURCE, "Deployment Upgrade Requested", &nowhere).await?;
    here.settle(60).await?;
    let seen = announced(&here).await?;
    let wanted = kinds([
        "Backup Requested",
        "Backup Started",
        "Backup Completed",
        "Backup Failed",
        "Backup Deleted",
        "Backup Expired",
        "Scheduled Backup Skipped",
    ]);
    assert_eq!(seen, wanted);
    let failed = here.announced("Backup Failed").await?;
    let of_nobody = failed.iter().filter(|one| one["tenant_id"].is_null()).count();
    assert!(of_nobody > 0 && failed.len() > of_nobody, "{failed:?}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_is_announced_of_a_restore_is_as_its_schema_says() -> Result<()> {
    // Fast: a restore's waits are the worker's own, two seconds each.
    let here = Here::start(Setup { tick: 2, ..Setup::default() }).await?;
    let id = here.create("to restore").await?;
    until_announced(&here, "Backup Completed").await?;
    let call = Call::new("POST", format!("{}/{id}/restore", here.backups()));
    let reply = here.send(call.key(here.manager_of(here.demo.deployment_id))).await?;
    assert_eq!(reply.status, 204, "{reply:?}");
    until_announced(&here, "Restore Completed").await?;
    let seen = announced(&here).await?;
    let wanted = kinds([
        "Backup Requested",
        "Backup Started",
        "Backup Completed",
        "Restore Requested",
        "Restore Started",
        "Restore Completed",
    ]);
    assert_eq!(seen, wanted);
    here.stop().await;
    Ok(())
}
