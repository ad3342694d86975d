//! The upstream client against the sandbox: every endpoint once, and its handling of failures.

use std::time::Duration;

use crate::common::{EMAIL, fast_time::fast, random_password, sandbox, secrets, within};
use bondmcp_server::{
    bondmcp::{
        BreakCause, Client, ConnectFailure, Error, POSSIBLY_BILLED, Sent, Timing,
        wire::{CreateApiKey, health::AnalysisRequest},
    },
    clock::Clock,
    error::UserFacingError,
    redact::Redactor,
    sandbox::{Fault, ModelShape, Plan, RunningSandbox, SandboxConfig},
    secret::SecretString,
};
use tokio::time::Instant;

const MODELS: &str = "GET /health-ai/models";
const ANALYZE: &str = "POST /health-ai/analyze";
const CREATE: &str = "POST /auth/api-keys";

/// A time-out by the [fast](crate::common::fast_time) clock: a request arrives before it passes, however busy the machine.
const HASTY: Duration = Duration::from_secs(2);

/// A configuration with short pauses between attempts, and `request` as the time-out.
fn client(sandbox: &RunningSandbox, request: Duration) -> Client {
    let timing = Timing {
        connect: Duration::from_secs(10),
        request,
        billed: request,
        deadline: Duration::from_secs(30),
        first_wait: Duration::from_millis(1),
        open_for: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
    };
    let base_url = sandbox.base_url().parse().unwrap();
    Client::new(base_url, Redactor::default(), Clock::system(), timing)
}

async fn signed_in(config: SandboxConfig) -> (RunningSandbox, Client, SecretString) {
    let sandbox = sandbox(config).await;
    let password = random_password();
    sandbox.add_account(EMAIL, &password, Plan::Unlimited, true);
    let client = client(&sandbox, Duration::from_secs(30));
    let token = client.login(EMAIL, &password).await.unwrap().access_token;
    (sandbox, client, token)
}

fn wanted(name: &str) -> CreateApiKey {
    CreateApiKey { name: name.to_owned(), description: None, permissions: vec![] }
}

fn host(sandbox: &RunningSandbox) -> String {
    sandbox.address().to_string()
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Refused(refusal) => Some(refusal.status),
        _ => None,
    }
}

#[tokio::test]
async fn every_endpoint_answers_and_is_understood() {
    let sandbox = sandbox(SandboxConfig { plan: Plan::Unlimited, ..SandboxConfig::default() }).await;
    let client = Client::new(
        sandbox.base_url().parse().unwrap(),
        Redactor::default(),
        Clock::system(),
        Timing::default(),
    );
    let password = random_password();
    let registered = client.register(EMAIL, &password).await.unwrap();
    assert_eq!(registered.email, EMAIL);
    assert_eq!(status(&client.login(EMAIL, &password).await.unwrap_err()), Some(403));
    sandbox.verify(EMAIL);
    let first = client.login(EMAIL, &password).await.unwrap();
    assert_eq!(first.user.unwrap().id, registered.user_id);
    let token = client.refresh(&first.refresh_token.unwrap()).await.unwrap().access_token;
    assert!(client.me(&first.access_token).await.unwrap_err().is_unauthorized());
    assert_eq!(client.me(&token).await.unwrap().email, EMAIL);
    assert_eq!(client.list_models(&token).await.unwrap().len(), 3);

    let key = client.create_api_key(&token, &wanted("ci")).await.unwrap();
    assert_eq!(client.list_models(&key.api_key).await.unwrap().len(), 3);
    assert_eq!(status(&client.list_api_keys(&key.api_key).await.unwrap_err()), Some(403));
    assert_eq!(client.list_api_keys(&token).await.unwrap()[0].id, key.id);
    let usage = client.api_key_usage(&token, &key.id).await.unwrap();
    assert!(usage.endpoints_used.iter().any(|used| used.endpoint == "/health-ai/models"));
    let renewed = client.regenerate_api_key(&token, &key.id).await.unwrap();
    assert!(client.list_models(&key.api_key).await.unwrap_err().is_unauthorized());
    client.revoke_api_key(&token, &key.id).await.unwrap();
    assert!(client.list_models(&renewed.api_key).await.unwrap_err().is_unauthorized());
    assert!(client.revoke_api_key(&token, &key.id).await.unwrap_err().is_not_found());
    client.logout(&token).await.unwrap();
    assert!(client.me(&token).await.unwrap_err().is_unauthorized());
}

