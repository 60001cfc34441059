//! Every sample event of `events/`, delivered to the function that it is for, as
//! Lambda would: one story from a deployment's registration to its end.

mod metrics;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::Api;
use axum::body::Body;
use backups_aws::clock::{Clock, ClockControl};
use backups_aws::sdk;
use backups_aws::table::Table;
use backups_aws::table::keys::{Key, Permission, Secret};
use backups_core::time::{Seconds, Time};
use futures_util::StreamExt as _;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent, Service as _};
use scheduler::Scheduler;
use serde_json::{Value, json};
use tests::{Failed, Here, MANY, Result, Setup, fail};
use tower::ServiceExt as _;
use worker::Worker;

/// The story, in its order: each file stands in it once.
const STORY: [&str; 27] = [
    "worker-deployment-changed",
    "worker-api-key-changed",
    "api-list-backups",
    "api-put-schedule",
    "api-get-schedule",
    "api-delete-schedule",
    "api-create-backup",
    "worker-snapshot-set-succeeded",
    "worker-snapshot-set-failed",
    "worker-snapshot-succeeded",
    "worker-snapshot-failed",
    "worker-operation-due",
    "worker-backup-requested",
    "api-list-restores",
    "api-get-restore",
    "api-restore-backup",
    "worker-restore-requested",
    "worker-restore-ordered",
    "worker-orphan-removal-ordered",
    "scheduler-tick",
    "api-get-backup",
    "api-patch-backup",
    "api-delete-backup",
    "api-get-open-api",
    "api-default",
    "worker-upgrade-requested",
    "worker-deployment-deleted",
];

/// Whether the gateway is handed this.
fn answers(response: &Value, status: u16, word: &str) {
    assert_eq!(response["statusCode"], status, "{response}");
    assert!(response["body"].to_string().contains(word), "{response}");
}

/// As long as Lambda would give it.
const TIMEOUT: Duration = Duration::from_secs(45);

/// The functions, against a running cloud.
struct Functions {
    api: axum::Router,
    worker: Worker,
    scheduler: Scheduler,
    table: Table,
    clock: Clock,
    time: ClockControl,
}

impl Functions {
    async fn of(here: &Here) -> Result<Self> {
        let demo = &here.demo;
        let settings = here.settings()?;
        let (clock, time) = Clock::adjustable();
        let sdk = sdk::local_config(&clock, &demo.aws_endpoint, &demo.region).await;
        Ok(Self {
            api: api::service(Arc::new(Api::new(settings.clone(), &sdk, clock.clone()))),
            worker: Worker::new(&settings, &sdk, clock.clone()),
            scheduler: Scheduler::new(&settings, &sdk, clock.clone()),
            table: Table::new(&settings, &sdk),
            clock,
            time,
        })
    }

    /// Delivers a sample. Gives the api's response, null from the others.
    async fn deliver(&self, name: &str) -> Result<Value> {
        let text = sample(name)?;
        let event: Value = serde_json::from_str(&text)?;
        match name.split('-').next() {
            Some("api") => {
                let request: LambdaRequest = serde_json::from_str(&text)?;
                let event = LambdaEvent::new(api::tame(request), Context::default());
                let Ok(response) = Adapter::from(self.api.clone()).call(event).await;
                Ok(serde_json::to_value(&response)?)
            }
            Some("worker") => {
                let answer = Box::pin(worker::invoke(&self.worker, event, TIMEOUT)).await;
                let answer = answer.map_err(Failed::from)?;
                // Of a queue's messages none failed.
                let none = [Value::Null, json!({"batchItemFailures": []})];
                if none.contains(&answer) { Ok(Value::Null) } else { fail(answer.to_string()) }
            }
            Some("scheduler") => {
                scheduler::handle(&self.scheduler, event, TIMEOUT).await.map_err(Failed::from)?;
                Ok(Value::Null)
            }
            _ => fail(format!("{name} is for no function")),
        }
    }
}

/// The text of a sample.
fn sample(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(tests::root().join(format!("events/{name}.json")))?)
}

#[tokio::test]
async fn an_order_counts_for_a_quarter_of_an_hour_before_and_after_its_date() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let mut event: Value = serde_json::from_str(&sample("worker-restore-ordered")?)?;
    for (minutes, why) in [
        (-16, "look again, and order anew"),
        (16, "look again, and order anew"),
        (-14, "there is no such restore"),
        (14, "there is no such restore"),
    ] {
        let at = functions.clock.now() + Seconds::minutes(minutes);
        event["time"] = json!(at.to_string());
        let done = Box::pin(worker::handle(&functions.worker, event.clone(), TIMEOUT)).await;
        let said = done.err().map_or("nothing".to_owned(), |error| error.to_string());
        assert!(said.contains(why), "{minutes} minutes: {said}");
    }
    here.stop().await;
    Ok(())
}

