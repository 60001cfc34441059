//! What the log shows: ids on every line, a secret on none.

use std::io::Write;
use std::sync::Mutex;

use backups_aws::telemetry::may_be_logged;
use backups_core::backup::Status;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Keeps all that is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

/// Requests through every route, good and bad, with the secret also where it
/// does not belong.
async fn everything(secret: &str) {
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let mut backup = pending();
    backup.status = Status::Completed;
    cloud.put_backup(&backup);
    let router = router(&cloud);
    let misplaced =
        format!(r#"{{"name": "{secret}", "{secret}": "{secret}", "backup_type": "{secret}"}}"#);
    let mut paths = vec!["/".to_owned(), format!("{BACKUPS}?key={secret}"), format!("/{secret}")];
    let id = deployment().deployment_id.to_string();
    let id = id.as_str();
    // What a template of a path, as template.yaml has it too, says with these ids.
    for template in openapi::document().paths.paths.keys() {
        for (deployment, other) in [(id, "1"), (id, "2"), (id, secret), (secret, "1")] {
            let path = template.replace("{deployment_id}", deployment);
            paths.push(path.replace("{backup_id}", other).replace("{restore_id}", other));
        }
    }
    assert!(paths.len() > 30 && !paths.iter().any(|path| path.contains('{')), "{paths:?}");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", secret] {
        for path in &paths {
            send(&router, request(method, path)).await;
            let mut wrong = request(method, path);
            *wrong.body_mut() = Body::from(misplaced.clone());
            send(&router, wrong).await;
            let mut doubled = request(method, path);
            doubled.headers_mut().append("ld-api-key", secret.parse().expect("a value"));
            doubled.headers_mut().append("content-type", secret.parse().expect("a value"));
            send(&router, doubled).await;
            let mut named = request(method, path);
            named.headers_mut().insert("idempotency-key", secret.parse().expect("a value"));
            send(&router, named).await;
        }
    }
    for operation in ["Query", "TransactWriteItems", "PutEvents", "GetItem"] {
        cloud.reply(operation, 400, json!({"__type": "ValidationException", "message": "m"}));
    }
    send(&router, request("GET", BACKUPS)).await;
    send(&router, request("POST", BACKUPS)).await;
    send(&router, request("POST", BACKUPS)).await;
}

#[tokio::test]
async fn whose_key_was_refused_is_told() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let gone = Key { expires_at: Time::from_unix(1), ..key() };
    let router = router(&Cloud::with(Some(&gone), Some(&deployment())));
    assert_eq!(send(&router, request("GET", BACKUPS)).await.status, 401);
    let text = lines.text();
    let answered = text.lines().find(|line| line.contains("answered")).expect("a line");
    assert!(answered.contains(gone.key_id.as_str()), "{answered}");
}

/// What is wrong with a field is told by its value, in the words of a library.
#[tokio::test]
async fn of_a_key_that_cannot_be_read_its_id_alone_is_told() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    cloud.put_item(json!({
        "pk": {"S": format!("KEY#{}", secret().hash())}, "sk": {"S": "KEY"},
        "key_id": {"S": "key-1"}, "tenant_id": {"S": "tenant"}, "version": {"N": "1"},
        "permission": {"S": "of a later release"}, "allow": {"L": [{"S": "10.0.0.1/8"}]},
    }));
    let reply = send(&router(&cloud), request("GET", BACKUPS)).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "unavailable"));
    let text = lines.text();
    assert!(text.contains("key-1"), "{text}");
    for quoted in ["10.0.0.1", "later release", &secret().hash()] {
        assert!(!text.contains(quoted), "{quoted}: {text}");
    }
}

#[tokio::test]
async fn a_secret_is_in_no_line_at_any_level() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let secret = secret();
    everything(secret.expose()).await;
    let text = lines.text();
    assert!(text.lines().count() > 500, "the run was seen");
    let with = |what: &str| text.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
    let shown = with(&secret.expose()[3..]);
    assert!(shown.is_empty(), "{shown:#?}");
    // The SDK tells of whole rows at a level at which it is not let.
    let mut shown = with(&secret.hash());
    shown.retain(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let word = |name: &str| line[name].as_str().expect("a word");
        may_be_logged(word("target"), word("level").parse().expect("a level"))
    });
    assert!(shown.is_empty(), "{shown:#?}");
}

#[tokio::test]
async fn every_line_has_the_request_and_its_deployment() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(lines.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let cloud = Cloud::with(Some(&key()), Some(&deployment()));
    let router = router(&cloud);
    let reply = send(&router, request("POST", BACKUPS)).await;
    let text = lines.text();
    let ours: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["target"].as_str().is_some_and(|it| it.starts_with("api")))
        .collect();
    assert_eq!(ours.len(), 2, "{text}");
    for line in &ours {
        assert_eq!(line["span"]["request_id"], reply.headers["ld-request"].as_str());
        assert_eq!(line["span"]["deployment_id"], "611298765432109056");
        assert_eq!(line["span"]["backup_id"], "1");
        assert_eq!(line["span"]["key_id"], "key-1");
        assert_eq!(line["span"]["route"], "/deployments/{deployment_id}/backups");
    }
}
