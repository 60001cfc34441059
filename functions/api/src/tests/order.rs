//! Which error comes first, and what each request costs in calls.

use backups_core::backup::Status;
use serde_json::json;

use super::*;

/// One good backup's path.
fn one(id: &str) -> String {
    format!("{BACKUPS}/{id}")
}

/// The code of a reply that is refused.
async fn code(router: &Router, request: Request<Body>) -> String {
    send(router, request).await.code()
}

#[tokio::test]
async fn unknown_paths_and_methods_come_before_the_key() {
    let cloud = Cloud::default();
    let router = router(&cloud);
    for path in [
        "/",
        "/deployments",
        "/deployments/1",
        "/deployments/1/backups/",
        "/deployments/1/backups/1/x",
        "/Deployments/1/backups",
        "/deployments/1/backups/1/restore/1",
    ] {
        for method in ["GET", "POST", "OPTIONS", "BREW"] {
            assert_eq!(
                code(&router, request(method, path)).await,
                "route_not_found",
                "{method} {path}"
            );
        }
    }
    for (path, allow) in [(BACKUPS.to_owned(), "GET, POST"), (one("1"), "GET, PATCH, DELETE")] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let reply = send(&router, request(method, &path)).await;
            let allowed = allow.split(", ").any(|one| one == method);
            let expected = if allowed { "unauthorized" } else { "method_not_allowed" };
            assert_eq!(reply.code(), expected, "{method} {path}");
            let told = reply.headers.get("allow").map(String::as_str);
            assert_eq!(told, (!allowed).then_some(allow), "{method} {path}");
        }
        let head = send(&router, request("HEAD", &path)).await;
        assert_eq!((head.status, head.text.as_str()), (405, ""));
        assert_eq!(head.headers["allow"], allow);
    }
}

#[tokio::test]
async fn every_bad_key_has_one_and_the_same_reply() {
    let mut expired = key();
    expired.expires_at = Clock::system().now();
    let cloud = Cloud::with(Some(&expired), Some(&deployment()));
    let router = router(&cloud);
    let mut replies = Vec::new();
    for bad in [
        None,
        Some(""),
        Some("ld_short"),
        Some(secret().expose()),
        Some("ld_5aWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU"),
    ] {
        for (method, path) in
            [("GET", BACKUPS), ("POST", "/deployments/x/backups"), ("DELETE", &one("0"))]
        {
            let mut request = request(method, path);
            request.headers_mut().remove("ld-api-key");
            if let Some(bad) = bad {
                request.headers_mut().insert("ld-api-key", bad.parse().expect("a value"));
            }
            let mut reply = send(&router, request).await;
            assert_eq!(reply.status, 401);
            let id = reply.headers.remove("ld-request").expect("an id");
            replies.push((reply.text.replace(&id, ""), reply.headers));
        }
    }
    assert!(replies.windows(2).all(|two| two[0] == two[1]), "{replies:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_looked_up_once_and_an_unknown_one_each_time() {
    let cloud = Cloud::with(None, Some(&deployment()));
    let router = counted(&cloud);
    for _ in 0..2 {
        assert_eq!(code(&router, request("GET", BACKUPS)).await, "unauthorized");
        assert_eq!(cloud.calls(), ["GetItem"]);
    }
    // The key is made: it works at once.
    let cloud_with = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud_with);
    assert_eq!(send(&router, request("GET", BACKUPS)).await.status, 200);
    assert_eq!(cloud_with.calls(), ["GetItem", "UpdateItem", "Query"]);
    assert_eq!(send(&router, request("GET", BACKUPS)).await.status, 200);
    assert_eq!(cloud_with.calls(), ["UpdateItem", "Query"]);
    // Its requests are counted, by and by several at a time.
    assert_eq!(send(&router, request("GET", BACKUPS)).await.status, 200);
    assert_eq!(cloud_with.calls(), ["Query"]);
}

