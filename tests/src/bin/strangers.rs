//! `cargo run -p tests --bin strangers`: the API as strangers use it who have nothing of it
//! but its document.
//!
//! ```text
//!  docs/openapi.json ───▶ schemathesis ──────────▶ requests good and bad ──▶ local
//!  /docs/openapi.json ──▶ openapi-python-client ──▶ a client: tests/strangers/client.py ──▶ local
//! ```
//!
//! Both are tools of `./check`, in `.tools/clients`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tests::http::Call;
use tests::openapi::Document;
use tests::{Cloud, Failed, Here, Result, Setup, fail, root, rows};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How many deployments there are for the fuzzer: one is mostly busy with its last backup.
const DEPLOYMENTS: u32 = 200;

/// Examples of each route in a round, unless it is said: fewer, and the fixed ones, of which
/// most are bad, outweigh them.
const EXAMPLES: u32 = 120;

/// The least share of requests that are to be answered 2xx, of a hundred: a fuzzer that only
/// meets refusals tests little else.
const GOOD: usize = 30;

#[derive(Parser)]
#[command(about = "The API as strangers use it: a fuzzer and a generated client")]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Schemathesis against every route
    Fuzz(Fuzz),
    /// A client generated from the document, through a day
    Client,
}

#[derive(clap::Args)]
struct Fuzz {
    /// Examples of each route in a round, at most
    #[arg(long, default_value_t = EXAMPLES)]
    examples: u32,
    /// Where all choices of the first round come from; each next one has the next seed
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Rounds until there were so many requests: one runs out of examples that differ long
    /// before it has ten thousand
    #[arg(long, default_value_t = 1)]
    least: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Options::parse().what {
        Some(What::Fuzz(options)) => fuzz(&options).await,
        Some(What::Client) => client().await,
        None => match client().await {
            Ok(()) => fuzz(&Fuzz { examples: EXAMPLES, seed: 1, least: 1 }).await,
            failed => failed,
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A program of the clients' tools.
fn tool(name: &str) -> Result<PathBuf> {
    let path = root().join(".tools/clients/bin").join(name);
    if path.exists() { Ok(path) } else { fail(format!("no {name}: ./check tools installs it")) }
}

async fn fuzz(options: &Fuzz) -> Result<()> {
    let parameters = [("RequestsPerMinute", "100000"), ("ProBackupLimit", "100")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Snapshots of a moment, or every second create would meet a running one.
    let here = Here::start(Setup {
        speed: 3600.0,
        tick: 5,
        deployments: DEPLOYMENTS,
        parameters: parameters.to_vec(),
        ..Setup::default()
    })
    .await?;
    let ended = tokio::select! {
        ended = fuzzed(&here, options) => ended,
        _ = tokio::signal::ctrl_c() => fail("interrupted"),
    };
    here.stop().await;
    ended
}

async fn fuzzed(here: &Here, options: &Fuzz) -> Result<()> {
    furnish(here).await?;
    schemathesis(here, options).await
}

/// Makes a backup of every other deployment, and restores some: there is something to show, to
/// change, to restore and to delete.
async fn furnish(here: &Here) -> Result<()> {
    let some: Vec<u64> = here.demo.more_deployment_ids.iter().step_by(2).copied().collect();
    for deployment in &some {
        here.create_on(*deployment, &json!({"name": "n"})).await?.backup()?;
    }
    for _ in 0..600 {
        let rows = here.rows().await?;
        let backups = rows::backups(&rows);
        if backups.values().all(|row| row.text("status") == "completed") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for deployment in some.iter().step_by(5) {
        let path = format!("{}/1/restore", Cloud::backups_of(*deployment));
        let restore = Call::new("POST", path).key(here.manager_of(*deployment));
        let reply = here.send(restore).await?;
        if reply.status != 204 {
            return fail(format!("{}: {}", reply.asked, reply.text));
        }
    }
    Ok(())
}

async fn schemathesis(here: &Here, options: &Fuzz) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("schemathesis.toml");
    let template = std::fs::read_to_string(root().join("tests/strangers/schemathesis.toml"))?;
    let ids: Vec<String> = std::iter::once(&here.demo.deployment_id)
        .chain(&here.demo.more_deployment_ids)
        .map(u64::to_string)
        .collect();
    let placed = template.replace("[42]", &format!("[{}]", ids.join(", ")));
    if placed == template {
        return fail("tests/strangers/schemathesis.toml has no place for the deployments");
    }
    std::fs::write(&config, placed)?;
    let report = folder.path().join("report.ndjson");
    let mut replies = Replies::default();
    let mut seeds = options.seed..;
    while let Some(seed) = seeds.next().filter(|_| replies.count(|_| true) < options.least) {
        let status = Command::new(tool("schemathesis")?)
            .arg("--config-file")
            .arg(&config)
            .arg("run")
            // Of a served document it would leave out the route that serves it.
            .arg(root().join("docs/openapi.json"))
            .args(["--url", &here.demo.supervisor_url])
            .args(["--max-examples", &options.examples.to_string()])
            .args(["--seed", &seed.to_string()])
            .args(["--report", "ndjson", "--report-ndjson-path"])
            .arg(&report)
            .env("LD_API_KEY", &here.demo.keys.manage)
            .current_dir(folder.path())
            .kill_on_drop(true)
            .status()
            .await?;
        replies.read(&report)?;
        if !status.success() {
            replies.show();
            return fail(format!("schemathesis, seed {seed}: {status}"));
        }
    }
    replies.show();
    replies.demand()
}

/// How often there was each status.
#[derive(Debug, Default)]
struct Replies {
    /// By route.
    routes: BTreeMap<String, BTreeMap<u64, usize>>,
    /// Of those that a link of the document led to, by link.
    links: BTreeMap<String, BTreeMap<u64, usize>>,
}

impl Replies {
    /// Adds those of schemathesis's report of what it sent and got.
    fn read(&mut self, report: &Path) -> Result<()> {
        for line in BufReader::new(std::fs::File::open(report)?).lines() {
            let event: Value = serde_json::from_str(&line?)?;
            let recorder = &event["ScenarioFinished"]["recorder"];
            for (id, exchange) in recorder["interactions"].as_object().into_iter().flatten() {
                let case = &recorder["cases"][id]["value"];
                let word = |name: &str| case[name].as_str().unwrap_or_default();
                let route = format!("{} {}", word("method"), word("path"));
                let status = exchange["response"]["status_code"].as_u64().unwrap_or_default();
                *self.routes.entry(route).or_default().entry(status).or_default() += 1;
                // It finds links of its own, too, by the names of fields.
                let transition = &recorder["cases"][id]["transition"];
                if transition["is_inferred"] == false {
                    let link = transition["id"].as_str().unwrap_or_default().to_owned();
                    *self.links.entry(link).or_default().entry(status).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    fn count(&self, wanted: impl Fn(u64) -> bool) -> usize {
        let all = self.routes.values().flatten();
        all.filter(|(status, _)| wanted(**status)).map(|(_, count)| count).sum()
    }

    fn show(&self) {
        // Methods that a path does not have are one line of each.
        let no_method = |statuses: &BTreeMap<u64, usize>| statuses.keys().eq(&[405]);
        let routes = self.routes.iter().filter(|(_, statuses)| !no_method(statuses));
        for (what, statuses) in routes.chain(&self.links) {
            let words: Vec<String> =
                statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
            println!("{what}  {}", words.join(", "));
        }
        let (all, good) = (self.count(|_| true), self.count(|status| status / 100 == 2));
        println!("{all} requests, {good} of them answered 2xx ({} %)", good * 100 / all.max(1));
    }

    fn demand(&self) -> Result<()> {
        for (method, path) in Document::shared()?.operations() {
            let route = format!("{method} {path}");
            let statuses = self.routes.get(&route);
            if !statuses.is_some_and(|some| some.keys().any(|status| status / 100 == 2)) {
                return fail(format!("{route} was never answered 2xx"));
            }
        }
        for link in Document::shared()?.links() {
            let of_link = self.links.iter().filter(|(taken, _)| taken.starts_with(&link));
            let statuses: BTreeSet<u64> =
                of_link.flat_map(|(_, statuses)| statuses.keys().copied()).collect();
            // A backup just made is busy, for whoever restores or deletes it: 409. What is not
            // there would be 404, as any id that a link gets wrong.
            let busy = link.contains("RestoreBackup") || link.contains("DeleteBackup");
            if !statuses.iter().any(|status| status / 100 == 2 || busy && *status == 409) {
                return fail(format!("the link {link} led to nothing that is there: {statuses:?}"));
            }
        }
        let (all, good) = (self.count(|_| true), self.count(|status| status / 100 == 2));
        if good * 100 < all * GOOD {
            return fail(format!("less than {GOOD} of a hundred requests were answered 2xx"));
        }
        Ok(())
    }
}

async fn client() -> Result<()> {
    let here = Here::start(Setup { speed: 1000.0, tick: 1, ..Setup::default() }).await?;
    let ended = tokio::select! {
        ended = generated(&here) => ended,
        _ = tokio::signal::ctrl_c() => fail("interrupted"),
    };
    here.stop().await;
    ended
}

async fn generated(here: &Here) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(tool("openapi-python-client")?)
        .args(["generate", "--meta", "none", "--fail-on-warning", "--url"])
        .arg(format!("{}/docs/openapi.json", here.demo.supervisor_url))
        .arg("--config")
        .arg(root().join("tests/strangers/client.yaml"))
        .arg("--output-path")
        .arg(folder.path().join("supervisor"))
        .output()
        .await?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return fail(format!("openapi-python-client: {}", String::from_utf8_lossy(&said)));
    }
    let mut child = Command::new(tool("python")?)
        .arg(root().join("tests/strangers/client.py"))
        .arg(folder.path())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&here.demo)?).await?;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { fail(format!("tests/strangers/client.py: {status}")) }
}
