//! A minimal browser for the sign-in page, which has no scripts.

use bondmcp_server::secret::SecretString;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use super::{EMAIL, secrets, within};

/// A browser on the sign-in page.
pub struct Browser {
    pub http: reqwest::Client,
    pub url: String,
    pub form_token: String,
}

impl Browser {
    pub async fn open(url: &str) -> Self {
        let http = reqwest::Client::new();
        let page = text(within(http.get(url).send()).await.unwrap()).await;
        let (_, rest) = page.split_once(r#"name="form_token" value=""#).unwrap();
        let form_token = rest.split_once('"').unwrap().0.to_owned();
        Self { http, url: url.to_owned(), form_token }
    }

    pub fn post(&self, way: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        self.form(way, fields).header("sec-fetch-site", "same-origin")
    }

    /// Sends a form without `Origin` and `Sec-Fetch-Site`, as no browser does.
    pub fn form(&self, way: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("form_token", &self.form_token).extend_pairs(fields);
        self.http
            .post(format!("{}/{way}", self.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish())
    }

    pub async fn sign_in(&self, password: &SecretString) -> Response {
        let fields = [("email", EMAIL), ("password", secrets::text(password)), ("remember", "yes")];
        within(self.post("sign-in", &fields).send()).await.unwrap()
    }
}

pub async fn text(response: Response) -> String {
    within(response.text()).await.unwrap()
}

/// Returns an answer that must be JSON.
pub async fn json_of(response: Response) -> Value {
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the link in an answer to the agent.
pub fn link(told: &Value) -> String {
    let told = told.to_string();
    let (_, rest) = told.split_once("http://127.0.0.1:").unwrap();
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_".contains(c))).unwrap();
    format!("http://127.0.0.1:{}", &rest[..end])
}
