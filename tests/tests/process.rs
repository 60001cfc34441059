//! The real binary as a process: how it ends, and what it refuses to start on.

use tests::{Process, Result, binary};
use tokio::process::Command;

#[tokio::test]
async fn a_signal_ends_it_cleanly() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for signal in ["TERM", "INT"] {
        let process = Process::start(&folder.path().join("data"), &["--speed", "100"]).await?;
        process.cloud.create(signal).await.ok();
        assert_eq!(process.signal(signal).await?.code(), Some(0), "SIG{signal}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_taken_is_named_with_the_flag() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let process = Process::start(&data, &[]).await?;
    let taken = process.cloud.demo.supervisor_url.trim_start_matches("http://").to_owned();
    let other = folder.path().join("other");
    for (at, gateway, said) in
        [(&other, taken.as_str(), "--gateway"), (&data, "127.0.0.1:0", "--data")]
    {
        let output = Command::new(binary("local")?)
            .arg("--data")
            .arg(at)
            .args(["--gateway", gateway, "--aws", "127.0.0.1:0"])
            .output()
            .await?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    process.kill().await
}
