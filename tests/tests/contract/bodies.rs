//! Bad bodies of every kind: each is refused with every fault it has, at its place.

use serde_json::json;
use tests::http::Call;
use tests::{Here, Result, Setup};

use crate::refused;

/// A body, and its faults as (path, code).
type Case<'a> = (&'a [u8], &'a [(&'a str, &'a str)]);

const CASES: &[Case<'static>] = &[
    // Not one JSON object.
    (b"", &[("", "syntax")]),
    (b"   ", &[("", "syntax")]),
    (b"{", &[("", "syntax")]),
    (b"{\"name\": \"n\"", &[("", "syntax")]),
    (b"{\"name\": \"n\"} {}", &[("", "syntax")]),
    (b"{\"name\": \"n\",}", &[("", "syntax")]),
    (b"{'name': 'n'}", &[("", "syntax")]),
    (b"{\"name\": NaN}", &[("", "syntax")]),
    (b"{\"name\": \"n\\ud800\"}", &[("", "syntax")]),
    (b"{\"name\": \"a\nb\"}", &[("", "syntax")]),
    (b"name=n", &[("", "syntax")]),
    (b"\xEF\xBB\xBF{\"name\": \"n\"}", &[("", "encoding")]),
    (b"{\"name\": \"\xFF\"}", &[("", "encoding")]),
    (b"\xFF\xFE{\0", &[("", "encoding")]),
    (b"null", &[("", "type")]),
    (b"[]", &[("", "type")]),
    (b"[{\"name\": \"n\"}]", &[("", "type")]),
    (b"\"n\"", &[("", "type")]),
    (b"7", &[("", "type")]),
    // Fields that are missing, unknown, doubled.
    (b"{}", &[("name", "required")]),
    (b"{\"Name\": \"n\"}", &[("Name", "unknown"), ("name", "required")]),
    (b"{\"name\": \"n\", \"expires_in_day\": 3}", &[("expires_in_day", "unknown")]),
    (b"{\"name\": \"n\", \"id\": 3}", &[("id", "unknown")]),
    (b"{\"name\": \"n\", \"\": 3}", &[("", "unknown")]),
    (b"{\"name\": \"n\", \"name\": \"n\"}", &[("name", "duplicate")]),
    (b"{\"name\": \"n\", \"n\\u0061me\": \"n\"}", &[("name", "duplicate")]),
    // name
    (b"{\"name\": null}", &[("name", "type")]),
    (b"{\"name\": 1}", &[("name", "type")]),
    (b"{\"name\": [\"n\"]}", &[("name", "type")]),
    (b"{\"name\": \"\"}", &[("name", "length")]),
    (b"{\"name\": \"  \"}", &[("name", "length")]),
    (b"{\"name\": \"a\\nb\"}", &[("name", "value")]),
    (b"{\"name\": \"a\\u0000\"}", &[("name", "value")]),
    (b"{\"name\": \"a\\u0085b\"}", &[("name", "value")]),
    // node_id
    (b"{\"name\": \"n\", \"node_id\": 0}", &[("node_id", "range")]),
    (b"{\"name\": \"n\", \"node_id\": -1}", &[("node_id", "range")]),
    (b"{\"name\": \"n\", \"node_id\": 18446744073709551616}", &[("node_id", "range")]),
    (b"{\"name\": \"n\", \"node_id\": 1.5}", &[("node_id", "type")]),
    (b"{\"name\": \"n\", \"node_id\": 1e-3}", &[("node_id", "type")]),
    (b"{\"name\": \"n\", \"node_id\": \"1\"}", &[("node_id", "type")]),
    (b"{\"name\": \"n\", \"node_id\": true}", &[("node_id", "type")]),
    // backup_type
    (b"{\"name\": \"n\", \"backup_type\": \"nightly\"}", &[("backup_type", "value")]),
    (b"{\"name\": \"n\", \"backup_type\": \"Manual\"}", &[("backup_type", "value")]),
    (b"{\"name\": \"n\", \"backup_type\": null}", &[("backup_type", "type")]),
    (b"{\"name\": \"n\", \"backup_type\": 0}", &[("backup_type", "type")]),
    // remarks
    (b"{\"name\": \"n\", \"remarks\": 5}", &[("remarks", "type")]),
    (b"{\"name\": \"n\", \"remarks\": \"a\\tb\"}", &[("remarks", "value")]),
    // expires_in_days
    (b"{\"name\": \"n\", \"expires_in_days\": 0}", &[("expires_in_days", "range")]),
    (b"{\"name\": \"n\", \"expires_in_days\": -1}", &[("expires_in_days", "range")]),
    (b"{\"name\": \"n\", \"expires_in_days\": 3651}", &[("expires_in_days", "range")]),
    (b"{\"name\": \"n\", \"expires_in_days\": 65537}", &[("expires_in_days", "range")]),
    (b"{\"name\": \"n\", \"expires_in_days\": 30.5}", &[("expires_in_days", "type")]),
    (b"{\"name\": \"n\", \"expires_in_days\": 0.0}", &[("expires_in_days", "range")]),
    (b"{\"name\": \"n\", \"node_id\": 9007199254740993.0}", &[("node_id", "type")]),
    (b"{\"name\": \"n\", \"expires_in_days\": \"30\"}", &[("expires_in_days", "type")]),
    // All at once.
    (
        b"{\"Name\": 1, \"node_id\": 0, \"backup_type\": \"x\", \"remarks\": 1, \"expires_in_days\": 0}",
        &[
            ("Name", "unknown"),
            ("name", "required"),
            ("node_id", "range"),
            ("backup_type", "value"),
            ("remarks", "type"),
            ("expires_in_days", "range"),
        ],
    ),
];