#[tokio::test]
async fn models_are_read_in_every_shape() {
    for model_shape in [ModelShape::Models, ModelShape::Data, ModelShape::Array, ModelShape::Names] {
        let (_sandbox, client, token) =
            signed_in(SandboxConfig { model_shape, ..SandboxConfig::default() }).await;
        let models = client.list_models(&token).await.unwrap();
        assert_eq!(models[0].id, "sandbox-general-1");
        assert_eq!(models[0].extra.contains_key("context_window"), model_shape != ModelShape::Names);
    }
}

#[tokio::test]
async fn a_read_is_tried_three_times_and_a_write_once() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    for fault in [Fault::Status(500), Fault::Status(503), Fault::Html(502), Fault::TooMany(None), Fault::Drop]
    {
        let (reads, writes) = (sandbox.count(MODELS), sandbox.count(CREATE));
        sandbox.faults().always(MODELS, fault.clone());
        sandbox.faults().always(CREATE, fault);
        client.list_models(&token).await.unwrap_err();
        client.create_api_key(&token, &wanted("ci")).await.unwrap_err();
        assert_eq!((sandbox.count(MODELS) - reads, sandbox.count(CREATE) - writes), (3, 1));
        sandbox.faults().clear();
        // A successful call, so that the circuit does not open.
        client.me(&token).await.unwrap();
    }
    sandbox.faults().next(MODELS, Fault::DropMidBody);
    sandbox.faults().next(MODELS, Fault::Status(503));
    client.list_models(&token).await.unwrap();
}

#[tokio::test]
async fn what_trying_again_cannot_mend_is_not_tried_again() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    for fault in [
        Fault::Status(400),
        Fault::Status(401),
        Fault::Status(402),
        Fault::Status(404),
        Fault::NotJson,
        Fault::OtherShape,
        Fault::Oversize,
        Fault::TooMany(Some("3600".to_owned())),
    ] {
        let before = sandbox.count(MODELS);
        sandbox.faults().next(MODELS, fault.clone());
        client.list_models(&token).await.unwrap_err();
        assert_eq!(sandbox.count(MODELS) - before, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn each_failure_is_distinguished() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    let host = || host(&sandbox);
    for (fault, expected) in [
        (Fault::NotJson, Error::Unreadable { host: host() }),
        (Fault::OtherShape, Error::Unreadable { host: host() }),
        (Fault::Oversize, Error::Oversize { host: host(), limit: 4 << 20 }),
        (Fault::Drop, Error::Broken { host: host(), cause: BreakCause::Closed }),
        (Fault::DropMidBody, Error::Broken { host: host(), cause: BreakCause::Closed }),
    ] {
        sandbox.faults().always(MODELS, fault);
        assert_eq!(client.list_models(&token).await.unwrap_err(), expected);
    }
    sandbox.faults().always(MODELS, Fault::Hang);
    let hasty = self::client(&sandbox, HASTY);
    assert_eq!(fast(hasty.list_models(&token)).await.unwrap_err(), Error::Timeout { host: host() });
    let address = sandbox.base_url();
    drop(sandbox);
    let gone = Client::new(address.parse().unwrap(), Redactor::default(), Clock::system(), Timing::default());
    let outcome = within(gone.list_models(&token)).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. } | Error::Broken { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, ..) = signed_in(SandboxConfig::default()).await;
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    let before = elsewhere.counts();
    sandbox.faults().next(MODELS, Fault::Redirect(format!("{}/health-ai/models", elsewhere.base_url())));
    let redirected = Error::Redirected { host: host(&sandbox), status: 307 };
    assert_eq!(client.list_models(&token).await.unwrap_err(), redirected);
    assert_eq!(elsewhere.counts(), before);
}

