//! How many requests a key may make in a minute.

use std::time::Duration;

use serde_json::json;

use super::*;

/// Requests until one is refused. Gives how many passed, and the refusal.
async fn until_refused(router: &Router) -> (usize, Reply) {
    for passed in 0..1000 {
        let reply = send(router, request("GET", BACKUPS)).await;
        if reply.status != 200 {
            return (passed, reply);
        }
    }
    panic!("none of 1000 is refused");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_refused_above_its_limit_until_the_minute_is_over() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = counted(&cloud);
    tokio::time::advance(Duration::from_secs(17)).await;
    let (passed, refusal) = until_refused(&router).await;
    assert_eq!((passed, refusal.status, refusal.code().as_str()), (600, 429, "rate_limited"));
    assert_eq!(refusal.headers["retry-after"], "43");
    assert_eq!(refusal.json()["retryable"], true);
    let writes = cloud.calls().iter().filter(|call| *call == "UpdateItem").count();
    assert!(writes <= 60, "{writes} writes for 600 requests");
    // A refusal costs nothing, and comes before the ids in the path.
    tokio::time::advance(Duration::from_secs(42)).await;
    let bad = send(&router, request("GET", "/deployments/x/backups")).await;
    assert_eq!((bad.status, bad.headers["retry-after"].as_str()), (429, "1"));
    assert_eq!(cloud.calls(), ["GetItem"], "the key was read anew");
    // As it was told.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(send(&router, request("GET", BACKUPS)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn instances_share_the_count_and_a_count_that_fails_refuses_nobody() {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let (one, other) = (counted(&cloud), counted(&cloud));
    let (first, _) = until_refused(&one).await;
    assert_eq!(first, 600);
    assert_eq!(until_refused(&other).await.0, 0);

    let third = counted(&cloud);
    for _ in 0..9 {
        cloud.reply("UpdateItem", 400, json!({"__type": "ThrottlingException"}));
    }
    cloud.calls();
    for _ in 0..11 {
        assert_eq!(send(&third, request("GET", BACKUPS)).await.status, 200);
    }
    let asked = cloud.calls().iter().filter(|call| *call == "UpdateItem").count();
    assert!(asked <= 3, "it is not asked again at once: {asked}");
}
