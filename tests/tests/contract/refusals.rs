//! Each row of the contract's error table that list, create and delete can meet.

use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::{Here, MANY, Result, Setup};

use crate::{framed, refused};

/// A deployment of the demo's tenant that no other test has.
const DEPLOYMENT: u64 = 9_007_199_254_740_993;

async fn create(here: &Here, deployment: u64) -> Result<Reply> {
    here.create_on(deployment, &json!({"name": "n"})).await
}

/// The reply without what differs from request to request.
pub(crate) fn same(reply: &Reply) -> Value {
    let mut body = reply.json();
    body["instance"] = Value::Null;
    let volatile = ["ld-request", "date", "apigw-requestid"];
    let headers: Vec<_> =
        reply.headers.iter().filter(|(name, _)| !volatile.contains(&name.as_str())).collect();
    json!({"status": reply.status, "body": body, "headers": headers})
}

#[tokio::test]
async fn what_the_registry_says_decides_on_a_create() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let cases = [
        (json!({"plan": "basic"}), 403, "plan_not_supported", "Pro or Enterprise"),
        (json!({"plan": "unheard-of"}), 403, "plan_not_supported", "Pro or Enterprise"),
        (json!({"storage_type": "local_ssd"}), 400, "storage_not_supported", "local_ssd"),
        (json!({"cloud": "gcp", "region": "us-west1"}), 400, "storage_not_supported", "gcp"),
        (json!({"variant": "byoc"}), 400, "storage_not_supported", "byoc"),
        (json!({"shared": true}), 400, "storage_not_supported", "shared"),
        (json!({"status": "upgrading"}), 409, "deployment_not_ready", "upgrading"),
        (json!({"nodes": []}), 409, "deployment_not_ready", "no nodes"),
    ];
    let mut version = 0;
    for (change, status, code, word) in cases {
        version += 1;
        here.register(DEPLOYMENT, version, &change).await?;
        let reply = create(&here, DEPLOYMENT).await?;
        refused(&reply, status, code);
        assert!(reply.text.contains(word), "{}", reply.text);
        assert_eq!(here.list_of(DEPLOYMENT).await?.len(), 0, "a list always works");
    }
    // An older event changes nothing.
    here.register(DEPLOYMENT, version + 1, &json!({})).await?;
    here.register(DEPLOYMENT, version, &json!({"plan": "basic"})).await?;
    assert_eq!(create(&here, DEPLOYMENT).await?.backup()?, 1);
    here.rest().await?;
    // Another plan later: its backups can be listed and deleted.
    here.register(DEPLOYMENT, version + 2, &json!({"plan": "basic", "storage_type": "local_ssd"}))
        .await?;
    refused(&create(&here, DEPLOYMENT).await?, 403, "plan_not_supported");
    assert_eq!(here.list_of(DEPLOYMENT).await?[0]["status"], "completed");
    assert_eq!(here.delete_on(DEPLOYMENT, 1).await?.status, 204);
    here.rest().await?;
    assert_eq!(here.list_of(DEPLOYMENT).await?.len(), 0);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_deleted_deployment_lists_and_deletes_and_takes_nothing_new() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    here.register(DEPLOYMENT, 1, &json!({})).await?;
    assert_eq!(create(&here, DEPLOYMENT).await?.backup()?, 1);
    here.rest().await?;
    let gone = json!({"version": 2, "deployment_id": DEPLOYMENT});
    here.put_event("supervisor.control-plane", "Deployment Deleted", &gone).await?;
    here.settle(20).await?;
    let unknown = same(&create(&here, DEPLOYMENT + 1).await?);
    let reply = create(&here, DEPLOYMENT).await?;
    refused(&reply, 404, "deployment_not_found");
    assert_eq!(same(&reply), unknown);
    assert_eq!(here.list_of(DEPLOYMENT).await?.len(), 1);
    assert_eq!(here.delete_on(DEPLOYMENT, 1).await?.status, 204);
    here.rest().await?;
    refused(&here.delete_on(DEPLOYMENT, 1).await?, 404, "backup_not_found");
    // It comes back, and goes on counting where it was.
    here.register(DEPLOYMENT, 3, &json!({})).await?;
    assert_eq!(create(&here, DEPLOYMENT).await?.backup()?, 2);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn events_that_cannot_be_true_change_nothing_and_are_kept_with_their_reason() -> Result<()> {
    let here = Here::start(Setup { speed: 100_000.0, ..Setup::default() }).await?;
    let deployment = here.demo.deployment_id;
    let twice = json!([
        {"node_id": 7, "instance_id": "i-0000000000000000a"},
        {"node_id": 7, "instance_id": "i-0000000000000000b"},
    ]);
    let cases = [
        (json!({"tenant_id": "somebody-else"}), "belongs to tenant"),
        (json!({"region": "eu-west-1"}), "eu-west-1"),
        (json!({"nodes": twice}), "twice"),
        (json!({"status": 5}), "invalid type"),
        (json!({"surprise": true}), "unknown field"),
    ];
    let before = here.rows().await?;
    let mut told = 0;
    for (change, word) in cases {
        here.register(deployment, 100, &change).await?;
        here.settle(20).await?;
        let letters = here.local("GET", "dead_letters", &Value::Null).await?;
        let letters = letters.as_array().cloned().unwrap_or_default();
        let last = letters.last().cloned().unwrap_or_default();
        assert!(
            last["reason"].as_str().is_some_and(|reason| reason.contains(word)),
            "{word}: {letters:?}"
        );
        told += 1;
        // Each is told once, and at once.
        let rejected = here.announced("Event Rejected").await?;
        assert_eq!((letters.len(), rejected.len()), (told, told), "{rejected:?}");
        let (letter, said) = (&last["event"], rejected.last().cloned().unwrap_or_default());
        assert_eq!((letter, &last["reason"]), (&said["event"], &said["reason"]));
        assert_eq!(letter["detail"]["version"], 100);
    }
    assert_eq!(here.rows().await?, before);
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_bad_key_has_one_and_the_same_reply() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let good = here.demo.keys.manage.clone();
    let unknown = format!("ld_{}", "A".repeat(43));
    let bearer = format!("Bearer {good}");
    let doubled = format!("{good},{good}");
    let mut replies = Vec::new();
    for key in [
        None,
        Some(""),
        Some("ld_x"),
        Some(&good[3..]),
        Some(&unknown),
        Some(&bearer),
        Some(&doubled),
    ] {
        for (method, path) in [
            ("GET", here.backups()),
            ("POST", here.backups()),
            ("DELETE", format!("{}/1", here.backups())),
            // Before the ids, the deployment, and the body.
            ("POST", "/deployments/x/backups".to_owned()),
            ("GET", "/deployments/1/backups".to_owned()),
        ] {
            let call = Call::new(method, path).body("{");
            let call = if let Some(key) = key { call.key(key) } else { call };
            let reply = here.send(call).await?;
            refused(&reply, 401, "unauthorized");
            replies.push(same(&reply));
        }
    }
    // Twice the good one.
    let reply = here.send(Call::new("GET", here.backups()).key(&good).key(&good)).await?;
    replies.push(same(&reply));
    // Expired, to the second and for good.
    assert_eq!(here.send(Call::new("GET", here.backups()).key(&good)).await?.status, 200);
    here.advance(365 * 86_400).await?;
    let reply = here.send(Call::new("GET", here.backups()).key(&good)).await?;
    replies.push(same(&reply));
    for reply in &replies {
        assert_eq!(*reply, replies[0]);
    }
    assert_eq!(replies[0]["body"]["code"], "unauthorized");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn ids_in_the_path_are_canonical_and_each_bad_one_is_named() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let key = here.demo.keys.manage.clone();
    for bad in [
        "0",
        "01",
        "+1",
        "-1",
        "1.0",
        "1e3",
        "x",
        "0x1",
        "1;x",
        "%201",
        "18446744073709551616",
        "%FF",
    ] {
        let call = Call::new("GET", format!("/deployments/{bad}/backups")).key(&key);
        let reply = here.send(call).await?;
        refused(&reply, 400, "invalid_request");
        assert_eq!(reply.issues(), [("deployment_id".to_owned(), "value".to_owned())], "{bad}");
        let call = Call::new("DELETE", format!("{}/{bad}", here.backups())).key(&key);
        let reply = here.send(call).await?;
        refused(&reply, 400, "invalid_request");
        assert_eq!(reply.json()["field"], "backup_id", "{bad}");
    }
    let both = here.send(Call::new("DELETE", "/deployments/0/backups/x").key(&key)).await?;
    let paths: Vec<String> = both.issues().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["deployment_id", "backup_id"]);
    let empty = here.send(Call::new("GET", "/deployments//backups").key(&key)).await?;
    refused(&empty, 400, "invalid_request");
    // The largest id is an id.
    let largest = Call::new("GET", "/deployments/18446744073709551615/backups").key(&key);
    refused(&here.send(largest).await?, 404, "deployment_not_found");
    here.stop().await;
    Ok(())
}

