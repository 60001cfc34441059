//! `cargo run -p tests --bin real-binaries`: the functions as they deploy, run by
//! `cargo lambda watch` against a running local cloud: list, create and delete
//! over HTTP, and each sample event by `cargo lambda invoke`.
//!
//! A command and not a test: its first request compiles the binaries.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use backups_aws::table::keys::Secret;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tests::http::{Call, Reply};
use tests::{Failed, Here, MANY, Result, Setup, audit, aws_cli, fail, root};
use tokio::process::{Child, Command};

/// How long the first request may take: it compiles.
const COMPILE: Duration = Duration::from_mins(20);

/// `cargo lambda watch`, and all that it started.
struct Watch {
    child: Child,
    address: SocketAddr,
    /// What it and the functions print.
    log: NamedTempFile,
}

#[tokio::main]
async fn main() -> ExitCode {
    match checked().await {
        Ok(()) => {
            println!("real binaries: list, create, delete and every sample event");
            ExitCode::SUCCESS
        }
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn checked() -> Result<()> {
    let here = Here::start(Setup { tick: 1, ..Setup::default() }).await?;
    let watch = Watch::start(&here)?;
    let ended = tokio::select! {
        ended = story(&here, &watch) => ended,
        _ = tokio::signal::ctrl_c() => fail("interrupted"),
    };
    let log = watch.stop().await?;
    let keys = here.demo.keys.clone();
    here.stop().await;
    ended.map_err(|Failed(why)| Failed(format!("{log}\n{why}")))?;
    // All that they print, at the highest level: a library may have a say there too.
    let mut never = samples_words()?;
    if never.len() < 2 {
        return fail("the samples have no secret, or no hash of a key");
    }
    for secret in [keys.manage, keys.read, keys.other_tenant].into_iter().chain(never.clone()) {
        never.extend(Secret::parse(&secret).map(|secret| secret.hash()));
        never.push(secret);
    }
    if never.iter().any(|word| log.contains(word)) {
        return fail("the log has the secret of a key, or its hash");
    }
    if !log.contains("\"level\":\"DEBUG\"") {
        return fail("the log has nothing below info: was it looked at?");
    }
    Ok(())
}

async fn story(here: &Here, watch: &Watch) -> Result<()> {
    let key = here.demo.keys.manage.as_str();
    let list = || Call::new("GET", here.backups()).key(key);
    watch.compiled(list()).await?;
    expect(&watch.send(list()).await?, 200, "[]")?;
    expect(&watch.send(Call::new("GET", here.backups())).await?, 401, "unauthorized")?;

    // The api is the real binary, the worker is the local cloud's own.
    let create =
        || Call::new("POST", here.backups()).key(key).json(r#"{"name": "by the real binary"}"#);
    let id = watch.send(create()).await?.backup()?;
    here.seen(id, "completed").await?;
    let (theirs, ours) = (watch.send(list()).await?, here.send(list()).await?);
    if theirs.text != ours.text {
        return fail(format!("the list: {}\nby the gateway: {}", theirs.text, ours.text));
    }
    // The AWS CLI sees what the list says, and that the snapshots go first.
    let taken = ours.json()[0]["snapshot_ids"].as_array().map_or(0, Vec::len);
    if aws_cli::snapshots(here).await? != taken {
        return fail("the AWS CLI does not see the backup's snapshots");
    }
    let delete = |id: u64| Call::new("DELETE", format!("{}/{id}", here.backups())).key(key);
    expect(&watch.send(delete(id)).await?, 204, "")?;
    let rows = here.rest().await?;
    audit::demand(here, &rows).await?;
    expect(&watch.send(delete(id)).await?, 404, "backup_not_found")?;
    aws_cli::tour(here).await?;

    // Now the worker and the scheduler are the real binaries too: the local
    // cloud's own hear of nothing.
    here.arm(&json!({"on": "bus", "do": "drop", "times": MANY})).await?;
    here.arm(&json!({"on": "event", "do": "drop", "times": MANY})).await?;
    let id = watch.send(create()).await?.backup()?;
    let due = json!({
        "version": "0", "id": "0", "detail-type": "Operation Due", "source": "supervisor.backups",
        "account": here.demo.account, "time": here.now().await?.to_string(), "region": here.demo.region,
        "resources": [],
        "detail": {"version": 1, "deployment_id": here.demo.deployment_id, "operation": "backup", "id": id},
    });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("due.json");
    std::fs::write(&file, due.to_string())?;
    for status in ["in_progress", "completed"] {
        watch.invoke("worker", &file).await?;
        let is = here.status(id).await?;
        if is != status && is != "completed" {
            return fail(format!("after the worker's turn the backup is {is}, not {status}"));
        }
        here.advance(30).await?;
    }
    let before = here.calls().await?.len();
    let tick = root().join("events/scheduler-tick.json");
    watch.invoke("scheduler", &tick).await?;
    let queries =
        here.calls().await?[before..].iter().filter(|call| call["operation"] == "Query").count();
    if queries < 8 {
        return fail(format!("the scheduler made {queries} queries"));
    }
    samples(watch).await?;
    here.disarm().await?;
    let rows = here.rest().await?;
    audit::demand(here, &rows).await
}

/// What the samples have of keys: secrets, and the hash of a key that changed.
fn samples_words() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("events"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
        let of_a_key = |word: &&str| {
            let hash = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            hash || Secret::parse(word).is_some()
        };
        found.extend(words.filter(of_a_key).map(str::to_owned));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Each file of `events/`, to the function that its name begins with.
async fn samples(watch: &Watch) -> Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(root().join("events"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "json")) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let function = name.split('-').next().unwrap_or_default();
        let answer = watch.invoke(function, file).await;
        let answer = match (name.as_str(), answer) {
            // An order of some day long ago is refused.
            // cargo-lambda breaks the sentence where its line ends.
            ("worker-restore-ordered" | "worker-orphan-removal-ordered", Err(Failed(why)))
                if why.contains("the order is of") =>
            {
                continue;
            }
            ("worker-restore-ordered" | "worker-orphan-removal-ordered", answer) => {
                return fail(format!("{name}: {answer:?}"));
            }
            (_, answer) => answer.map_err(|Failed(why)| Failed(format!("{name}: {why}")))?,
        };
        // The samples' key is none of this stack; the `$default` route asks for none.
        let expected = match (function, name.as_str()) {
            ("api", "api-default") => json!(404),
            ("api", "api-get-open-api") => json!(200),
            ("api", _) => json!(401),
            _ => Value::Null,
        };
        if answer["statusCode"] != expected {
            return fail(format!("{name}: {answer}"));
        }
    }
    Ok(())
}

fn expect(reply: &Reply, status: u16, word: &str) -> Result<()> {
    if reply.status == status && reply.text.contains(word) {
        return Ok(());
    }
    fail(format!("{}: {} {}, expected {status} {word:?}", reply.asked, reply.status, reply.text))
}

impl Watch {
    fn start(here: &Here) -> Result<Self> {
        // Free now; nobody else is asking for ports.
        let address = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = NamedTempFile::new()?;
        let printed = std::fs::File::options().append(true).open(log.path())?;
        let child = cargo_lambda()
            .stdout(printed.try_clone()?)
            .stderr(printed)
            .args(["watch", "--ignore-changes", "--invoke-address", "127.0.0.1", "--invoke-port"])
            .arg(address.port().to_string())
            .envs(here.environment())
            .env("LOG_LEVEL", "trace")
            // One group: what it started ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| Failed(format!("cargo-lambda: {error}")))?;
        Ok(Self { child, address, log })
    }

    async fn send(&self, call: Call) -> Result<Reply> {
        call.send(self.address).await
    }

    /// Sends the first request, again and again until the binary is there.
    async fn compiled(&self, call: Call) -> Result<()> {
        let end = tokio::time::Instant::now() + COMPILE;
        loop {
            match self.send(call.clone()).await {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) if reply.header("ld-request").is_empty() => {}
                Ok(reply) => {
                    return fail(format!("the first list: {} {}", reply.status, reply.text));
                }
                Err(_) => {}
            }
            if tokio::time::Instant::now() > end {
                return fail("cargo lambda watch did not answer in time");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// `cargo lambda invoke`. Gives what the function answered.
    async fn invoke(&self, function: &str, file: &Path) -> Result<Value> {
        let run = cargo_lambda()
            .args(["invoke", function, "--invoke-address", "127.0.0.1", "--invoke-port"])
            .arg(self.address.port().to_string())
            .arg("--data-file")
            .arg(file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMPILE, run).await??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return fail(format!("invoke {function}: {text} {error}"));
        }
        serde_json::from_str(text.trim()).map_err(|error| Failed(format!("{text:?}: {error}")))
    }

    /// Ends it all. Gives what was printed.
    async fn stop(mut self) -> Result<String> {
        if let Some(id) = self.child.id() {
            Command::new("kill").args(["-TERM", "--", &format!("-{id}")]).status().await?;
        }
        let _ = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        Ok(String::from_utf8_lossy(&std::fs::read(self.log.path())?).into_owned())
    }
}

/// `cargo lambda`, as `./check tools` installs it, or as it is in the path.
fn cargo_lambda() -> Command {
    let own = root().join(".tools/venv/bin/cargo-lambda");
    let mut command = Command::new(if own.is_file() { own } else { "cargo-lambda".into() });
    command.arg("lambda").current_dir(root()).stdin(Stdio::null());
    command
}
