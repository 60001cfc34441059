//! The tenant matrix: every route that deploys, with every kind of key that must not open it.
//!
//! The routes are template.yaml's, so a new one is in it without anybody thinking of it. What
//! is asked for is there, or was, or never existed; it is asked for with good input and with
//! bad. None of that may show in the reply to a key which must not know: all of them are equal
//! to the letter, but for the request's id.

use std::collections::{BTreeMap, BTreeSet};

use backups_aws::table::keys::Secret;
use jiff::Timestamp;
use local::Template;
use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::rows::Row;
use tests::{Cloud, Failed, Here, Result, Setup, fail};

use super::refusals::same;
use super::refused;

/// A deployment that never existed.
const NOWHERE: u64 = 4711;

/// What a key must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// That it is no key that counts.
    Unauthorized,
    /// That it is used from elsewhere.
    NotFromHere,
    /// That there is no such deployment.
    NotThere,
    /// That it may only look; and of what is not there, that it is not.
    ReadOnly,
    /// Of what is another tenant's, that there is no such deployment.
    NotOwn,
}

impl Told {
    const fn refusal(self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (401, "unauthorized"),
            Self::NotFromHere => (403, "ip_not_allowed"),
            Self::NotThere | Self::NotOwn => (404, "deployment_not_found"),
            Self::ReadOnly => (403, "insufficient_permissions"),
        }
    }
}

/// Makes a key by the operator's command. Gives its id and its secret.
async fn make(here: &Here, more: &[&str]) -> Result<(String, String)> {
    let said = here.admin(&[&["key", "create", "--json"], more].concat()).await?;
    let made: Value = serde_json::from_str(said.lines().next().unwrap_or_default())?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    Ok((text("key_id"), text("secret")))
}

