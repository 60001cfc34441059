//! `cargo run -p tests --bin known-bad`: breaks the system on purpose, one patch
//! of `tests/known-bad` at a time, and fails unless the simulation finds each.
//!
//! ```text
//!   copy ─▶ build ─▶ simulate: clean? ─▶ for each patch:
//!                                        apply ─▶ build ─▶ simulate ─▶ revert
//! ```
//!
//! A patch counts as caught only if the simulation names the check that found it.
//! A build that fails, a run without an end, and a simulation that panics or
//! cannot go on itself are none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tests::{Failed, Result, fail, root};
use tokio::process::Command;
use tokio::time::Instant;

/// Where the patches are, from the repository's root.
const PATCHES: &str = "tests/known-bad";

/// What a patch's line begins with that only seeds about one thing can find: `restores` or
/// `schedules`, as the flag of the simulation.
const ABOUT: &str = "# Seeds: ";

/// How many seeds the copy must pass before anything is broken.
const CLEAN: u64 = 50;

/// How long one run of the simulation may take: a patch may make it go on for ever.
const LONGEST: Duration = Duration::from_mins(30);

/// The check by which the simulation says that it cannot go on itself.
const OWN: &str = "simulation";

/// The members' version in the copy (see [`Copied::cargo`]).
const VERSION: &str = "0.0.0-known-bad";

/// Applies each known-bad patch to a copy and demands that the simulation finds it.
#[derive(Debug, Parser)]
struct Options {
    /// Only patches whose name contains this; as often as needed
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// The most seeds that one patch is given
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// Builds the simulation with optimizations: slower to build, faster to run
    #[arg(long)]
    release: bool,
}

/// What became of one patch.
#[derive(Debug)]
enum Fate {
    /// The simulation found it.
    Caught { check: String, seed: u64, seeds: u64 },
    /// The simulation did not.
    Survived { seeds: u64 },
    /// There was nothing to find, or nobody to find it.
    Void(String),
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    patch: String,
    fate: Fate,
    seconds: u64,
}

impl Row {
    const HEAD: [&str; 5] = ["patch", "caught by", "seed", "seeds run", "seconds"];

    fn cells(&self) -> [String; 5] {
        let (by, seed, seeds) = match &self.fate {
            Fate::Caught { check, seed, seeds } => {
                (check.clone(), seed.to_string(), seeds.to_string())
            }
            Fate::Survived { seeds } => ("NOT CAUGHT".to_owned(), String::new(), seeds.to_string()),
            Fate::Void(_) => ("VOID".to_owned(), String::new(), String::new()),
        };
        [self.patch.clone(), by, seed, seeds, self.seconds.to_string()]
    }

