//! Signing out removes the credentials from the disk: the test decrypts every encrypted record that it finds in the raw
//! files.

use crate::common::{EMAIL, Place, like_the_seed, open, sandbox, secrets, settings};
use bondmcp_server::{
    account::Account,
    bondmcp::Timing,
    clock::{Clock, Timestamp},
    sandbox::SandboxConfig,
    secret::SecretString,
};
use chacha20::{
    XChaCha20,
    cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _},
};
use chrono::TimeDelta;
use serde_json::json;

/// Format, id of the key, nonce, ciphertext.
const HEADER: usize = 33;

/// The cipher's first block makes the key of the tag.
const BLOCK: u64 = 64;

/// Returns every part of `bytes` that starts like a record when decrypted with `key`, with the length of its identity in
/// 64 bits, of any record, version and length. A record without its first bytes cannot be decrypted at all.
fn records(key: &[u8; 32], bytes: &[u8]) -> Vec<Vec<u8>> {
    let decrypted = |at: usize, length: usize| {
        let nonce: [u8; 24] = bytes[at + HEADER - 24..at + HEADER].try_into().unwrap();
        let start = at + HEADER;
        let mut text = bytes[start..bytes.len().min(start + length)].to_vec();
        let mut cipher = XChaCha20::new(key.into(), &nonce.into());
        cipher.seek(BLOCK);
        cipher.apply_keystream(&mut text);
        text
    };
    (0..bytes.len().saturating_sub(HEADER + 9))
        .filter(|at| bytes[*at] == 2 && decrypted(*at, 6) == [0; 6])
        .map(|at| decrypted(at, 8192))
        .collect()
}

/// Returns the records that the sealing key can decrypt in the files of the data directory.
fn readable(place: &Place) -> Vec<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = URL_SAFE_NO_PAD.decode(secrets::text(&place.sealing_key)).unwrap().try_into().unwrap();
    crate::common::files(&place.data_dir()).iter().flat_map(|(_, bytes)| records(&key, bytes)).collect()
}

fn contains(records: &[Vec<u8>], secret: &SecretString) -> bool {
    let json = serde_json::to_string(secrets::text(secret)).unwrap();
    records.iter().any(|record| record.windows(json.len()).any(|window| window == json.as_bytes()))
}

fn account(place: &Place, clock: &Clock) -> Account {
    open(&settings(place, &[]), clock.clone(), Timing::default()).0.local()
}

/// Passwords, tokens and keys that were in force while `processes` had the vault open.
async fn used(place: &Place, clock: &Clock, processes: &[Account]) {
    processes[0].sign_in(EMAIL, place.password.clone(), true).await.unwrap();
    for name in ["a", "b", "c"] {
        let wanted = serde_json::from_value(json!({ "name": name })).unwrap();
        processes[0].create_key(wanted).await.unwrap();
    }
    for round in 0..6 {
        clock.advance(TimeDelta::hours(2));
        processes[round % processes.len()].list_models(true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_signing_out_with_forget_keys_no_record_on_disk_holds_a_password_token_or_key() {
    let clock = Clock::manual(Timestamp::from_timestamp(1_800_000_000, 0).unwrap());
    let config = SandboxConfig { clock: clock.clone(), refresh_tokens: true, ..like_the_seed() };
    let sandbox = sandbox(config).await;
    let place = Place::new(&sandbox);
    // Another process keeps the vault and its log open to the end.
    let processes = [account(&place, &clock), account(&place, &clock)];
    used(&place, &clock, &processes).await;

    let before = readable(&place);
    assert!(contains(&before, &place.password), "the search finds a record that is there");
    let secrets = sandbox.secrets_issued();
    assert!(secrets.iter().any(|secret| contains(&before, secret)));

    processes[0].sign_out(true).await.unwrap();
    let after = readable(&place);
    assert_eq!(after.len(), 1, "only the record that is empty now");
    for secret in secrets.iter().chain([&place.password]) {
        assert!(!contains(&after, secret));
    }
    let (code, _, told) = place.run(&["logout", "--forget-keys"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(readable(&place).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_leaves_no_record_with_the_token_that_it_replaced() {
    let clock = Clock::manual(Timestamp::from_timestamp(1_800_000_000, 0).unwrap());
    let sandbox = sandbox(SandboxConfig { clock: clock.clone(), ..like_the_seed() }).await;
    let place = Place::new(&sandbox);
    let processes = [account(&place, &clock), account(&place, &clock)];
    used(&place, &clock, &processes).await;
    assert_eq!(readable(&place).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_shows_whose_account_it_is() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let mut command = place.command(&["stdio"]);
    command.env("BONDMCP_EMAIL", EMAIL).env("BONDMCP_PASSWORD", secrets::text(&place.password));
    let server = crate::common::Server::spawn(&mut command).await;
    server.ok("list_models", json!({})).await;
    for (path, bytes) in crate::common::files(&place.data_dir()) {
        for shown in [EMAIL, "environment:", &place.base_url] {
            let found = bytes.windows(shown.len()).any(|window| window == shown.as_bytes());
            assert!(!found || path.ends_with("audit.jsonl"), "{shown} stands in {}", path.display());
        }
    }
    server.end().await;
}
