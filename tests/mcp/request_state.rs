//! Request states: what passes through a host between the rounds of a call is good for one use, by its owner, for that
//! call, in any process that uses the same vault.

use std::time::Duration;

use crate::common::{
    EMAIL, OTHER_EMAIL, Place,
    browser::{Browser, text},
    fast_time::fast,
    like_the_seed, on_both_stores, open,
    raw::{ask, modern_as},
    sandbox, secrets, within,
};
use bondmcp_server::{
    account::{Account, Accounts, Owner},
    bondmcp::{Timing, wire::CreateApiKey},
    clock::Clock,
    config::{Flags, Settings},
    mcp::{BondMcp, Limits, Selection},
    sandbox::{Plan, RunningSandbox},
    secret::{self, SecretString},
    sign_in::{self, Options, Request, SignIn},
};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// One process: a server with accounts of its own in a shared vault.
struct Replica {
    accounts: Accounts,
    server: BondMcp,
    clock: Clock,
}

/// The people, and the vault that the replicas share.
struct World {
    sandbox: RunningSandbox,
    place: Place,
    /// The URL of the vault; `None` for SQLite in the place's directory.
    vault: Option<String>,
    now: bondmcp_server::clock::Timestamp,
}

impl World {
    async fn over(vault: Option<String>) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        sandbox.add_account(OTHER_EMAIL, &place.password, Plan::Unlimited, true);
        Self { sandbox, place, vault, now: Utc::now() }
    }

    fn replica(&self) -> Replica {
        self.replica_at(TimeDelta::zero())
    }

    /// A replica whose clock is wrong by `skew`.
    fn replica_at(&self, skew: TimeDelta) -> Replica {
        self.replica_of("BONDMCP_SEALING_KEY", secrets::text(&self.place.sealing_key), skew)
    }

    /// A replica with its sealing keys from `variable`.
    fn replica_of(&self, variable: &str, keys: &str, skew: TimeDelta) -> Replica {
        let settings = Settings::load(Flags::default(), None, |name| match name {
            "BONDMCP_BASE_URL" => Some(self.place.base_url.clone().into()),
            "BONDMCP_DATA_DIR" => Some(self.place.data_dir().into()),
            "BONDMCP_VAULT" => self.vault.clone().map(Into::into),
            name if name == variable => Some(keys.into()),
            _ => None,
        })
        .unwrap();
        let clock = Clock::manual(self.now + skew);
        let (accounts, _) = open(&settings, clock.clone(), Timing::default());
        let (selection, stopping) = (Selection::default(), CancellationToken::new());
        let page = Some(Options::default());
        let server = BondMcp::new(accounts.clone(), page, &selection, Limits::default(), stopping).unwrap();
        Replica { accounts, server, clock }
    }
}

fn owner(name: &str) -> Owner {
    Owner::Subject(name.to_owned())
}

impl Replica {
    fn account(&self, name: &str) -> Account {
        self.accounts.open(&owner(name))
    }

    /// Sends a message of `owner` on a connection of its own; returns the answer.
    async fn ask(&self, owner: &Owner, message: &Value) -> Value {
        ask(&self.server, owner, message).await
    }

    async fn signed_in(&self, name: &str, email: &str, password: &SecretString) {
        let authenticator = self.accounts.authenticator();
        let somebody = within(authenticator.with_password(email, password.clone())).await.unwrap();
        within(self.account(name).adopt(somebody, true)).await.unwrap();
    }

    /// Creates a key; returns its id.
    async fn key(&self, name: &str) -> String {
        let wanted = CreateApiKey { name: "ci".to_owned(), description: None, permissions: vec![] };
        within(self.account(name).create_key(wanted)).await.unwrap().id
    }
}