#[tokio::test]
async fn ids_come_before_the_deployment_and_each_bad_one_is_named() {
    let cloud = Cloud::with(Some(&key()), None);
    let router = router(&cloud);
    for bad in
        ["0", "01", "+1", "-1", "1.0", "x", "18446744073709551616", "%31x", "%FF", "1%2F2", ""]
    {
        for (method, path) in [
            ("GET", format!("/deployments/{bad}/backups")),
            ("POST", format!("/deployments/{bad}/backups")),
            ("DELETE", format!("/deployments/{bad}/backups/1")),
        ] {
            let reply = send(&router, request(method, &path)).await;
            assert_eq!(reply.code(), "invalid_request", "{method} {path}");
            assert_eq!(reply.json()["field"], "deployment_id");
        }
    }
    let reply = send(&router, request("DELETE", "/deployments/0/backups/x")).await;
    let issues = reply.json()["field_issues"].clone();
    assert_eq!(issues[0]["path"], "deployment_id");
    assert_eq!(issues[1]["path"], "backup_id");
}

#[tokio::test]
async fn a_hidden_deployment_comes_before_the_permission_and_the_body() {
    let mut reader = key();
    reader.permission = Permission::Read;
    let mut foreign = deployment();
    foreign.registry.tenant_id = "other".into();
    let mut bound = reader.clone();
    bound.deployments = Some(vec![DeploymentId(1)]);
    let mut texts = Vec::new();
    for cloud in [
        Cloud::with(Some(&reader), None),
        Cloud::with(Some(&reader), Some(&foreign)),
        Cloud::with(Some(&bound), Some(&deployment())),
    ] {
        let router = router(&cloud);
        for (method, path) in [("GET", BACKUPS), ("POST", BACKUPS), ("DELETE", &one("1"))] {
            let mut request = request(method, path);
            request.headers_mut().remove("content-type");
            let reply = send(&router, request).await;
            assert_eq!((reply.status, reply.code().as_str()), (404, "deployment_not_found"));
            texts.push(reply.text.replace(&reply.headers["ld-request"], ""));
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
}

/// Not even a row of it that cannot be read shows through.
#[tokio::test]
async fn of_a_hidden_deployment_no_backup_is_looked_at() {
    let foreign = Key { tenant_id: "another".into(), ..key() };
    let cloud = Cloud::with(Some(&foreign), Some(&deployment()));
    let pk = format!("DEPLOYMENT#{}", deployment().deployment_id);
    let backup = json!({
        "pk": {"S": pk}, "sk": {"S": format!("BACKUP#{:020}", 1)},
        "status": {"S": "of a later release"},
    });
    let meta = json!({
        "pk": {"S": pk}, "sk": {"S": "META"}, "tenant_id": {"S": "acme"},
        "status": {"S": "of a later release"},
    });
    for row in [backup, meta] {
        cloud.put_item(row);
        let router = router(&cloud);
        for (method, path) in [
            ("GET", BACKUPS.to_owned()),
            ("GET", format!("{BACKUPS}?before=9")),
            ("GET", one("1")),
            ("POST", BACKUPS.to_owned()),
            ("DELETE", one("1")),
        ] {
            let reply = send(&router, request(method, &path)).await;
            let got = (reply.status, reply.code());
            assert_eq!(got, (404, "deployment_not_found".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn then_permission_size_type_and_body() {
    let mut reader = key();
    reader.permission = Permission::Read;
    let mut basic = deployment();
    basic.registry.plan = "basic".into();
    let router = router(&Cloud::with(Some(&reader), Some(&basic)));
    let big = || {
        let mut request = request("POST", BACKUPS);
        *request.body_mut() = Body::from(" ".repeat(64 * 1024 + 1));
        request.headers_mut().remove("content-type");
        request
    };
    assert_eq!(code(&router, big()).await, "insufficient_permissions");
    assert_eq!(code(&router, request("DELETE", &one("1"))).await, "insufficient_permissions");
    assert_eq!(send(&router, request("GET", BACKUPS)).await.text, "[]");

    let router = super::router(&Cloud::with(Some(&key()), Some(&basic)));
    assert_eq!(code(&router, big()).await, "body_too_large");
    let mut untyped = request("POST", BACKUPS);
    untyped.headers_mut().remove("content-type");
    *untyped.body_mut() = Body::from("{");
    assert_eq!(code(&router, untyped).await, "unsupported_media_type");
    let mut broken = request("POST", BACKUPS);
    *broken.body_mut() = Body::from("{");
    let reply = send(&router, broken).await;
    assert_eq!((reply.code().as_str(), &reply.json()["field"]), ("invalid_request", &json!("")));
    assert_eq!(code(&router, request("POST", BACKUPS)).await, "plan_not_supported");
}

#[tokio::test]
async fn a_deleted_deployment_lists_and_deletes_but_takes_nothing_new() {
    let mut gone = deployment();
    gone.registry.deleted = true;
    let cloud = Cloud::with(Some(&key()), Some(&gone));
    let mut backup = pending();
    backup.status = Status::Completed;
    cloud.put_backup(&backup);
    let router = router(&cloud);
    assert_eq!(send(&router, request("GET", BACKUPS)).await.json()[0]["id"], 1);
    assert_eq!(send(&router, request("DELETE", &one("1"))).await.status, 204);
    assert_eq!(code(&router, request("POST", BACKUPS)).await, "deployment_not_found");
}

#[tokio::test]
async fn a_list_is_the_backups_newest_first() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    for id in [1, 2, 10] {
        let mut backup = pending();
        backup.id = backups_core::id::BackupId(id);
        cloud.put_backup(&backup);
    }
    let reply = send(&router(&cloud), request("GET", BACKUPS)).await;
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"));
    let ids: Vec<u64> = reply
        .json()
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["id"].as_u64())
        .collect();
    assert_eq!(ids, [10, 2, 1]);
    assert!(reply.text.contains("\"deployment_id\":611298765432109056,"));
}

#[tokio::test]
async fn a_create_stores_then_announces_and_answers_with_the_id() {
    let mut deployment = deployment();
    deployment.next_backup_id = 7;
    let cloud = Cloud::with(Some(&key()), Some(&deployment));
    let router = router(&cloud);
    let reply = send(&router, request("POST", BACKUPS)).await;
    assert_eq!((reply.status, reply.headers["ld-backup"].as_str()), (204, "7"));
    let entry = cloud.last("PutEvents")["Entries"][0].clone();
    assert_eq!(entry["DetailType"], "Backup Requested");
    let count = "UpdateItem";
    assert_eq!(cloud.calls(), ["GetItem", count, "GetItem", "TransactWriteItems", "PutEvents"]);

    // The bus is down: the row is stored and due, so the answer is the same.
    cloud.reply("PutEvents", 400, json!({"__type": "ValidationException"}));
    let reply = send(&router, request("POST", BACKUPS)).await;
    assert_eq!((reply.status, reply.headers["ld-backup"].as_str()), (204, "7"));
}

/// A transaction that another one has cancelled.
fn cancelled() -> Value {
    json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "CancellationReasons": [{"Code": "ConditionalCheckFailed"}, {"Code": "None"}],
    })
}

#[tokio::test]
async fn a_create_that_meets_another_is_decided_anew() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    cloud.reply("TransactWriteItems", 400, cancelled());
    assert_eq!(send(&router, request("POST", BACKUPS)).await.status, 204);
    let (get, count, write) = ("GetItem", "UpdateItem", "TransactWriteItems");
    // It looks whether its own try was applied after all.
    assert_eq!(cloud.calls(), [get, count, get, write, get, get, write, "PutEvents"]);
}

#[tokio::test(start_paused = true)]
async fn a_create_knows_its_own_earlier_try_again_however_late_it_was_applied() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    cloud.reply("TransactWriteItems", 400, cancelled());
    assert_eq!(send(&router, request("POST", BACKUPS)).await.status, 204);
    let tries = cloud.bodies("TransactWriteItems");
    let rows: Vec<_> = tries.iter().map(|body| &body["TransactItems"][1]["Put"]["Item"]).collect();
    assert_eq!((rows.len(), &rows[0]["token"]), (2, &rows[1]["token"]));

    // The first try is applied after the second read: what runs is its own.
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = super::router(&cloud);
    cloud.reply("TransactWriteItems", 400, cancelled());
    let late = cloud.clone();
    cloud.after("TransactWriteItems", move |body| {
        late.put_item(body["TransactItems"][1]["Put"]["Item"].clone());
        let mut busy = deployment();
        busy.active_backup = Some(backups_core::id::BackupId(1));
        late.put_deployment(&busy);
    });
    let reply = send(&router, request("POST", BACKUPS)).await;
    assert_eq!((reply.status, reply.code().as_str()), (204, ""));
    assert_eq!(reply.headers["ld-backup"], "1");
}

/// Who reads it knows by that whether the deployment was deleted since.
#[tokio::test(start_paused = true)]
async fn a_schedule_keeps_on_which_version_of_the_deployment_it_was_set() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    let put = || {
        let mut request = request("PUT", &format!("{BACKUPS}/schedule"));
        *request.body_mut() = r#"{"cron": "0 3 * * *"}"#.into();
        request
    };
    assert_eq!(send(&router, put()).await.status, 204);
    let item = cloud.last("PutItem")["Item"].clone();
    let kept = (&item["sk"]["S"], &item["registry_version"]["N"]);
    assert_eq!(kept, (&json!("SCHEDULE"), &json!("1")));
}

