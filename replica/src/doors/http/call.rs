//! Update calls: `/api/v{2,3,4}/canister/<effective id>/call`.

use super::envelope::Authenticated;
use super::{Effective, HttpError, cbor_response};
use crate::doors::network::{CallOutcome, Network};
use crate::subnet::{Ingress, Rejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use candid::{CandidType, DecoderConfig, Deserialize, Principal};
use ic_transport_types::{EnvelopeContent, RejectCode, RejectResponse, TransportCallResponse};
use std::time::Duration;

/// How long a synchronous call waits for its answer before the client has to ask for it.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// How long an asynchronous call waits to learn whether it was taken in.
const SUBMISSION_PATIENCE: Duration = Duration::from_secs(10);

/// Work that decoding the argument of a management call may cost, in the decoder's units (about bytes).
const DECODING_QUOTA: usize = 16 * 1024 * 1024;

/// Takes a call in. With `synchronous` it answers with a certificate of the reply when there is one in time; 202
/// tells the client to ask for the status later.
pub async fn serve(
    network: &Network,
    effective: Effective,
    synchronous: bool,
    body: &[u8],
) -> Result<Response, HttpError> {
    let request = Authenticated::from_cbor(body, network.now_ns())?;
    let Authenticated { request_id, sender, .. } = request;
    let EnvelopeContent::Call { ingress_expiry, canister_id, method_name, arg, .. } = &request.content else {
        return Err(HttpError::bad_request("the request at a call endpoint is not a call"));
    };
    request.check_target(canister_id)?;
    check_effective_id(effective, canister_id, method_name, arg)?;
    let ingress = Ingress {
        id: request_id,
        sender,
        canister_id: *canister_id,
        method: method_name.clone(),
        argument: arg.clone(),
        expiry_ns: *ingress_expiry,
    };
    let outcome = if synchronous {
        network.call(ingress, CALL_PATIENCE).await?
    } else {
        match tokio::time::timeout(SUBMISSION_PATIENCE, network.run(move |host| host.submit(ingress))).await {
            Ok(submitted) => submitted?.map_or_else(CallOutcome::Refused, |()| CallOutcome::Pending),
            Err(_) => CallOutcome::Pending,
        }
    };
    Ok(match outcome {
        CallOutcome::Certified(certificate) => {
            cbor_response(StatusCode::OK, &TransportCallResponse::Replied { certificate })
        }
        CallOutcome::Refused(rejection) => {
            cbor_response(StatusCode::OK, &TransportCallResponse::NonReplicatedRejection(to_reject_response(rejection)))
        }
        CallOutcome::Pending if synchronous => cbor_response(StatusCode::ACCEPTED, &TransportCallResponse::Accepted),
        CallOutcome::Pending => StatusCode::ACCEPTED.into_response(),
    })
}

/// The rejection in the form of the HTTP interface.
pub fn to_reject_response(rejection: Rejection) -> RejectResponse {
    RejectResponse {
        // Clients know five codes; the sixth is for calls between canisters and never comes out here.
        reject_code: RejectCode::try_from(rejection.reject_code as u64).unwrap_or(RejectCode::SysTransient),
        reject_message: rejection.message,
        error_code: Some(rejection.error_code.to_ic_string()),
    }
}

/// Fails unless the address of a request agrees with its content (Interface Specification, "Effective canister id").
pub fn check_effective_id(
    effective: Effective,
    canister_id: &Principal,
    method: &str,
    argument: &[u8],
) -> Result<(), HttpError> {
    let is_management = *canister_id == Principal::management_canister();
    let named = match effective {
        Effective::Subnet(_) if is_management => return Ok(()),
        Effective::Subnet(_) => {
            return Err(HttpError::bad_request(format!(
                "only the management canister is reached by a subnet's id, not canister {canister_id}"
            )));
        }
        Effective::Canister(named) => named,
    };
    let expected = match method {
        _ if !is_management => *canister_id,
        // It may be created anywhere.
        "provisional_create_canister_with_cycles" | "create_canister" => return Ok(()),
        _ => target_of_management_call(method, argument)?,
    };
    if expected == named {
        return Ok(());
    }
    Err(HttpError::bad_request(format!(
        "the effective canister id in the address is {named}, but {method:?} concerns {expected}"
    )))
}

fn target_of_management_call(method: &str, argument: &[u8]) -> Result<Principal, HttpError> {
    #[derive(CandidType, Deserialize)]
    struct Target {
        canister_id: Option<Principal>,
        target_canister: Option<Principal>,
    }
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(DECODING_QUOTA).set_skipping_quota(DECODING_QUOTA);
    let target: Target = candid::utils::decode_one_with_config(argument, &config)
        .map_err(|e| HttpError::bad_request(format!("can't read the argument of {method:?}: {e}")))?;
    let found = if method == "install_chunked_code" { target.target_canister } else { target.canister_id };
    found.ok_or_else(|| HttpError::bad_request(format!("the argument of {method:?} names no canister")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> Principal {
        Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, byte, 1, 1])
    }

    #[test]
    fn the_effective_id_must_agree_with_the_content() {
        #[derive(CandidType)]
        struct Record {
            canister_id: Principal,
            wasm_module: Vec<u8>,
        }
        #[derive(CandidType)]
        struct Chunked {
            target_canister: Principal,
            store_canister: Option<Principal>,
        }
        let (one, two) = (Effective::Canister(id(1)), Effective::Canister(id(2)));
        let management = Principal::management_canister();
        let record = candid::encode_one(Record { canister_id: id(1), wasm_module: vec![0; 100_000] }).unwrap();
        let chunked = candid::encode_one(Chunked { target_canister: id(1), store_canister: Some(id(2)) }).unwrap();
        let check = |effective, canister: &Principal, method: &str, argument: &[u8]| {
            check_effective_id(effective, canister, method, argument).map_err(|e| e.message)
        };
        assert_eq!(check(one, &id(1), "anything", b"not Candid"), Ok(()));
        assert!(check(two, &id(1), "anything", b"").unwrap_err().contains("concerns"));
        assert_eq!(check(one, &management, "install_code", &record), Ok(()));
        assert!(check(two, &management, "install_code", &record).unwrap_err().contains("concerns"));
        assert_eq!(check(one, &management, "install_chunked_code", &chunked), Ok(()));
        assert!(check(two, &management, "install_chunked_code", &chunked).unwrap_err().contains("concerns"));
        assert!(check(one, &management, "install_code", b"DIDL").unwrap_err().contains("can't read"));
        assert!(check(one, &management, "raw_rand", b"DIDL\0\0").unwrap_err().contains("can't read"));
        assert_eq!(check(two, &management, "provisional_create_canister_with_cycles", b""), Ok(()));
        assert_eq!(check(Effective::Subnet(id(9)), &management, "create_canister", b""), Ok(()));
        assert!(check(Effective::Subnet(id(9)), &id(1), "anything", b"").unwrap_err().contains("only the management"));
    }
}
