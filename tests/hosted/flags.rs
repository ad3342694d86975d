//! What an operator's flags change, on a process: how long refresh tokens live, and which budget the consent page offers.

use crate::common::{
    EMAIL, Place,
    browser::json_of,
    hosted_process::{ORIGIN, Process},
    hosted_server::{Authorization, parameter},
    like_the_seed, sandbox, secrets, within,
};
use bondmcp_server::{
    clock::Clock,
    oauth::{self, Acceptance, AuthorizationServer, Network, Scopes},
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

/// The refresh token of an app that was connected a while ago.
struct Connected {
    client_id: String,
    refresh_token: String,
}

impl Connected {
    /// Connects an app beside the process 40 hours ago, as if the person had agreed; lets it refresh `used` ago.
    async fn forty_hours_ago(process: &Process, place: &Place, used: Option<TimeDelta>) -> Self {
        let age = TimeDelta::hours(40);
        let clock = Clock::manual(chrono::Utc::now() - age);
        let (accounts, _) = crate::common::accounts(place);
        let vault = accounts.vault().await.unwrap();
        let settings = oauth::Settings::new(ORIGIN.parse().unwrap());
        let opened = AuthorizationServer::open(vault, settings, Network::public(), clock.clone());
        let server = within(opened).await.unwrap();
        let authorization = Authorization::of(process.register("http://127.0.0.1/callback").await);
        let request = server.authorization_request(&authorization.query()).await.unwrap();
        let authenticator = accounts.authenticator();
        let person = within(authenticator.with_password(EMAIL, place.password.clone())).await.unwrap();
        let subject = server.subject(person.user_id().unwrap());
        let grant = server.create_grant(&subject, &request, Scopes::all()).await.unwrap();
        accounts.open(&grant.owner()).adopt(person, false).await.unwrap();
        let answer = server.authorization_response(&request, &grant).await.unwrap();
        let ask = async |form: &[(&str, &str)]| {
            let form = Serializer::new(String::new()).extend_pairs(form).finish();
            let accepted = |_| async { Acceptance::Accepted };
            let tokens = within(server.token(None, form.as_bytes(), accepted)).await.unwrap();
            secrets::text(&tokens.refresh_token).to_owned()
        };
        let mut refresh_token = ask(&[
            ("grant_type", "authorization_code"),
            ("code", &parameter(&answer, "code")),
            ("client_id", &authorization.client_id),
            ("redirect_uri", &authorization.redirect_uri),
            ("code_verifier", &authorization.verifier),
        ])
        .await;
        if let Some(used) = used {
            clock.advance(age - used);
            refresh_token = ask(&refresh(&authorization.client_id, &refresh_token)).await;
        }
        accounts.close().await;
        Self { client_id: authorization.client_id, refresh_token }
    }

    /// Refreshes at the process; returns the status and the answer.
    async fn refresh(&self, process: &Process) -> (u16, Value) {
        let form = refresh(&self.client_id, &self.refresh_token);
        let response = within(process.post_form("/token", &form).send()).await.unwrap();
        (response.status().as_u16(), json_of(response).await)
    }
}

fn refresh<'a>(client_id: &'a str, refresh_token: &'a str) -> [(&'a str, &'a str); 3] {
    [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", client_id)]
}

/// RFC 9700, section 4.14.2: refresh tokens expire when they are not used for some time; and in the end.
#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_live_as_long_as_the_operator_says() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let an_hour_ago = Some(TimeDelta::hours(1));
    let idle = &["--refresh-idle-days", "1"][..];
    let absolute = &["--refresh-idle-days", "1", "--refresh-absolute-days", "1"];
    for (flags, used, is_good) in [
        (idle, None, false),
        (idle, an_hour_ago, true),
        (absolute, an_hour_ago, false),
        // By default 30 days and 180.
        (&[], None, true),
    ] {
        let process = Process::start(&place, flags).await;
        let connected = Connected::forty_hours_ago(&process, &place, used).await;
        let (status, answer) = connected.refresh(&process).await;
        if is_good {
            assert_eq!(status, 200, "{flags:?} {used:?}: {answer}");
        } else {
            assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{flags:?} {used:?}");
        }
        process.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consent_page_offers_the_operators_budget() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    for (flags, offered) in [(&[][..], "5.00"), (&["--default-daily-spend", "2"], "2.00")] {
        let process = Process::start(&place, flags).await;
        let page = process.browser().await.consent(&process, &place).await;
        assert!(page.contains(&format!(r#"value="{offered}""#)), "{offered}: {page}");
        process.end().await;
    }
}
