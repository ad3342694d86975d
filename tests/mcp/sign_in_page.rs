//! The sign-in page without an MCP host: the effects of its forms on the account, for any behaviour of the browser and
//! of BondMCP.

use std::{sync::Arc, time::Duration};

use crate::common::{
    EMAIL, Place, SAFETY_NET, account,
    browser::{Browser, text},
    like_the_seed, sandbox, secrets, within,
};
use bondmcp_server::{
    account::{Account, CredentialSource, RequiredCredential},
    sandbox::{Fault, RunningSandbox},
    secret::SecretString,
    sign_in::{Options, Pending, Request, SignIn, State},
};
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LOGIN: &str = "POST /auth/login";
const REGISTER: &str = "POST /auth/register";

/// A page in this process, for the account of a place.
struct Desk {
    sandbox: RunningSandbox,
    place: Place,
    account: Account,
    sign_in: SignIn,
}

impl Desk {
    async fn new() -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        let (account, _) = account(&place);
        let options = Options { verification_poll: Duration::from_millis(5), ..Options::default() };
        let sign_in = SignIn::new(account.clone(), options);
        Self { sandbox, place, account, sign_in }
    }

    async fn begin(&self, need: RequiredCredential) -> (Arc<Pending>, Browser) {
        let pending = self.sign_in.begin(request(need)).await.unwrap();
        let browser = Browser::open(pending.url()).await;
        (pending, browser)
    }

    /// A key of the place's account that was created on another computer.
    async fn key_made_elsewhere(&self) -> SecretString {
        let elsewhere = Place {
            directory: tempfile::tempdir().unwrap(),
            base_url: self.place.base_url.clone(),
            password: self.place.password.clone(),
            sealing_key: bondmcp_server::secret::random(),
        };
        elsewhere.sign_in().await;
        assert_eq!(elsewhere.run(&["keys", "create", "--name", "elsewhere"]).await.0, Some(0));
        self.sandbox.secrets_issued().pop().unwrap()
    }
}

