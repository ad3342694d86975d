//! Messages on public pages about trouble at BondMCP or in this server. The words for the operator name hosts, ports, flags
//! and files, so they go to the log alone.

use crate::error::{Kind, UserFacingError};

/// Returns the message for a person about a failure that only the operator can mend; `None` for other failures.
pub(super) fn message(report: &UserFacingError) -> Option<String> {
    let is_trouble = matches!(
        report.kind,
        // BondMCP always has the endpoints for signing in and for keys: a 404 comes from something else.
        Kind::UpstreamUnavailable | Kind::Timeout | Kind::Internal | Kind::NotFound
    );
    let wait = match report.retry_after_seconds {
        Some(1) => "in 1 second".to_owned(),
        Some(seconds) => format!("in {seconds} seconds"),
        None => "in a moment".to_owned(),
    };
    is_trouble.then(|| {
        format!(
            "BondMCP cannot be reached right now. Try again {wait}. If this continues, tell whoever runs this server."
        )
    })
}
