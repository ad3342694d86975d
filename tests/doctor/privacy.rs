//! What `doctor` prints can be pasted into a report.

use bondmcp_server::{sandbox::Fault, secret::SecretString};

use super::{
    Installation,
    common::{self, EMAIL, secrets},
};

/// Everything that must not be shown.
fn canaries(
    sandbox: &bondmcp_server::sandbox::RunningSandbox,
    installation: &Installation,
) -> Vec<SecretString> {
    let mut canaries = sandbox.secrets_issued();
    canaries.push(installation.place.password.clone());
    canaries.push(std::fs::read_to_string(installation.data("sealing.key")).unwrap().into());
    canaries
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_no_address_and_no_home_directory_is_shown() {
    let (sandbox, mut installation) = Installation::signed_in().await;
    let mut create = installation.command(&["keys", "create", "--name", "ci"]);
    assert_eq!(common::run(&mut create, "").await.0, Some(0));
    for fault in [None, Some(Fault::Echo), Some(Fault::EchoAsAnswer)] {
        if let Some(fault) = &fault {
            sandbox.faults().always("GET /health-ai/models", fault.clone());
            sandbox.faults().always("GET /auth/api-keys", fault.clone());
        }
        for arguments in [&["doctor"][..], &["doctor", "--json"], &["--log", "trace", "doctor"]] {
            let (_, out, log) = common::run(&mut installation.command(arguments), "").await;
            let home = installation.home();
            assert!(out.contains("credential") && out.contains("~/data/vault.db"), "{out}");
            assert!(!out.contains(EMAIL) && !out.contains(home.to_str().unwrap()), "{out}");
            let canaries = canaries(&sandbox, &installation);
            secrets::assert_absent(&canaries, out.as_bytes(), "the findings");
            secrets::assert_absent(&canaries, log.as_bytes(), "the log");
        }
    }
    sandbox.faults().clear();
    let (_, out, _) = common::run(&mut installation.command(&["doctor"]), "").await;
    assert!(out.contains("the session of a…@example.com"), "{out}");

    installation.set("BONDMCP_API_KEY", "sk_live_canary0123456789");
    installation.set("BONDMCP_EMAIL", EMAIL);
    let password = secrets::text(&installation.place.password).to_owned();
    installation.set("BONDMCP_PASSWORD", &password);
    for arguments in [&["doctor"][..], &["doctor", "--json"], &["--log", "trace", "doctor"]] {
        let (_, out, log) = common::run(&mut installation.command(arguments), "").await;
        assert!(out.contains("BONDMCP_API_KEY") && !out.contains(EMAIL), "{out}");
        let mut canaries = canaries(&sandbox, &installation);
        canaries.push("sk_live_canary0123456789".into());
        secrets::assert_absent(&canaries, out.as_bytes(), "the findings");
        secrets::assert_absent(&canaries, log.as_bytes(), "the log");
    }
}
