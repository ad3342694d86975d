//! The keys that the vault's records need.

use tokio::time::Instant;

use super::{Check, Findings, Fix};
use crate::{
    account::Account,
    error::{UserFacingError, sentence},
    vault::KeySurvey,
};

/// Examines the records of a vault that opens.
pub(super) async fn examine(account: &Account, findings: &mut Findings<'_>) {
    let began = Instant::now();
    let rekey = findings.presentation.command("vault rekey");
    let check = match account.survey_keys().await {
        Ok(survey) => check(&survey, rekey),
        Err(error) => {
            let UserFacingError { message, solution, .. } = (&error).into();
            Check::fail("records", sentence(&message).trim_end_matches('.'), Fix::advice(solution))
        }
    };
    findings.add(check.since(began));
}

fn check(survey: &KeySurvey, rekey: String) -> Check {
    let KeySurvey { records, with_old_key, with_unknown_key, known_keys } = survey;
    if *with_unknown_key > 0 {
        return Check::fail(
            "records",
            format!(
                "{with_unknown_key} of {records} records are encrypted with a key that is not known here"
            ),
            Fix::advice(
                "Give that key too, after the current one, in BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE.",
            ),
        );
    }
    if *known_keys > 1 {
        return Check::warn(
            "records",
            format!(
                "{known_keys} keys are known, and {with_old_key} of {records} records need another than the current one"
            ),
            Fix::advice(
                "Complete the change of the key; then remove the old one, if you keep the keys yourself.",
            )
            .or_run(rekey),
        );
    }
    Check::ok("records", format!("{records}, encrypted with the current key"))
}
