//! Calls through the REST interface: unsigned, because its clients may speak for anyone.

use super::operations::{ApiError, Outcome, json};
use super::types::{
    Base64, RawCanisterCall, RawEffectivePrincipal, RawIngressStatusArgs, RawMessageId, RejectResponse,
};
use crate::doors::network::{Host, Network};
use crate::subnet::{Ingress, IngressState, IngressStatus, QueryCall};
use candid::Principal;
use ic_transport_types::EnvelopeContent;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Rounds that one request may wait for an answer.
const MAX_AWAIT_ROUNDS: usize = 100;

/// How long a message stays valid, in the instance's time.
const INGRESS_TTL: Duration = Duration::from_secs(5 * 60);

/// Size of an ingress message, its envelope included, on application subnets.
const MAX_INGRESS_BYTES: usize = 2 * 1024 * 1024;

/// What an envelope takes beside method name and argument: principals, expiry, nonce, key, signature, CBOR keys.
const ENVELOPE_BYTES: usize = 400;

/// Takes a message in; answers with its id or the rejection.
pub async fn submit(network: &Network, call: RawCanisterCall) -> Outcome {
    check_route(network, &call)?;
    let expiry_ns = network.now_ns().saturating_add(INGRESS_TTL.as_nanos() as u64);
    let effective_principal = call.effective_principal.clone();
    let ingress = to_ingress(call, expiry_ns)?;
    let message_id = Base64(ingress.id.to_vec());
    let submitted = network.run(move |host| host.submit(ingress)).await?;
    let result = submitted
        .map(|()| RawMessageId { effective_principal, message_id })
        .map_err(|rejection| RejectResponse::new(rejection, false));
    json(&result)
}

fn to_ingress(call: RawCanisterCall, expiry_ns: u64) -> Result<Ingress, ApiError> {
    /// Makes equal calls different messages.
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let size_bytes = call.payload.0.len() + call.method.len() + ENVELOPE_BYTES;
    if size_bytes > MAX_INGRESS_BYTES {
        return Err(ApiError::bad_request(format!(
            "BadIngressMessage(\"the message has {size_bytes} bytes; at most {MAX_INGRESS_BYTES} are allowed\")"
        )));
    }
    let sender = call.sender.to_principal().map_err(ApiError::bad_request)?;
    let canister_id = call.canister_id.to_principal().map_err(ApiError::bad_request)?;
    let content = EnvelopeContent::Call {
        nonce: Some(NONCE.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec()),
        ingress_expiry: expiry_ns,
        sender,
        canister_id,
        method_name: call.method,
        arg: call.payload.0,
        sender_info: None,
    };
    let id = *content.to_request_id();
    match content {
        EnvelopeContent::Call { method_name: method, arg: argument, .. } => {
            Ok(Ingress { id, sender, canister_id, method, argument, expiry_ns })
        }
        _ => unreachable!("the content was made a call above"),
    }
}

fn check_route(network: &Network, call: &RawCanisterCall) -> Result<(), ApiError> {
    if call.sender_info.is_some() {
        return Err(ApiError::bad_request("sender_info is not supported by this server"));
    }
    if let RawEffectivePrincipal::SubnetId(id) = &call.effective_principal {
        let subnet = id.to_principal().map_err(ApiError::bad_request)?;
        if subnet != network.facts().subnet_id {
            return Err(ApiError::bad_request(format!("SubnetNotFound({subnet})")));
        }
    }
    Ok(())
}

/// Executes rounds until the message is answered, at most 100.
pub async fn await_message(network: &Network, message: RawMessageId) -> Outcome {
    let id = request_id(&message)?;
    for round in 0..=MAX_AWAIT_ROUNDS {
        let result = network
            .run(move |host| {
                if round > 0 {
                    host.round();
                }
                result_of(host, &id)
            })
            .await?;
        match result {
            Known::Answered(result) => return json(&result),
            Known::Waiting => {}
            Known::Nothing => break,
        }
    }
    Err(ApiError::bad_request(format!(
        "BadIngressMessage(\"Failed to answer to ingress 0x{} after {MAX_AWAIT_ROUNDS} rounds.\")",
        hex::encode(id)
    )))
}

/// The answer to a message if there is one, without executing anything.
pub async fn status(network: &Network, arguments: RawIngressStatusArgs) -> Outcome {
    let id = request_id(&arguments.raw_message_id)?;
    let caller = match arguments.raw_caller {
        Some(caller) => Some(caller.principal_id.to_principal().map_err(ApiError::bad_request)?),
        None => None,
    };
    let (sender, known) = network
        .run(move |host| (host.subnet().ingress_status(&id).map(|status| status.sender), result_of(host, &id)))
        .await?;
    if let (Some(caller), Some(sender)) = (caller, sender)
        && caller != sender
    {
        return Err(ApiError {
            status: axum::http::StatusCode::FORBIDDEN,
            message: "The user tries to access Request ID not signed by the caller.".into(),
        });
    }
    match known {
        Known::Answered(result) => json(&Some(result)),
        Known::Waiting | Known::Nothing => json(&None::<()>),
    }
}

/// Runs a query call.
pub async fn query(network: &Network, call: RawCanisterCall) -> Outcome {
    check_route(network, &call)?;
    let call = QueryCall {
        sender: call.sender.to_principal().map_err(ApiError::bad_request)?,
        canister_id: call.canister_id.to_principal().map_err(ApiError::bad_request)?,
        method: call.method,
        argument: call.payload.0,
    };
    let result = network
        .run(move |host| {
            host.follow_clock();
            host.subnet_mut().query(call)
        })
        .await?;
    json(&result.map(Base64).map_err(|rejection| RejectResponse::new(rejection, false)))
}

/// What the ingress history says of a message.
enum Known {
    Answered(Result<Base64, RejectResponse>),
    Waiting,
    Nothing,
}

fn result_of(host: &Host, id: &[u8; 32]) -> Known {
    let Some(IngressStatus { state, .. }) = host.subnet().ingress_status(id) else { return Known::Nothing };
    match state {
        IngressState::Received | IngressState::Processing => Known::Waiting,
        IngressState::Replied(reply) => Known::Answered(Ok(Base64(reply.clone()))),
        IngressState::Rejected(rejection) => Known::Answered(Err(RejectResponse::new(rejection.clone(), true))),
        IngressState::Done => Known::Nothing,
    }
}

fn request_id(message: &RawMessageId) -> Result<[u8; 32], ApiError> {
    let id = &message.message_id.0;
    id.as_slice()
        .try_into()
        .map_err(|_| ApiError::bad_request(format!("a message id of {} bytes instead of 32", id.len())))
}

/// The canister a request is about.
pub fn principal(id: &Base64) -> Result<Principal, ApiError> {
    id.to_principal().map_err(ApiError::bad_request)
}
