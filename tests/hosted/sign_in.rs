//! Signing in in a browser, before a consent or to see the connected apps: who signed in belongs to that browser alone,
//! on every replica, for ten minutes.

use std::sync::Arc;

use crate::common::{
    EMAIL, OTHER_EMAIL,
    hosted::{Hosted, LOCAL_WORDS, LOGIN, LOGOUT, ORIGIN_OF_PAGES, Replica, Visitor, World, form_token},
    hosted_process::Process,
    hosted_server::{HostedServer, Setup},
    secrets, within,
};
use bondmcp_server::{account::Owner, clock::Clock, hosted::Browser, sandbox::Fault, sign_in::Demo};
use reqwest::{
    Response, StatusCode,
    header::{LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE},
};
use serde_json::json;

const NEXT: &str = "/authorize/0123456789";
const NEW: [(&str, &str); 2] = [("email", "new@example.com"), ("password", "a-new-password-1")];

/// The browser of a visitor, as a replica knows it by its cookie.
fn browser(replica: &Replica, visitor: &Visitor) -> Option<Browser> {
    let mut headers = http::HeaderMap::new();
    headers.insert("cookie", format!("a=b; {}", visitor.cookie().unwrap()).parse().unwrap());
    replica.hosted.browsers().of(&headers)
}

async fn signed_in_as(replica: &Replica, visitor: &Visitor) -> Option<String> {
    let browser = browser(replica, visitor)?;
    within(replica.hosted.browsers().person(&browser)).await.unwrap().map(|person| person.email)
}

/// Begins a sign-in in a new browser; returns its page too.
async fn visitor_before(server: &HostedServer) -> (Visitor, String) {
    let (visitor, browsers) = (Visitor::before(server.address), server.hosted.browsers());
    let (browser, cookie) = browsers.new_browser();
    visitor.keep(&cookie);
    let path = within(browsers.begin_sign_in(&browser, "/connections", None)).await.unwrap().path();
    (visitor, format!("{}{path}", server.origin))
}

fn assert_goes_on(answer: &Response, next: &str) {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()[LOCATION], next);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_in_is_known_in_that_browser_on_every_replica_and_its_session_is_taken_once() {
    let hosted = Hosted::new().await;
    let other = hosted.another_replica().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    assert!(signed_in_as(&hosted.replica, &visitor).await.is_none());
    let page = visitor.page(&url).await;
    assert!(page.contains("Sign in to BondMCP") && page.contains("Create an account"), "{page}");
    assert!(!page.contains("compare") && !page.contains("API key"), "nothing has shown a code: {page}");
    for word in LOCAL_WORDS {
        assert!(!page.replace(&hosted.world.place.base_url, "BASE_URL").contains(word), "{word}");
    }
    visitor.moves_to(&other);
    let before = visitor.cookie().unwrap();
    let answer = visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await;
    assert_goes_on(&answer, NEXT);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{cookie}");

    // Who knew the cookie before is not signed in (session fixation).
    assert_ne!(visitor.cookie().unwrap(), before);
    let fixed = hosted.visitor();
    fixed.keep(&before);
    assert!(signed_in_as(&hosted.replica, &fixed).await.is_none());
    for replica in [&hosted.replica, &other] {
        assert_eq!(signed_in_as(replica, &visitor).await.as_deref(), Some(EMAIL));
        // What began in the browser still belongs to it.
        assert_eq!(
            browser(replica, &visitor).unwrap().binding(),
            browser(replica, &fixed).unwrap().binding()
        );
    }
    // The page leads on, and is over for who knew the cookie before.
    assert_goes_on(&visitor.get(&url).await, NEXT);

    let known = browser(&other, &visitor).unwrap();
    let takes = |replica: &Replica| {
        let (browsers, browser) = (replica.hosted.browsers().clone(), known.clone());
        tokio::spawn(async move { browsers.take_session(&browser).await.unwrap() })
    };
    let attempts = [takes(&hosted.replica), takes(&other), takes(&hosted.replica)];
    let mut sessions = vec![];
    for attempt in attempts {
        sessions.extend(within(attempt).await.unwrap());
    }
    assert_eq!(sessions.len(), 1);
    let (person, session) = sessions.pop().unwrap();
    assert_eq!((&*person.email, session.email()), (EMAIL, Some(EMAIL)));
    assert!(signed_in_as(&other, &visitor).await.is_none());
    assert!(hosted.world.place.last_token_works(&hosted.world.sandbox).await);
    // A grant's account adopts it.
    let account = hosted.world.accounts.open(&Owner::Subject(format!("{}.g", person.subject.as_str())));
    within(account.adopt(session, false)).await.unwrap();
    assert_eq!(within(account.list_models(true)).await.unwrap().models.len(), 3);
    assert_eq!(hosted.world.sandbox.count(LOGOUT), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session() {
    let hosted = Hosted::new().await;
    let (visitor, url) = hosted.visitor_to_sign_in("/connections").await;
    assert_goes_on(&visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await, "/connections");
    let known = browser(&hosted.replica, &visitor).unwrap();
    within(hosted.replica.hosted.browsers().sign_out(&known)).await.unwrap();
    assert!(signed_in_as(&hosted.replica, &visitor).await.is_none());
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 1)).await;
    within(hosted.world.accounts.close()).await;
    assert!(!hosted.world.place.last_token_works(&hosted.world.sandbox).await);
}