/// A form on a connection of its own, which the test may close before the answer.
async fn sent(browser: &Browser, way: &str, email: &str, password: &str) -> TcpStream {
    let fields = [("email", email), ("password", password), ("remember", "yes")];
    let request = browser.post(way, &fields).build().unwrap();
    let body = request.body().unwrap().as_bytes().unwrap();
    let (host, path) = (request.url().authority(), request.url().path());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nsec-fetch-site: same-origin\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn page(browser: &Browser) -> String {
    text(within(browser.http.get(&browser.url).send()).await.unwrap()).await
}

fn request(need: RequiredCredential) -> Request {
    Request::new(need)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_count_though_the_client_closes_the_connection_before_the_answer() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin(RequiredCredential::Api).await;
    desk.sandbox.faults().always(LOGIN, Fault::Hold);
    for attempt in 1..=12 {
        let stream = sent(&browser, "sign-in", EMAIL, "wrong-password-1").await;
        let arrived = desk.sandbox.faults().arrived(LOGIN, attempt);
        let refused = tokio::select! {
            // Closes the connection.
            () = within(arrived) => None,
            answer = answer(stream) => Some(answer),
        };
        if let Some(refused) = refused {
            assert!(refused.starts_with("HTTP/1.1 410"), "{refused}");
            break;
        }
        // A round trip, so that the page has seen the connection close.
        page(&browser).await;
        desk.sandbox.faults().release();
    }
    assert_eq!(desk.sandbox.count(LOGIN), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_tab_loses_neither_the_sign_in_nor_the_verification() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    desk.sandbox.faults().next(LOGIN, Fault::Hold);
    let tab = sent(&browser, "sign-in", EMAIL, secrets::text(&desk.place.password)).await;
    within(desk.sandbox.faults().arrived(LOGIN, 1)).await;
    drop(tab);
    page(&browser).await;
    desk.sandbox.faults().release();
    assert_eq!(pending.finished(SAFETY_NET).await, State::SignedIn { email: Some(EMAIL.into()) });

    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    desk.sandbox.faults().next(REGISTER, Fault::Hold);
    let tab = sent(&browser, "create", "new@example.com", "a-new-password-1").await;
    within(desk.sandbox.faults().arrived(REGISTER, 1)).await;
    drop(tab);
    page(&browser).await;
    desk.sandbox.faults().release();
    within(desk.sandbox.faults().arrived(LOGIN, 1)).await;
    desk.sandbox.verify("new@example.com");
    assert_eq!(pending.finished(SAFETY_NET).await, State::SignedIn { email: Some("new@example.com".into()) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_ends_the_verification_and_the_page_says_why() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    let fields = [("email", "new@example.com"), ("password", "a-new-password-1")];
    desk.sandbox.faults().next(LOGIN, Fault::Status(401));
    let answer = within(browser.post("create", &fields).send()).await.unwrap();
    assert!(answer.status().is_success());
    let told = async {
        loop {
            let page = page(&browser).await;
            if page.contains(r#"error" role="alert""#) {
                return page;
            }
        }
    };
    assert!(within(told).await.contains("form_token"));
    // Once the address is verified, only the person's own form signs in.
    desk.sandbox.verify("new@example.com");
    assert!(browser.sign_in(&desk.place.password).await.status().is_success());
    assert_eq!(pending.state(), State::SignedIn { email: Some(EMAIL.into()) });
    assert_eq!(desk.sandbox.count(LOGIN), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_goes_on_while_the_address_is_unverified_and_while_bondmcp_is_away() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    let fields = [("email", "new@example.com"), ("password", "a-new-password-1")];
    for fault in [Fault::TooMany(None), Fault::Status(502), Fault::Drop] {
        desk.sandbox.faults().next(LOGIN, fault);
    }
    within(browser.post("create", &fields).send()).await.unwrap();
    within(desk.sandbox.faults().arrived(LOGIN, 4)).await;
    assert!(page(&browser).await.contains("Check your e-mail"));
    desk.sandbox.verify("new@example.com");
    let who = Some("new@example.com".to_owned());
    assert_eq!(pending.finished(SAFETY_NET).await, State::SignedIn { email: who });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_needs_a_session_is_offered_no_key() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    assert!(page(&browser).await.contains("Use an API key"));
    // A second call joins the page, and a key is not sufficient for it.
    assert_eq!(desk.sign_in.begin(request(RequiredCredential::Session)).await.unwrap().url(), pending.url());
    assert!(!page(&browser).await.contains("Use an API key"));
    let key = desk.key_made_elsewhere().await;
    let refused = within(browser.post("key", &[("key", secrets::text(&key))]).send()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pending.state(), State::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_tells_the_page_that_it_needs_a_session() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    let other = SignIn::new(account(&desk.place).0, Options::default());
    let seen = other.begin(request(RequiredCredential::Session)).await.unwrap();
    assert_eq!((seen.url(), seen.code()), (pending.url(), pending.code()));
    assert!(!page(&browser).await.contains("Use an API key"));
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_key_is_what_calls_use_though_a_managed_one_was_in_use() {
    let desk = Desk::new().await;
    desk.place.sign_in().await;
    assert_eq!(desk.place.run(&["keys", "create", "--name", "mine"]).await.0, Some(0));
    desk.account.use_key(desk.place.keys().await["keys"][0]["id"].as_str()).await.unwrap();
    let key = desk.key_made_elsewhere().await;

    let (_pending, browser) = desk.begin(RequiredCredential::Api).await;
    let used = within(browser.post("key", &[("key", secrets::text(&key))]).send()).await.unwrap();
    assert!(text(used).await.contains("the owner of the API key"));
    assert_eq!(desk.account.bearer(RequiredCredential::Api).await.unwrap().source, CredentialSource::OwnKey);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_account_that_is_signed_in() {
    let desk = Desk::new().await;
    let (_pending, browser) = desk.begin(RequiredCredential::Api).await;
    let named = format!("Signed in as <strong>{EMAIL}</strong>");
    assert!(text(browser.sign_in(&desk.place.password).await).await.contains(&named));
    assert!(page(&browser).await.contains(&named));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_does_not_say_where_it_comes_from_is_refused() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    let fields = [("email", EMAIL), ("password", secrets::text(&desk.place.password))];
    let bare = within(browser.form("sign-in", &fields).send()).await.unwrap();
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    assert_eq!(pending.state(), State::Open);
    let origin = pending.url().rsplit_once('/').unwrap().0;
    let ours = within(browser.form("sign-in", &fields).header("origin", origin).send()).await.unwrap();
    assert!(ours.status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_keep_the_person_from_the_page() {
    let desk = Desk::new().await;
    let (pending, browser) = desk.begin(RequiredCredential::Api).await;
    let address = pending.url().split('/').nth(2).unwrap();
    let mut half_open = vec![];
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        half_open.push(stream);
    }
    assert!(browser.sign_in(&desk.place.password).await.status().is_success());
    let closed = async {
        for stream in &mut half_open[..200] {
            let _ = stream.read_to_end(&mut vec![]).await;
        }
    };
    within(closed).await;
}