#[tokio::test]
async fn every_fault_is_told_at_once_and_at_its_place() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (path, key) = (here.backups(), here.demo.keys.manage.clone());
    let long_name = json!({"name": "x".repeat(101)}).to_string();
    let long_remarks = json!({"name": "n", "remarks": "x".repeat(501)}).to_string();
    let long: [Case<'_>; 2] = [
        (long_name.as_bytes(), &[("name", "length")]),
        (long_remarks.as_bytes(), &[("remarks", "length")]),
    ];
    for (body, expected) in CASES.iter().copied().chain(long) {
        let shown = String::from_utf8_lossy(body);
        let reply = here.send(Call::new("POST", &path).key(&key).json(body)).await?;
        assert_eq!(reply.code(), "invalid_request", "{shown}: {}", reply.text);
        refused(&reply, 400, "invalid_request");
        let issues = reply.issues();
        let issues: Vec<(&str, &str)> =
            issues.iter().map(|(path, code)| (path.as_str(), code.as_str())).collect();
        assert_eq!(issues, expected, "{shown}");
    }
    assert_eq!(here.list_of(here.demo.deployment_id).await?.len(), 0, "none of them made one");
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_widest_good_bodies_are_taken_and_shown_as_sent() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let other = here.demo.other_deployment_id;
    let crabs = "🦀".repeat(100);
    let remarks = "ß".repeat(500);
    let bodies = [
        json!({"name": crabs, "remarks": remarks, "backup_type": "scheduled", "expires_in_days": 3650}),
        json!({"name": "n", "node_id": null, "remarks": null, "expires_in_days": null}),
        json!({"name": "n", "remarks": "  ", "backup_type": "pre_upgrade", "expires_in_days": 1}),
    ];
    for body in &bodies {
        here.create_on(other, body).await?.backup()?;
        here.rest().await?;
    }
    let list = here.list_of(other).await?;
    assert_eq!((&list[2]["name"], &list[2]["remarks"]), (&json!(crabs), &json!(remarks)));
    let types: Vec<_> = list.iter().map(|item| item["backup_type"].clone()).collect();
    assert_eq!(types, ["pre_upgrade", "manual", "scheduled"]);
    assert_eq!(list[0]["remarks"], json!(null), "blank remarks are none");
    assert_eq!(list[1]["expires_at"], json!(null));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn only_json_of_up_to_64_kib_is_read() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let key = here.demo.keys.manage.clone();
    let post = || Call::new("POST", here.backups()).key(&key);
    let good = r#"{"name": "n"}"#;
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", ""]
    {
        let reply = here.send(post().header("content-type", bad).body(good)).await?;
        refused(&reply, 415, "unsupported_media_type");
    }
    refused(&here.send(post().body(good)).await?, 415, "unsupported_media_type");
    let gzip = post().header("content-encoding", "gzip").json(good);
    refused(&here.send(gzip).await?, 415, "unsupported_media_type");

    let padded = |size: usize| format!("{good}{}", " ".repeat(size - good.len()));
    refused(&here.send(post().json(padded(64 * 1024 + 1))).await?, 413, "body_too_large");
    // Too large comes before its type.
    refused(&here.send(post().body(padded(64 * 1024 + 1))).await?, 413, "body_too_large");
    assert_eq!(here.send(post().json(padded(64 * 1024))).await?.backup()?, 1);
    here.rest().await?;
    let typed = post().header("content-type", "Application/JSON; charset=utf-8").body(good);
    assert_eq!(here.send(typed).await?.backup()?, 2);
    here.stop().await;
    Ok(())
}