/// Every kind of key that must not open the demo's deployment, or not all of it.
async fn keys(here: &Here) -> Result<Vec<(&'static str, Option<String>, Told)>> {
    let demo = here.demo.clone();
    let (own, foreign) = (demo.tenant_id.as_str(), demo.other_tenant_id.as_str());
    let beside = demo.more_deployment_ids[1].to_string();
    let manage = ["--permission", "deployment:manage", "--days", "30"];
    let of = |tenant, more: &[&'static str]| [&["--tenant", tenant], &manage[..], more].concat();
    let (id, revoked) = make(here, &of(own, &[])).await?;
    here.admin(&["key", "revoke", &id]).await?;
    let short = ["--permission", "deployment:manage", "--days", "1"];
    let (_, expired) = make(here, &[&["--tenant", own], &short[..]].concat()).await?;
    here.advance(86_400).await?;
    let (_, elsewhere) = make(here, &of(own, &["--allow", "192.0.2.0/24"])).await?;
    let six = of(own, &["--allow", "2001:db8::/32", "--allow", "198.51.100.7"]);
    let (_, further) = make(here, &six).await?;
    let (_, foreign_elsewhere) = make(here, &of(foreign, &["--allow", "192.0.2.0/24"])).await?;
    let bound = [&["--tenant", own, "--deployment", &beside], &manage[..]].concat();
    let (_, bound) = make(here, &bound).await?;
    let read = ["--permission", "deployment:read", "--days", "30"];
    let read_bound = [&["--tenant", own, "--deployment", &beside], &read[..]].concat();
    let (_, read_bound) = make(here, &read_bound).await?;
    let (_, foreign_read) = make(here, &[&["--tenant", foreign], &read[..]].concat()).await?;
    let nobodys = format!("ld_{}", "A".repeat(43));
    let cut = demo.keys.manage[..45].to_owned();
    Ok(vec![
        ("none", None, Told::Unauthorized),
        ("empty", Some(String::new()), Told::Unauthorized),
        ("no key at all", Some("Bearer x".to_owned()), Told::Unauthorized),
        ("nobody's", Some(nobodys), Told::Unauthorized),
        ("a good one cut short", Some(cut), Told::Unauthorized),
        ("revoked", Some(revoked), Told::Unauthorized),
        ("expired", Some(expired), Told::Unauthorized),
        ("elsewhere's", Some(elsewhere), Told::NotFromHere),
        ("elsewhere's, of two networks", Some(further), Told::NotFromHere),
        ("another tenant's of elsewhere", Some(foreign_elsewhere), Told::NotFromHere),
        ("another tenant's", Some(demo.keys.other_tenant), Told::NotThere),
        ("another tenant's reader", Some(foreign_read), Told::NotThere),
        ("bound to another deployment", Some(bound), Told::NotThere),
        ("a reader bound to another one", Some(read_bound), Told::NotThere),
        ("a reader", Some(demo.keys.read), Told::ReadOnly),
        ("the owner's, of what is another's", Some(demo.keys.manage), Told::NotOwn),
    ])
}

/// What becomes of a key that opened the demo's deployment, and what it is told then.
async fn falls(here: &Here) -> Result<[(&'static str, Value, Told); 6]> {
    let beside = here.demo.more_deployment_ids[1];
    let soon = here.now().await?.as_second() + 20;
    let soon = Timestamp::from_second(soon)?.to_string();
    Ok([
        ("revoked since", json!({"revoked_at": soon}), Told::Unauthorized),
        ("expired since", json!({"expires_at": soon}), Told::Unauthorized),
        ("elsewhere's since", json!({"allow": ["192.0.2.0/24"]}), Told::NotFromHere),
        ("bound to another since", json!({"deployments": [beside]}), Told::NotThere),
        ("a reader since", json!({"permission": "deployment:read"}), Told::ReadOnly),
        ("as it was", json!({}), Told::NotOwn),
    ])
}

/// Keys that opened the deployment and do not any more, and at last one that still does. Each
/// has asked for what the matrix asks for: those answers are kept, and must not be told.
async fn fallen(here: &Here) -> Result<Vec<(&'static str, Option<String>, Told)>> {
    let mut keys = Vec::new();
    for (kind, change, told) in falls(here).await? {
        let number = u8::try_from(keys.len())?;
        let (id, secret) = (format!("fallen-{number}"), Secret::from_bytes([number; 32]));
        here.change_key(&id, &secret, 1, &json!({})).await?;
        for call in changes(here.demo.deployment_id)? {
            let reply = here.send(call.key(secret.expose())).await?;
            assert_eq!(reply.status, 204, "{kind}: {}", reply.text);
        }
        here.change_key(&id, &secret, 2, &change).await?;
        keys.push((kind, Some(secret.expose().to_owned()), told));
    }
    here.advance(30).await?;
    Ok(keys)
}

/// A deployment with one of everything.
async fn fill(here: &Here) -> Result<()> {
    let id = here.create("n").await?;
    here.rest().await?;
    let key = here.demo.keys.manage.clone();
    let restore = Call::new("POST", format!("{}/{id}/restore", here.backups())).key(&key);
    assert_eq!(here.send(restore).await?.status, 204);
    here.until("the restore is over", |rows, _| {
        rows.iter().any(|row| row.restore().is_some() && row.text("status") == "completed")
    })
    .await?;
    let schedule = Call::new("PUT", format!("{}/schedule", here.backups())).key(&key);
    let schedule = schedule.json(r#"{"cron": "0 3 29 2 *"}"#);
    assert_eq!(here.send(schedule).await?.status, 204);
    // Another of the tenant's, which was deleted with a backup in it.
    let gone = here.demo.more_deployment_ids[0];
    assert_eq!(here.create_on(gone, &json!({"name": "n"})).await?.backup()?, 1);
    here.rest().await?;
    let detail = json!({"version": 9, "deployment_id": gone});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &detail).await?;
    here.settle(20).await
}

/// The rows that a request may have changed: all but the counts of requests.
async fn state(cloud: &Cloud) -> Result<Vec<Row>> {
    let rows = cloud.rows().await?;
    Ok(rows.into_iter().filter(|row| !row.text("pk").starts_with("REQUESTS#")).collect())
}

/// A route's path with its parameters.
fn filled(path: &str, deployment: u64, id: &str) -> Result<String> {
    let path = path.replace("{deployment_id}", &deployment.to_string());
    let path = path.replace("{backup_id}", id).replace("{restore_id}", id);
    if path.contains('{') {
        return fail(format!("{path}: what is to be in the place of its parameters?"));
    }
    Ok(path)
}

/// A body that the route takes.
fn good(path: &str) -> &'static str {
    match path.rsplit('/').next() {
        Some("backups" | "{backup_id}") => r#"{"name": "n"}"#,
        Some("schedule") => r#"{"cron": "0 4 29 2 *"}"#,
        Some("restore") => r#"{"allow_partial": true}"#,
        _ => "",
    }
}

/// The request of each route that changes something at once, by the name that the matrix's
/// have.
fn changes(deployment: u64) -> Result<Vec<Call>> {
    let routes = routes()?.into_iter().filter(|(method, _)| method == "PUT" || method == "PATCH");
    let named = |(method, path): (String, String)| {
        let call = Call::new(&method, filled(&path, deployment, "1")?).json(good(&path));
        Ok(call.header("idempotency-key", &method))
    };
    routes.map(named).collect()
}

/// A request of a route: with good input, and with bad.
fn requests(method: &str, path: &str, deployment: u64) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    let good = good(path);
    for id in ["1", "99"] {
        let filled = filled(path, deployment, id)?;
        if method == "GET" {
            calls.push(Call::new(method, format!("{filled}?limit=1&before=2")));
        }
        let call = Call::new(method, filled);
        if method == "GET" || method == "DELETE" {
            calls.push(call);
            continue;
        }
        calls.push(call.clone().json(good));
        calls.push(call.clone().json(good).header("idempotency-key", method));
        calls.push(call.clone().json(good).header("idempotency-key", "not one"));
        calls.push(call.clone().json("{"));
        calls.push(call.clone().json(vec![b' '; 70_000]));
        calls.push(call.body(good));
    }
    Ok(calls)
}