#[tokio::test]
async fn an_echoed_credential_is_redacted_from_the_refusal() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    sandbox.faults().next(MODELS, Fault::Echo);
    let refusal = format!("{:?}", client.list_models(&token).await.unwrap_err());
    secrets::assert_absent(std::slice::from_ref(&token), refusal.as_bytes(), "the refusal");
    assert!(refusal.contains("[redacted]"));
    let password = random_password();
    sandbox.faults().next("POST /auth/login", Fault::Echo);
    let refusal = format!("{:?}", client.login(EMAIL, &password).await.unwrap_err());
    secrets::assert_absent(&[password], refusal.as_bytes(), "the refusal");
}

#[tokio::test]
async fn a_credential_that_is_no_header_value_is_refused_here() {
    let (sandbox, client, _) = signed_in(SandboxConfig::default()).await;
    let before = sandbox.count(MODELS);
    let outcome = client.list_models(&"line\nbreak".into()).await;
    assert_eq!((outcome.unwrap_err(), sandbox.count(MODELS)), (Error::InvalidCredential, before));
}

fn question() -> AnalysisRequest {
    serde_json::from_value(serde_json::json!({"prompt": "Why?", "analysis_type": "general"})).unwrap()
}

#[tokio::test]
async fn a_billed_request_that_may_have_been_processed_is_not_repeated_and_says_so() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    assert_eq!(client.health_service(&token, &question(), &Sent::default()).await.unwrap().cost, Some(0.05));
    let hasty = self::client(&sandbox, HASTY);
    let host = || host(&sandbox);
    for (fault, client, cause) in [
        (Fault::Hang, &hasty, Error::Timeout { host: host() }),
        (Fault::ProcessThenHang, &hasty, Error::Timeout { host: host() }),
        (Fault::Drop, &client, Error::Broken { host: host(), cause: BreakCause::Closed }),
        (Fault::DropMidBody, &client, Error::Broken { host: host(), cause: BreakCause::Closed }),
        (Fault::OtherShape, &client, Error::Unreadable { host: host() }),
        // It would take many times as much memory.
        (
            Fault::Answer(serde_json::json!(vec![serde_json::json!({"": 0}); 100_000])),
            &client,
            Error::Oversize { host: host(), limit: 32 << 20 },
        ),
        (Fault::Oversize, &client, Error::Oversize { host: host(), limit: 4 << 20 }),
        (Fault::ProcessThenStatus(303), &client, Error::Redirected { host: host(), status: 303 }),
        (Fault::ProcessThenStatus(302), &client, Error::Redirected { host: host(), status: 302 }),
    ] {
        let before = sandbox.count(ANALYZE);
        sandbox.faults().next(ANALYZE, fault.clone());
        let error = fast(client.health_service(&token, &question(), &Sent::default())).await.unwrap_err();
        assert_eq!(error, Error::PossiblyBilled { cause: Box::new(cause) }, "{fault:?}");
        assert_eq!(UserFacingError::from(&error).solution, POSSIBLY_BILLED);
        assert_eq!(sandbox.count(ANALYZE) - before, 1, "{fault:?}");
    }
    for code in [400, 401, 402, 403, 422] {
        sandbox.faults().next(ANALYZE, Fault::Status(code));
        assert_eq!(
            status(&client.health_service(&token, &question(), &Sent::default()).await.unwrap_err()),
            Some(code)
        );
    }
}

