//! A small HTTP server: hyper's, with one thing that axum's does not offer.
//! A handler may break the connection instead of answering, which is what a
//! lost reply looks like to a caller.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long requests under way may still take after the stop.
const GRACE: Duration = Duration::from_secs(1);

/// The connection is to break without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reply is lost on purpose")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A request as it came in.
pub(crate) type Request = http::Request<Incoming>;
/// What goes back.
pub(crate) type Response = http::Response<Body>;

/// Serves until `stop` turns true, then lets requests under way end for a
/// moment. What still runs after that is dropped.
pub(crate) async fn serve<H, F>(listener: TcpListener, mut stop: watch::Receiver<bool>, handle: H)
where
    H: Fn(Request, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Broken>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors: wait for connections to close.
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A reply of two writes would wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let handle = handle.clone();
        let mut stop = stop.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| handle(request, peer));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                // `date` comes from our clock: the SDKs correct theirs by it.
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(GRACE, connection).await;
                }
                // Broken by the peer or on purpose: nothing to do either way.
                _ = connection.as_mut() => {}
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Resolves at the stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Its sender going is a stop too.
    let _ = stop.wait_for(|stopped| *stopped).await;
}
