//! From a client's request to its code, over signing in and consent, with a browser of our own; and the attacks on it.

use crate::common::{
    EMAIL, OTHER_EMAIL,
    consent::{Browser, Form, form_token, location, text},
    hosted_server::{Authorization, HostedServer, Setup, parameter},
    publisher::Publisher,
    secrets, within,
};
use bondmcp_server::{
    account::{Error, NewGrant, Owner, Usd},
    bondmcp::wire::{CreateApiKey, Permission},
    clock::Clock,
    hosted::Released,
    oauth::{Acceptance, EndReason, Grant, MAX_GRANTS, Scopes},
    sandbox::Fault,
};
use chrono::{TimeDelta, Utc};
use futures_util::future::join;
use reqwest::StatusCode;
use serde_json::json;
use url::Url;

const CREATE: &str = "POST /auth/api-keys";
const REVOKE: &str = "DELETE /auth/api-keys/{id}";
const LOGOUT: &str = "POST /auth/logout";

async fn authorization(server: &HostedServer) -> Authorization {
    Authorization::of(server.register(&["http://127.0.0.1/callback"]).await)
}

async fn authorization_for(server: &HostedServer, redirect_uri: &str) -> Authorization {
    let client_id = server.register(&[redirect_uri]).await;
    Authorization { redirect_uri: redirect_uri.to_owned(), ..Authorization::of(client_id) }
}

/// A server whose clock stands still.
async fn at_a_time() -> HostedServer {
    HostedServer::start_with(Setup { clock: Clock::manual(Utc::now()), ..Setup::default() }).await
}

