//! Unknown routes and methods, and which error comes first when several apply.

use serde_json::json;
use tests::http::Call;
use tests::{Here, Result, Setup};

use crate::refused;

const DEPLOYMENT: u64 = 9_007_199_254_740_995;

#[tokio::test]
async fn unknown_paths_and_methods_are_ours_to_refuse() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    for path in [
        "/",
        "/deployments",
        "/deployments/1",
        "/deployments/1/backups/",
        "/deployments/1/backups/1/x",
        "/Deployments/1/backups",
        "/x",
    ] {
        for method in ["GET", "POST", "PUT", "OPTIONS", "BREW"] {
            let reply = here.send(Call::new(method, path)).await?;
            refused(&reply, 404, "route_not_found");
        }
    }
    let one = format!("{}/1", here.backups());
    for (path, allow) in [(here.backups(), "GET, POST"), (one, "GET, PATCH, DELETE")] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let reply = here.send(Call::new(method, &path)).await?;
            if allow.split(", ").any(|one| one == method) {
                refused(&reply, 401, "unauthorized");
                assert_eq!(reply.header("allow"), "");
            } else {
                refused(&reply, 405, "method_not_allowed");
                assert_eq!(reply.header("allow"), allow, "{method} {path}");
            }
        }
        let head = here.send(Call::new("HEAD", &path)).await?;
        assert_eq!((head.status, head.text.as_str(), head.header("allow")), (405, "", allow));
    }
    here.stop().await;
    Ok(())
}

/// One request that has every fault; each is mended in turn, in the contract's
/// order, and the next one shows.
#[tokio::test]
async fn the_first_error_that_applies_is_told() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (manage, read) = (here.demo.keys.manage.clone(), here.demo.keys.read.clone());
    let bad = json!({"plan": "basic", "storage_type": "local_ssd", "status": "upgrading"});
    here.register(DEPLOYMENT, 1, &bad).await?;
    let good_path = format!("/deployments/{DEPLOYMENT}/backups");
    let good_body = r#"{"name": "n", "node_id": 1}"#;
    let big = " ".repeat(64 * 1024 + 1);
    let steps = [
        (Call::new("PUT", "/deployments/x/backups").body(big.as_str()), 405, "method_not_allowed"),
        (Call::new("POST", "/deployments/x/backups").body(big.as_str()), 401, "unauthorized"),
        (
            Call::new("POST", "/deployments/x/backups").key(&read).body(big.as_str()),
            400,
            "invalid_request",
        ),
        (
            Call::new("POST", "/deployments/1/backups").key(&read).body(big.as_str()),
            404,
            "deployment_not_found",
        ),
        (
            Call::new("POST", &good_path).key(&read).body(big.as_str()),
            403,
            "insufficient_permissions",
        ),
        (Call::new("POST", &good_path).key(&manage).body(big.as_str()), 413, "body_too_large"),
        (Call::new("POST", &good_path).key(&manage).body("{"), 415, "unsupported_media_type"),
        (Call::new("POST", &good_path).key(&manage).json("{"), 400, "invalid_request"),
        (Call::new("POST", &good_path).key(&manage).json(good_body), 403, "plan_not_supported"),
    ];
    for (call, status, code) in steps {
        refused(&here.send(call).await?, status, code);
    }
    let create = |body: &'static str| Call::new("POST", &good_path).key(&manage).json(body);
    here.register(DEPLOYMENT, 2, &json!({"storage_type": "local_ssd", "status": "upgrading"}))
        .await?;
    refused(&here.send(create(good_body)).await?, 400, "storage_not_supported");
    here.register(DEPLOYMENT, 3, &json!({"status": "upgrading"})).await?;
    refused(&here.send(create(good_body)).await?, 409, "deployment_not_ready");
    // The limit is reached, and one runs.
    here.register(DEPLOYMENT, 4, &json!({"backup_limit": 1})).await?;
    here.arm(&json!({"on": "bus", "do": "drop"})).await?;
    let body = r#"{"name": "n"}"#;
    assert_eq!(here.send(create(body)).await?.backup()?, 1);
    refused(&here.send(create(good_body)).await?, 404, "node_not_found");
    refused(&here.send(create(body)).await?, 409, "backup_in_progress");
    here.rest().await?;
    refused(&here.send(create(body)).await?, 409, "backup_limit_reached");
    // A delete: the backup comes after the permission, its state last.
    let one = |key: &str, id: &str| Call::new("DELETE", format!("{good_path}/{id}")).key(key);
    refused(&here.send(one(&read, "9")).await?, 403, "insufficient_permissions");
    refused(&here.send(one(&manage, "9")).await?, 404, "backup_not_found");
    here.stop().await;
    Ok(())
}
