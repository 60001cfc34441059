//! A request that comes again, over a cloud that answers by heart.

use std::time::Duration;

use serde_json::json;

use super::*;

/// A create that its client calls `called`.
fn create(called: &str) -> Request<Body> {
    let mut request = request("POST", BACKUPS);
    request.headers_mut().insert("idempotency-key", called.parse().expect("a value"));
    request
}

/// Puts the record that the last transaction would have stored.
fn store_record(cloud: &Cloud) -> Value {
    let items = cloud.last("TransactWriteItems")["TransactItems"].clone();
    let record = items.as_array().and_then(|items| items.last()).expect("items");
    let record = record["Put"]["Item"].clone();
    cloud.put_item(record.clone());
    record
}

/// A transaction that was cancelled: for what of its three items.
fn cancelled(codes: [&str; 3]) -> Value {
    json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "CancellationReasons": codes.map(|code| json!({"Code": code})),
    })
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_ten_minutes_to_the_second() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    assert_eq!(send(&router, create("a")).await.status, 204);
    let record = store_record(&cloud);
    // Neither the key nor the name stands in it.
    let text = record.to_string();
    assert!(!text.contains(secret().expose()) && !text.contains("\"a\""), "{text}");
    assert_eq!(record["until"]["S"], "2025-01-15T10:40:00Z");
    for (seconds, replayed) in [(0, true), (599, true), (1, false)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        let reply = send(&router, create("a")).await;
        assert_eq!((reply.status, reply.headers["ld-backup"].as_str()), (204, "1"));
        assert_eq!(reply.headers.contains_key("idempotent-replayed"), replayed, "{seconds}");
    }
    let condition = &cloud.last("TransactWriteItems")["TransactItems"][2]["Put"];
    assert_eq!(condition["ConditionExpression"], "attribute_not_exists(pk) OR #until <= :now");
    assert_eq!(condition["ExpressionAttributeValues"][":now"]["S"], "2025-01-15T10:40:00Z");
}

#[tokio::test(start_paused = true)]
async fn who_meets_the_same_request_is_told_so() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    let conflict = cancelled(["TransactionConflict", "None", "TransactionConflict"]);
    for _ in 0..8 {
        cloud.reply("TransactWriteItems", 400, conflict.clone());
    }
    let reply = send(&router, create("a")).await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "idempotent_request_in_progress"));
    assert_eq!(cloud.calls().iter().filter(|call| *call == "TransactWriteItems").count(), 8);

    // Who meets it once tries again.
    cloud.reply("TransactWriteItems", 400, conflict);
    assert_eq!(send(&router, create("a")).await.status, 204);

    // Others who write the deployment are not the same request.
    for _ in 0..8 {
        let other = cancelled(["TransactionConflict", "None", "None"]);
        cloud.reply("TransactWriteItems", 400, other);
    }
    assert_eq!(send(&router, create("b")).await.code(), "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_same_request_has_brought_about_is_its_answer() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    send(&router, create("a")).await;
    let record = store_record(&cloud);
    let (pk, sk) = (record["pk"]["S"].as_str(), record["sk"]["S"].as_str());
    cloud.remove(pk.expect("a key"), sk.expect("a key"));
    // It is not there at the first look, and is when the write has met it.
    let there = json!({"Item": record});
    cloud.reply(
        "GetItem",
        200,
        json!({"Item": cloud.row("DEPLOYMENT#611298765432109056", "META")}),
    );
    cloud.reply("GetItem", 200, json!({}));
    cloud.reply("TransactWriteItems", 400, cancelled(["ConditionalCheckFailed", "None", "None"]));
    cloud.reply("GetItem", 200, there.clone());
    cloud.reply("GetItem", 200, there);
    let reply = send(&router, create("a")).await;
    assert_eq!((reply.status, reply.code().as_str()), (204, ""));
    assert_eq!(reply.headers["idempotent-replayed"], "true");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_answer_only_if_the_same_request_is_not_behind_it() {
    let mut busy = deployment();
    busy.active_backup = Some(backups_core::id::BackupId(1));
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    send(&router, create("a")).await;
    let record = json!({"Item": store_record(&cloud)});
    let pk = record["Item"]["pk"]["S"].as_str().expect("a key").to_owned();
    let sk = record["Item"]["sk"]["S"].as_str().expect("a key").to_owned();
    cloud.remove(&pk, &sk);
    cloud.put_deployment(&busy);
    // Nobody has carried it out.
    assert_eq!(send(&router, create("a")).await.code(), "backup_in_progress");
    // The record is not there at the first look, and is at the second.
    let meta = cloud.row("DEPLOYMENT#611298765432109056", "META");
    for reply in [json!({"Item": meta}), json!({}), record] {
        cloud.reply("GetItem", 200, reply);
    }
    let reply = send(&router, create("a")).await;
    assert_eq!((reply.status, reply.headers["ld-backup"].as_str()), (204, "1"));
    assert_eq!(reply.headers["idempotent-replayed"], "true");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_see_the_deployment_any_more_sees_no_answer_of_before() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    send(&router, create("a")).await;
    let record = json!({"Item": store_record(&cloud)});
    let meta = cloud.row("DEPLOYMENT#611298765432109056", "META");
    // The deployment goes while the write is tried again.
    let gone = json!({});
    for reply in [json!({"Item": meta}), json!({}), json!({}), gone, record] {
        cloud.reply("GetItem", 200, reply);
    }
    cloud.reply("TransactWriteItems", 400, cancelled(["ConditionalCheckFailed", "None", "None"]));
    assert_eq!(send(&router, create("a")).await.code(), "deployment_not_found");
}

#[tokio::test]
async fn a_request_is_called_by_visible_characters() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    for bad in [&b""[..], b" ", b"a b", b"a\tb", b"caf\xC3\xA9", &[b'x'; 256]] {
        let mut request = request("POST", BACKUPS);
        let value = http::HeaderValue::from_bytes(bad).expect("a value");
        request.headers_mut().insert("idempotency-key", value);
        let reply = send(&router, request).await;
        assert_eq!((reply.status, reply.json()["field"].as_str()), (400, Some("idempotency-key")));
    }
    let mut twice = create("a");
    twice.headers_mut().append("idempotency-key", http::HeaderValue::from_static("a"));
    let reply = send(&router, twice).await;
    assert_eq!(reply.json()["field_issues"][0]["code"], "duplicate");
    assert_eq!(send(&router, create(&"~".repeat(255))).await.status, 204);
}
