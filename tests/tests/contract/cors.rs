//! Pages of other origins.

use tests::http::{Call, Reply};
use tests::{Here, Result, Setup};

use super::{framed, refused};

const CONSOLE: &str = "https://console.example.com";

/// A header's words.
fn words(reply: &Reply, header: &str) -> Vec<String> {
    let mut words: Vec<_> =
        reply.header(header).split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
    words.sort_unstable();
    words
}

/// What a browser asks before it sends a create.
fn preflight(path: &str, origin: &str) -> Call {
    Call::new("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,idempotency-key,ld-api-key")
}

#[tokio::test]
async fn a_page_of_a_named_origin_may_ask_and_read() -> Result<()> {
    let origins = format!("http://localhost:5173,{CONSOLE}");
    let parameters = vec![("CorsOrigins".to_owned(), origins)];
    let here = Here::start(Setup { parameters, ..Setup::default() }).await?;
    let may = here.send(preflight(&here.backups(), CONSOLE)).await?;
    assert_eq!((may.status, may.header("access-control-allow-origin")), (200, CONSOLE));
    framed(&may);
    let methods = words(&may, "access-control-allow-methods");
    assert_eq!(methods, ["delete", "get", "patch", "post", "put"]);
    let headers = words(&may, "access-control-allow-headers");
    assert_eq!(headers, ["content-type", "idempotency-key", "ld-api-key"]);
    assert_eq!(may.header("access-control-max-age"), "7200");
    // The key is a header of its own: no cookie has a say.
    assert_eq!(may.header("access-control-allow-credentials"), "");

    let create = Call::new("POST", here.backups()).header("origin", CONSOLE);
    let create = create.key(&here.demo.keys.manage).json(r#"{"name": "n"}"#);
    let made = here.send(create).await?;
    assert_eq!((made.status, made.header("access-control-allow-origin")), (204, CONSOLE));
    let shown = words(&made, "access-control-expose-headers");
    let all =
        ["idempotent-replayed", "ld-backup", "ld-request", "ld-restore", "link", "retry-after"];
    assert_eq!(shown, all);
    assert!(words(&made, "vary").contains(&"origin".to_owned()));

    // It can read why it is refused, too, wherever the refusal is made.
    for (call, status, code) in [
        (Call::new("GET", here.backups()), 401, "unauthorized"),
        (Call::new("GET", "/nothing"), 404, "route_not_found"),
        (Call::new("PUT", here.backups()), 405, "method_not_allowed"),
    ] {
        let reply = here.send(call.header("origin", CONSOLE)).await?;
        refused(&reply, status, code);
        assert_eq!(reply.header("access-control-allow-origin"), CONSOLE);
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_origin_may_not() -> Result<()> {
    let parameters = vec![("CorsOrigins".to_owned(), CONSOLE.to_owned())];
    let here = Here::start(Setup { parameters, ..Setup::default() }).await?;
    for other in ["https://console.example.com.evil.example", "http://console.example.com", "null"]
    {
        let asked = here.send(preflight(&here.backups(), other)).await?;
        assert_eq!(asked.header("access-control-allow-origin"), "", "{other}");
        let list = Call::new("GET", here.backups()).key(&here.demo.keys.read);
        let list = here.send(list.header("origin", other)).await?;
        assert_eq!((list.status, list.header("access-control-allow-origin")), (200, ""), "{other}");
    }
    here.stop().await;
    Ok(())
}

#[tokio::test]
async fn without_a_named_origin_there_is_nothing_of_it() -> Result<()> {
    let here = Here::start(Setup::default()).await?;
    let asked = here.send(preflight(&here.backups(), CONSOLE)).await?;
    refused(&asked, 405, "method_not_allowed");
    let list = Call::new("GET", here.backups()).key(&here.demo.keys.read);
    let list = here.send(list.header("origin", CONSOLE)).await?;
    for reply in [asked, list] {
        let some = reply.headers.keys().find(|name| name.starts_with("access-control-"));
        assert_eq!(some, None, "{}", reply.asked);
    }
    here.stop().await;
    Ok(())
}
