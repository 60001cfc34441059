//! The crash loop, a short one. The long one is a command:
//! `cargo run -p tests --bin crash-loop`.

use tests::Result;
use tests::crash::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_few_kills_lose_double_and_leak_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plan = Plan { rounds: 60, until_each: 2, seed: 7 };
    let report = run(&folder.path().join("data"), plan, &|_| {}).await?;
    println!("{report:?}");
    assert!(report.made > 4, "{report:?}");
    Ok(())
}
