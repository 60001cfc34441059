//! How many requests a key may make in a minute.

use tests::http::Call;
use tests::{Here, Result, Setup};

use crate::refused;

#[tokio::test]
async fn a_key_that_asks_too_often_waits_for_the_next_minute_and_others_do_not() -> Result<()> {
    let parameters = vec![("RequestsPerMinute".to_owned(), "10".to_owned())];
    let here = Here::start(Setup { parameters, ..Setup::default() }).await?;
    let list = |key: &str| here.send(Call::new("GET", here.backups()).key(key));
    let (manage, read) = (&here.demo.keys.manage, &here.demo.keys.read);
    here.begin_minute().await?;
    let replies = futures_util::future::join_all((0..30).map(|_| list(manage))).await;
    let mut passed = 0;
    for reply in replies {
        let reply = reply?;
        if reply.status == 200 {
            passed += 1;
        } else {
            refused(&reply, 429, "rate_limited");
        }
    }
    assert_eq!(passed, 10);
    // What comes before it, and another key.
    let far = Call::new("GET", "/deployments/x/backups").key(manage);
    refused(&here.send(far).await?, 429, "rate_limited");
    refused(&list("ld_x").await?, 401, "unauthorized");
    assert_eq!(list(read).await?.status, 200);
    // As long as it says.
    let wait: u64 = list(manage).await?.header("retry-after").parse()?;
    assert!((1..=60).contains(&wait), "{wait}");
    here.advance(wait).await?;
    assert_eq!(list(manage).await?.status, 200);
    here.stop().await;
    Ok(())
}