#[tokio::test]
async fn a_post_that_is_answered_with_303_or_302_may_have_been_processed_and_with_another_redirect_not() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    for (code, unprocessed) in [(301, true), (307, true), (308, true), (302, false), (303, false)] {
        sandbox.faults().next(CREATE, Fault::ProcessThenStatus(code));
        let error = client.create_api_key(&token, &wanted("ci")).await.unwrap_err();
        assert_eq!(error.is_certainly_unprocessed(), unprocessed, "{code}");
        sandbox.faults().next(ANALYZE, Fault::ProcessThenStatus(code));
        let error = client.health_service(&token, &question(), &Sent::default()).await.unwrap_err();
        assert_eq!(error.is_possibly_billed(), !unprocessed, "{code}");
    }
}

/// BondMCP says with each answer how much of the minute's limit is left: with the last one, nothing.
#[tokio::test]
async fn a_request_that_fails_with_the_last_one_of_the_minute_may_have_been_processed() {
    for status in [503, 500, 408] {
        let sandbox = sandbox(SandboxConfig::default()).await;
        let password = random_password();
        sandbox.add_account(EMAIL, &password, Plan::Free, true);
        let client = client(&sandbox, Duration::from_secs(30));
        let token = client.login(EMAIL, &password).await.unwrap().access_token;
        while client.allowance().is_none_or(|allowance| allowance.remaining > 1) {
            client.list_models(&token).await.unwrap();
        }
        sandbox.faults().next(ANALYZE, Fault::ProcessThenStatus(status));
        let sent = Sent::default();
        let error = client.health_service(&token, &question(), &sent).await.unwrap_err();
        assert!(error.is_possibly_billed(), "{status}: {error:?}");
        assert_eq!(sandbox.count(ANALYZE), 1, "{status}");
    }
}

