//! The word to stop: SIGINT and SIGTERM, or Ctrl-C where there are no signals.

use tokio_util::sync::CancellationToken;

/// Cancels `stopping` when the process is told to stop. A second word ends it at once, by the system's default.
pub(super) fn on_signal(stopping: CancellationToken) {
    tokio::spawn(async move {
        told_to_stop().await;
        tracing::info!("told to stop");
        stopping.cancel();
        told_to_stop().await;
        std::process::exit(1);
    });
}

#[cfg(unix)]
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn told_to_stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
