//! What a long wait waits for and how long it can still take, in one line of the terminal that is drawn anew every
//! second and removed at the end. Without a terminal nothing is shown.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, interval_at};

use super::printer::Printer;
use crate::config::BaseUrl;

/// Longest time of a command's requests to BondMCP with their repetitions.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);

/// Wait for BondMCP after which progress is shown.
const PROGRESS_DELAY: Duration = Duration::from_secs(2);

/// Runs `work`, which ends within `limit`, and shows meanwhile that it waits for `what`.
pub(super) fn waiting<'a, T: 'a>(
    printer: &'a Printer,
    what: &str,
    limit: Duration,
    work: impl Future<Output = T> + 'a,
) -> impl Future<Output = T> + 'a {
    show(printer, what.to_owned(), Duration::ZERO, limit, Box::pin(work))
}

/// Runs `work`, which makes requests that end within [`REQUEST_LIMIT`]; shows that it waits for `upstream` once that
/// takes long.
pub(super) fn requesting<'a, T: 'a>(
    printer: &'a Printer,
    upstream: &BaseUrl,
    work: impl Future<Output = T> + 'a,
) -> impl Future<Output = T> + 'a {
    let what = format!("Waiting for {}", upstream.host());
    show(printer, what, PROGRESS_DELAY, REQUEST_LIMIT, Box::pin(work))
}

/// `work` is boxed, as the futures of requests are large.
async fn show<T>(
    printer: &Printer,
    what: String,
    delay: Duration,
    limit: Duration,
    mut work: Pin<Box<impl Future<Output = T>>>,
) -> T {
    let began = Instant::now();
    let mut ticks = interval_at(began + delay, Duration::from_secs(1));
    loop {
        tokio::select! {
            outcome = &mut work => {
                Printer::clear_progress();
                return outcome;
            }
            _ = ticks.tick() => {
                let left = limit.saturating_sub(began.elapsed()).as_secs();
                printer.print_progress(format_args!("{what} … at most {}:{:02} left", left / 60, left % 60));
            }
        }
    }
}