    /// Why this row fails the whole, if it does.
    fn fault(&self) -> Option<String> {
        match &self.fate {
            Fate::Caught { .. } => None,
            Fate::Survived { seeds } => {
                Some(format!("{}: not caught in {seeds} seeds", self.patch))
            }
            Fate::Void(why) => Some(format!("{}: {why}", self.patch)),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Ended here rather than by the signal: the copy goes with its guard.
    let ended = tokio::select! {
        ended = all(&options) => ended,
        _ = tokio::signal::ctrl_c() => fail("interrupted"),
    };
    let rows = match ended {
        Ok(rows) => rows,
        Err(Failed(why)) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", table(&rows));
    let faults: Vec<_> = rows.iter().filter_map(Row::fault).collect();
    println!("{} of {} known-bad patches caught", rows.len() - faults.len(), rows.len());
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every patch in turn.
async fn all(options: &Options) -> Result<Vec<Row>> {
    let patches = patches(&options.only)?;
    let bar = ProgressBar::new(u64::try_from(patches.len())? + 1);
    bar.set_style(ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} {msg}")?);
    bar.enable_steady_tick(Duration::from_secs(1));
    bar.set_message("copying");
    let copied = Copied::make(options.release).await?;
    unbroken(&copied, &bar).await?;
    bar.inc(1);
    let mut rows = Vec::new();
    for patch in &patches {
        let row = one(&copied, patch, options.seeds, &bar).await?;
        bar.suspend(|| eprintln!("{}", row.cells().join("  ")));
        rows.push(row);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// The copy as it is must be clean: what finds fault with everything finds nothing.
async fn unbroken(copied: &Copied, bar: &ProgressBar) -> Result<()> {
    match tried(copied, "unpatched", CLEAN, None, bar).await? {
        Fate::Survived { .. } => Ok(()),
        Fate::Caught { check, seed, .. } => {
            fail(format!("unpatched, seed {seed} violates `{check}`: mend that first"))
        }
        Fate::Void(why) => fail(format!("unpatched: {why}")),
    }
}

/// One patch, from its application to its reversal.
async fn one(copied: &Copied, patch: &Path, seeds: u64, bar: &ProgressBar) -> Result<Row> {
    let name = name(patch);
    let began = Instant::now();
    let fate = if let Some(why) = copied.apply(patch, &[]).await? {
        Fate::Void(format!("does not apply: {why}"))
    } else {
        let text = std::fs::read_to_string(patch)?;
        let about = text.lines().find_map(|line| line.strip_prefix(ABOUT));
        let fate = tried(copied, &name, seeds, about, bar).await?;
        if let Some(why) = copied.apply(patch, &["--reverse"]).await? {
            return fail(format!("{name} cannot be taken back: {why}"));
        }
        fate
    };
    Ok(Row { patch: name, fate, seconds: began.elapsed().as_secs() })
}

/// What the simulation says of the copy as it is.
async fn tried(
    copied: &Copied,
    name: &str,
    seeds: u64,
    about: Option<&str>,
    bar: &ProgressBar,
) -> Result<Fate> {
    bar.set_message(format!("{name}: building"));
    if let Some(why) = copied.build().await? {
        return Ok(Fate::Void(why));
    }
    bar.set_message(format!("{name}: simulating"));
    copied.simulate(seeds, about).await
}

/// The patches asked for, in order.
fn patches(only: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(PATCHES))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            found.push(path.canonicalize()?);
        }
    }
    found.sort();
    if let Some(none) = only.iter().find(|part| !found.iter().any(|p| name(p).contains(*part))) {
        return fail(format!("no patch of {PATCHES} is called `{none}`"));
    }
    found.retain(|path| only.is_empty() || only.iter().any(|part| name(path).contains(part)));
    if found.is_empty() { fail(format!("no patch in {PATCHES}")) } else { Ok(found) }
}

/// A patch's name.
fn name(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A copy of the work tree, to be broken.
#[derive(Debug)]
struct Copied {
    folder: tempfile::TempDir,
    /// The workspace's own target folder.
    target: PathBuf,
    release: bool,
}

impl Copied {
    /// Copies what git tracks, as it is now, and what it does not track yet.
    async fn make(release: bool) -> Result<Self> {
        let own = std::env::current_exe()?;
        let Some(target) = own.ancestors().nth(2) else { return fail("no target folder") };
        let folder = tempfile::Builder::new().prefix("known-bad-").tempdir()?;
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .await?;
        if !listed.status.success() {
            return fail(format!("git ls-files: {}", last_line(&listed.stderr)));
        }
        for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (root().join(path), folder.path().join(path));
            // One that was deleted and not yet committed is still listed.
            if from.is_file() {
                std::fs::create_dir_all(to.parent().unwrap_or(folder.path()))?;
                std::fs::copy(from, to)?;
            }
        }
        rename_members(&folder.path().join("Cargo.toml"))?;
        Ok(Self { folder, target: target.to_owned(), release })
    }

    /// Applies a patch. Some: why it does not.
    async fn apply(&self, patch: &Path, flags: &[&str]) -> Result<Option<String>> {
        let output = Command::new("git")
            .arg("apply")
            .args(flags)
            .arg(patch)
            .current_dir(self.folder.path())
            // The copy is no repository, wherever it lies.
            .env("GIT_CEILING_DIRECTORIES", self.folder.path().parent().unwrap_or(Path::new("/")))
            .output()
            .await?;
        Ok((!output.status.success()).then(|| first_error(&output.stderr)))
    }

    /// Cargo, in the copy.
    ///
    /// Everything that is compiled is shared with the checkout's target folder:
    /// of the dependencies, `aws-sdk-ec2` alone takes minutes. That needs two
    /// things. Cargo tells two copies of one workspace apart by nothing but the
    /// members' names and versions, and what is stale by times of files: with one
    /// version the checkout would take a broken crate of the copy for its own
    /// fresh one. So the members' version differs here. And the finished binary
    /// goes to a folder of its own, so that no broken one ever stands where the
    /// checkout's is looked for.
    fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        // What `cargo run` says of this program would be taken for a change.
        for (key, _) in std::env::vars_os() {
            let of_this = ["CARGO_PKG_", "CARGO_MANIFEST_"];
            if of_this.iter().any(|prefix| key.to_string_lossy().starts_with(prefix)) {
                command.env_remove(key);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("CARGO_BUILD_BUILD_DIR", &self.target)
            .env("CARGO_TARGET_DIR", self.target.join("known-bad"));
        command
    }

    /// Builds the simulation. Some: why that failed.
    async fn build(&self) -> Result<Option<String>> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--quiet", "--offline", "-p", "tests", "--bin", "simulate"]);
        if self.release {
            cargo.arg("--release");
        }
        let output = cargo.kill_on_drop(true).output().await?;
        let why = || format!("does not build: {}", first_error(&output.stderr));
        Ok((!output.status.success()).then(why))
    }

    /// Runs seeds until one violates a check.
    async fn simulate(&self, seeds: u64, about: Option<&str>) -> Result<Fate> {
        let profile = if self.release { "release" } else { "debug" };
        let simulate = self.target.join("known-bad").join(profile).join("simulate");
        let run = Command::new(simulate)
            .args(["--seeds", &seeds.to_string(), "--from", "0", "--first", "--json"])
            .args(about.map(|about| format!("--{about}")))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        if let Ok(output) = tokio::time::timeout(LONGEST, run).await {
            return Ok(fate(&output?));
        }
        let minutes = LONGEST.as_secs() / 60;
        Ok(Fate::Void(format!("the simulation did not end within {minutes} minutes")))
    }
}

/// Gives the members of the copy a version of their own (see [`Copied::cargo`]).
fn rename_members(manifest: &Path) -> Result<()> {
    let text = std::fs::read_to_string(manifest)?;
    let (mut within, mut renamed) = (false, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            within = line == "[workspace.package]";
        }
        if within && line.starts_with("version = ") {
            renamed = true;
            lines.push(format!("version = \"{VERSION}\""));
        } else {
            lines.push(line.to_owned());
        }
    }
    if !renamed {
        return fail("Cargo.toml has no version in [workspace.package]");
    }
    Ok(std::fs::write(manifest, lines.join("\n") + "\n")?)
}

/// What a run of the simulation came to: its one line, under the status that
/// belongs to it.
fn fate(output: &Output) -> Fate {
    let said = read(&output.stdout);
    match (output.status.code(), said) {
        (Some(1), Some(Fate::Caught { check, seed, .. })) if check == OWN => {
            Fate::Void(format!("the simulation itself could not go on, at seed {seed}"))
        }
        (Some(0), Some(fate @ Fate::Survived { .. }))
        | (Some(1), Some(fate @ Fate::Caught { .. })) => fate,
        (Some(101), _) => {
            Fate::Void(format!("the simulation panicked: {}", panic_of(&output.stderr)))
        }
        _ => Fate::Void(format!(
            "the simulation ended with {} and not as agreed: {}",
            output.status,
            last_line(&output.stderr)
        )),
    }
}

/// Reads `{"seeds": n, "violation": null | {"seed": n, "check": "...", "what": "..."}}`.
fn read(stdout: &[u8]) -> Option<Fate> {
    let said: Value = serde_json::from_slice(stdout).ok()?;
    let seeds = said.get("seeds")?.as_u64()?;
    match said.get("violation")? {
        Value::Null => Some(Fate::Survived { seeds }),
        violation => {
            let check = violation.get("check")?.as_str()?.to_owned();
            Some(Fate::Caught { check, seed: violation.get("seed")?.as_u64()?, seeds })
        }
    }
}

/// What a panic says of itself: its place, and the line after it.
fn panic_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let from = text.lines().skip_while(|line| !line.contains(" panicked at "));
    from.take(2).collect::<Vec<_>>().join(" ")
}

/// The first line of `stderr` that is an error.
fn first_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let error = text.lines().find(|line| line.starts_with("error"));
    error.map_or_else(|| last_line(stderr), str::to_owned)
}

/// The last line that says something.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

/// The rows under their heads, in columns.
fn table(rows: &[Row]) -> String {
    let mut lines = vec![Row::HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width =
        |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let told = |cells: &[String; 5]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(told).collect::<Vec<_>>().join("\n")
}