#[tokio::test(start_paused = true)]
async fn a_create_that_meets_others_all_the_time_gives_up() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    for _ in 0..8 {
        cloud.reply("TransactWriteItems", 400, cancelled());
    }
    let reply = send(&router, request("POST", BACKUPS)).await;
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (503, "2"));
    assert_eq!(cloud.calls().iter().filter(|call| *call == "TransactWriteItems").count(), 8);
}

#[tokio::test]
async fn a_delete_begins_once_and_says_what_stands_against_it() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    let path = one("1");
    assert_eq!(code(&router, request("DELETE", &path)).await, "backup_not_found");
    let mut backup = pending();
    for (status, expected) in [
        (Status::Pending, "backup_not_deletable"),
        (Status::InProgress, "backup_not_deletable"),
        (Status::Completed, ""),
        (Status::Failed, ""),
        (Status::Deleting, ""),
    ] {
        backup.status = status;
        cloud.put_backup(&backup);
        cloud.calls();
        assert_eq!(code(&router, request("DELETE", &path)).await, expected, "{status:?}");
        let nudged = cloud.calls().contains(&"PutEvents".to_owned());
        assert_eq!(nudged, matches!(status, Status::Completed | Status::Failed), "{status:?}");
    }
    cloud.remove("DEPLOYMENT#611298765432109056", "BACKUP#00000000000000000001");
    assert_eq!(code(&router, request("DELETE", &path)).await, "backup_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_fails_is_unavailable_and_says_no_more() {
    for (method, path) in [("GET", BACKUPS), ("POST", BACKUPS), ("DELETE", &one("1"))] {
        for good_reads in 0..2 {
            let cloud = Cloud::with(Some(&key()), Some(&deployment()));
            let router = router(&cloud);
            if good_reads == 1 {
                send(&router, request("GET", BACKUPS)).await; // the key is kept from here on
            }
            for operation in ["GetItem", "Query"] {
                for _ in 0..9 {
                    let body = json!({"__type": "InternalServerError", "message": "INTERNALS"});
                    cloud.reply(operation, 500, body);
                }
            }
            let reply = send(&router, request(method, path)).await;
            assert_eq!((reply.status, reply.code().as_str()), (503, "unavailable"));
            assert_eq!(reply.headers["retry-after"], "2");
            assert!(!reply.text.contains("INTERNALS") && !reply.text.contains("DynamoDB"));
        }
    }
}
