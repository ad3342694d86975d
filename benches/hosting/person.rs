//! A person with a browser who connects an app: the pages from the authorization request to the code.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bondmcp_server::secret::{self, ExposeSecret as _};
use reqwest::{RequestBuilder, Response, header, redirect::Policy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded::Serializer};

const REDIRECT_URI: &str = "http://127.0.0.1:9/callback";

pub struct Person {
    origin: String,
    http: reqwest::Client,
    cookie: String,
}

impl Person {
    pub fn new(origin: &str) -> Result<Self> {
        let http = reqwest::Client::builder().redirect(Policy::none()).build()?;
        Ok(Self { origin: origin.to_owned(), http, cookie: String::new() })
    }

    /// Registers an app; returns its client id.
    pub async fn register(&self) -> Result<String> {
        let app = json!({"client_name": "Bench", "redirect_uris": [REDIRECT_URI]}).to_string();
        let request = self.http.post(self.at("/register")).header(header::CONTENT_TYPE, "application/json");
        let registered: Value = serde_json::from_str(&request.body(app).send().await?.text().await?)?;
        Ok(registered["client_id"].as_str().context("no client_id")?.to_owned())
    }

    /// Connects the app; returns its access token, and the time from the authorization request to it.
    pub async fn connect(&mut self, client_id: &str, email: &str) -> Result<(String, Duration)> {
        let verifier = secret::random().expose_secret().to_owned();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let began = Instant::now();
        let page = location(&self.get(&format!("/authorize?{query}")).await?)?;
        let sign_in = location(&self.get(&page).await?)?;
        let html = self.get(&sign_in).await?.text().await?;
        let fields =
            [("form_token", field(&html, "form_token")?), ("email", email), ("password", "password-1")];
        ensure!(
            location(&self.post(&format!("{sign_in}/sign-in"), &fields).await?)? == page,
            "not signed in"
        );
        let html = self.get(&page).await?.text().await?;
        let fields = [
            ("form_token", field(&html, "form_token")?),
            ("shown", field(&html, "shown")?),
            ("scope", "models"),
            ("daily_limit", "5"),
            ("decision", "allow"),
        ];
        let done = location(&self.post(&page, &fields).await?)?;
        let back: Url = location(&self.get(&done).await?)?.parse()?;
        let code = back.query_pairs().find(|(name, _)| name == "code").context("no code")?.1.into_owned();
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", &verifier),
        ];
        let tokens: Value = serde_json::from_str(&self.post("/token", &fields).await?.text().await?)?;
        let took = began.elapsed();
        Ok((tokens["access_token"].as_str().context("no access token")?.to_owned(), took))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    async fn get(&mut self, path: &str) -> Result<Response> {
        self.send(self.http.get(self.at(path))).await
    }

    /// Sends a form as the pages do.
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Response> {
        let request = self.http.post(self.at(path)).header("sec-fetch-site", "same-origin");
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(form(fields))).await
    }

    async fn send(&mut self, request: RequestBuilder) -> Result<Response> {
        let response = request.header(header::COOKIE, &self.cookie).send().await?;
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            cookie.to_str()?.split(';').next().unwrap_or_default().clone_into(&mut self.cookie);
        }
        ensure!(response.status().as_u16() < 400, "{} at {}", response.status(), response.url().path());
        Ok(response)
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn location(response: &Response) -> Result<String> {
    let location = response.headers().get(header::LOCATION).context("no redirect")?;
    Ok(location.to_str()?.to_owned())
}

/// The value of a hidden field.
fn field<'a>(html: &'a str, name: &str) -> Result<&'a str> {
    let found =
        html.split_once(&format!(r#"name="{name}" value=""#)).and_then(|(_, rest)| rest.split_once('"'));
    Ok(found.with_context(|| format!("no field {name}"))?.0)
}
