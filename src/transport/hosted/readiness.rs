//! `/readyz`: whether a load balancer should send requests here.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL};
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::Http;
use crate::oauth::AuthorizationServer;

/// How long the outcome of a check holds, however often it is asked for.
const HOLDS: Duration = Duration::from_secs(1);

/// Longest duration of a check.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The last check; one runs at a time.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, bool)>>);

impl Readiness {
    pub async fn check(&self, server: &AuthorizationServer) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < HOLDS
        {
            return ready;
        }
        let ready = match timeout(TIMEOUT, server.check_ready()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: the vault does not answer");
                false
            }
            Err(_) => {
                tracing::warn!("not ready: the vault does not answer in time");
                false
            }
        };
        *last = Some((Instant::now(), ready));
        ready
    }
}

pub(super) async fn readyz(http: Http) -> Response {
    let (status, word) = if http.inner.requested_to_stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if http.is_ready().await {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(json!({ "status": word }))).into_response()
}
