//! `/sign-in`: the sign-in pages, which every replica serves.

use axum::Router;

use super::Hosted;

impl Hosted {
    pub(super) fn sign_in_routes(&self) -> Router {
        Router::new()
    }
}