/// A queue's message that fails is named in the answer, and the invocation does not fail: that
/// would slow all other messages.
#[tokio::test]
async fn a_message_that_fails_is_named_and_the_invocation_succeeds() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    let mut batch: Value = serde_json::from_str(&sample("worker-deployment-changed")?)?;
    let upgrade: Value = serde_json::from_str(&sample("worker-upgrade-requested")?)?;
    let records = batch["Records"].as_array_mut().ok_or_else(|| Failed("no batch".to_owned()))?;
    records.push(upgrade["Records"][0].clone());
    let code = "InternalServerError";
    here.arm(&json!({"on": "UpdateItem", "do": "error", "code": code, "times": MANY})).await?;
    let answer = Box::pin(worker::invoke(&functions.worker, batch.clone(), TIMEOUT)).await;
    let failed = json!([{"itemIdentifier": batch["Records"][0]["messageId"]}]);
    assert_eq!(answer.map_err(Failed::from)?["batchItemFailures"], failed, "the other one is done");
    here.disarm().await?;
    here.stop().await;
    Ok(())
}

/// The key that the samples bear.
fn samples_key(expires_at: Time) -> Result<Key> {
    let secret = Secret::parse("ld_EXAMPLE-EXAMPLE-EXAMPLE-EXAMPLE-EXAMPLE-KEY");
    Ok(Key {
        hash: secret.ok_or_else(|| Failed("the samples' key is none".to_owned()))?.hash(),
        key_id: "sample".to_owned(),
        version: 1,
        tenant_id: "tenant-demo".into(),
        permission: Permission::Manage,
        deployments: None,
        allow: Some(vec!["203.0.113.0/24".parse().map_err(Failed)?]),
        revoked_at: None,
        expires_at,
    })
}

#[tokio::test]
async fn each_sample_does_what_it_is_for() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    // The running cloud's own functions hear of nothing.
    here.arm(&json!({"on": "bus", "do": "drop", "times": MANY})).await?;
    let functions = Functions::of(&here).await?;
    let now = functions.clock.now();
    functions.table.put_key(&samples_key(now + Seconds::days(1))?, now).await?;
    // Whose the snapshots of the EBS samples are.
    let owner = json!({
        "pk": {"S": "SNAPSHOTS#snap-0f1e2d3c4b5a60001"}, "sk": {"S": "OWNER"},
        "deployment_id": {"N": "6917529027641081873"}, "backup_id": {"N": "1"},
    });
    here.put_item(&owner).await?;

    for name in STORY {
        let before = here.calls().await?.len();
        let delivered = functions.deliver(name).await;
        if name == "worker-restore-ordered" || name == "worker-orphan-removal-ordered" {
            // An order of some day long ago: it goes to the dead letters.
            assert!(delivered.is_err_and(|Failed(why)| why.contains("order anew")));
            continue;
        }
        let response = delivered?;
        let calls = here.calls().await?[before..].to_vec();
        let of_ec2 = calls.iter().any(|call| call["service"] == "ec2");
        let count =
            |operation: &str| calls.iter().filter(|call| call["operation"] == operation).count();
        let backup = here
            .rows()
            .await?
            .into_iter()
            .find(|row| row.backup() == Some((6_917_529_027_641_081_873, 1)));
        let status = backup.as_ref().map_or("", |row| row.text("status"));
        match name {
            "worker-deployment-changed" => assert_eq!(count("UpdateItem"), 1),
            "worker-api-key-changed" => assert_eq!(count("TransactWriteItems"), 1),
            "api-list-backups" => answers(&response, 200, "[]"),
            "api-put-schedule" | "api-delete-schedule" => {
                assert_eq!((&response["statusCode"], count("PutItem")), (&json!(204), 1));
            }
            "api-get-schedule" => answers(&response, 200, "Europe/Berlin"),
            "api-create-backup" => {
                assert_eq!(response["statusCode"], 204, "{response}");
                assert_eq!(response["headers"]["ld-backup"], "1");
                assert_eq!(status, "pending");
                // Somebody works on it: the next ones only find it.
                lease(&here, true).await?;
            }
            // All three shapes of ARN lead to the owner, to its backup, and to the brake.
            name if name.starts_with("worker-snapshot") => {
                assert_eq!((count("GetItem"), of_ec2), (3, false), "{name}: {calls:?}");
            }
            "worker-operation-due" => {
                assert_eq!((count("GetItem"), of_ec2), (2, false), "{calls:?}");
                lease(&here, false).await?;
                // An instance may be missing from a list for its first minute.
                functions.time.advance(Duration::from_mins(1));
            }
            // The samples' instances are none of this cloud's.
            "worker-backup-requested" => {
                assert_eq!(status, "failed");
                assert_eq!(
                    backup.map(|row| row.0["failure"]["code"].clone()),
                    Some(json!("node_missing"))
                );
            }
            "api-list-restores" => answers(&response, 200, "[]"),
            "api-get-restore" => answers(&response, 404, "restore_not_found"),
            // The backup has failed.
            "api-restore-backup" => answers(&response, 409, "backup_not_restorable"),
            "worker-restore-requested" => {
                assert_eq!((count("GetItem"), of_ec2), (1, false), "{calls:?}");
            }
            "scheduler-tick" => assert!(count("Query") == 9 && calls.len() >= 8, "{calls:?}"),
            "api-get-open-api" => answers(&response, 200, "3.1.0"),
            "api-get-backup" => answers(&response, 200, "node_missing"),
            "api-patch-backup" => {
                assert_eq!((&response["statusCode"], count("UpdateItem")), (&json!(204), 1));
            }
            "api-delete-backup" => {
                assert_eq!((response["statusCode"].as_u64(), status), (Some(204), "deleting"));
            }
            "api-default" => answers(&response, 404, "route_not_found"),
            "worker-upgrade-requested" => {
                let second = (6_917_529_027_641_081_873, 2);
                let rows = here.rows().await?;
                let made = rows.iter().find(|row| row.backup() == Some(second));
                let id = made.map_or("", |row| row.text("upgrade_id"));
                assert_eq!((id, count("TransactWriteItems")), ("2026.11-platform-7f3a", 1));
            }
            "worker-deployment-deleted" => {
                let response = functions.deliver("api-create-backup").await?;
                assert!(
                    response["body"].to_string().contains("deployment_not_found"),
                    "{response}"
                );
            }
            name => return fail(format!("nothing is expected of {name}")),
        }
    }
    here.stop().await;
    Ok(())
}

