//! The words and states of the sign-in page: errors at their fields, waiting for the verification of an address, and
//! what comes next when the person has signed in.

use std::{sync::Arc, time::Duration};

use crate::common::{
    EMAIL, Place, SAFETY_NET, Server, account,
    browser::{Browser, text},
    like_the_seed,
    raw::{Raw, call},
    sandbox, secrets, within,
};
use bondmcp_server::{
    account::RequiredCredential,
    sandbox::{Fault, RunningSandbox},
    secret::SecretString,
    sign_in::{Demo, Options, Pending, Request, SignIn, SignInMethod, State},
};
use reqwest::StatusCode;
use serde_json::json;

const LOGIN: &str = "POST /auth/login";
const NEW: [(&str, &str); 2] = [("email", "new@example.com"), ("password", "a-new-password-1")];
const TELL: &str = "tell your assistant that you have signed in";
const CONTINUES: &str = "Your assistant continues by itself";

/// A page that does not ask BondMCP by itself, so that the tests do.
struct Desk {
    sandbox: RunningSandbox,
    place: Place,
    sign_in: SignIn,
}

impl Desk {
    async fn new() -> Self {
        Self::with(|_| None).await
    }

    async fn with(demo: impl FnOnce(&Place) -> Option<Demo>) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let options =
            Options { verification_poll: Duration::from_hours(1), demo: demo(&place), ..Options::default() };
        let sign_in = SignIn::new(account(&place).0, options);
        Self { sandbox, place, sign_in }
    }

    async fn begin(&self) -> (Arc<Pending>, Browser) {
        self.begin_as(Request::new(RequiredCredential::Api)).await
    }

    async fn begin_as(&self, request: Request) -> (Arc<Pending>, Browser) {
        let pending = self.sign_in.begin(request).await.unwrap();
        let browser = Browser::open(pending.url()).await;
        (pending, browser)
    }
}

async fn sends(browser: &Browser, form: &str, fields: &[(&str, &str)]) -> String {
    text(within(browser.post(form, fields).send()).await.unwrap()).await
}

async fn shows(browser: &Browser, path: &str) -> String {
    text(within(browser.http.get(format!("{}{path}", browser.url)).send()).await.unwrap()).await
}

