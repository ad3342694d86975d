//! The operator's listener for metrics, apart from the public one.

use std::time::Duration;

use axum::{Router, response::IntoResponse as _, routing::get};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    listener::{self, Bounds, Workers},
    metrics,
};

/// Limits on connections: a few collectors.
const BOUNDS: Bounds = Bounds { connections: 16, head_timeout: Duration::from_secs(10) };

/// Serves `/metrics` until `stopping` is cancelled. `look` brings those figures up to date that nothing counts.
pub async fn serve<Look, Looking>(listener: TcpListener, look: Look, stopping: CancellationToken)
where
    Look: Fn() -> Looking + Clone + Send + Sync + 'static,
    Looking: Future<Output = ()> + Send,
{
    let answer = || async move {
        look().await;
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], metrics::text())
            .into_response()
    };
    let router = Router::new().route("/metrics", get(answer));
    listener::serve(listener, router, BOUNDS, Workers::current(), stopping.cancelled()).await;
}