/// Puts a lease of another worker on the samples' backup, or takes it off.
async fn lease(here: &Here, on: bool) -> Result<()> {
    let lease = json!({"M": {"owner": {"S": "another"}, "until": {"S": "2999-01-01T00:00:00Z"}}});
    let mut update = json!({
        "TableName": here.demo.table,
        "Key": {"pk": {"S": "DEPLOYMENT#6917529027641081873"}, "sk": {"S": format!("BACKUP#{:020}", 1)}},
        "UpdateExpression": "REMOVE lease",
    });
    if on {
        update["UpdateExpression"] = json!("SET lease = :lease");
        update["ExpressionAttributeValues"] = json!({":lease": lease});
    }
    here.aws("dynamodb", "DynamoDB_20120810.UpdateItem", &update).await.map(drop)
}

#[test]
fn no_sample_is_left_out() -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(tests::root().join("events"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".json") {
            found.insert(name.to_owned());
        }
    }
    assert_eq!(found, STORY.map(str::to_owned).into());
    Ok(())
}

#[tokio::test]
async fn an_event_of_somebody_elses_snapshot_costs_one_read() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let functions = Functions::of(&here).await?;
    for name in STORY.into_iter().filter(|name| name.starts_with("worker-snapshot")) {
        let before = here.calls().await?.len();
        functions.deliver(name).await?;
        let calls = here.calls().await?[before..].to_vec();
        assert_eq!((calls.len(), &calls[0]["operation"]), (1, &json!("GetItem")), "{calls:?}");
    }
    here.stop().await;
    Ok(())
}

/// What Lambda does with more requests at once than one instance takes.
#[tokio::test(flavor = "multi_thread")]
async fn instances_give_out_a_keys_minute_together_and_no_more() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let (key, path) = (here.demo.keys.read.clone(), here.backups());
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(Functions::of(&here).await?);
    }
    // All from the beginning of the same minute.
    let past = instances[0].clock.now().unix().rem_euclid(60);
    let wait = Duration::from_secs(u64::try_from(60 - past)?);
    for one in &instances {
        one.time.advance(wait);
    }
    let before = here.calls().await?.len();
    let asked = (0..1_200).map(|number| {
        let request = http::Request::get(&path).header("ld-api-key", &key).body(Body::empty());
        let api = instances[number % instances.len()].api.clone();
        async move { Ok::<_, Failed>(api.oneshot(request?).await?.status().as_u16()) }
    });
    // So many at a time.
    let mut passed = 0;
    let mut replies = futures_util::stream::iter(asked).buffer_unordered(40);
    while let Some(status) = replies.next().await {
        match status? {
            200 => passed += 1,
            429 => {}
            other => return fail(format!("answered {other}")),
        }
    }
    let calls = here.calls().await?;
    let counts = calls[before..].iter().filter(|call| call["operation"] == "UpdateItem").count();
    assert!((570..=600).contains(&passed), "{passed} of 600 passed");
    assert!(counts <= 200, "{counts} writes for {passed} requests");
    println!("{passed} of 600 passed, {counts} writes");
    here.stop().await;
    Ok(())
}