/// The tag of the input that is marked as wrong.
fn wrong_input(page: &str) -> &str {
    let (before, after) = page.split_once(r#"aria-invalid="true""#).unwrap();
    assert!(!after.contains(r#"aria-invalid="true""#));
    let start = before.rfind('<').unwrap();
    &page[start..start + page[start..].find('>').unwrap()]
}

fn assert_wrong(page: &str, field: &str, message: &str) {
    let input = wrong_input(page);
    assert!(input.contains(&format!(r#"id="{field}""#)) && input.contains("autofocus"), "{input}");
    assert!(input.contains(&format!(r#"aria-describedby="{field}-error"#)), "{input}");
    let described = format!(r#"<p id="{field}-error" class="error" role="alert">{message}"#);
    assert!(page.contains(&described), "{page}");
    assert!(page.contains("<title>Error: "), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_at_its_field_and_counts_down_the_attempts() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    for left in ["4 attempts left", "3 attempts left", "2 attempts left", "1 attempt left"] {
        let page = text(browser.sign_in(&"wrong-password-1".into()).await).await;
        assert_wrong(&page, "password", &format!("Wrong e-mail or password. {left}."));
    }
    let page = sends(&browser, "create", &[("email", EMAIL), ("password", "a-new-password-1")]).await;
    assert_wrong(&page, "email", "This e-mail already has an account.");
    let page = sends(&browser, "create", &[("email", "new@example.com"), ("password", "short")]).await;
    assert_wrong(&page, "password", "Password needs at least 8 characters");
    let page = sends(&browser, "create", &[("email", "nowhere"), ("password", "a-new-password-1")]).await;
    assert_wrong(&page, "email", "body.email: value is not a valid email address");
    // Every form shows the address that was typed last.
    assert!(shows(&browser, "/sign-in").await.contains(r#"value="nowhere""#));
    let page = sends(&browser, "key", &[("key", "bcp_wrong")]).await;
    assert!(page.contains("Too many failed attempts"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_blamed_on_a_field_and_its_wait_is_in_seconds() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    desk.sandbox.faults().next(LOGIN, Fault::TooMany(Some("7".to_owned())));
    let page = text(browser.sign_in(&desk.place.password).await).await;
    assert!(page.contains("Try again in 7 seconds.") && !page.contains("retry_after_seconds"), "{page}");
    assert!(page.contains(r#"role="alert" tabindex="-1" autofocus"#) && !page.contains("aria-invalid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_opens_the_page_on_creating_an_account_with_the_e_mail() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin().await;
    assert!(shows(&browser, "").await.contains("<h1>Sign in to BondMCP</h1>"));
    // The page is open already; a second host joins it.
    let request = Request {
        requested_by: Some("second host".into()),
        email: Some("new@example.com".into()),
        opens_on: SignInMethod::CreateAccount,
        ..Request::new(RequiredCredential::Api)
    };
    assert_eq!(desk.sign_in.begin(request).await.unwrap().url(), pending.url());
    let page = shows(&browser, "").await;
    assert!(
        page.contains("<h1>Create a BondMCP account</h1>") && page.contains(r#"value="new@example.com""#)
    );
    assert!(page.contains("“second host” (name not verified)"));
    assert!(shows(&browser, "/sign-in").await.contains("<h1>Sign in to BondMCP</h1>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_register_opens_the_page_on_creating_an_account() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let told = server.ok("register", json!({"email": "new@example.com"})).await;
    let page = text(within(reqwest::get(told["sign_in_url"].as_str().unwrap())).await.unwrap()).await;
    assert!(
        page.contains("<h1>Create a BondMCP account</h1>") && page.contains(r#"value="new@example.com""#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_address_that_signs_in_waits_for_its_verification() {
    let desk = Desk::new().await;
    desk.sandbox.add_account(
        "late@example.com",
        &"a-password-1".into(),
        bondmcp_server::sandbox::Plan::Free,
        false,
    );
    let (pending, browser) = desk.begin().await;
    let page =
        sends(&browser, "sign-in", &[("email", "late@example.com"), ("password", "a-password-1")]).await;
    assert!(page.contains("Check your e-mail"), "{page}");
    assert!(sends(&browser, "check", &[]).await.contains("has not confirmed the address yet"));
    desk.sandbox.verify("late@example.com");
    assert!(sends(&browser, "check", &[]).await.contains("Signed in as <strong>late@example.com</strong>"));
    assert_eq!(pending.state(), State::SignedIn { email: Some("late@example.com".into()) });
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_back_is_not_signed_in_by_the_address_that_was_wrong() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin().await;
    assert!(sends(&browser, "create", &NEW).await.contains("Check your e-mail"));
    // An attempt that has begun is awaited.
    desk.sandbox.faults().next(LOGIN, Fault::Hold);
    let checking = browser.post("check", &[]).send();
    let (back, _) = tokio::join!(
        async {
            within(desk.sandbox.faults().arrived(LOGIN, 1)).await;
            let back = tokio::spawn(browser.post("back", &[]).send());
            desk.sandbox.faults().release();
            text(within(back).await.unwrap().unwrap()).await
        },
        within(checking)
    );
    assert!(
        back.contains("<h1>Create a BondMCP account</h1>") && back.contains(r#"value="new@example.com""#)
    );
    assert_eq!(pending.state(), State::Open);
    desk.sandbox.verify("new@example.com");
    let before = desk.sandbox.count(LOGIN);
    assert!(sends(&browser, "check", &[]).await.contains("Create a BondMCP account"));
    assert_eq!((desk.sandbox.count(LOGIN), pending.state()), (before, State::Open));
    assert!(browser.sign_in(&desk.place.password).await.status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_that_the_assistant_continues_only_where_a_call_waits() {
    for waits in [true, false] {
        let desk = Desk::new().await;
        let (pending, browser) = desk.begin().await;
        let given_up = pending.waiting_call();
        let waiting = waits.then(|| pending.waiting_call());
        drop(given_up);
        let page = text(browser.sign_in(&desk.place.password).await).await;
        drop(waiting);
        assert_eq!((page.contains(CONTINUES), page.contains(TELL)), (waits, !waits), "{page}");
        // It stays true after the call has continued.
        assert_eq!(shows(&browser, "").await.contains(CONTINUES), waits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_open_continues_and_one_that_passed_the_link_on_does_not() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let mut raw = Raw::start(&place);
    raw.initialize_as("2025-11-25", json!({"elicitation": {"url": {}}})).await;
    let question = raw.ask(call(2, "list_models", json!({}))).await;
    let browser = Browser::open(question["params"]["url"].as_str().unwrap()).await;
    assert!(text(browser.sign_in(&place.password).await).await.contains(CONTINUES));

    let other = Place::new(&sandbox);
    let server = Server::start(&Place { password: place.password.clone(), ..other }).await;
    let told = server.ok("login", json!({})).await;
    let browser = Browser::open(told["sign_in_url"].as_str().unwrap()).await;
    assert!(text(browser.sign_in(&place.password).await).await.contains(TELL));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_terminal_the_page_speaks_of_the_terminal() {
    let desk = Desk::new().await;
    let request = Request { in_terminal: true, ..Request::new(RequiredCredential::Api) };
    let (_pending, browser) = desk.begin_as(request).await;
    assert!(shows(&browser, "").await.contains("Your terminal must show the same code"));
    let page = text(browser.sign_in(&desk.place.password).await).await;
    assert!(page.contains("return to your terminal") && !page.contains("assistant"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_account_is_offered_only_where_the_operator_chose_the_sandbox() {
    // This upstream is a sandbox, but the operator named it as any other.
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin().await;
    assert!(!shows(&browser, "").await.contains("demo account"));
    assert_eq!(
        within(browser.post("demo", &[]).send()).await.unwrap().status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!((pending.state(), desk.sandbox.count(LOGIN)), (State::Open, 0));

    let desk = Desk::with(|place| {
        let password = SecretString::clone(&place.password);
        let verification_link = Arc::new(|email: &str| Some(format!("http://127.0.0.1/verify?{email}")));
        Some(Demo { email: EMAIL, password, verification_link })
    })
    .await;
    let (_pending, browser) = desk.begin().await;
    let page = shows(&browser, "").await;
    assert!(page.contains("Use the demo account"), "{page}");
    secrets::assert_absent(std::slice::from_ref(&desk.place.password), page.as_bytes(), "the page");
    let page = sends(&browser, "create", &NEW).await;
    assert!(page.contains(r#"href="http://127.0.0.1/verify?new@example.com""#), "{page}");
    sends(&browser, "back", &[]).await;
    assert!(sends(&browser, "demo", &[]).await.contains(&format!("Signed in as <strong>{EMAIL}</strong>")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_than_bondmcps_is_named_beside_the_form() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    let page = shows(&browser, "").await;
    let (visible, _) = page.split_once("<details>").unwrap();
    assert!(visible.contains(&desk.place.base_url), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pages_own_script_runs_and_only_with_the_nonce_of_its_response() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    let mut nonces = vec![];
    for _ in 0..2 {
        let answer = within(browser.http.get(&browser.url).send()).await.unwrap();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        let (_, nonce) = policy.split_once("script-src 'nonce-").unwrap();
        let nonce = nonce.split_once('\'').unwrap().0.to_owned();
        let page = text(answer).await;
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains(&format!(r#"<script nonce="{nonce}">"#)) && !page.contains("http-equiv"));
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    let style = within(
        browser.http.get(browser.url.replace(browser.url.rsplit('/').next().unwrap(), "style.css")).send(),
    );
    let policy = style.await.unwrap().headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(!policy.contains("script-src"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_learns_the_state_and_nobody_without_the_link_does() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin().await;
    assert_eq!(shows(&browser, "/state").await, "open");
    sends(&browser, "create", &NEW).await;
    assert_eq!(shows(&browser, "/state").await, "verifying");
    sends(&browser, "back", &[]).await;
    browser.sign_in(&desk.place.password).await;
    assert_eq!(shows(&browser, "/state").await, "signed-in");
    assert!(matches!(pending.finished(SAFETY_NET).await, State::SignedIn { .. }));
    let origin = browser.url.rsplit_once('/').unwrap().0;
    for path in ["/guessed/state", "/guessed", "/", "/a/b/c"] {
        let answer = within(browser.http.get(format!("{origin}{path}")).send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(text(answer).await.contains("This link isn&#39;t valid"), "{path}");
    }
    // Buttons need the token of the page's forms, like every form.
    let forged =
        Browser { http: reqwest::Client::new(), url: browser.url.clone(), form_token: "guessed".into() };
    for button in ["demo", "check", "back"] {
        assert_eq!(within(forged.post(button, &[]).send()).await.unwrap().status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_page_changes_nothing() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    let forged =
        Browser { http: reqwest::Client::new(), url: browser.url.clone(), form_token: "guessed".into() };
    for form in ["sign-in", "create"] {
        let fields = [("email", "other@example.net"), ("password", "wrong-password-1")];
        let answer = within(forged.post(form, &fields).send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{form}");
    }
    let page = shows(&browser, "").await;
    assert!(!page.contains("other@example.net"), "{page}");
}

/// The agent chooses the address that it gives, and the account would be that of another person.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_from_the_agent_does_not_replace_the_one_that_was_typed() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin().await;
    let asked = || Request {
        email: Some("other@example.net".to_owned()),
        opens_on: SignInMethod::CreateAccount,
        ..Request::new(RequiredCredential::Session)
    };
    desk.sign_in.begin(asked()).await.unwrap();
    assert!(shows(&browser, "").await.contains(r#"value="other@example.net""#));
    sends(&browser, "sign-in", &[("email", EMAIL), ("password", "wrong-password-1")]).await;
    desk.sign_in.begin(asked()).await.unwrap();
    let page = shows(&browser, "").await;
    assert!(page.contains(&format!(r#"value="{EMAIL}""#)) && !page.contains("other@example.net"), "{page}");
}
