//! `/authorize`: from a client's request to its code, over signing in and consent.

use axum::Router;

use super::Hosted;

impl Hosted {
    pub(super) fn authorize_routes(&self) -> Router {
        Router::new()
    }
}
