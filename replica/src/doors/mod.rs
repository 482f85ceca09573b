//! The ways in, all of them for official clients: the IC HTTP interface and its gateway on one port
//! ([`network_router`]), and the PocketIC server's REST interface ([`pocketic`]).
//!
//! Every door talks to a [`Network`]: a handle to the thread that owns a subnet. Doors never touch the subnet from a
//! task of the HTTP server, so a message that executes for a minute delays answers but blocks no connection.

pub mod cors;
pub mod gateway;
pub mod http;
mod introspection;
pub mod network;
pub mod pocketic;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::{Listener, ListenerExt};
pub use network::{Network, NetworkConfig};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Everything one network serves on one port: the IC HTTP interface below `/api`, the replica's own pages below `/_`,
/// and the HTTP gateway for every other path.
///
/// `domains` are the host names below which the gateway finds canister ids (`<canister>.localhost`).
pub fn network_router(network: Network, domains: Vec<String>) -> Router {
    async fn serve(State((network, domains)): State<(Network, Vec<String>)>, request: Request) -> Response {
        serve_network(&network, &domains, request).await
    }
    Router::new().fallback(serve).with_state((network, domains))
}

/// A listener whose connections send small answers at once.
pub fn without_delay(listener: TcpListener) -> impl Listener<Addr = SocketAddr> {
    listener.tap_io(|stream| {
        // Without it answers are as right, only later.
        let _ = stream.set_nodelay(true);
    })
}

/// Answers one request to a network; see [`network_router`].
pub async fn serve_network(network: &Network, domains: &[String], request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path.starts_with("/api/") {
        http::serve(network, &path, request).await
    } else if let Some(page) = path.strip_prefix("/_/") {
        introspection::serve(network, page).await
    } else {
        gateway::serve(network, domains, request).await
    }
}
