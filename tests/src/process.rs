//! The real binary, to be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use local::Demo;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{Cloud, Failed, Result, fail};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// A running `local`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// How to call it.
    pub cloud: Cloud,
    /// What it printed up to its `ready` line, and that.
    pub ready: String,
    child: Child,
    /// Held: a program that prints into a closed pipe would end.
    _stdout: BufReader<tokio::process::ChildStdout>,
}

/// The path of a binary of this workspace, beside the one that asks: in the same
/// profile's folder.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    match found.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => fail(format!("{name} is not built: cargo build --workspace --bins")),
    }
}

impl Process {
    /// Starts it on a data folder, with any ports, and waits until it is ready.
    ///
    /// # Errors
    /// It ended instead, or took too long.
    pub async fn start(folder: &Path, flags: &[&str]) -> Result<Self> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.with_extension("log"))?;
        let mut child = Command::new(binary("local")?)
            .arg("--data")
            .arg(folder)
            .args(["--gateway", "127.0.0.1:0", "--aws", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| Failed("no standard output".to_owned()))?;
        let mut stdout = BufReader::new(stdout);
        let ready = tokio::time::timeout(START, ready_line(&mut stdout)).await;
        let Ok(ready) = ready else { return fail("local was not ready in time") };
        let demo: Demo = serde_json::from_slice(&std::fs::read(folder.join("demo.json"))?)?;
        Ok(Self { cloud: Cloud::of(demo)?, ready: ready?, child, _stdout: stdout })
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// It could not be killed.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

async fn ready_line(stdout: &mut BufReader<tokio::process::ChildStdout>) -> Result<String> {
    let mut printed = String::new();
    loop {
        let from = printed.len();
        if stdout.read_line(&mut printed).await? == 0 {
            return fail(format!("local ended instead of being ready: {printed}"));
        }
        if printed[from..].starts_with("ready") {
            return Ok(printed);
        }
    }
}

impl Process {
    /// Sends a signal by name (`TERM`, `INT`), and gives how the process ended.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn signal(mut self, name: &str) -> Result<std::process::ExitStatus> {
        let Some(id) = self.child.id() else { return fail("it has ended already") };
        Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().await?;
        match tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => fail(format!("it did not end within 5 s of SIG{name}")),
        }
    }
}