#[tokio::test]
async fn a_billed_request_that_was_certainly_not_processed_is_repeated() {
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    for fault in [Fault::TooMany(None), Fault::TooMany(Some("0".to_owned())), Fault::Busy("0".to_owned())] {
        let before = sandbox.count(ANALYZE);
        sandbox.faults().next(ANALYZE, fault.clone());
        sandbox.faults().next(ANALYZE, fault);
        client.health_service(&token, &question(), &Sent::default()).await.unwrap();
        assert_eq!(sandbox.count(ANALYZE) - before, 3);
    }
    let before = sandbox.count(ANALYZE);
    sandbox.faults().next(ANALYZE, Fault::Busy("3600".to_owned()));
    let error = client.health_service(&token, &question(), &Sent::default()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
    assert!(error.is_certainly_unprocessed());
    assert_eq!(sandbox.count(ANALYZE) - before, 1);
}

/// It waits as long as BondMCP asks it to.
fn patient(sandbox: &RunningSandbox, billed: Duration) -> Client {
    let timing = Timing { billed, longest_wait: Duration::from_mins(1), ..Timing::default() };
    Client::new(sandbox.base_url().parse().unwrap(), Redactor::default(), Clock::system(), timing)
}

#[tokio::test]
async fn a_billed_request_that_was_not_processed_counts_as_sent_no_longer_while_the_next_attempt_is_waited_for()
 {
    let (sandbox, _, token) = signed_in(SandboxConfig::default()).await;
    for fault in [Fault::TooMany(Some("30".to_owned())), Fault::Busy("30".to_owned())] {
        let client = patient(&sandbox, Duration::from_secs(45));
        let before = sandbox.count(ANALYZE);
        sandbox.faults().next(ANALYZE, fault.clone());
        let (sent, question) = (Sent::default(), question());
        let call = client.health_service(&token, &question, &sent);
        // The call is over before the wait is.
        fast(tokio::time::timeout(Duration::from_secs(10), call)).await.unwrap_err();
        assert_eq!((sandbox.count(ANALYZE) - before, sent.get()), (1, false), "{fault:?}");
    }
}

#[tokio::test]
async fn each_attempt_of_a_billed_request_has_its_full_time() {
    let (sandbox, _, token) = signed_in(SandboxConfig::default()).await;
    let client = patient(&sandbox, Duration::from_secs(10));
    sandbox.faults().next(ANALYZE, Fault::TooMany(Some("8".to_owned())));
    sandbox.faults().next(ANALYZE, Fault::Slow(Duration::from_secs(5)));
    fast(client.health_service(&token, &question(), &Sent::default())).await.unwrap();
    assert_eq!(sandbox.count(ANALYZE), 2);
}

#[tokio::test]
async fn a_billed_request_is_neither_sent_nor_repeated_after_its_latest_start() {
    let (sandbox, _, token) = signed_in(SandboxConfig::default()).await;
    let client = patient(&sandbox, Duration::from_secs(45));
    let sent = Sent::by(Instant::now() - Duration::from_secs(1));
    let error = client.health_service(&token, &question(), &sent).await.unwrap_err();
    assert_eq!((error, sent.get(), sandbox.count(ANALYZE)), (Error::TooLate, false, 0));
    // BondMCP asks for a wait that would take longer.
    sandbox.faults().next(ANALYZE, Fault::TooMany(Some("50".to_owned())));
    let sent = Sent::by(Instant::now() + Duration::from_secs(40));
    let error = within(client.health_service(&token, &question(), &sent)).await.unwrap_err();
    assert_eq!((error.status(), sent.get(), sandbox.count(ANALYZE)), (Some(429), false, 1));
}

#[tokio::test]
async fn a_billed_request_is_repeated_when_the_connection_is_refused() {
    let (free, _held) = crate::common::refusing_port();
    let base_url = format!("http://{free}/mcp").parse().unwrap();
    let timing = Timing { first_wait: Duration::from_millis(1), ..Timing::default() };
    let client = Client::new(base_url, Redactor::default(), Clock::system(), timing);
    let error = client
        .health_service(&bondmcp_server::secret::random(), &question(), &Sent::default())
        .await
        .unwrap_err();
    assert_eq!(error, Error::Unreachable { host: free.to_string(), cause: ConnectFailure::Refused });
}

#[tokio::test]
async fn after_a_pause_the_upstream_is_probed_before_anything_else() {
    const HEALTH: &str = "GET /health";
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    sandbox.faults().always(MODELS, Fault::Status(500));
    sandbox.faults().always(HEALTH, Fault::Status(500));
    for _ in 0..5 {
        client.list_models(&token).await.unwrap_err();
    }
    let asked = sandbox.count(MODELS);
    // The pause is short here: only the probe is sent, whether it is over or not.
    let refused = async {
        while sandbox.count(HEALTH) == 0 {
            client.list_models(&token).await.unwrap_err();
        }
    };
    within(refused).await;
    assert_eq!(sandbox.count(MODELS), asked);
    sandbox.faults().clear();
    within(async { while client.list_models(&token).await.is_err() {} }).await;
    let probes = sandbox.count(HEALTH);
    assert!(probes >= 2);
    client.list_models(&token).await.unwrap();
    assert_eq!(sandbox.count(HEALTH), probes);
}

#[tokio::test]
async fn a_probe_that_fails_before_a_billed_request_bills_nothing() {
    const HEALTH: &str = "GET /health";
    let (sandbox, client, token) = signed_in(SandboxConfig::default()).await;
    sandbox.faults().always(MODELS, Fault::Status(500));
    sandbox.faults().always(HEALTH, Fault::Status(500));
    for _ in 0..5 {
        client.list_models(&token).await.unwrap_err();
    }
    let refused = async {
        while sandbox.count(HEALTH) == 0 {
            let error = client.health_service(&token, &question(), &Sent::default()).await.unwrap_err();
            assert!(!error.is_possibly_billed(), "{error:?}");
        }
    };
    within(refused).await;
}
