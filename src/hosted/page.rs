//! What the pages of a hosted server share: the frame of their templates, and pages that only say something.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

use super::Hosted;

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage<'a> {
    authority: &'a str,
    title: &'a str,
    text: &'a str,
}

/// Returns a page that says something.
pub(super) fn message(hosted: &Hosted, status: StatusCode, title: &str, text: &str) -> Response {
    rendered(status, &MessagePage { authority: hosted.authority(), title, text })
}

pub(super) fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Hosted {
    /// Returns the host and port of the server, as the pages show them.
    pub(super) fn authority(&self) -> &str {
        self.inner.settings.origin.authority()
    }
}