/// The gateway hands on the path decoded, and what reads it as a URL drops
/// blanks and tabs, ends it at `?` and `#`, and follows `..`: none of that may
/// make an id of what is none.
#[tokio::test]
async fn an_id_is_not_made_by_tidying_the_path() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let key = here.demo.keys.manage.clone();
    here.create("n").await?;
    here.rest().await?;
    for bad in ["1%20", "1%09", "%0A1", "1%3Fx", "1%23x", "1%00", "9%2F..%2F1", "%2E%2F1"] {
        let path = format!("{}/{bad}", here.backups());
        let reply = here.send(Call::new("DELETE", path).key(&key)).await?;
        assert!(matches!(reply.status, 400 | 404), "{bad}: {} {}", reply.status, reply.text);
        assert_eq!(here.status(1).await?, "completed", "{bad}");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_failing_dependency_is_unavailable_and_says_no_more() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    here.create("n").await?;
    here.rest().await?;
    for (on, method, tail) in [
        ("Query", "GET", ""),
        ("GetItem", "POST", ""),
        ("TransactWriteItems", "POST", ""),
        ("GetItem", "DELETE", "/1"),
    ] {
        for code in [
            "InternalServerError",
            "ProvisionedThroughputExceededException",
            "AccessDeniedException",
        ] {
            here.arm(&json!({"on": on, "do": "error", "code": code, "times": MANY})).await?;
            let path = format!("{}{tail}", here.backups());
            let call = Call::new(method, path).key(&here.demo.keys.manage).json(r#"{"name": "n"}"#);
            let reply = here.send(call).await?;
            refused(&reply, 503, "unavailable");
            assert!(!reply.text.contains(code) && !reply.text.contains("Dynamo"), "{}", reply.text);
            here.disarm().await?;
        }
    }
    here.rest().await?;
    // The bus is down: what is stored counts, and the tick tells of it.
    here.arm(&json!({"on": "PutEvents", "do": "error", "times": MANY})).await?;
    let reply = here.create_on(here.demo.deployment_id, &json!({"name": "n"})).await?;
    framed(&reply);
    let id = reply.backup()?;
    assert_eq!(here.status(id).await?, "pending");
    here.disarm().await?;
    here.until_status(id, "completed").await?;
    here.stop().await;
    Ok(())
}