// Login CSRF, and a sign-in that is begun in one browser and finished in another: RFC 9700, section 4.7.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_serves_the_browser_alone_that_began_it() {
    let hosted = Hosted::new().await;
    let (attacker, url) = hosted.visitor_to_sign_in(NEXT).await;
    let token = attacker.form_token(&url).await;
    let login = [("email", OTHER_EMAIL), ("password", secrets::text(&hosted.world.other_password))];
    let (with_another_cookie, _) = hosted.visitor_to_sign_in(NEXT).await;
    for victim in [hosted.visitor(), with_another_cookie] {
        let answer = victim.get(&url).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(answer.headers().get(SET_COOKIE).is_none());
        assert!(!answer.text().await.unwrap().contains("form_token"));
        let answer = victim.post_with(&url, "sign-in", &token, &login).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    // Nor can another origin send the form in the attacker's own browser.
    let fields = [&[("form_token", &*token)], &login[..]].concat();
    let form = attacker.form(&url, "sign-in", &fields).header(ORIGIN, "https://evil.example");
    assert_eq!(within(form.send()).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(hosted.world.sandbox.count(LOGIN), 0);
}

// Open redirect: RFC 9700, section 4.11.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_goes_on_to_paths_of_this_server_alone() {
    let hosted = Hosted::new().await;
    for next in [
        "https://evil.example/authorize/",
        "//evil.example/authorize/",
        "/\\evil.example",
        "/authorize/\\..\\evil",
        "/authorize/a b",
        "/authorize/\r\nset-cookie: a=b",
        "javascript:alert(1)",
        "/sign-in/x",
        "",
    ] {
        let (visitor, url) = hosted.visitor_to_sign_in(next).await;
        assert_goes_on(&visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await, "/connections");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_was_sent_twice_signs_in_once_whichever_answer_is_seen() {
    let hosted = Hosted::new().await;
    let other = hosted.another_replica().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    let token = visitor.form_token(&url).await;
    let password = secrets::text(&hosted.world.place.password);
    let fields = [("form_token", &*token), ("email", EMAIL), ("password", password)];
    let mut sent = vec![];
    for replica in [&hosted.replica, &other] {
        visitor.moves_to(replica);
        let form = visitor.form(&url, "sign-in", &fields).header("sec-fetch-site", "same-origin");
        sent.push(tokio::spawn(form.send()));
    }
    let mut cookies = vec![];
    for form in sent {
        let answer = within(form).await.unwrap().unwrap();
        assert_goes_on(&answer, NEXT);
        cookies.push(answer.headers()[SET_COOKIE].to_str().unwrap().to_owned());
    }
    assert_eq!(cookies[0], cookies[1]);
    visitor.keep(&cookies[0]);
    assert_eq!(signed_in_as(&hosted.replica, &visitor).await.as_deref(), Some(EMAIL));
    // One of the two sessions is not used.
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 1)).await;
    let known = browser(&hosted.replica, &visitor).unwrap();
    let (_, session) = within(hosted.replica.hosted.browsers().take_session(&known)).await.unwrap().unwrap();
    let account = hosted.world.subject("somebody.g");
    within(account.adopt(session, false)).await.unwrap();
    assert_eq!(within(account.list_models(true)).await.unwrap().models.len(), 3);
}

