//! What a long wait waits for and how long it can still take, in one line of the terminal that is drawn anew every
//! second and removed at the end. Without a terminal nothing is shown.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, interval_at};

use super::printer::Printer;
use crate::config::BaseUrl;

/// Longest time of a command's requests to BondMCP with their repetitions.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_mins(1);

/// How long a wait for BondMCP is not worth a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `work`, which ends within `limit`, and shows meanwhile that it waits for `what`.
pub(super) async fn waiting<T>(
    printer: &Printer,
    what: &str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> T {
    show(printer, what, Duration::ZERO, limit, work).await
}

/// Runs `work`, which makes requests that end within `limit`; shows that it waits for `upstream` once that takes long.
pub(super) async fn requesting<T>(
    printer: &Printer,
    upstream: &BaseUrl,
    limit: Duration,
    work: impl Future<Output = T>,
) -> T {
    show(printer, &format!("Waiting for {}", upstream.host()), PATIENCE, limit, work).await
}

async fn show<T>(
    printer: &Printer,
    what: &str,
    patience: Duration,
    limit: Duration,
    work: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let mut ticks = interval_at(began + patience, Duration::from_secs(1));
    let mut work = pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => {
                printer.clear_progress();
                return outcome;
            }
            _ = ticks.tick() => {
                let left = limit.saturating_sub(began.elapsed()).as_secs();
                printer.print_progress(format_args!("{what} … at most {}:{:02} left", left / 60, left % 60));
            }
        }
    }
}
