//! API keys: made, listed and revoked by the operator's command, and used over HTTP.

use backups_aws::table::keys::Secret;
use serde_json::{Value, json};
use tests::http::{Call, Reply};
use tests::{Failed, Here, Result, Setup, fail};

/// Makes a key of the demo's tenant. Gives its id and its secret.
async fn create(here: &Here, more: &[&str]) -> Result<(String, String)> {
    let tenant = here.demo.tenant_id.clone();
    let mut all = vec!["key", "create", "--tenant", &tenant, "--json"];
    all.extend(more);
    let made = first(&here.admin(&all).await?)?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    Ok((text("key_id"), text("secret")))
}

/// The JSON that a command printed; what it told people stands after it.
fn first(said: &str) -> Result<Value> {
    Ok(serde_json::from_str(said.lines().next().unwrap_or_default())?)
}

/// Lists the demo's backups with a key.
async fn list(here: &Here, secret: &str) -> Result<Reply> {
    here.send(Call::new("GET", here.backups()).key(secret)).await
}

/// Why the command refuses.
async fn refusal(here: &Here, arguments: &[&str]) -> Result<String> {
    match here.admin(arguments).await {
        Err(Failed(why)) => Ok(why),
        Ok(said) => fail(format!("{arguments:?}: {said}")),
    }
}

