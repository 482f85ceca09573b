//! Query calls: `/api/v{2,3}/canister/<effective id>/query`, answered with the node's signature.

use super::call::{check_effective_id, to_reject_response};
use super::envelope::Authenticated;
use super::{Effective, HttpError, cbor_response};
use crate::doors::network::Network;
use crate::subnet::QueryCall;
use axum::http::StatusCode;
use axum::response::Response;
use ic_transport_types::{EnvelopeContent, NodeSignature, QueryResponse, ReplyResponse, RequestId};

/// Runs a query and signs its answer.
pub async fn serve(network: &Network, effective: Effective, body: &[u8]) -> Result<Response, HttpError> {
    let request = Authenticated::from_cbor(body, network.now_ns())?;
    let request_id = RequestId::new(&request.request_id);
    let EnvelopeContent::Query { canister_id, method_name, arg, .. } = &request.content else {
        return Err(HttpError::bad_request("the request at a query endpoint is not a query"));
    };
    request.check_target(canister_id)?;
    check_effective_id(effective, canister_id, method_name, arg)?;
    let call = QueryCall {
        sender: request.sender,
        canister_id: *canister_id,
        method: method_name.clone(),
        argument: arg.clone(),
    };
    let node_id = network.facts().node_id;
    let response = network
        .run(move |host| {
            host.follow_clock();
            let result = host.subnet_mut().query(call);
            let response = match result {
                Ok(arg) => QueryResponse::Replied { reply: ReplyResponse { arg }, signatures: Vec::new() },
                Err(rejection) => {
                    QueryResponse::Rejected { reject: to_reject_response(rejection), signatures: Vec::new() }
                }
            };
            let timestamp = host.subnet().time_ns();
            let signature = host.subnet().node_key().sign(&response.signable(request_id, timestamp));
            with_signature(response, NodeSignature { timestamp, signature, identity: node_id })
        })
        .await?;
    Ok(cbor_response(StatusCode::OK, &response))
}

fn with_signature(response: QueryResponse, signature: NodeSignature) -> QueryResponse {
    let signatures = vec![signature];
    match response {
        QueryResponse::Replied { reply, .. } => QueryResponse::Replied { reply, signatures },
        QueryResponse::Rejected { reject, .. } => QueryResponse::Rejected { reject, signatures },
    }
}
