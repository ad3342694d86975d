//! The vault in PostgreSQL. Nothing is created: where there are no tables yet, that is reported.

use tokio::time::Instant;

use super::{Check, Findings, Fix, storage};
use crate::{
    account::{Account, Status},
    config::{PostgresUrl, Settings},
    error::{UserFacingError, sentence},
    vault::{self, KeyOrigin, Keyring},
};

/// Examines the sealing key and the database; returns the account's status if it can be read.
pub(super) async fn examine(
    settings: &Settings,
    url: &PostgresUrl,
    account: &Account,
    findings: &mut Findings<'_>,
) -> Option<Status> {
    let directory = storage::directory("data directory", &settings.data_dir, &findings.presentation);
    let mut is_usable = findings.add(directory);
    is_usable &=
        findings.add(match Keyring::load(&settings.sealing_key, &settings.data_dir, &settings.vault).await {
            Ok((_, KeyOrigin::KeyFile(path))) => Check::ok("sealing key", format!("in {}", path.display())),
            Ok(_) => Check::ok("sealing key", "in BONDMCP_SEALING_KEY"),
            Err(error) => unusable("sealing key", &error),
        });
    let began = Instant::now();
    let (server, has_vault) = match vault::is_in_postgres(url).await {
        Ok(true) => (Check::ok("database", format!("{} answers", settings.vault)), true),
        Ok(false) => {
            let detail =
                format!("{} answers; it has no vault yet, and the first start creates one", settings.vault);
            (Check::ok("database", detail), false)
        }
        Err(error) => (unusable("database", &error), false),
    };
    let is_answering = findings.add(server.since(began));
    if !has_vault || !is_usable {
        let why =
            if is_usable && is_answering { "there is none yet" } else { "not opened: what it needs failed" };
        findings.add(Check::skip("vault", why));
        return None;
    }
    let opens = || format!("{} opens", settings.vault);
    let (check, status) = storage::opened(account, opens, |error| unusable("vault", error)).await;
    findings.add(check);
    status
}

fn unusable(name: &'static str, error: &vault::Error) -> Check {
    let solution = UserFacingError::from(error).solution;
    Check::fail(name, sentence(&error.to_string()).trim_end_matches('.'), Fix::advice(solution))
}