// User enumeration: whoever knows which addresses have an account knows half of what is to be guessed. OAuth 2.1,
// "Credentials-Guessing Attacks" (RFC 6749, section 10.10), as MCP authorization, "Security Considerations", demands;
// OWASP ASVS 5.0, 6.3.8.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_and_a_wrong_password_look_alike() {
    let hosted = Hosted::new().await;
    let mut pages = vec![];
    for email in [EMAIL, "nobody@example.com"] {
        let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
        let answer = visitor.sign_in(&url, email, &"wrong-password-1".into()).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let page = answer.text().await.unwrap();
        assert!(page.contains("Wrong e-mail or password. 4 attempts left."), "{page}");
        let token = form_token(&page);
        let nonce = page.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let id = url.rsplit('/').next().unwrap();
        let seconds = page.split(" data-seconds=").nth(1).unwrap().split('>').next().unwrap();
        let seconds = format!(" data-seconds={seconds}");
        pages.push(
            [&*token, &nonce, id, email, &seconds]
                .iter()
                .fold(page.clone(), |page, part| page.replace(part, "*")),
        );
    }
    assert_eq!(pages[0], pages[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_creates_an_account_and_types_the_password_again_when_it_is_verified() {
    let hosted = Hosted::new().await;
    let other = hosted.another_replica().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    let page = visitor.post(&url, "create", &NEW).await.text().await.unwrap();
    assert!(page.contains("Check your e-mail") && page.contains("new@example.com"), "{page}");
    assert!(page.contains(r#"name="password""#) && !page.contains(NEW[1].1), "{page}");
    // Another replica shows the same, and any address but the verified one is ignored.
    visitor.moves_to(&other);
    let early = visitor.post(&url, "sign-in", &[("email", EMAIL), NEW[1]]).await;
    assert_eq!(early.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(early.text().await.unwrap().contains("has not confirmed the e-mail address yet"));
    hosted.world.sandbox.verify("new@example.com");
    let wrong = visitor.post(&url, "sign-in", &[("email", EMAIL), ("password", "wrong-password-1")]).await;
    assert!(wrong.text().await.unwrap().contains("Wrong e-mail or password. 4 attempts left."));
    assert_goes_on(&visitor.post(&url, "sign-in", &[("email", EMAIL), NEW[1]]).await, NEXT);
    assert_eq!(signed_in_as(&hosted.replica, &visitor).await.as_deref(), Some("new@example.com"));
    // The password is nowhere.
    let password = secrets::text(&hosted.world.place.password).to_owned();
    for (path, bytes) in crate::common::files(&hosted.world.place.data_dir()) {
        for secret in [NEW[1].1, &password] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

// User enumeration, as above.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_corrected_and_a_known_one_cannot_be_guessed_for_long() {
    let hosted = Hosted::new().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    visitor.post(&url, "create", &[("email", "nwe@example.com"), NEW[1]]).await;
    let back = visitor.post(&url, "back", &[]).await;
    assert_eq!(back.status(), StatusCode::SEE_OTHER);
    let path = back.headers()[LOCATION].to_str().unwrap().to_owned();
    assert_eq!(path.strip_suffix("/create"), url.strip_prefix(ORIGIN_OF_PAGES));
    let page = visitor.page(&format!("{ORIGIN_OF_PAGES}{path}")).await;
    assert!(
        page.contains("Create a BondMCP account") && page.contains(r#"value="nwe@example.com""#),
        "{page}"
    );
    let short = visitor.post(&url, "create", &[NEW[0], ("password", "short")]).await;
    assert!(short.text().await.unwrap().contains("Password needs at least 8 characters"));
    for _ in 0..5 {
        let known = visitor.post(&url, "create", &[("email", EMAIL), NEW[1]]).await.text().await.unwrap();
        let is_over = known.contains("Too many wrong passwords");
        assert!(known.contains("This e-mail already has an account.") || is_over, "{known}");
    }
    assert_eq!(visitor.get(&url).await.status(), StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bondmcp_that_does_not_tell_who_somebody_is_cannot_be_used() {
    let hosted = Hosted::new().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    let tokens = json!({"access_token": "a-token-of-nobody", "token_type": "bearer", "expires_in": 3600});
    hosted.world.sandbox.faults().next(LOGIN, Fault::Answer(tokens));
    let answer = visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.unwrap().contains("does not tell this server which account this is"));
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 1)).await;
    assert!(signed_in_as(&hosted.replica, &visitor).await.is_none());
    assert_goes_on(&visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await, NEXT);
}

// Nobody is kept out by the limits of somebody else's plan.
#[tokio::test(flavor = "multi_thread")]
async fn people_who_sign_in_share_no_rate_limit() {
    let hosted = Hosted::new().await;
    let password = &hosted.world.place.password;
    let login = reqwest::Client::new().post(format!("{}/auth/login", hosted.world.place.base_url));
    let login = login.header("content-type", "application/json");
    let body = json!({"email": EMAIL, "password": secrets::text(password)}).to_string();
    let tokens = within(within(login.body(body).send()).await.unwrap().text()).await.unwrap();
    let mut tokens: serde_json::Value = serde_json::from_str(&tokens).unwrap();
    // Who somebody is, is asked for with a request that the plan limits.
    tokens.as_object_mut().unwrap().remove("user");
    let faults = hosted.world.sandbox.faults();
    faults.always(LOGIN, Fault::Answer(tokens));
    faults.next("GET /auth/me", Fault::TooMany(Some("30".to_owned())));
    let (first, url) = hosted.visitor_to_sign_in(NEXT).await;
    let refused = first.sign_in(&url, EMAIL, password).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let (second, url) = hosted.visitor_to_sign_in(NEXT).await;
    assert_goes_on(&second.sign_in(&url, EMAIL, password).await, NEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bondmcp_says_of_what_somebody_typed_is_shown_without_it() {
    let hosted = Hosted::new().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    hosted.world.sandbox.faults().next(LOGIN, Fault::Echo);
    let answer = visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    assert!(page.contains("[redacted]"), "{page}");
    secrets::assert_absent(std::slice::from_ref(&hosted.world.place.password), page.as_bytes(), "the page");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_counts_as_no_attempt() {
    let hosted = Hosted::new().await;
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    for _ in 0..6 {
        hosted.world.sandbox.faults().next(LOGIN, Fault::TooMany(Some("7".to_owned())));
        let page = visitor.sign_in(&url, EMAIL, &hosted.world.place.password).await.text().await.unwrap();
        assert!(page.contains("Try again in 7 seconds."), "{page}");
    }
}

/// Anybody can read the page: hosts, ports and flags are for the operator.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_is_told_why_bondmcp_cannot_be_reached() {
    let world = World::new().await;
    let nowhere = "http://127.0.0.1:1/mcp";
    let process = Process::start_with(&world.place, &[], &[("BONDMCP_BASE_URL", nowhere)]).await;
    let browser = process.browser().await;
    for form in
        [browser.sign_in(&process, EMAIL, "a-password-1"), browser.create(&process, NEW[0].1, NEW[1].1)]
    {
        let page = within(within(form.send()).await.unwrap().text()).await.unwrap();
        assert!(page.contains("BondMCP cannot be reached right now."), "{page}");
        assert!(page.contains("tell whoever runs this server"), "{page}");
        let told = page.split(r#"role="alert""#).nth(1).unwrap().split("</p>").next().unwrap();
        for word in ["127.0.0.1", "refused", "port", "URL", "--"] {
            assert!(!told.contains(word), "{word}: {told}");
        }
    }
    let log = process.end().await;
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains(r#""level":"WARN""#) && line.contains("cannot connect to 127.0.0.1:1"))
        .collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(!warnings.concat().contains('@'), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_on_loopback_has_a_plain_cookie_and_offers_the_demo_account() {
    let demo = Demo {
        email: "demo@example.com",
        password: "demo-password-1".into(),
        verification_link: Arc::new(|_| Some("http://127.0.0.1/verify".to_owned())),
    };
    let hosted = Hosted::at("http://localhost:8787", Some(demo)).await;
    let plan = bondmcp_server::sandbox::Plan::Unlimited;
    hosted.world.sandbox.add_account("demo@example.com", &"demo-password-1".into(), plan, true);
    let (visitor, url) = hosted.visitor_to_sign_in(NEXT).await;
    assert!(visitor.cookie().unwrap().starts_with("bondmcp="));
    assert!(visitor.page(&url).await.contains("Use the demo account"));
    let answer = visitor.post(&url, "demo", &[]).await;
    assert_goes_on(&answer, NEXT);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!(signed_in_as(&hosted.replica, &visitor).await.as_deref(), Some("demo@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_that_are_not_ours_are_no_browser() {
    let hosted = Hosted::new().await;
    let browsers = hosted.replica.hosted.browsers();
    let (half, other) = ("a".repeat(43), "b".repeat(43));
    let of = |cookie: String| {
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", cookie.parse().unwrap());
        browsers.of(&headers)
    };
    assert!(of(format!("x=y; __Host-bondmcp={half}.{other}")).is_some());
    for wrong in [
        format!("bondmcp={half}.{other}"),
        format!("__Host-bondmcp={half}"),
        format!("__Host-bondmcp={half}.{other}x"),
        format!("__Host-bondmcp={half}.{}!", &other[1..]),
        "__Host-bondmcp=".to_owned(),
    ] {
        assert!(of(wrong.clone()).is_none(), "{wrong}");
    }
    assert!(
        of(format!("__Host-bondmcp={half}.{other}"))
            .is_some_and(|browser| !format!("{browser:?}").contains(&half))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_as_long_as_too_many_attempts_are_told_is_not_too_early() {
    let clock = Clock::manual(chrono::Utc::now());
    let server = HostedServer::start_with(Setup { clock: clock.clone(), ..Setup::default() }).await;
    for _ in 0..10 {
        let (visitor, url) = visitor_before(&server).await;
        visitor.sign_in(&url, EMAIL, &"wrong-password-1".into()).await;
    }
    clock.advance(chrono::TimeDelta::milliseconds(400));
    let (visitor, url) = visitor_before(&server).await;
    let refused = visitor.sign_in(&url, EMAIL, &server.place.password).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait = refused.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    clock.advance(chrono::TimeDelta::seconds(wait));
    let (visitor, url) = visitor_before(&server).await;
    assert_goes_on(&visitor.sign_in(&url, EMAIL, &server.place.password).await, "/connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_a_sign_in_end_after_ten_minutes() {
    let clock = Clock::manual(chrono::Utc::now());
    let server = HostedServer::start_with(Setup { clock: clock.clone(), ..Setup::default() }).await;
    let browsers = server.hosted.browsers();
    let (visitor, url) = visitor_before(&server).await;
    let (late, late_url) = visitor_before(&server).await;
    let token = late.form_token(&late_url).await;
    assert_goes_on(&visitor.sign_in(&url, EMAIL, &server.place.password).await, "/connections");
    let mut headers = http::HeaderMap::new();
    headers.insert("cookie", visitor.cookie().unwrap().parse().unwrap());
    let known = browsers.of(&headers).unwrap();

    clock.advance(chrono::TimeDelta::seconds(599));
    assert!(within(browsers.person(&known)).await.unwrap().is_some());
    clock.advance(chrono::TimeDelta::seconds(1));
    assert!(within(browsers.person(&known)).await.unwrap().is_none());
    assert!(within(browsers.take_session(&known)).await.unwrap().is_none());
    let asked = server.sandbox.count(LOGIN);
    let login = [("email", EMAIL), ("password", secrets::text(&server.place.password))];
    let answer = late.post_with(&late_url, "sign-in", &token, &login).await;
    assert_eq!(answer.status(), StatusCode::GONE);
    assert!(answer.text().await.unwrap().contains("This sign-in link has expired"));
    assert_eq!(server.sandbox.count(LOGIN), asked);
}
