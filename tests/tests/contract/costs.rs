//! What one request costs in calls of `DynamoDB` and `EventBridge`.

use serde_json::json;
use tests::http::Call;
use tests::{Cloud, Here, Result, Setup, idle};

/// The calls that a request made, in order: `service.operation`.
async fn calls_of(cloud: &Cloud, request: Call) -> Result<(u16, Vec<String>)> {
    let before = cloud.calls().await?.len();
    let reply = cloud.send(request).await?;
    let calls = cloud.calls().await?;
    let text = |name: &str, call: &serde_json::Value| call[name].as_str().unwrap_or("?").to_owned();
    let made = calls[before..].iter();
    let made = made.map(|call| format!("{}.{}", text("service", call), text("operation", call)));
    Ok((reply.status, made.collect()))
}

#[tokio::test]
async fn each_request_costs_what_is_promised() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    // The worker hears of nothing: all calls are the request's own.
    here.arm(&json!({"on": "bus", "do": "drop", "times": 1000})).await?;
    let (get, query, count) = ("dynamodb.GetItem", "dynamodb.Query", "dynamodb.UpdateItem");
    let (transact, put) = ("dynamodb.TransactWriteItems", "events.PutEvents");
    let keys = here.demo.keys.clone();
    let list = || Call::new("GET", here.backups()).key(&keys.read);
    let strings = |calls: &[&str]| calls.iter().map(|call| (*call).to_owned()).collect::<Vec<_>>();
    // From the beginning of a minute, so that none ends in between.
    here.begin_minute().await?;
    assert_eq!(calls_of(&here, list()).await?, (200, strings(&[get, count, query])));
    // The key is kept, and a block of requests is counted at once.
    assert_eq!(calls_of(&here, list()).await?, (200, strings(&[count, query])));
    assert_eq!(calls_of(&here, list()).await?, (200, strings(&[query])));
    here.advance(30).await?;
    assert_eq!(calls_of(&here, list()).await?, (200, strings(&[get, count, query])));

    let create = || Call::new("POST", here.backups()).key(&keys.manage).json(r#"{"name": "n"}"#);
    let (status, calls) = calls_of(&here, create()).await?;
    assert_eq!((status, calls), (204, strings(&[get, count, get, transact, put])));
    // A second one is refused by the read, without a transaction.
    assert_eq!(calls_of(&here, create()).await?, (409, strings(&[count, get])));
    // One that has a name is looked up, and once more when it is refused.
    let named = || create().header("idempotency-key", "a");
    assert_eq!(calls_of(&here, named()).await?, (409, strings(&[get, get, get])));

    here.disarm().await?;
    here.rest().await?;
    here.arm(&json!({"on": "bus", "do": "drop", "times": 1000})).await?;
    // So many that the next ones are counted by then.
    here.begin_minute().await?;
    for _ in 0..40 {
        assert_eq!(
            here.send(Call::new("GET", here.backups()).key(&keys.manage)).await?.status,
            200
        );
    }
    let (one, schedule) = (format!("{}/1", here.backups()), format!("{}/schedule", here.backups()));
    let call = |method: &str, path: &str| Call::new(method, path).key(&keys.manage);
    let cron = r#"{"cron": "0 3 29 2 *"}"#;
    for (call, status, wanted) in [
        (call("GET", &one), 200, &[get, get, query][..]),
        (call("PATCH", &one).json(r#"{"remarks": "m"}"#), 204, &[get, get, count]),
        (call("PUT", &schedule).json(cron), 204, &[get, get, "dynamodb.PutItem"]),
        (call("GET", &schedule), 200, &[get, get]),
        (call("DELETE", &schedule), 204, &[get, get, "dynamodb.PutItem"]),
    ] {
        assert_eq!(calls_of(&here, call).await?, (status, strings(wanted)));
    }
    let delete = || Call::new("DELETE", format!("{}/1", here.backups())).key(&keys.manage);
    let wanted = strings(&[get, get, transact, put]);
    assert_eq!(calls_of(&here, delete()).await?, (204, wanted));

    // Refusals before the key cost nothing, and one of the key one read.
    let unknown = Call::new("GET", "/nothing").key(&keys.read);
    assert_eq!(calls_of(&here, unknown).await?, (404, vec![]));
    let malformed = Call::new("GET", here.backups()).key("ld_x");
    assert_eq!(calls_of(&here, malformed).await?, (401, vec![]));
    let guessed = format!("ld_{}", "A".repeat(43));
    let guess = Call::new("GET", here.backups()).key(&guessed);
    assert_eq!(calls_of(&here, guess).await?, (401, vec![get.into()]));
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_tick_over_idle_deployments_reads_no_row_of_theirs_and_costs_the_same() -> Result<()> {
    let report = Box::pin(idle::measure(&[1_000, 3_000], &|_| ())).await?;
    assert_eq!(report.faults(), Vec::<String>::new(), "{report}");
    // What the README says of a tick with nothing due.
    let quiet = report.idle.iter().find(|line| line.tick == "nothing due");
    let quiet = quiet.map(|line| (line.cost.calls(), line.cost.read, line.cost.write));
    assert_eq!(quiet, Some(("1 GetItem, 9 Query".to_owned(), 5.5, 0.0)), "{report}");
    Ok(())
}