fn revoke(key: &str, more: &Value) -> Value {
    let mut params = json!({"name": "manage_api_keys", "arguments": {"action": "revoke", "key_id": key}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(1, "tools/call", params, json!({"elicitation": {"form": {}}}))
}

/// A repetition of `revoke` with the person's consent.
fn confirmed(key: &str, state: &str) -> Value {
    let answer = json!({"action": "accept", "content": {"confirm": true}});
    revoke(key, &json!({"requestState": state, "inputResponses": {"person": answer}}))
}

fn state(answer: &Value) -> String {
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    answer["result"]["requestState"].as_str().unwrap().to_owned()
}

#[track_caller]
fn assert_stale(answer: &Value) {
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("call again without it"), "{answer}");
}

#[track_caller]
fn assert_done(answer: &Value) {
    assert!(answer["result"]["structuredContent"].is_object(), "{answer}");
    assert_ne!(answer["result"]["isError"], true, "{answer}");
}

on_both_stores! {
    async fn a_state_serves_its_owner_and_its_call_once_in_any_process(world: World) {
        let (one, two) = (world.replica(), world.replica());
        let password = &world.place.password;
        one.signed_in("ada", EMAIL, password).await;
        one.signed_in("grace", OTHER_EMAIL, password).await;
        let (key, other_key) = (one.key("ada").await, one.key("ada").await);
        let graces = one.key("grace").await;
        let (ada, grace) = (owner("ada"), owner("grace"));
        let sealed = state(&one.ask(&ada, &revoke(&key, &json!({}))).await);

        for replica in [&one, &two] {
            // Another owner, with the same arguments and with a key of their own.
            assert_stale(&replica.ask(&grace, &confirmed(&key, &sealed)).await);
            assert_stale(&replica.ask(&grace, &confirmed(&graces, &sealed)).await);
            assert_stale(&replica.ask(&replica.server.local_owner(), &confirmed(&key, &sealed)).await);
            // Another call.
            assert_stale(&replica.ask(&ada, &confirmed(&other_key, &sealed)).await);
            let rotate = json!({"name": "manage_api_keys", "requestState": sealed,
                "arguments": {"action": "rotate", "key_id": key}});
            assert_stale(&replica.ask(&ada, &modern_as(1, "tools/call", rotate, json!({}))).await);
            let list = json!({"name": "list_models", "arguments": {}, "requestState": sealed});
            assert_stale(&replica.ask(&ada, &modern_as(1, "tools/call", list, json!({}))).await);
        }
        assert_eq!(world.sandbox.live_keys(EMAIL).len(), 2);

        // None of that has used it up.
        assert_done(&two.ask(&ada, &confirmed(&key, &sealed)).await);
        for replica in [&two, &one, &world.replica()] {
            assert_stale(&replica.ask(&ada, &confirmed(&key, &sealed)).await);
        }
        assert_eq!(world.sandbox.live_keys(EMAIL).len(), 1);
        assert_eq!(world.sandbox.live_keys(OTHER_EMAIL).len(), 1);
    }

    async fn of_many_uses_at_once_one_counts(world: World) {
        let replicas = [world.replica(), world.replica(), world.replica()];
        replicas[0].signed_in("ada", EMAIL, &world.place.password).await;
        let key = replicas[0].key("ada").await;
        let ada = owner("ada");
        let sealed = state(&replicas[0].ask(&ada, &revoke(&key, &json!({}))).await);
        // A question again, as long as the person has not answered: the state is used up all the same.
        let repeated = revoke(&key, &json!({"requestState": sealed}));
        let uses = (0..12).map(|number| replicas[number % 3].ask(&ada, &repeated));
        let answers = futures_util::future::join_all(uses).await;
        let counted = answers.iter().filter(|answer| answer["result"]["requestState"].is_string());
        assert_eq!(counted.count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer["error"]["code"] == -32602).count(), 11);
    }

    async fn a_forged_state_is_refused_and_uses_up_nothing(world: World) {
        let replica = world.replica();
        replica.signed_in("ada", EMAIL, &world.place.password).await;
        let (key, ada) = (replica.key("ada").await, owner("ada"));
        let sealed = state(&replica.ask(&ada, &revoke(&key, &json!({}))).await);
        // The vault of somebody who has the program and not the keys.
        let elsewhere = Place { directory: tempfile::tempdir().unwrap(), sealing_key: secret::random(),
            base_url: world.place.base_url.clone(), password: world.place.password.clone() };
        let elsewhere = World { place: elsewhere, vault: None, now: world.now, sandbox: sandbox(like_the_seed()).await };
        let elsewhere = elsewhere.replica();
        elsewhere.signed_in("ada", EMAIL, &world.place.password).await;
        let forged = state(&elsewhere.ask(&ada, &revoke(&key, &json!({}))).await);

        let parts: Vec<&str> = sealed.split('.').collect();
        let mut attempts = vec![forged, String::new(), "nonsense".into(), "rs2...".into(), "rs1.AAAA.AAAA".into()];
        attempts.push(format!("{sealed}A"));
        attempts.push(sealed[..sealed.len() - 1].to_owned());
        for at in 0..parts.len() {
            let mut parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
            let middle = parts[at].len() / 2;
            let other = if parts[at].as_bytes()[middle] == b'A' { "B" } else { "A" };
            parts[at].replace_range(middle..=middle, other);
            attempts.push(parts.join("."));
        }
        for attempt in attempts {
            assert_stale(&replica.ask(&ada, &confirmed(&key, &attempt)).await);
        }
        assert_done(&replica.ask(&ada, &confirmed(&key, &sealed)).await);
    }

    async fn a_state_expires_and_clocks_an_hour_apart_do_no_harm(world: World) {
        let hour = TimeDelta::hours(1);
        let (right, ahead, behind) =
            (world.replica(), world.replica_at(hour), world.replica_at(-hour));
        right.signed_in("ada", EMAIL, &world.place.password).await;
        let ada = owner("ada");
        for (sealing, opening) in [(&right, &ahead), (&ahead, &right), (&right, &behind), (&behind, &right)] {
            let key = right.key("ada").await;
            let sealed = state(&sealing.ask(&ada, &revoke(&key, &json!({}))).await);
            opening.clock.advance(TimeDelta::minutes(9));
            assert_done(&opening.ask(&ada, &confirmed(&key, &sealed)).await);
            assert_stale(&sealing.ask(&ada, &confirmed(&key, &sealed)).await);
            opening.clock.advance(TimeDelta::minutes(-9));
        }

        let key = right.key("ada").await;
        let sealed = state(&right.ask(&ada, &revoke(&key, &json!({}))).await);
        let late = world.replica_at(TimeDelta::minutes(71));
        assert_stale(&late.ask(&ada, &confirmed(&key, &sealed)).await);
        // Nor is one accepted that seems to come from the future: how long it was good would be unknown.
        let early = world.replica_at(-TimeDelta::minutes(61));
        assert_stale(&early.ask(&ada, &confirmed(&key, &sealed)).await);
        assert_done(&right.ask(&ada, &confirmed(&key, &sealed)).await);
    }

    async fn a_change_of_sealing_keys_breaks_no_round(world: World) {
        let old = secrets::text(&world.place.sealing_key);
        let both = format!("{}\n{old}", secrets::text(&secret::random()));
        let file = world.place.directory.path().join("keys");
        write_private(&file, old);
        let begun_before = world.replica_of("BONDMCP_SEALING_KEY_FILE", file.to_str().unwrap(), TimeDelta::zero());
        begun_before.signed_in("ada", EMAIL, &world.place.password).await;
        let ada = owner("ada");
        let (first, second) = (begun_before.key("ada").await, begun_before.key("ada").await);
        let sealed = state(&begun_before.ask(&ada, &revoke(&first, &json!({}))).await);

        write_private(&file, &both);
        let mut rekey = world.place.command(&["vault", "rekey", "--yes"]);
        rekey.env_remove("BONDMCP_SEALING_KEY").env("BONDMCP_SEALING_KEY_FILE", &file);
        if let Some(vault) = &world.vault {
            rekey.env("BONDMCP_VAULT", vault);
        }
        let (code, _, told) = crate::common::run(&mut rekey, "").await;
        assert_eq!(code, Some(0), "{told}");

        // From before the change to after it, and back to a process that has not noticed it yet.
        let begun_after = world.replica_of("BONDMCP_SEALING_KEY_FILE", file.to_str().unwrap(), TimeDelta::zero());
        let sealed_after = state(&begun_after.ask(&ada, &revoke(&second, &json!({}))).await);
        assert_done(&begun_after.ask(&ada, &confirmed(&first, &sealed)).await);
        assert_done(&begun_before.ask(&ada, &confirmed(&second, &sealed_after)).await);
        for replica in [&begun_before, &begun_after] {
            assert_stale(&replica.ask(&ada, &confirmed(&first, &sealed)).await);
            assert_stale(&replica.ask(&ada, &confirmed(&second, &sealed_after)).await);
        }
        assert!(world.sandbox.live_keys(EMAIL).is_empty());
    }
}