/// The routes of deployments: method and path.
fn routes() -> Result<Vec<(String, String)>> {
    let template = Template::load(&[]).map_err(Failed)?;
    let open = |path: &str| path.starts_with("/docs/") || path.starts_with("/console/");
    Ok(template.routes().into_iter().filter(|(_, path)| !open(path)).collect())
}

#[tokio::test]
async fn what_a_key_must_not_know_it_cannot_tell_from_what_is_not_there() -> Result<()> {
    let parameters = vec![("RequestsPerMinute".to_owned(), "100000".to_owned())];
    let here = Here::start(Setup { deployments: 3, parameters, ..Setup::default() }).await?;
    let mut keys = keys(&here).await?;
    fill(&here).await?;
    keys.extend(fallen(&here).await?);
    let (own, gone) = (here.demo.deployment_id, here.demo.more_deployment_ids[0]);
    let foreign = here.demo.other_deployment_id;
    let before = state(&here).await?;

    let (mut cells, mut requests_made) = (0, 0);
    let mut told_in_all: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for (method, path) in routes()? {
        for (kind, key, told) in &keys {
            let send = async |call: Call| {
                let call = key.as_ref().map_or(call.clone(), |key| call.key(key));
                here.send(call).await
            };
            let reading = method == "GET";
            let mut replies: Vec<Reply> = Vec::new();
            // A reader knows what there is of its tenant's, and may look at it.
            let (told, deployments) = match told {
                Told::ReadOnly if reading => (Told::NotThere, vec![foreign, NOWHERE]),
                Told::ReadOnly => (Told::ReadOnly, vec![own]),
                Told::NotOwn => (Told::NotOwn, vec![foreign, NOWHERE]),
                told => (*told, vec![own, gone, NOWHERE]),
            };
            for deployment in deployments {
                for call in requests(&method, &path, deployment)? {
                    replies.push(send(call).await?);
                }
            }
            let (status, code) = told.refusal();
            assert!(replies.len() > 1, "{method} {path}, {kind}");
            for reply in &replies {
                refused(reply, status, code);
                told_in_all.entry(status).or_default().insert(same(reply).to_string());
            }
            requests_made += replies.len();
            cells += 1;
        }
    }
    assert_eq!(cells, routes()?.len() * keys.len());
    // Whatever the route and the kind of key, there is one reply of each; of 403 two, for the
    // address and for the permission.
    let several: Vec<_> = told_in_all.iter().map(|(status, all)| (*status, all.len())).collect();
    assert_eq!(several, [(401, 1), (403, 2), (404, 1)], "{told_in_all:#?}");
    println!("{cells} cells, {requests_made} requests");
    assert_eq!(state(&here).await?, before, "a request that was refused has done something");

    // The answers are known all the while: who still may is told them again.
    let as_it_was = keys.last().and_then(|(_, key, _)| key.clone()).unwrap_or_default();
    for call in changes(own)? {
        let reply = here.send(call.key(&as_it_was)).await?;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (204, "true"));
    }

    // The same with the key that may: it is not the requests that were wrong. Looks come first
    // and deletes last, so that all is there.
    let mut all = routes()?;
    all.sort_by_key(|(method, _)| {
        ["GET", "PUT", "PATCH", "POST"].iter().position(|one| one == method).unwrap_or(4)
    });
    for (method, path) in all {
        let call = requests(&method, &path, own)?.swap_remove(0);
        let reply = here.send(call.key(&here.demo.keys.manage)).await?;
        let done = matches!(reply.status, 200 | 204);
        let met = ["backup_in_progress", "restore_in_progress"];
        let met = reply.status == 409 && met.contains(&reply.code().as_str());
        assert!(done || met, "{} {}: {}", reply.asked, reply.status, reply.text);
    }
    here.stop().await;
    Ok(())
}

