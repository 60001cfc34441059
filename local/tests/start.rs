//! The local mode as a process sees it: start, stop, what it refuses, what
//! outlives it, and the `/_local` calls.

#![expect(clippy::expect_used, reason = "a test that panics says enough")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use backups_aws::clock::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use local::{Options, Running, StartError, start};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        gateway: ANY,
        aws: ANY,
        speed: 100.0,
        seed: Some(7),
        start: None,
        // No tick but those that a test asks for.
        tick: 86_400,
        parameters: Vec::new(),
        deployments: 1,
        no_demo: false,
        log: tracing::Level::INFO,
        json: false,
    }
}

async fn running(data: &Path) -> Running {
    start(options(data)).await.expect("it starts")
}

/// Sends a request; None: the connection broke without an answer.
async fn send(
    to: SocketAddr,
    request: http::Request<Full<Bytes>>,
) -> Option<(u16, http::HeaderMap, Bytes)> {
    let stream = TcpStream::connect(to).await.expect("it accepts calls");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let answer = match response {
        Err(_) => None,
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            Some((parts.status.as_u16(), parts.headers, body))
        }
    };
    connection.abort();
    answer
}

async fn call(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, http::HeaderMap, Value) {
    let mut request =
        http::Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request =
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
    let (status, headers, body) = send(to, request).await.expect("an answer");
    (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn own(to: SocketAddr, method: &str, name: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, _, answer) = call(to, method, &format!("/_local/{name}"), &[], &body).await;
    (status, answer)
}

async fn list(running: &Running) -> Value {
    let demo = running.demo.as_ref().expect("a demo");
    let path = format!("/deployments/{}/backups", demo.deployment_id);
    let (status, _, backups) =
        call(running.gateway, "GET", &path, &[("ld-api-key", &demo.keys.read)], "").await;
    assert_eq!(status, 200, "{backups}");
    backups
}

async fn create(running: &Running) -> (u16, Option<String>) {
    create_at(running.gateway, running.demo.clone().expect("a demo")).await
}

async fn create_at(gateway: SocketAddr, demo: local::Demo) -> (u16, Option<String>) {
    let path = format!("/deployments/{}/backups", demo.deployment_id);
    let headers = [("ld-api-key", demo.keys.manage.as_str()), ("content-type", "application/json")];
    let body = r#"{"name": "a backup"}"#;
    let (status, headers, _) = call(gateway, "POST", &path, &headers, body).await;
    (status, headers.get("ld-backup").map(|id| id.to_str().expect("digits").to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_prints_what_to_paste_and_its_file_says_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path()).await;
    let ready = running.ready();
    let first = ready.lines().next().expect("a line");
    assert!(first.starts_with("ready"), "{ready}");
    assert!(
        first.contains(&running.gateway.to_string()) && first.contains(&running.aws.to_string()),
        "{ready}"
    );
    let file = std::fs::read(folder.path().join("demo.json")).expect("demo.json");
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(file, json!(running.demo));
    let names: Vec<&str> =
        file.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut documented = [
        "supervisor_url",
        "aws_endpoint",
        "region",
        "account",
        "event_bus",
        "table",
        "tenant_id",
        "deployment_id",
        "nodes",
        "more_deployment_ids",
        "keys",
        "other_tenant_id",
        "other_deployment_id",
    ];
    documented.sort_unstable();
    assert_eq!(names, documented);
    assert!(ready.contains(file["keys"]["manage"].as_str().expect("a secret")), "{ready}");
    assert_eq!(list(&running).await, json!([]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_and_a_taken_address_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = running(folder.path()).await;
    let second = start(options(folder.path())).await.expect_err("the folder is held");
    assert_eq!(second, StartError::FolderHeld(folder.path().to_owned()));
    assert!(second.to_string().contains("--data"), "{second}");

    let other = tempfile::tempdir().expect("a folder");
    for flag in ["--gateway", "--aws"] {
        let taken = TcpListener::bind(ANY).await.expect("a port");
        let address = taken.local_addr().expect("its address");
        let mut options = options(other.path());
        *(if flag == "--aws" { &mut options.aws } else { &mut options.gateway }) = address;
        let error = start(options).await.expect_err("the port is taken");
        assert_eq!(error, StartError::AddressInUse { address, flag });
        let text = error.to_string();
        assert!(text.contains(flag) && text.contains(&address.to_string()), "{text}");
    }
    first.stop().await;
    // Free again, both of them.
    running(folder.path()).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = running(folder.path()).await;
    assert_eq!(create(&first).await, (204, Some("1".to_owned())));
    // Less than the 15 minutes within which it must begin: on a busy machine the
    // worker comes only after the clock was moved.
    let (status, before) = own(first.aws, "POST", "clock", &json!({"advance_seconds": 600})).await;
    assert_eq!(status, 200, "{before}");
    let demo = first.demo.clone().expect("a demo");
    let (_, state) = own(first.aws, "GET", "state", &Value::Null).await;
    first.stop().await;

    let mut again = options(folder.path());
    again.seed = Some(8);
    let again = start(again).await.expect("it starts again");
    assert_eq!(again.seed, 7, "a world keeps its seed");
    let kept = again.demo.clone().expect("a demo");
    assert_eq!(
        (kept.keys, kept.nodes, kept.deployment_id),
        (demo.keys, demo.nodes, demo.deployment_id)
    );
    let (_, now) = own(again.aws, "GET", "clock", &Value::Null).await;
    assert!(now["now"].as_str() >= before["now"].as_str(), "{now} is before {before}");
    let (_, after) = own(again.aws, "GET", "state", &Value::Null).await;
    assert_eq!(after["instances"], state["instances"]);
    let (status, late) = own(again.aws, "POST", "settle", &json!({"timeout_seconds": 60})).await;
    assert_eq!(status, 200, "{late}");
    let backups = list(&again).await;
    assert_eq!(backups[0]["status"], "completed", "{backups}");
    assert_eq!(backups.as_array().map(Vec::len), Some(1));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_armed_listed_counted_and_cleared() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path()).await;
    let aws = running.aws;
    let (status, refused) =
        own(aws, "POST", "faults", &json!({"on": "CreateSnapshots", "do": "drop"})).await;
    assert_eq!(status, 400);
    assert!(refused["error"].is_string(), "{refused}");
    for fault in [
        json!({"on": "DescribeVolumes", "do": "lose_reply"}),
        json!({"on": "DescribeVolumes", "do": "throttle"}),
        json!({"on": "GetItem", "do": "error", "code": "InternalServerError"}),
    ] {
        let (status, answer) = own(aws, "POST", "faults", &fault).await;
        assert_eq!(status, 200, "{answer}");
    }
    let describe = || {
        let request = http::Request::builder().method("POST").uri("/").header("host", "aws");
        request.body(Full::from("Action=DescribeVolumes&Version=2016-11-15")).expect("a request")
    };
    assert_eq!(send(aws, describe()).await.map(|(status, ..)| status), None, "the reply is lost");
    let (status, _, body) = send(aws, describe()).await.expect("an answer");
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("RequestLimitExceeded"), "{body:?}");
    assert_eq!(send(aws, describe()).await.map(|(status, ..)| status), Some(200));
    let target = [("x-amz-target", "DynamoDB_20120810.GetItem")];
    let (status, _, error) = call(aws, "POST", "/", &target, "{}").await;
    assert_eq!(status, 500);
    assert!(
        error["__type"].as_str().is_some_and(|code| code.ends_with("InternalServerError")),
        "{error}"
    );
    let (_, listed) = own(aws, "GET", "faults", &Value::Null).await;
    let struck: Vec<_> =
        listed.as_array().into_iter().flatten().map(|fault| fault["struck"].clone()).collect();
    assert_eq!(struck, [1, 1, 1]);
    let (_, calls) = own(aws, "GET", "calls", &Value::Null).await;
    let outcomes: Vec<_> = calls
        .as_array()
        .into_iter()
        .flatten()
        .filter(|call| call["operation"] == "DescribeVolumes")
        .map(|call| call["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["ok", "RequestLimitExceeded", "ok"]);
    own(aws, "DELETE", "faults", &Value::Null).await;
    assert_eq!(own(aws, "GET", "faults", &Value::Null).await.1, json!([]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_creates_at_once_make_one_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path()).await;
    let demo = running.demo.clone().expect("a demo");
    let gateway = running.gateway;
    let creates: Vec<_> = (0..10).map(|_| tokio::spawn(create_at(gateway, demo.clone()))).collect();
    let mut answers = Vec::new();
    for create in creates {
        answers.push(create.await.expect("an answer").0);
    }
    answers.sort_unstable();
    assert_eq!(answers, [204, 409, 409, 409, 409, 409, 409, 409, 409, 409]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_answers_what_no_function_may_see() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(folder.path());
    options.no_demo = true;
    let running = start(options).await.expect("it starts");
    assert!(running.demo.is_none() && !folder.path().join("demo.json").exists());
    let large = "x".repeat(10 * 1024 * 1024 + 1);
    let (status, _, error) =
        call(running.gateway, "POST", "/deployments/1/backups", &[], &large).await;
    assert_eq!((status, error), (413, json!({"message": "Request Entity Too Large"})));
    // Everything else is the api's, in its own shape.
    let (status, headers, error) =
        call(running.gateway, "PUT", "/nowhere%20at?x=%20#", &[], "").await;
    assert_eq!((status, error["code"].as_str()), (404, Some("route_not_found")), "{error}");
    assert!(headers.contains_key("ld-request") && headers.contains_key("apigw-requestid"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_world_is_written_to_ticked_and_broken_by_hand() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = running(folder.path()).await;
    let aws = running.aws;
    let demo = running.demo.clone().expect("a demo");
    let volume = &demo.nodes[0].volume_ids[0];
    let (status, _) =
        own(aws, "POST", "write", &json!({"volume_id": volume, "content": "row 1"})).await;
    assert_eq!(status, 200);
    let (status, _) = own(aws, "POST", "tick", &Value::Null).await;
    assert_eq!(status, 200);
    let (status, _) =
        own(aws, "POST", "terminate", &json!({"instance_id": demo.nodes[0].instance_id})).await;
    assert_eq!(status, 200);
    let (status, refused) =
        own(aws, "POST", "write", &json!({"volume_id": volume, "content": "row 2"})).await;
    assert_eq!(status, 409, "{refused}");
    let (_, state) = own(aws, "GET", "state", &Value::Null).await;
    let contents: Vec<&str> = state["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["content"].as_str())
        .collect();
    assert_eq!(contents, ["row 1"]);
    for (name, bad) in [
        ("delete", json!({})),
        ("clock", json!({"advance_seconds": -1})),
        ("write", json!({"volume": 1})),
    ] {
        let (status, error) = own(aws, "POST", name, &bad).await;
        assert_eq!(status, 400, "{name}: {error}");
    }
    assert_eq!(own(aws, "GET", "nothing", &Value::Null).await.0, 404);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_new_folder_starts_where_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = async |running: &Running| -> jiff::Timestamp {
        let (_, clock) = own(running.aws, "GET", "clock", &Value::Null).await;
        clock["now"].as_str().and_then(|now| now.parse().ok()).expect("a time")
    };
    let real = Clock::system().now().unix();
    let at = |ahead: i64| jiff::Timestamp::from_second(real + ahead).expect("a time");
    let year = 365 * 86_400;
    let mut options = options(folder.path());
    options.start = Some(at(5 * year));
    let running = start(options.clone()).await.expect("it starts");
    let begun = now(&running).await;
    assert!(begun >= at(5 * year) && begun < at(5 * year + 3_600), "{begun}");
    // The demo's keys are of that time too.
    let demo = running.demo.clone().expect("a demo");
    assert_eq!(create_at(running.gateway, demo).await.0, 204);
    running.stop().await;

    // It goes on from there, whatever it is told then.
    options.start = Some(at(7 * year));
    let running = start(options.clone()).await.expect("it starts");
    let later = now(&running).await;
    assert!(later >= begun && later < at(5 * year + 3_600), "{later}");
    running.stop().await;

    for (wrong, said) in [(at(-60), "is over"), (jiff::Timestamp::MAX, "the clock ends")] {
        let folder = tempfile::tempdir().expect("a folder");
        options.data = folder.path().to_owned();
        options.start = Some(wrong);
        let refused = start(options.clone()).await.expect_err("no such start").to_string();
        assert!(refused.contains("--start") && refused.contains(said), "{refused}");
    }
}
