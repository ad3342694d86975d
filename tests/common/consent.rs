//! A browser that signs in and agrees, on the pages of hosted servers in this process.

use std::{cell::RefCell, collections::BTreeMap};

use bondmcp_server::secret::SecretString;
use reqwest::{RequestBuilder, Response};
use url::Url;

use super::{
    EMAIL,
    hosted_server::{Authorization, HostedServer},
    secrets, within,
};

/// A browser with its cookies, which sends each request to the next of the replicas.
pub struct Browser<'a> {
    replicas: Vec<&'a HostedServer>,
    sent: RefCell<usize>,
    cookies: RefCell<BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    pub fn new(replicas: &[&'a HostedServer]) -> Self {
        Self { replicas: replicas.to_vec(), sent: RefCell::default(), cookies: RefCell::default() }
    }

    /// Returns another browser with the same cookies.
    pub fn copy(&self) -> Self {
        Self { replicas: self.replicas.clone(), sent: RefCell::default(), cookies: self.cookies.clone() }
    }

    fn next(&self) -> &'a HostedServer {
        let mut sent = self.sent.borrow_mut();
        *sent += 1;
        self.replicas[*sent % self.replicas.len()]
    }

    fn path_of(&self, to: &str) -> String {
        to.strip_prefix(&self.replicas[0].origin).unwrap_or(to).to_owned()
    }

    /// Returns the value of the header `Cookie`.
    pub fn cookies(&self) -> String {
        let cookies = self.cookies.borrow();
        cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub async fn send(&self, server: &HostedServer, request: RequestBuilder) -> Response {
        let response = server.send(request.header("cookie", self.cookies())).await;
        for cookie in response.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.borrow_mut().insert(name.to_owned(), value.to_owned());
        }
        response
    }

    pub async fn get(&self, to: &str) -> Response {
        let server = self.next();
        self.send(server, server.http.get(server.at(&self.path_of(to)))).await
    }

    /// Sends a form as the page in this browser does.
    pub async fn post(&self, to: &str, fields: &[(&str, &str)]) -> Response {
        let server = self.next();
        let request = self.form(server, to, fields).header("sec-fetch-site", "same-origin");
        self.send(server, request.header("origin", "null")).await
    }

    pub fn form(&self, server: &HostedServer, to: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        server
            .http
            .post(server.at(&self.path_of(to)))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    /// Begins an authorization; returns the path of its page.
    pub async fn authorize(&self, authorization: &Authorization) -> String {
        location(&self.get(&format!("/authorize?{}", authorization.query())).await)
    }

    /// Signs in on the page that the authorization leads to.
    pub async fn sign_in(&self, page: &str, email: &str, password: &SecretString) {
        let sign_in = location(&self.get(page).await);
        assert!(sign_in.starts_with("/sign-in/"), "{sign_in}");
        let form_token = form_token(&text(self.get(&sign_in).await).await);
        let password = secrets::text(password);
        let fields = [("form_token", form_token.as_str()), ("email", email), ("password", password)];
        let answer = self.post(&format!("{sign_in}/sign-in"), &fields).await;
        assert_eq!(location(&answer), page);
    }

    /// Comes to the consent page, signed in as Ada; returns its path and its form.
    pub async fn consent(&self, authorization: &Authorization) -> (String, Form) {
        self.consent_to(&format!("/authorize?{}", authorization.query())).await
    }

    async fn consent_to(&self, request: &str) -> (String, Form) {
        let page = location(&self.get(request).await);
        self.sign_in(&page, EMAIL, &self.replicas[0].place.password).await;
        let response = self.get(&page).await;
        assert_eq!(response.status(), 200);
        (page, Form::of(text(response).await))
    }

    /// Uses the button "Try again" of the page `failed`, and signs in as Ada; returns the path of the consent page.
    pub async fn try_again(&self, page: &str, failed: &str) -> String {
        let fields = [("form_token", &*form_token(failed))];
        let again = location(&self.post(&format!("{page}/retry"), &fields).await);
        self.sign_in(&again, EMAIL, &self.replicas[0].place.password).await;
        again
    }

    pub async fn decide(&self, page: &str, form: &Form, decision: &str) -> Response {
        self.post(page, &form.fields(&[("decision", decision)])).await
    }

    /// Agrees to everything; returns the address that takes the code to the client.
    pub async fn allow(&self, authorization: &Authorization) -> Url {
        self.allow_at(&format!("/authorize?{}", authorization.query())).await
    }

    /// The same for the address of an authorization request.
    pub async fn allow_at(&self, request: &str) -> Url {
        let (page, form) = self.consent_to(request).await;
        let done = location(&self.decide(&page, &form, "allow").await);
        let answer = self.get(&done).await;
        assert_eq!(answer.status(), 302, "{}", text(answer).await);
        location(&answer).parse().unwrap()
    }
}

/// The form of a consent page.
pub struct Form {
    pub html: String,
    pub token: String,
    pub shown: String,
}

impl Form {
    pub fn of(html: String) -> Self {
        let (token, shown) = (form_token(&html), value(&html, "shown"));
        Self { html, token, shown }
    }

    /// Returns the fields as a browser sends them, with everything ticked.
    pub fn fields<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut fields = self.identity();
        fields.extend([("scope", "models"), ("scope", "health"), ("scope", "keys"), ("daily_limit", "0.50")]);
        fields.extend(more);
        fields
    }

    pub fn identity(&self) -> Vec<(&str, &str)> {
        vec![("form_token", self.token.as_str()), ("shown", self.shown.as_str())]
    }
}

pub fn form_token(html: &str) -> String {
    value(html, "form_token")
}

pub fn value(html: &str, name: &str) -> String {
    let (_, rest) =
        html.split_once(&format!(r#"name="{name}" value=""#)).unwrap_or_else(|| panic!("{name} in {html}"));
    rest.split_once('"').unwrap().0.to_owned()
}

pub fn location(response: &Response) -> String {
    let to = response.headers().get("location").unwrap_or_else(|| panic!("{response:?}"));
    to.to_str().unwrap().to_owned()
}

pub async fn text(response: Response) -> String {
    within(response.text()).await.unwrap()
}