/// Writes a file that only its owner may read.
fn write_private(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn list_models(more: &Value) -> Value {
    let mut params = json!({"name": "list_models", "arguments": {}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(1, "tools/call", params, json!({"elicitation": {"url": {}}}))
}

fn accepted(state: &str) -> Value {
    list_models(&json!({"requestState": state, "inputResponses": {"person": {"action": "accept"}}}))
}

on_both_stores! {
    async fn another_process_waits_for_the_sign_in_that_was_begun_in_the_first(world: World) {
        for skew in [0, 1, -1].map(TimeDelta::hours) {
            let (one, two) = (world.replica(), world.replica_at(skew));
            let ada = one.server.local_owner();
            let first = one.ask(&ada, &list_models(&json!({}))).await;
            let second = one.ask(&ada, &list_models(&json!({}))).await;
            let url = first["result"]["inputRequests"]["person"]["params"]["url"].as_str().unwrap();
            let browser = Browser::open(url).await;
            let retry = accepted(&state(&first));
            let (answer, page) = tokio::join!(two.ask(&ada, &retry), browser.sign_in(&world.place.password));
            assert!(text(page).await.contains("You are signed in"));
            assert_eq!(answer["result"]["structuredContent"]["count"], 3, "{answer}");
            // A retry that comes when the sign-in is over goes on at once.
            let answer = world.replica().ask(&ada, &accepted(&state(&second))).await;
            assert_eq!(answer["result"]["structuredContent"]["count"], 3, "{answer}");
            within(one.accounts.local().sign_out(false)).await.unwrap();
            within(one.server.close()).await;
        }
    }

    async fn a_retry_after_the_end_of_the_process_with_the_page_is_told_so(world: World) {
        let one = world.replica();
        let ada = one.server.local_owner();
        let sealed = state(&one.ask(&ada, &list_models(&json!({}))).await);
        within(one.server.close()).await;
        let answer = world.replica().ask(&ada, &accepted(&sealed)).await;
        let told = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(told.starts_with("The process that served the sign-in page has ended."), "{told}");
    }

    async fn the_pending_sign_in_of_one_owner_is_no_others(world: World) {
        let (one, two) = (world.replica(), world.replica());
        let sealed = state(&one.ask(&owner("ada"), &list_models(&json!({}))).await);
        for replica in [&one, &two] {
            assert_stale(&replica.ask(&owner("grace"), &accepted(&sealed)).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_no_vault_is_opened() {
    let world = World::over(None).await;
    let replica = world.replica();
    let status = json!({"name": "auth_status", "arguments": {}});
    assert_done(&replica.ask(&owner("ada"), &modern_as(1, "tools/call", status, json!({}))).await);
    assert!(!world.place.data_dir().join("vault.db").exists());
}

/// As another computer with the same vault does it: its page is on its own loopback.
#[tokio::test]
async fn a_page_on_another_computer_is_put_into_words() {
    let world = World::over(None).await;
    let (here, elsewhere) = (world.replica(), world.replica());
    let (ada, there) = (here.accounts.local(), elsewhere.accounts.local());
    let (closed, _held) = crate::common::refusing_port();
    let told = fast(async {
        assert!(there.acquire_announcement_lease("elsewhere").await.unwrap());
        let announcement = json!({
            "name": "a-name", "url": format!("http://{closed}/id"), "code": "ABC-DEF", "state": "Open",
            "expires_at": world.now + Duration::from_mins(5), "peer_key": "a-key-of-both",
        });
        let lifetime = Duration::from_mins(5);
        there.publish_announcement(announcement.to_string().as_bytes(), lifetime).await.unwrap();
        let alive = async {
            loop {
                assert!(there.acquire_announcement_lease("elsewhere").await.unwrap());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let sign_in = SignIn::new(ada, Options::default());
        tokio::select! {
            begun = sign_in.begin(Request::new(bondmcp_server::account::RequiredCredential::Api)) => begun.unwrap_err(),
            () = alive => unreachable!(),
        }
    })
    .await;
    assert!(matches!(told, sign_in::Error::Elsewhere { .. }), "{told:?}");
    let told = bondmcp_server::error::UserFacingError::from(&told).to_string();
    assert!(told.contains("probably on another computer") && told.contains("in 5 minutes"), "{told}");
    assert!(told.contains("`bondmcp-server login`"), "{told}");
}