async fn all_keys_are_revoked(server: &HostedServer) {
    let revoked = async {
        while !keys(server).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    within(revoked).await;
}

fn keys(server: &HostedServer) -> Vec<String> {
    server.sandbox.live_keys(EMAIL).into_iter().map(|(_, name)| name).collect()
}

async fn grants(server: &HostedServer) -> Vec<Grant> {
    server.server.all_grants().await.unwrap()
}

/// Sweeps until so many grants are left; a replica that starts may have the turn.
async fn sweep_until(server: &HostedServer, left: usize) {
    let swept = async {
        while grants(server).await.len() != left {
            server.hosted.sweep().await;
        }
    };
    within(swept).await;
}

fn new_grant(server: &HostedServer, key_name: String) -> NewGrant {
    let (issuer, permissions) = (server.origin.clone(), vec![Permission::Read]);
    NewGrant { issuer, key_name, permissions, daily_limit: Usd::cents(5) }
}

async fn nothing_was_made(server: &HostedServer) {
    assert!(grants(server).await.is_empty());
    assert!(keys(server).is_empty());
    assert_eq!(server.sandbox.count(CREATE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_agrees_and_the_client_has_tokens_over_two_replicas() {
    let server = HostedServer::start().await;
    let other = server.replica().await;
    let authorization = authorization(&server).await;
    let browser = Browser::new(&[&server, &other]);
    let answer = browser.allow(&authorization).await;
    assert_eq!(answer.origin().ascii_serialization(), "http://127.0.0.1:3118");
    assert_eq!(
        (parameter(&answer, "state"), parameter(&answer, "iss")),
        ("the-state".into(), server.origin.clone())
    );
    assert_eq!(answer.query_pairs().filter(|(name, _)| name == "iss").count(), 1, "{answer}");

    let (status, tokens) = other.redeem(&authorization, &parameter(&answer, "code")).await;
    assert_eq!(status, 200, "{tokens}");
    let token = tokens["access_token"].as_str().unwrap();
    let [key] = &keys(&server)[..] else { panic!("one key") };
    assert!(key.starts_with("Test client (this computer) 20"), "{key}");
    let list = server.call(token, "manage_api_keys", json!({"action": "list"})).await;
    let given = format!("{tokens} {list}");
    secrets::assert_absent(&server.sandbox.secrets_issued(), given.as_bytes(), "what the app gets");
    // The session is not what calls are made with.
    server.sandbox.expire_tokens();
    for replica in [&server, &other] {
        assert_eq!(replica.call(token, "list_models", json!({})).await["count"], 3);
        let status = replica.call(token, "auth_status", json!({})).await;
        assert_eq!(status["spent"]["today"]["limit_usd"], 0.5, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_clock_is_behind_goes_on_with_what_another_has_begun() {
    let server = HostedServer::start().await;
    let behind = server.replica_at(Clock::manual(Utc::now() - TimeDelta::seconds(2))).await;
    let browser = Browser::new(&[&server]);
    let page = browser.authorize(&authorization(&server).await).await;
    let answer = browser.send(&behind, behind.http.get(behind.at(&page))).await;
    assert!(location(&answer).starts_with("/sign-in/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_that_the_person_set_holds_for_the_apps_calls() {
    let server = HostedServer::start().await;
    let authorization = authorization(&server).await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization).await;
    let mut fields = form.identity();
    fields.extend([("scope", "health"), ("daily_limit", "0.05"), ("decision", "allow")]);
    let done = location(&browser.post(&page, &fields).await);
    let answer: Url = location(&browser.get(&done).await).parse().unwrap();
    let (_, tokens) = server.redeem(&authorization, &parameter(&answer, "code")).await;
    assert_eq!(tokens["scope"], "health");
    let check = async || {
        let arguments = json!({"medications": [{"name": "aspirin"}]});
        server.call(tokens["access_token"].as_str().unwrap(), "medication_check", arguments).await
    };
    assert_eq!(check().await["cost"], 0.03);
    assert!(check().await.is_null(), "a second one does not fit");
    assert_eq!(server.sandbox.count("POST /health-ai/medication-check"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_denies_makes_nothing_and_the_client_is_told() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    let mut fields = form.identity();
    fields.push(("decision", "deny"));
    let done = location(&browser.post(&page, &fields).await);
    let answer: Url = location(&browser.get(&done).await).parse().unwrap();
    assert_eq!(parameter(&answer, "error"), "access_denied");
    assert_eq!(
        (parameter(&answer, "state"), parameter(&answer, "iss")),
        ("the-state".into(), server.origin.clone())
    );
    // Nobody agrees afterwards.
    assert_eq!(location(&browser.decide(&page, &form, "allow").await), done);
    nothing_was_made(&server).await;
}

/// RFC 6749, section 10.2: anybody can use the id of a public client, so that an earlier consent says nothing about who
/// asks now.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_was_allowed_before_is_asked_for_again() {
    let server = HostedServer::start().await;
    let authorization = authorization(&server).await;
    let browser = Browser::new(&[&server]);
    let first = parameter(&browser.allow(&authorization).await, "code");
    let (page, form) = browser.consent(&authorization).await;
    assert!(form.html.contains(r#"value="allow""#), "{}", form.html);
    assert_eq!(location(&browser.get(&format!("{page}/done")).await), page, "no code before the decision");
    assert_eq!(grants(&server).await.len(), 1);
    let done = location(&browser.decide(&page, &form, "allow").await);
    let answer: Url = location(&browser.get(&done).await).parse().unwrap();
    let second = parameter(&answer, "code");
    assert_eq!(grants(&server).await.len(), 2);
    for code in [first, second] {
        let (status, tokens) = server.redeem(&authorization, &code).await;
        assert_eq!(status, 200, "{tokens}");
    }
}

/// RFC 9700, section 4.7: an attacker cannot have somebody else finish what the attacker's browser began, nor finish
/// what somebody else's began.
#[tokio::test(flavor = "multi_thread")]
async fn another_browser_can_neither_see_nor_finish_an_authorization() {
    let server = HostedServer::start().await;
    let (ada, eve) = (Browser::new(&[&server]), Browser::new(&[&server]));
    let (page, form) = ada.consent(&authorization(&server).await).await;
    let (own_page, own_form) = eve.consent(&authorization(&server).await).await;
    let unknown = text(eve.get("/authorize/unknown").await).await;
    for path in [page.clone(), format!("{page}/done")] {
        let response = eve.get(&path).await;
        assert_eq!(response.status(), 404);
        assert_eq!(text(response).await, unknown, "it is not told from one that does not exist");
        assert_eq!(Browser::new(&[&server]).get(&path).await.status(), 404);
    }
    let stolen = Form { html: String::new(), token: own_form.token.clone(), shown: form.shown.clone() };
    for sent in [&form, &own_form, &stolen] {
        assert_eq!(eve.decide(&page, sent, "allow").await.status(), 404);
        assert_eq!(eve.post(&format!("{page}/account"), &sent.identity()).await.status(), 404);
    }
    nothing_was_made(&server).await;
    // Each can go on with what is theirs.
    ada.decide(&page, &form, "allow").await;
    // There is a code to be had now; for Ada's browser alone.
    for other in [&eve, &Browser::new(&[&server])] {
        let response = other.get(&format!("{page}/done")).await;
        assert_eq!(response.status(), 404);
        assert_eq!(text(response).await, unknown);
    }
    assert_eq!(ada.get(&format!("{page}/done")).await.status(), 302);
    eve.decide(&own_page, &own_form, "allow").await;
    assert_eq!(grants(&server).await.len(), 2);
}

/// Session fixation: who knew the cookie before somebody signed in with it does not take the code, either.
#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_from_before_the_sign_in_gets_no_code() {
    let server = HostedServer::start().await;
    let ada = Browser::new(&[&server]);
    let asked = authorization(&server).await;
    let page = ada.authorize(&asked).await;
    let before = ada.copy();
    ada.sign_in(&page, EMAIL, &server.place.password).await;
    let form = Form::of(text(ada.get(&page).await).await);
    ada.decide(&page, &form, "allow").await;
    assert_eq!(before.get(&format!("{page}/done")).await.status(), 404);
    assert_eq!(ada.get(&format!("{page}/done")).await.status(), 302);
}

/// RFC 9700, section 4.7 (CSRF): only our own page in this browser decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_page_decides_nothing() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    let fields = form.fields(&[("decision", "allow")]);
    for (name, value) in [
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
        ("x-nothing", "said"),
    ] {
        let request = browser.form(&server, &page, &fields).header(name, value);
        assert_eq!(browser.send(&server, request).await.status(), 403, "{name}: {value}");
    }
    let other = Form { token: "guessed".into(), ..Form::of(form.html.clone()) };
    assert_eq!(browser.decide(&page, &other, "allow").await.status(), 404);
    let huge = "x".repeat(20_000);
    assert_eq!(browser.post(&page, &form.fields(&[("x", &huge)])).await.status(), 413);
    nothing_was_made(&server).await;
}

/// RFC 9700, section 4.16 (clickjacking); and the way back to a client on another origin, which `form-action` would
/// block.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_not_framed_not_stored_and_do_not_stop_the_way_back() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    let answers = [
        browser.get(&page).await,
        browser.decide(&page, &form, "allow").await,
        browser.get(&format!("{page}/done")).await,
        browser.get("/authorize").await,
        browser.get("/authorize/unknown").await,
    ];
    for answer in answers {
        let header = |name: &str| answer.headers()[name].to_str().unwrap();
        let policy = header("content-security-policy");
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("form-action"), "{policy}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!((header("cache-control"), header("referrer-policy")), ("no-store", "no-referrer"));
        assert!(answer.headers().get("access-control-allow-origin").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_twice_makes_one_grant_one_key_and_one_code() {
    let server = HostedServer::start().await;
    let other = server.replica().await;
    let browser = Browser::new(&[&server, &other]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    let (one, two) =
        within(join(browser.decide(&page, &form, "allow"), browser.decide(&page, &form, "allow"))).await;
    let done = format!("{page}/done");
    // Whichever comes second may find the person signed out already, and is sent to the page, which leads on.
    for answer in [one, two] {
        let to = location(&answer);
        assert!(to == done || to == page && location(&browser.get(&page).await) == done, "{to}");
    }
    assert_eq!(location(&browser.decide(&page, &form, "deny").await), done, "too late");
    assert_eq!((grants(&server).await.len(), keys(&server).len()), (1, 1));
    let answers = within(join(browser.get(&done), browser.get(&done))).await;
    let codes = [answers.0, answers.1].iter().filter(|answer| answer.status() == StatusCode::FOUND).count();
    assert_eq!(codes, 1);
    let last = browser.get(&done).await;
    assert_eq!(last.status(), 200);
    assert!(!text(last).await.contains("code="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_agrees_is_not_told_how_bondmcp_fails() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    server.sandbox.faults().next(CREATE, Fault::Html(405));
    let done = location(&browser.decide(&page, &form, "allow").await);
    let answer = browser.get(&done).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let answer = text(answer).await;
    assert!(
        answer.contains("BondMCP cannot be reached right now.") && answer.contains("Try again"),
        "{answer}"
    );
    let told = answer.split(r#"role="alert""#).nth(1).unwrap().split("</p>").next().unwrap();
    assert!(!told.contains("127.0.0.1") && !told.contains("URL"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_agrees_to_nothing_or_to_more_than_was_asked_for() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let asked = Authorization { scope: Some("models health".into()), ..authorization(&server).await };
    let (page, form) = browser.consent(&asked).await;
    assert!(!form.html.contains(r#"value="keys""#) && form.html.contains(r#"value="5.00""#), "{}", form.html);
    for (scope, limit, message) in [
        ("keys", "5", "at least one"),
        ("models", "5,00", "US dollars"),
        ("models", "-1", "US dollars"),
        ("models", "", "US dollars"),
    ] {
        let mut fields = form.identity();
        fields.extend([("scope", scope), ("daily_limit", limit), ("decision", "allow")]);
        let response = browser.post(&page, &fields).await;
        assert_eq!(response.status(), 422, "{scope} {limit}");
        let html = text(response).await;
        assert!(html.contains(message) && html.contains(&format!(r#"value="{limit}""#)), "{html}");
    }
    nothing_was_made(&server).await;
    browser.decide(&page, &form, "allow").await;
    assert_eq!(grants(&server).await[0].scopes.to_string(), "models health");
}

#[tokio::test(flavor = "multi_thread")]
async fn not_you_signs_out_and_somebody_else_can_sign_in() {
    let (server, password) = HostedServer::start_with_two().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    assert!(form.html.contains(EMAIL));
    assert_eq!(location(&browser.post(&format!("{page}/account"), &form.identity()).await), page);
    within(server.sandbox.faults().arrived(LOGOUT, 1)).await;
    browser.sign_in(&page, OTHER_EMAIL, &password).await;
    let graces = Form::of(text(browser.get(&page).await).await);
    assert!(graces.html.contains(OTHER_EMAIL) && !graces.html.contains(EMAIL));
    // A page that is still open in another tab has shown Ada's account.
    let old = Form { shown: form.shown.clone(), ..Form::of(graces.html.clone()) };
    assert_eq!(location(&browser.decide(&page, &old, "allow").await), page);
    nothing_was_made(&server).await;
    browser.decide(&page, &graces, "allow").await;
    assert_eq!((keys(&server).len(), server.sandbox.live_keys(OTHER_EMAIL).len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_bondmcp_fails_nothing_is_left_and_the_person_can_try_again() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let authorization = authorization(&server).await;
    let (page, form) = browser.consent(&authorization).await;
    server.sandbox.faults().always(CREATE, Fault::Status(503));
    let done = location(&browser.decide(&page, &form, "allow").await);
    let failed = browser.get(&done).await;
    assert_eq!(failed.status(), 502);
    let html = text(failed).await;
    assert!(html.contains("Try again") && html.contains("Reference"), "{html}");
    server.sandbox.faults().clear();
    assert!(keys(&server).is_empty());
    for grant in grants(&server).await {
        assert!(grant.ended.is_some(), "{grant:?}");
    }

    let again = browser.try_again(&page, &html).await;
    let form = Form::of(text(browser.get(&again).await).await);
    browser.decide(&page, &form, "allow").await;
    let answer = browser.get(&done).await;
    assert_eq!(answer.status(), 302);
    assert_eq!(keys(&server).len(), 1);
}

/// The key of a request that was lost is found by its name, which must not be that of the key which was made afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_after_try_again_leaves_the_key_of_the_connection_that_came_about() {
    for fault in [Fault::Status(503), Fault::ProcessThenDrop] {
        let server = at_a_time().await;
        let browser = Browser::new(&[&server]);
        let (page, form) = browser.consent(&authorization(&server).await).await;
        server.sandbox.faults().always(CREATE, fault.clone());
        let done = location(&browser.decide(&page, &form, "allow").await);
        let html = text(browser.get(&done).await).await;
        server.sandbox.faults().clear();
        let lost = keys(&server);

        let again = browser.try_again(&page, &html).await;
        let form = Form::of(text(browser.get(&again).await).await);
        browser.decide(&page, &form, "allow").await;
        assert_eq!(browser.get(&done).await.status(), 302);
        let made: Vec<_> = keys(&server).into_iter().filter(|name| !lost.contains(name)).collect();
        assert_eq!(made.len(), 1, "{lost:?} {:?}", keys(&server));

        server.clock.advance(TimeDelta::minutes(3));
        server.place.end_leases().await;
        sweep_until(&server, 1).await;
        assert_eq!(keys(&server), made, "{fault:?}");
    }
}

/// A page of a sign-in is a record: a reload makes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_before_the_sign_in_finds_the_same_page() {
    let server = HostedServer::start().await;
    let other = server.replica().await;
    let browser = Browser::new(&[&server, &other]);
    let page = browser.authorize(&authorization(&server).await).await;
    let tabs = within(join(browser.get(&page), browser.get(&page))).await;
    let sign_in = location(&browser.get(&page).await);
    for tab in [location(&tabs.0), location(&tabs.1), location(&browser.get(&page).await)] {
        assert!(tab == sign_in || tab == page, "{tab} {sign_in}");
    }
    for _ in 0..5 {
        let token = form_token(&text(browser.get(&sign_in).await).await);
        let wrong = [("form_token", &*token), ("email", EMAIL), ("password", "a wrong one")];
        browser.post(&format!("{sign_in}/sign-in"), &wrong).await;
    }
    // It has ended.
    let next = location(&browser.get(&page).await);
    assert!(next.starts_with("/sign-in/") && next != sign_in, "{next}");
    browser.sign_in(&page, EMAIL, &server.place.password).await;
    assert_eq!(browser.get(&page).await.status(), 200);
}

/// Most people who are stuck are stuck there.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_on_the_way_to_a_consent_shows_its_reference() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let page = browser.authorize(&authorization(&server).await).await;
    let sign_in = location(&browser.get(&page).await);
    let first = text(browser.get(&sign_in).await).await;
    let create = text(browser.get(&format!("{sign_in}/create")).await).await;
    let token = form_token(&first);
    let wrong = [("form_token", &*token), ("email", EMAIL), ("password", "a wrong one")];
    let refused = text(browser.post(&format!("{sign_in}/sign-in"), &wrong).await).await;
    browser.sign_in(&page, EMAIL, &server.place.password).await;
    let consent = text(browser.get(&page).await).await;
    let (_, reference) = consent.split_once("Reference for support: <strong>").unwrap();
    let reference = reference.split_once('<').unwrap().0;
    assert!(server.hosted.traces().find(reference).await.unwrap().is_some(), "{reference}");
    for html in [first, create, refused] {
        assert!(html.contains(&format!("Reference for support: <strong>{reference}</strong>")), "{html}");
    }
}

/// RFC 9700, section 4.11 (open redirect); and nothing that a request says is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_sound_is_a_page_without_its_words_and_leads_nowhere() {
    let server = HostedServer::start().await;
    let sound = authorization(&server).await;
    let browser = Browser::new(&[&server]);
    for (client_id, redirect_uri) in [
        ("<script>canary</script>", "http://127.0.0.1:3118/callback"),
        ("", "http://127.0.0.1:3118/callback"),
        (sound.client_id.as_str(), "https://canary.evil.test/callback"),
        (sound.client_id.as_str(), "http://127.0.0.1:3118/canary"),
        (sound.client_id.as_str(), "javascript:canary"),
    ] {
        let wrong = Authorization {
            client_id: client_id.into(),
            redirect_uri: redirect_uri.into(),
            ..Authorization::of(String::new())
        };
        let response = browser.get(&format!("/authorize?{}", wrong.query())).await;
        assert_eq!(response.status(), 400, "{client_id} {redirect_uri}");
        assert!(response.headers().get("location").is_none());
        let html = text(response).await;
        assert!(html.starts_with("<!doctype html>") && !html.contains("canary"), "{html}");
    }
    let wrong = sound.query().replace("S256", "plain");
    let answer: Url = location(&browser.get(&format!("/authorize?{wrong}")).await).parse().unwrap();
    assert_eq!(
        (answer.host_str(), parameter(&answer, "error")),
        (Some("127.0.0.1"), "invalid_request".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_the_device_is_opened_by_a_page_once() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let asked = authorization_for(&server, "cursor://anysphere.cursor-mcp/oauth/callback").await;
    let (page, form) = browser.consent(&asked).await;
    assert!(
        form.html.contains("<strong>cursor:</strong>") && form.html.contains("on your device"),
        "{}",
        form.html
    );
    let done = location(&browser.decide(&page, &form, "allow").await);
    let html = text(browser.get(&done).await).await;
    let (_, link) = html.split_once(r#"<a href="cursor://"#).unwrap();
    let link = link.split_once('"').unwrap().0.replace("&#38;", "&").replace("&amp;", "&");
    let link: Url = format!("cursor://{link}").parse().unwrap();
    let (status, tokens) = server.redeem(&asked, &parameter(&link, "code")).await;
    assert_eq!(status, 200, "{tokens}");
    assert!(!text(browser.get(&done).await).await.contains("code="));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_what_is_a_claim_and_where_the_code_goes() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (_, form) = browser.consent(&authorization(&server).await).await;
    let html = &form.html;
    assert!(html.contains("“Test client”") && html.contains("Nobody has verified it"), "{html}");
    assert!(
        html.contains("<strong>an app on your own computer</strong>") && html.contains("Any program"),
        "{html}"
    );
    let warnings = |html: &str| html.matches("Continue only if").count();
    assert_eq!(warnings(html), 1, "{html}");

    for (redirect_uri, host) in [
        ("https://app.example.com/callback", "app.example.com"),
        ("https://app.example.com:443/callback", "app.example.com"),
        ("https://app.example.com:8443/callback", "app.example.com:8443"),
    ] {
        let asked = authorization_for(&server, redirect_uri).await;
        let (_, form) = Browser::new(&[&server]).consent(&asked).await;
        let html = &form.html;
        assert!(html.contains(&format!("<strong>{host}</strong>")), "{redirect_uri}: {html}");
        assert!(!html.contains("your own computer") && !html.contains("your device"), "{html}");
        assert_eq!(warnings(html), 1, "{html}");
    }
}

/// MCP authorization, "Client ID Metadata Documents": with loopback, the host of the redirect URI is shown.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_host_of_an_app_on_this_computer() {
    let server = HostedServer::start().await;
    for (redirect_uri, host) in [
        ("http://localhost:3118/callback", "localhost"),
        ("http://127.0.0.1:3118/callback", "127.0.0.1"),
        ("http://[::1]:3118/callback", "[::1]"),
        ("https://localhost:3118/callback", "localhost"),
    ] {
        let asked = authorization_for(&server, redirect_uri).await;
        let (_, form) = Browser::new(&[&server]).consent(&asked).await;
        let html = &form.html;
        assert!(html.contains("<strong>an app on your own computer</strong>"), "{redirect_uri}: {html}");
        assert!(html.contains(&format!(r#"<strong class="address">{host}</strong>"#)), "{html}");
    }
}

/// Another port of a host may be somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_name_the_host_and_the_port_that_publish_the_app() {
    let publisher = Publisher::start().await;
    let server = HostedServer::start_with(Setup { network: publisher.network(), ..Setup::default() }).await;
    let id = publisher.publish(&json!({
        "client_id": "https://app.example/client.json", "client_name": "Test client",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    }));
    let host = id.strip_prefix("https://").unwrap().strip_suffix("/client.json").unwrap();
    assert!(host.starts_with("localhost:"), "{host}");
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&Authorization::of(id.clone())).await;
    let told = format!(r#"<strong class="address">{host}</strong>; that is verified"#);
    assert!(form.html.contains(&told), "{}", form.html);
    browser.decide(&page, &form, "allow").await;
    browser.sign_in("/connections", EMAIL, &server.place.password).await;
    let list = text(browser.get("/connections").await).await;
    assert!(list.contains(&format!(r#"<dt>Published by</dt><dd class="address">{host}</dd>"#)), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_expires() {
    let server = at_a_time().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    server.clock.advance(TimeDelta::minutes(10));
    assert_eq!(browser.decide(&page, &form, "allow").await.status(), 404);
    assert_eq!(browser.get(&page).await.status(), 404);
    nothing_was_made(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_nobody_redeems_leaves_no_key() {
    let server = at_a_time().await;
    let other = server.replica().await;
    Browser::new(&[&server]).allow(&authorization(&server).await).await;
    server.hosted.sweep().await;
    assert_eq!(keys(&server).len(), 1);
    server.clock.advance(TimeDelta::minutes(16));
    within(Box::pin(join(sweep_until(&server, 0), sweep_until(&other, 0)))).await;
    assert!(keys(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_has_left_is_found_by_the_next_sweep() {
    let server = at_a_time().await;
    let asked = authorization(&server).await;
    let request = server.server.authorization_request(&asked.query()).await.unwrap();
    // The process died before the account was opened, before the key was made, and after the grant had ended.
    let subject = server.server.subject("usr_1");
    server.server.create_grant(&subject, &request, request.scopes).await.unwrap();
    server.agree_to(&request, request.scopes).await;
    // Its key exists at BondMCP, and here is nothing but the intent.
    let lost = server.server.create_grant(&subject, &request, request.scopes).await.unwrap();
    server.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
    let authenticator = server.accounts.authenticator();
    let session = within(authenticator.with_password(EMAIL, server.place.password.clone())).await.unwrap();
    // The app may call itself like a secret.
    let key_name = "sk_0123456789abcdef (app) 2026-11-29 K7QM2RTX-01234567".into();
    let new = new_grant(&server, key_name);
    let account = server.accounts.open(&lost.owner());
    within(Box::pin(account.open_grant(session, new))).await.unwrap_err();
    let used = Browser::new(&[&server]).allow(&asked).await;
    assert_eq!(server.redeem(&asked, &parameter(&used, "code")).await.0, 200);
    let before = grants(&server).await;
    Browser::new(&[&server]).allow(&asked).await;
    let all = grants(&server).await;
    let ended = all.iter().find(|grant| !before.contains(grant)).unwrap();
    server.server.end_grant(&ended.id, EndReason::Operator).await.unwrap();
    assert_eq!((all.len(), keys(&server).len()), (5, 3));

    server.clock.advance(TimeDelta::minutes(16));
    server.place.end_leases().await;
    // It sweeps when it starts.
    let _restarted = server.replica().await;
    within(async {
        while grants(&server).await.len() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(keys(&server).len(), 1);
}

/// The process was stopped for so long that the lease of its intent ran out, and its session could not be ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_after_its_grant_was_forgotten_is_revoked() {
    let server = at_a_time().await;
    let asked = authorization(&server).await;
    Browser::new(&[&server]).allow(&asked).await;
    let grant = grants(&server).await.remove(0);
    server.sandbox.faults().always(LOGOUT, Fault::Status(503));
    server.sandbox.faults().next(CREATE, Fault::Hold);
    let account = server.accounts.open(&grant.owner());
    let late = tokio::spawn(async move {
        let wanted = CreateApiKey { name: "late".into(), description: None, permissions: vec![] };
        account.create_key(wanted).await
    });
    within(server.sandbox.faults().arrived(CREATE, 2)).await;
    server.clock.advance(TimeDelta::minutes(3));
    server.place.end_leases().await;
    server.server.end_grant(&grant.id, EndReason::Operator).await.unwrap();
    sweep_until(&server, 0).await;
    assert!(keys(&server).is_empty());

    server.sandbox.faults().release();
    assert!(matches!(within(late).await.unwrap(), Err(Error::GrantEnded)));
    assert_eq!(keys(&server).len(), 1);
    // Another server that shares the vault and the BondMCP leaves it alone.
    let neighbour = server.neighbour("https://other.example").await;
    within(Box::pin(neighbour.sweep())).await;
    assert_eq!(server.accounts.to_be_released(&server.origin).await.unwrap(), [grant.owner()]);
    server.hosted.sweep().await;
    // Nobody is signed in.
    assert_eq!(keys(&server).len(), 1);
    Browser::new(&[&server]).allow(&asked).await;
    let settled = async {
        while keys(&server).iter().any(|name| name.starts_with("late")) {
            server.hosted.sweep().await;
        }
    };
    within(settled).await;
    assert_eq!(keys(&server).len(), 1, "the new grant has its key");
}

/// The records of the grants are gone, and a crash has left their accounts.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_released_yet_keeps_no_other() {
    let server = at_a_time().await;
    let request = server.server.authorization_request(&authorization(&server).await.query()).await.unwrap();
    let subject = server.server.subject("usr_1");
    for is_in_progress in [true, false, false, false] {
        let grant = server.server.create_grant(&subject, &request, request.scopes).await.unwrap();
        if is_in_progress {
            server.sandbox.faults().next(CREATE, Fault::ProcessThenDrop);
        }
        let authenticator = server.accounts.authenticator();
        let session =
            within(authenticator.with_password(EMAIL, server.place.password.clone())).await.unwrap();
        let account = server.accounts.open(&grant.owner());
        let opened = account.open_grant(session, new_grant(&server, format!("key of {}", grant.id)));
        assert_eq!(within(Box::pin(opened)).await.is_err(), is_in_progress);
        let ended = server.server.end_grant(&grant.id, EndReason::Operator).await.unwrap().unwrap();
        assert_eq!(within(Box::pin(account.release())).await.is_err(), is_in_progress);
        server.server.forget_grant(&ended).await.unwrap();
    }
    let left = async || server.accounts.to_be_released(&server.origin).await.unwrap().len();
    let swept_until = async |expected: usize| {
        while left().await != expected {
            server.hosted.sweep().await;
        }
    };
    assert_eq!(left().await, 4);
    within(swept_until(1)).await;
    server.clock.advance(TimeDelta::minutes(3));
    server.place.end_leases().await;
    within(swept_until(0)).await;
    assert!(keys(&server).is_empty());
}

/// At a refresh BondMCP is asked whether it accepts the grant's key. The app may have chosen another one, which says nothing
/// about that.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_with_its_own_key_and_not_with_one_that_its_app_has_chosen() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    for chooses in [true, false] {
        let before = server.sandbox.live_keys(EMAIL);
        let answer = Browser::new(&[&server]).allow(&asked).await;
        assert_eq!(server.redeem(&asked, &parameter(&answer, "code")).await.0, 200);
        let grant = grants(&server).await.into_iter().max_by_key(|grant| grant.created_at).unwrap();
        let account = server.accounts.open(&grant.owner());
        let used = if chooses {
            let wanted = CreateApiKey { name: "ci".into(), description: None, permissions: vec![] };
            let chosen = within(Box::pin(account.create_key(wanted))).await.unwrap();
            within(Box::pin(account.use_key(Some(&chosen.id)))).await.unwrap();
            chosen.id
        } else {
            let made = server.sandbox.live_keys(EMAIL).into_iter().find(|key| !before.contains(key));
            made.unwrap().0
        };
        // By the person, at BondMCP.
        let person = server.accounts.open(&Owner::Subject("somebody.else".into()));
        let password = server.place.password.clone();
        within(Box::pin(person.sign_in(EMAIL, password, false))).await.unwrap();
        within(Box::pin(person.revoke_key(&used))).await.unwrap();
        let acceptance = within(Box::pin(server.hosted.acceptance(&grant))).await;
        let expected = if chooses { Acceptance::Accepted } else { Acceptance::Refused };
        assert_eq!(acceptance, expected);
    }
}

/// The page of connections ends a grant whose consent is still being worked on.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ends_before_its_account_is_opened_leaves_no_key() {
    let server = at_a_time().await;
    let request = server.server.authorization_request(&authorization(&server).await.query()).await.unwrap();
    let grant =
        server.server.create_grant(&server.server.subject("usr_1"), &request, request.scopes).await.unwrap();
    server.server.end_grant(&grant.id, EndReason::Person).await.unwrap();
    sweep_until(&server, 0).await;
    let authenticator = server.accounts.authenticator();
    let session = within(authenticator.with_password(EMAIL, server.place.password.clone())).await.unwrap();
    let new = new_grant(&server, "late".into());
    let late = within(Box::pin(server.accounts.open(&grant.owner()).open_grant(session, new))).await;
    assert!(matches!(late, Err(Error::GrantEnded)), "{late:?}");
    nothing_was_made(&server).await;
}

/// Its accounts are found under the address of BondMCP: with another one, no grant must seem to have nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_another_bondmcp_ends_nothing_and_does_not_start() {
    let server = at_a_time().await;
    let other = server.replica_for("https://other.example/mcp").await;
    // While nothing is connected, a mistyped address can be corrected.
    assert_eq!(other.bind(false).await.unwrap(), None);
    assert_eq!(server.hosted.bind(false).await.unwrap(), None);
    let asked = authorization(&server).await;
    let answer = Browser::new(&[&server]).allow(&asked).await;
    assert_eq!(server.redeem(&asked, &parameter(&answer, "code")).await.0, 200);
    let bound = other.bind(false).await.unwrap();
    assert_eq!(bound.as_deref(), Some(&*server.place.base_url));
    server.clock.advance(TimeDelta::minutes(16));
    within(Box::pin(other.sweep())).await;
    assert_eq!((grants(&server).await.len(), keys(&server).len()), (1, 1));
}

/// RFC 9700, section 4.11.2: anybody can register an address, and nobody is sent there before they have decided.
#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_request_sends_nobody_to_an_address_that_somebody_registered() {
    let server = HostedServer::start().await;
    for redirect_uri in ["https://evil.test/callback", "com.evil:/callback", "https.claude.ai:/callback"] {
        let client_id = server.register(&[redirect_uri]).await;
        let asked = Authorization { redirect_uri: redirect_uri.into(), ..Authorization::of(client_id) };
        let faulty = asked.query().replace("response_type=code", "response_type=token");
        let response = server.get(&format!("/authorize?{faulty}")).await;
        assert_eq!((response.status().as_u16(), response.headers().get("location")), (400, None));
        let page = text(response).await;
        assert!(!page.contains("http-equiv") && page.contains("error=unsupported_response_type"), "{page}");
    }
}

/// An app's own scheme may look like a host; any app of the device can take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_that_looks_like_a_host_is_shown_as_a_scheme() {
    let server = HostedServer::start().await;
    let redirect_uri = "https.claude.ai:/callback";
    let client_id = server.register(&[redirect_uri]).await;
    let asked = Authorization { redirect_uri: redirect_uri.into(), ..Authorization::of(client_id) };
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&asked).await;
    assert!(form.html.contains("https.claude.ai:") && form.html.contains("on your device"), "{}", form.html);
    let done = location(&browser.decide(&page, &form, "allow").await);
    assert_eq!(browser.get(&done).await.status(), 200, "a page opens the app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_not_be_revoked_is_when_the_person_connects_again() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    let first = Browser::new(&[&server]).allow(&asked).await;
    assert_eq!(server.redeem(&asked, &parameter(&first, "code")).await.0, 200);
    let old = server.sandbox.live_keys(EMAIL)[0].0.clone();
    server.sandbox.expire_tokens();
    let grant =
        server.server.end_grant(&grants(&server).await[0].id, EndReason::Person).await.unwrap().unwrap();
    server.hosted.release(&grant).await;
    assert_eq!(server.sandbox.live_keys(EMAIL)[0].0, old, "nobody can revoke it now");
    assert!(grants(&server).await.is_empty());

    Browser::new(&[&server]).allow(&asked).await;
    within(server.sandbox.faults().arrived(REVOKE, 1)).await;
    server.hosted.sweep().await;
    let keys = server.sandbox.live_keys(EMAIL);
    assert_eq!(keys.len(), 1);
    assert_ne!(keys[0].0, old);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_too_many_apps_is_sent_to_disconnect_one_and_no_key_is_made() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&asked).await;
    let request = server.server.authorization_request(&asked.query()).await.unwrap();
    let authenticator = server.accounts.authenticator();
    let ada = within(authenticator.with_password(EMAIL, server.place.password.clone())).await.unwrap();
    let subject = server.server.subject(ada.user_id().unwrap());
    for _ in 0..MAX_GRANTS {
        server.server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
    }
    let done = location(&browser.decide(&page, &form, "allow").await);
    let refused = browser.get(&done).await;
    assert_eq!(refused.status(), 409);
    let refused = text(refused).await;
    assert!(refused.contains(r#"<a href="/connections">"#), "{refused}");
    assert_eq!(server.sandbox.count(CREATE), 0);

    // The person is still signed in, and goes on here.
    assert_eq!(browser.get("/connections").await.status(), 200);
    let ended = server.server.end_grant(&grants(&server).await[0].id, EndReason::Person).await.unwrap();
    within(server.hosted.ended(&ended.unwrap())).await;
    let fields = [("form_token", &*form_token(&refused))];
    assert_eq!(location(&browser.post(&format!("{page}/retry"), &fields).await), page);
    let form = Form::of(text(browser.get(&page).await).await);
    let done = location(&browser.decide(&page, &form, "allow").await);
    assert_eq!(browser.get(&done).await.status(), 302);
    assert_eq!(keys(&server).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_browsers_at_once_one_takes_the_last_place_and_the_other_stays_signed_in() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    let request = server.server.authorization_request(&asked.query()).await.unwrap();
    let authenticator = server.accounts.authenticator();
    let ada = within(authenticator.with_password(EMAIL, server.place.password.clone())).await.unwrap();
    let subject = server.server.subject(ada.user_id().unwrap());
    for _ in 1..MAX_GRANTS {
        server.server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
    }
    let browsers = [Browser::new(&[&server]), Browser::new(&[&server])];
    let [(one, its_form), (other, others_form)] =
        [browsers[0].consent(&asked).await, browsers[1].consent(&asked).await];
    let decided =
        join(browsers[0].decide(&one, &its_form, "allow"), browsers[1].decide(&other, &others_form, "allow"));
    let (one, other) = decided.await;
    let mut statuses = Vec::new();
    for (browser, decided) in browsers.iter().zip([one, other]) {
        let status = browser.get(&location(&decided)).await.status().as_u16();
        if status == 409 {
            assert_eq!(browser.get("/connections").await.status(), 200);
        }
        statuses.push(status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [302, 409]);
    assert_eq!(keys(&server).len(), 1);
}

/// Another tab has signed out, or used the session, since the form was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_takes_no_place() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let asked = authorization(&server).await;
    let (first, its_form) = browser.consent(&asked).await;
    let second = browser.authorize(&asked).await;
    let form = Form::of(text(browser.get(&second).await).await);
    join(browser.decide(&first, &its_form, "allow"), browser.decide(&second, &form, "allow")).await;
    assert_eq!((grants(&server).await.len(), keys(&server).len()), (1, 1));
}

/// A page that is reloaded, while BondMCP takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_wait_for_a_person_are_revoked_once_however_often_the_page_is_loaded() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    let first = Browser::new(&[&server]).allow(&asked).await;
    assert_eq!(server.redeem(&asked, &parameter(&first, "code")).await.0, 200);
    server.sandbox.expire_tokens();
    let grant =
        server.server.end_grant(&grants(&server).await[0].id, EndReason::Person).await.unwrap().unwrap();
    server.hosted.release(&grant).await;

    let before = server.sandbox.count(REVOKE);
    server.sandbox.faults().always(REVOKE, Fault::Hold);
    let browser = Browser::new(&[&server]);
    browser.consent(&asked).await;
    within(server.sandbox.faults().arrived(REVOKE, before + 1)).await;
    for _ in 0..10 {
        assert_eq!(browser.get("/connections").await.status(), 200);
    }
    assert_eq!(server.sandbox.count(REVOKE), before + 1);
    server.sandbox.faults().clear();
    server.sandbox.faults().release();
    all_keys_are_revoked(&server).await;
}

/// The person signs in anew while somebody else revokes a key that was waiting before.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_to_wait_while_another_is_revoked_is_revoked_after_it() {
    let server = HostedServer::start().await;
    let asked = authorization(&server).await;
    for _ in 0..2 {
        let answer = Browser::new(&[&server]).allow(&asked).await;
        assert_eq!(server.redeem(&asked, &parameter(&answer, "code")).await.0, 200);
    }
    let connected = grants(&server).await;
    for grant in &connected {
        within(server.accounts.open(&grant.owner()).sign_out(false)).await.unwrap();
    }
    let end = async |grant: &Grant| {
        let ended = server.server.end_grant(&grant.id, EndReason::Person).await.unwrap().unwrap();
        assert_eq!(within(server.hosted.release(&ended)).await, Released::UntilSignIn);
    };
    end(&connected[0]).await;
    server.sandbox.faults().always(REVOKE, Fault::Hold);
    let browser = Browser::new(&[&server]);
    browser.consent(&asked).await;
    within(server.sandbox.faults().arrived(REVOKE, 1)).await;
    end(&connected[1]).await;
    assert_eq!(browser.get("/connections").await.status(), 200);
    assert_eq!((server.sandbox.count(REVOKE), keys(&server).len()), (1, 2));
    server.sandbox.faults().clear();
    server.sandbox.faults().release();
    all_keys_are_revoked(&server).await;
    assert_eq!(server.sandbox.count(REVOKE), 2);
}