#[tokio::test]
async fn a_key_opens_until_it_expires_or_is_revoked() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (id, secret) = create(&here, &["--permission", "deployment:manage", "--days", "2"]).await?;
    assert_eq!((secret.len(), &secret[..3]), (46, "ld_"));
    assert_eq!(list(&here, &secret).await?.status, 200, "at once");
    let post = Call::new("POST", here.backups()).key(&secret).json(r#"{"name": "n"}"#);
    assert_eq!(here.send(post).await?.status, 204);

    let listed = first(&here.admin(&["key", "list", "--json"]).await?)?;
    let keys = listed.as_array().cloned().unwrap_or_default();
    assert_eq!(keys.len(), 4, "the demo's, and the new one: {listed}");
    let one = keys.iter().find(|key| key["key_id"] == id.as_str()).cloned().unwrap_or_default();
    let expected = json!({
        "key_id": id, "tenant_id": here.demo.tenant_id, "permission": "deployment:manage",
        "deployments": null, "allow": null, "expires_at": one["expires_at"],
        "revoked_at": null, "state": "good",
    });
    assert_eq!(one, expected);
    let lasts = one["expires_at"].as_str().unwrap_or_default().parse::<jiff::Timestamp>()?;
    let left = lasts.duration_since(here.now().await?).as_secs();
    assert!((2 * 86_400 - 60..=2 * 86_400).contains(&left), "{left}");

    // It was used a moment ago, so it is kept; a request that is let in at the last moment has
    // 8 s of the 30.
    here.advance(30).await?;
    assert_eq!(list(&here, &secret).await?.status, 200);
    here.admin(&["key", "revoke", &id]).await?;
    here.advance(22).await?;
    assert_eq!(list(&here, &secret).await?.code(), "unauthorized");
    let again = first(&here.admin(&["key", "revoke", &id, "--json"]).await?)?;
    assert_eq!(again["state"], "revoked", "and not revived");
    let listed = here.admin(&["key", "list", "--tenant", &here.demo.tenant_id]).await?;
    assert!(listed.contains(&format!("{id}  revoked")) && listed.lines().count() == 3, "{listed}");
    assert!(!listed.contains("ld_"), "{listed}");

    // To the second, also of a key that the instance has just read.
    let (id, short) = create(&here, &["--permission", "deployment:read", "--days", "1"]).await?;
    let listed = first(&here.admin(&["key", "list", "--json"]).await?)?;
    let keys = listed.as_array().cloned().unwrap_or_default();
    let one = keys.iter().find(|key| key["key_id"] == id.as_str()).cloned().unwrap_or_default();
    let end: jiff::Timestamp = one["expires_at"].as_str().unwrap_or_default().parse()?;
    let left = u64::try_from(end.duration_since(here.now().await?).as_secs())?;
    here.advance(left - 20).await?;
    assert_eq!(list(&here, &short).await?.status, 200);
    here.advance(20).await?;
    assert_eq!(list(&here, &short).await?.code(), "unauthorized");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_key_is_bound_to_deployments_and_to_where_it_is_used() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let own = here.demo.deployment_id.to_string();
    let read = ["--permission", "deployment:read", "--days", "1"];
    let (_, bound) = create(&here, &[&read[..], &["--deployment", &own]].concat()).await?;
    assert_eq!(list(&here, &bound).await?.status, 200);
    // One that is not there yet, of the same tenant.
    let (_, other) = create(&here, &[&read[..], &["--deployment", "77"]].concat()).await?;
    assert_eq!(list(&here, &other).await?.code(), "deployment_not_found");

    let networks = ["--allow", "127.0.0.0/8", "--allow", "2001:db8::/32"];
    let (_, near) = create(&here, &[&read[..], &networks].concat()).await?;
    assert_eq!(list(&here, &near).await?.status, 200);
    let (_, far) = create(&here, &[&read[..], &["--allow", "192.0.2.0/24"]].concat()).await?;
    let forged = Call::new("GET", here.backups()).key(&far);
    let forged = forged.header("x-forwarded-for", "192.0.2.1");
    for call in [Call::new("GET", here.backups()).key(&far), forged] {
        let reply = here.send(call).await?;
        assert_eq!((reply.status, reply.code().as_str()), (403, "ip_not_allowed"));
    }
    // Before the ids in the path and the permission.
    let bad = Call::new("POST", "/deployments/x/backups").key(&far);
    assert_eq!(here.send(bad).await?.code(), "ip_not_allowed");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_no_key_can_be_is_refused() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (tenant, foreign) = (&here.demo.tenant_id, here.demo.other_deployment_id.to_string());
    let good = ["key", "create", "--tenant", tenant, "--permission", "deployment:read"];
    for (more, why) in [
        (&["--days", "0"][..], "1..=365"),
        (&["--days", "366"], "1..=365"),
        (&[], "--days"),
        (&["--days", "1", "--allow", "192.0.2.1/24"], "192.0.2.0/24"),
        (&["--days", "1", "--allow", "localhost"], "no address"),
        (&["--days", "1", "--deployment", "0"], "no id"),
        (&["--days", "1", "--deployment", &foreign], "not the tenant's"),
    ] {
        let said = refusal(&here, &[&good[..], more].concat()).await?;
        assert!(said.contains(why), "{more:?}: {said}");
    }
    let said = refusal(&here, &["key", "revoke", "key-of-nobody"]).await?;
    assert!(said.contains("there is no key"), "{said}");
    let listed = here.admin(&["key", "list"]).await?;
    assert_eq!(listed.lines().count(), 3, "only the demo's: {listed}");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_control_plane_makes_changes_and_revokes_keys_by_version() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let secret = Secret::from_bytes([7; 32]);
    let put = async |version, change: Value| {
        here.change_key("key-cp", &secret, version, &change).await?;
        here.rest().await
    };
    let reading = json!({"permission": "deployment:read"});
    assert_eq!(list(&here, secret.expose()).await?.code(), "unauthorized");
    put(1, reading.clone()).await?;
    assert_eq!(list(&here, secret.expose()).await?.status, 200);
    let post = || Call::new("POST", here.backups()).key(secret.expose()).json(r#"{"name": "n"}"#);
    assert_eq!(here.send(post()).await?.code(), "insufficient_permissions");
    // Changed; and an event that comes late changes nothing.
    put(3, json!({})).await?;
    put(2, json!({"deployments": [77]})).await?;
    here.advance(30).await?;
    assert_eq!(here.send(post()).await?.status, 204);
    // Another tenant's, or another key of that name: refused, and nothing changed.
    put(4, json!({"tenant_id": "other"})).await?;
    put(5, json!({"hash": "0".repeat(64)})).await?;
    put(6, json!({"expires_at": "2999-01-01T00:00:00Z"})).await?;
    let letters = here.local("GET", "dead_letters", &Value::Null).await?.to_string();
    for why in ["another key's", "at most 365 days"] {
        assert!(letters.contains(why), "{why}: {letters}");
    }
    here.advance(30).await?;
    assert_eq!(list(&here, secret.expose()).await?.status, 200);
    // What ends a key ends it, however late it comes; and what ended stays so.
    let other = Secret::from_bytes([8; 32]);
    let late = async |version, change: Value| {
        here.change_key("key-late", &other, version, &change).await?;
        here.rest().await
    };
    late(5, json!({})).await?;
    assert_eq!(list(&here, other.expose()).await?.status, 200);
    late(3, json!({"revoked_at": "2026-11-01T00:00:00Z"})).await?;
    here.advance(30).await?;
    assert_eq!(list(&here, other.expose()).await?.code(), "unauthorized");
    late(9, json!({})).await?;
    here.advance(30).await?;
    assert_eq!(list(&here, other.expose()).await?.code(), "unauthorized");
    // So does one that is refused for anything else.
    let faults = [
        json!({"expires_at": "2999-01-01T00:00:00Z"}),
        json!({"allow": ["10.0.0.1/8"]}),
        json!({"hash": "0".repeat(64)}),
        json!({"colour": "red"}),
    ];
    for (seed, fault) in (20..).zip(faults) {
        let (id, other) = (format!("key-{seed}"), Secret::from_bytes([seed; 32]));
        here.change_key(&id, &other, 1, &json!({})).await?;
        assert_eq!(list(&here, other.expose()).await?.status, 200);
        // Another's word has no say.
        let mut change = fault.clone();
        change["revoked_at"] = json!("2026-11-01T00:00:00Z");
        change["tenant_id"] = json!("other");
        here.change_key(&id, &other, 2, &change).await?;
        here.advance(30).await?;
        assert_eq!(list(&here, other.expose()).await?.status, 200, "{fault}");
        change["tenant_id"] = json!(here.demo.tenant_id);
        here.change_key(&id, &other, 3, &change).await?;
        here.rest().await?;
        let letters = here.local("GET", "dead_letters", &Value::Null).await?;
        let last = letters.as_array().and_then(|letters| letters.last()).cloned();
        let told = last.unwrap_or_default()["event"]["detail"].clone();
        assert_eq!((&told["key_id"], &told["version"]), (&json!(id), &json!(3)), "{letters}");
        here.advance(30).await?;
        assert_eq!(list(&here, other.expose()).await?.code(), "unauthorized", "{fault}");
    }
    // An operator has the last word.
    here.admin(&["key", "revoke", "key-cp"]).await?;
    put(9, json!({})).await?;
    here.advance(30).await?;
    assert_eq!(list(&here, secret.expose()).await?.code(), "unauthorized");
    here.stop().await;
    Ok(())
}

/// What comes over the bus is shown in lines of its own.
#[tokio::test]
async fn a_tenants_name_cannot_turn_a_line_of_the_list_around() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let secret = Secret::from_bytes([9; 32]);
    for (version, tenant) in (1..).zip(["t\nkey-0  good", "t\u{85}", "t\u{202e}doog"]) {
        here.change_key("key-odd", &secret, version, &json!({"tenant_id": tenant})).await?;
    }
    here.rest().await?;
    let letters = here.local("GET", "dead_letters", &Value::Null).await?.to_string();
    assert_eq!(letters.matches("tenant_id has a control character").count(), 2, "{letters}");
    let listed = here.admin(&["key", "list"]).await?;
    let odd: Vec<&str> = listed.lines().filter(|line| line.contains("key-odd")).collect();
    assert!(odd.len() == 1 && odd[0].contains("tenant t\\u{202e}doog  "), "{listed}");
    here.stop().await;
    Ok(())
}

/// A key that leaked is looked for, whatever else lies in the table.
#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_hide_the_other_keys() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let row = json!({
        "pk": {"S": "KEYS"}, "sk": {"S": "key-a-broken-one"}, "version": {"S": "odd"},
    });
    here.put_item(&row).await?;
    let said = refusal(&here, &["key", "list", "--json"]).await?;
    assert_eq!(first(&said)?.as_array().map(Vec::len), Some(3), "{said}");
    assert!(said.contains("the row key-a-broken-one cannot be read"), "{said}");
    let said = refusal(&here, &["key", "list", "--tenant", &here.demo.tenant_id]).await?;
    let known: Vec<&str> = said.lines().filter(|line| line.contains("  good  ")).collect();
    assert_eq!((known.len(), said.lines().count()), (2, 3), "{said}");
    here.stop().await;
    Ok(())
}
