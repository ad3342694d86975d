//! `/connections`: the apps that a person has connected.

use axum::Router;

use super::Hosted;

impl Hosted {
    pub(super) fn connections_routes(&self) -> Router {
        Router::new()
    }
}
