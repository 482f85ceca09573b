//! Pages about the replica itself, below `/_/`: read-only, for people, the demo and tests that check a canister's own
//! accounting. No client of a real network has them, so no product code may use them.

use super::network::Network;
use super::pocketic::topology;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use candid::Principal;
use serde::Serialize;

/// What `/_/metrics/<canister>` answers.
#[derive(Serialize)]
struct CanisterMetrics {
    canister_id: String,
    /// Cumulative since the canister was created.
    total: crate::subnet::Counters,
    last_message: Option<crate::subnet::MessageCost>,
    cycle_balance: Option<u128>,
    /// Rounds this process has executed.
    rounds: u64,
    time_ns: u64,
}

/// Answers `/_/<page>`.
pub async fn serve(network: &Network, page: &str) -> Response {
    match page.split('/').collect::<Vec<_>>()[..] {
        ["topology"] => Json(topology::of_network(network.facts())).into_response(),
        ["metrics", canister] => metrics(network, canister).await,
        _ => (StatusCode::NOT_FOUND, format!("no page /_/{page}: there are /_/topology and /_/metrics/<canister>\n"))
            .into_response(),
    }
}

async fn metrics(network: &Network, canister: &str) -> Response {
    let Ok(id) = Principal::from_text(canister) else {
        return (StatusCode::BAD_REQUEST, format!("{canister:?} is not a canister id\n")).into_response();
    };
    let found = network
        .run(move |host| {
            let subnet = host.subnet();
            subnet.counters(&id).map(|total| CanisterMetrics {
                canister_id: id.to_text(),
                total,
                last_message: subnet.last_message_cost(&id),
                cycle_balance: subnet.cycles(&id),
                rounds: host.rounds(),
                time_ns: subnet.time_ns(),
            })
        })
        .await;
    match found {
        Ok(Some(metrics)) => Json(metrics).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, format!("no canister {canister}\n")).into_response(),
        Err(error) => error.into_response(),
    }
}
