//! The sign-in page of a hosted server, under its public origin.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bondmcp_server::{
    account::{Error, Owner},
    mcp::{BondMcp, Limits, Selection},
    sign_in::{LIFETIME, State},
};
use common::{
    EMAIL,
    hosted::{HOST_OF_PAGES, Hosted, LOCAL_WORDS, LOGIN, LOGOUT, ORIGIN_OF_PAGES, OTHER_EMAIL},
    raw::{ask, modern_as},
    within,
};
use reqwest::{
    StatusCode,
    header::{HOST, ORIGIN, SET_COOKIE},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_hosted_server_stands_under_its_public_origin() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let url = pending.url();
    assert!(pending.is_public() && url.starts_with(&format!("{ORIGIN_OF_PAGES}/sign-in/")), "{url}");
    let answer = hosted.get(url).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers();
    assert!(headers.get(SET_COOKIE).is_none());
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-frame-options"], "DENY");
    let page = answer.text().await.unwrap();
    assert!(page.contains(pending.code()) && page.contains(HOST_OF_PAGES), "{page}");
    for path in ["", "/create", "/key", "/demo"] {
        let page = hosted.page(&format!("{url}{path}")).await;
        for word in LOCAL_WORDS {
            assert!(!page.contains(word), "{path}: {word}");
        }
        assert!(!page.contains("API key</a>") && !page.contains(r#"name="key""#), "{path}");
    }
    // Everything that the page names is below the public path.
    let links = page
        .split(['"', '\''])
        .filter(|text| text.starts_with('/') && !text.contains('>'))
        .collect::<Vec<_>>();
    assert!(links.len() > 3 && links.iter().all(|link| link.starts_with("/sign-in/")), "{links:?}");
    let style = hosted.get(&format!("{ORIGIN_OF_PAGES}/sign-in/style.css")).await;
    assert_eq!(style.status(), StatusCode::OK);

    let answer = hosted.sign_in(url, EMAIL).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("You are signed in"));
    assert_eq!(within(pending.finished(LIFETIME)).await, State::SignedIn { email: Some(EMAIL.into()) });
    let account = hosted.world.subject("ada");
    assert_eq!(account.status().await.unwrap().email.as_deref(), Some(EMAIL));
    // No password is stored on a server that is not the person's own.
    hosted.world.sandbox.expire_tokens();
    assert!(matches!(within(account.list_models(true)).await, Err(Error::SignInRequired { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_about_its_host_decides_nothing() {
    let hosted = Hosted::new().await;
    let (_sign_in, pending) = hosted.begin("ada").await;
    let url = pending.url();
    let address = hosted.address.to_string();
    for host in [&*address, "evil.example", "mcp.example.com:8443", "mcp.example.com.evil.example"] {
        let request = hosted.http.get(hosted.behind(url)).header(HOST, host);
        let request =
            request.header("x-forwarded-host", HOST_OF_PAGES).header("forwarded", "host=mcp.example.com");
        let answer = within(request.send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}");
        let told = answer.text().await.unwrap();
        assert_eq!(told, "This page is served at https://mcp.example.com only.");
    }
    let forwarded = hosted.http.get(hosted.behind(url)).header(HOST, HOST_OF_PAGES);
    let page =
        forwarded.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "http").send();
    assert!(!within(page).await.unwrap().text().await.unwrap().contains("evil.example"));

    let token = hosted.form_token(url).await;
    let form = || hosted.form(url, &token, EMAIL, &hosted.world.place.password);
    let forms = [
        form(),
        form().header(ORIGIN, "null"),
        form().header(ORIGIN, "http://mcp.example.com"),
        form().header(ORIGIN, "https://evil.example"),
        form().header(ORIGIN, format!("http://{address}")),
        form().header(ORIGIN, ORIGIN_OF_PAGES).header("sec-fetch-site", "cross-site"),
        form().header(ORIGIN, ORIGIN_OF_PAGES).header("sec-fetch-site", "same-site"),
    ];
    for form in forms {
        assert_eq!(within(form.send()).await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    // The processes of one computer prove themselves to each other; on the internet there is nobody to do so.
    let join = hosted.http.post(format!("http://{address}/sign-in/join")).header(HOST, HOST_OF_PAGES);
    let join = within(join.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_ne!(join.status(), StatusCode::OK);
    assert_eq!(hosted.world.sandbox.count(LOGIN), 0);
    assert_eq!(pending.state(), State::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_found_by_its_id_and_serves_its_owner_alone() {
    let hosted = Hosted::new().await;
    let (_ada, for_ada) = hosted.begin("ada").await;
    let (_grace, for_grace) = hosted.begin("grace").await;
    assert_ne!((for_ada.url(), for_ada.code()), (for_grace.url(), for_grace.code()));
    assert!(hosted.page(for_ada.url()).await.contains(for_ada.code()));
    assert!(hosted.page(for_grace.url()).await.contains(for_grace.code()));
    for unknown in ["x", for_ada.name(), &for_ada.url()[ORIGIN_OF_PAGES.len() + "/sign-in/".len() + 1..]] {
        let answer = hosted.get(&format!("{ORIGIN_OF_PAGES}/sign-in/{unknown}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{unknown}");
    }
    // A form of one page is not accepted by the other.
    let token = hosted.form_token(for_ada.url()).await;
    let form = hosted.form(for_grace.url(), &token, EMAIL, &hosted.world.place.password);
    let answer = within(form.header(ORIGIN, ORIGIN_OF_PAGES).send()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);

    assert_eq!(hosted.sign_in(for_grace.url(), OTHER_EMAIL).await.status(), StatusCode::OK);
    assert_eq!(for_ada.state(), State::Open);
    assert!(!hosted.world.subject("ada").status().await.unwrap().signed_in);
    let grace = hosted.world.subject("grace").status().await.unwrap();
    assert_eq!(grace.email.as_deref(), Some(OTHER_EMAIL));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_cannot_complete_the_sign_in_of_a_subject() {
    let hosted = Hosted::new().await;
    let account = hosted.world.subject("ada");
    within(account.adopt(hosted.world.authenticated(EMAIL).await, false)).await.unwrap();
    within(account.sign_out(false)).await.unwrap();
    let (_sign_in, pending) = hosted.begin("ada").await;

    let answer = hosted.sign_in(pending.url(), OTHER_EMAIL).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    assert!(page.contains("This account belongs to another BondMCP user."), "{page}");
    assert!(!page.contains(EMAIL), "the page tells nobody whose account it is");
    within(hosted.world.sandbox.faults().arrived(LOGOUT, 2)).await;
    assert_eq!(pending.state(), State::Open);
    assert!(!account.status().await.unwrap().signed_in);

    assert_eq!(hosted.sign_in(pending.url(), EMAIL).await.status(), StatusCode::OK);
    assert!(account.status().await.unwrap().signed_in);
}

/// Calls a tool as a host that can open links or cannot.
fn call(tool: &str, opens_links: bool, more: &Value) -> Value {
    let mut params = json!({"name": tool, "arguments": {}});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    modern_as(
        1,
        "tools/call",
        params,
        if opens_links { json!({"elicitation": {"url": {}}}) } else { json!({}) },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_hear_nothing_of_the_persons_own_computer() {
    let hosted = Hosted::new().await;
    let (selection, limits, stopping) = (Selection::default(), Limits::default(), CancellationToken::new());
    let accounts = hosted.world.accounts.clone();
    let server = BondMcp::new(accounts, Some(hosted.options()), &selection, limits, stopping).unwrap();
    let ada = Owner::Subject("ada".to_owned());
    let told = ask(&server, &ada, &call("login", false, &json!({}))).await;
    let url = told["result"]["structuredContent"]["sign_in_url"].as_str().unwrap().to_owned();
    let asked = ask(&server, &ada, &call("list_models", true, &json!({}))).await;
    assert_eq!(asked["result"]["inputRequests"]["person"]["params"]["url"], url.as_str());
    let state = json!({"requestState": asked["result"]["requestState"],
        "inputResponses": {"person": {"action": "decline"}}});
    let declined = ask(&server, &ada, &call("list_models", true, &state)).await;
    assert!(declined.to_string().contains("declined"), "{declined}");
    let failed = ask(&server, &ada, &call("list_models", false, &json!({}))).await;
    let registered = ask(&server, &ada, &call("register", false, &json!({}))).await;
    for answer in [told, asked, declined, failed, registered] {
        let answer = answer.to_string();
        assert!(answer.contains(&url), "{answer}");
        for word in LOCAL_WORDS.into_iter().chain(["local page", "this host runs"]) {
            assert!(!answer.contains(word), "{word}: {answer}");
        }
    }
    assert_eq!(hosted.sign_in(&url, EMAIL).await.status(), StatusCode::OK);
    let models = ask(&server, &ada, &call("list_models", false, &json!({}))).await;
    assert_eq!(models["result"]["structuredContent"]["count"], 3, "{models}");
}
