//! Browsers that close the connection before they are answered.

use std::{future::poll_fn, pin::pin, task::Poll};

use crate::common::{
    EMAIL,
    consent::{Browser, form_token, location, text},
    hosted_server::{Authorization, HostedServer},
    within,
};
use axum::{body::Body, response::Response};
use bondmcp_server::vault::RecordKind;
use http::{Request, StatusCode, request::Builder};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

const LOGOUT: &str = "POST /auth/logout";

async fn authorization(server: &HostedServer) -> Authorization {
    Authorization::of(server.register(&["http://127.0.0.1/callback"]).await)
}

/// Adds what a browser sends with each request.
fn of_browser(browser: &Browser<'_>, server: &HostedServer, request: Builder) -> Builder {
    request.header("host", server.origin.strip_prefix("http://").unwrap()).header("cookie", browser.cookies())
}

/// Sends a request, and hangs up when its handler has been polled so often. Returns the answer if there was one by then.
async fn hang_up_after(polls: usize, server: &HostedServer, request: Request<Body>) -> Option<Response> {
    let (router, mut polled) = (TowerToHyperService::new(server.hosted.router()), 0);
    let mut answering = pin!(router.call(request));
    let step = poll_fn(|context| {
        polled += 1;
        if polled > polls { Poll::Ready(None) } else { answering.as_mut().poll(context).map(Some) }
    });
    within(step).await.map(Result::unwrap)
}

/// Sends a form, and hangs up at once.
async fn submit_and_hang_up(
    browser: &Browser<'_>,
    server: &HostedServer,
    path: &str,
    fields: &[(&str, &str)],
) {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let form = of_browser(browser, server, Request::post(path))
        .header("sec-fetch-site", "same-origin")
        .header("origin", "null")
        .header("content-type", "application/x-www-form-urlencoded");
    assert!(hang_up_after(1, server, form.body(body.into()).unwrap()).await.is_none());
}

/// Or a session that was taken out of its record would never be ended, and a decision would not be audited.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_form_begins_goes_on_to_its_end() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    let (page, form) = browser.consent(&authorization(&server).await).await;
    submit_and_hang_up(&browser, &server, &format!("{page}/account"), &form.identity()).await;
    within(server.sandbox.faults().arrived(LOGOUT, 1)).await;

    browser.sign_in(&page, EMAIL, &server.place.password).await;
    let token = form_token(&text(browser.get("/connections").await).await);
    submit_and_hang_up(&browser, &server, "/connections/sign-out", &[("form_token", &token)]).await;
    within(server.sandbox.faults().arrived(LOGOUT, 2)).await;

    let (page, form) = browser.consent(&authorization(&server).await).await;
    submit_and_hang_up(&browser, &server, &page, &form.fields(&[("decision", "deny")])).await;
    let (_, reference) = form.html.split_once("Reference for support: <strong>").unwrap();
    let reference = reference.split_once('<').unwrap().0;
    let denied = async {
        while !server
            .hosted
            .traces()
            .find(reference)
            .await
            .unwrap()
            .unwrap()
            .steps
            .iter()
            .any(|step| step.step == "denied")
        {
            tokio::task::yield_now().await;
        }
    };
    within(denied).await;
}

async fn codes(server: &HostedServer) -> Vec<String> {
    let codes = server.server.records().all::<Value>(RecordKind::new("code")).await.unwrap();
    codes.into_iter().map(|(id, _)| id).collect()
}

/// Until there is a code, whoever comes back gets one.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_on_the_way_back_to_the_app_has_lost_nothing_but_a_code() {
    let server = HostedServer::start().await;
    let browser = Browser::new(&[&server]);
    for polls in 1.. {
        let (page, form) = browser.consent(&authorization(&server).await).await;
        let done = location(&browser.decide(&page, &form, "allow").await);
        let before = codes(&server).await;
        let request = of_browser(&browser, &server, Request::get(&done)).body(Body::empty()).unwrap();
        if let Some(answer) = hang_up_after(polls, &server, request).await {
            assert_eq!(answer.status(), StatusCode::FOUND);
            break;
        }
        let again = browser.get(&done).await;
        let has_new = codes(&server).await.iter().any(|code| !before.contains(code));
        assert!(again.status() == StatusCode::FOUND || has_new, "{polls}: {}", text(again).await);
    }
}
