//! Shutdown by SIGINT and SIGTERM, or by Ctrl-C where there are no signals.

use tokio_util::sync::CancellationToken;

/// Cancels `stopping` on the first signal; the second one ends the process at once.
pub(super) fn on_signal(stopping: CancellationToken) {
    tokio::spawn(async move {
        signal_to_stop().await;
        tracing::info!("shutdown requested by a signal");
        stopping.cancel();
        signal_to_stop().await;
        std::process::exit(1);
    });
}

#[cfg(unix)]
async fn signal_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn signal_to_stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