/// What takes minutes: a create and a restore, whose answers are kept for ten.
#[tokio::test]
async fn a_key_that_fell_is_not_told_again_what_it_made() -> Result<()> {
    let parameters = vec![("ProBackupLimit".to_owned(), "20".to_owned())];
    let here = Here::start(Setup { deployments: 3, parameters, ..Setup::default() }).await?;
    fill(&here).await?;
    for number in 0..6 {
        let (kind, change, told) = falls(&here).await?[number].clone();
        let seed = u8::try_from(number)? + 100;
        let (id, secret) = (format!("maker-{number}"), Secret::from_bytes([seed; 32]));
        here.change_key(&id, &secret, 1, &json!({})).await?;
        let named = |path: String, body: &str, name| {
            let call = Call::new("POST", path).key(secret.expose()).json(body);
            call.header("idempotency-key", name)
        };
        let create = named(here.backups(), good("backups"), "once");
        let made = here.send(create.clone()).await?.backup()?;
        here.until_status(made, "completed").await?;
        let path = format!("{}/{made}/restore", here.backups());
        let restore = named(path, good("restore"), "back");
        assert_eq!(here.send(restore.clone()).await?.status, 204, "{kind}");
        for call in [&create, &restore] {
            let reply = here.send(call.clone()).await?;
            assert_eq!(
                (reply.status, reply.header("idempotent-replayed")),
                (204, "true"),
                "{kind}"
            );
        }
        here.change_key(&id, &secret, 2, &change).await?;
        here.advance(30).await?;
        for call in [&create, &restore] {
            let reply = here.send(call.clone()).await?;
            if told == Told::NotOwn {
                let replayed = reply.header("idempotent-replayed");
                assert_eq!((reply.status, replayed), (204, "true"), "they are kept all the while");
            } else {
                let (status, code) = told.refusal();
                refused(&reply, status, code);
                let tells = ["ld-backup", "ld-restore", "idempotent-replayed"];
                assert!(
                    tells.iter().all(|name| reply.header(name).is_empty()),
                    "{kind}: {reply:?}"
                );
            }
        }
        here.until("the restore is over", |rows, in_flight| {
            in_flight.is_empty()
                && rows
                    .iter()
                    .filter(|row| row.restore().is_some())
                    .all(|row| row.text("status") == "completed")
        })
        .await?;
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_a_reader_sees_of_its_own_is_no_more_than_it_may() -> Result<()> {
    let here = Here::start(Setup { deployments: 3, ..Setup::default() }).await?;
    fill(&here).await?;
    for (method, path) in routes()?.into_iter().filter(|(method, _)| method == "GET") {
        let call = requests(&method, &path, here.demo.deployment_id)?.swap_remove(0);
        let reply = here.send(call.key(&here.demo.keys.read)).await?;
        assert_eq!(reply.status, 200, "{}: {}", reply.asked, reply.text);
        let call = requests(&method, &path, NOWHERE)?.swap_remove(0);
        refused(&here.send(call.key(&here.demo.keys.read)).await?, 404, "deployment_not_found");
    }
    here.stop().await;
    Ok(())
}
