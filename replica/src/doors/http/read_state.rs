//! Certified reads: `/api/v{2,3}/{canister,subnet}/<effective id>/read_state`.

use super::envelope::Authenticated;
use super::{Effective, HttpError, cbor_response};
use crate::certification::Path;
use crate::doors::network::{Host, Network};
use axum::http::StatusCode;
use axum::response::Response;
use candid::Principal;
use ic_transport_types::{EnvelopeContent, ReadStateResponse};

/// Paths in one request.
const MAX_PATHS: usize = 1000;

/// Labels in one path.
const MAX_PATH_LABELS: usize = 127;

/// Answers with a certificate that reveals the paths, if the sender may read all of them.
pub async fn serve(network: &Network, effective: Effective, body: &[u8]) -> Result<Response, HttpError> {
    let request = Authenticated::from_cbor(body, network.now_ns())?;
    let EnvelopeContent::ReadState { paths, .. } = &request.content else {
        return Err(HttpError::bad_request("the request at a read_state endpoint is not a read_state"));
    };
    if paths.len() > MAX_PATHS {
        return Err(HttpError::bad_request(format!("{} paths; at most {MAX_PATHS} are allowed", paths.len())));
    }
    let paths: Vec<Path> =
        paths.iter().map(|path| path.iter().map(|label| label.as_bytes().to_vec()).collect()).collect();
    if let Some(path) = paths.iter().find(|path| path.len() > MAX_PATH_LABELS) {
        let labels = path.len();
        return Err(HttpError::bad_request(format!(
            "a path of {labels} labels; at most {MAX_PATH_LABELS} are allowed"
        )));
    }
    let certificate = network
        .run(move |host| {
            host.follow_clock();
            check_one_request(&paths)?;
            for path in &paths {
                check_path(host, effective, &request, path)?;
            }
            Ok::<_, HttpError>(host.certificate(&paths))
        })
        .await??;
    Ok(cbor_response(StatusCode::OK, &ReadStateResponse { certificate }))
}

/// The status of one request at a time: what the network allows, so that certificates stay small.
fn check_one_request(paths: &[Path]) -> Result<(), HttpError> {
    let mut ids = paths.iter().filter_map(|path| match &path[..] {
        [first, id, ..] if first == b"request_status" => Some(id),
        _ => None,
    });
    let first = ids.next();
    if ids.any(|id| Some(id) != first) {
        return Err(HttpError::bad_request("the paths ask for the status of more than one request"));
    }
    Ok(())
}

/// Fails unless the sender may read `path` at this address (Interface Specification, "Request: Read state").
fn check_path(host: &Host, effective: Effective, request: &Authenticated, path: &Path) -> Result<(), HttpError> {
    let labels: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    match labels[..] {
        [b"time"] | [b"subnet"] | [b"subnet", _] => Ok(()),
        [b"subnet", _, b"public_key" | b"canister_ranges" | b"type" | b"node"]
        | [b"subnet", _, b"node", _]
        | [b"subnet", _, b"node", _, b"public_key"]
        | [b"canister_ranges", _]
        | [b"canister_ranges", _, _] => Ok(()),
        [b"subnet", _, b"metrics"] if matches!(effective, Effective::Subnet(_)) => Ok(()),
        [b"api_boundary_nodes", ..] => Ok(()),
        [b"request_status", id]
        | [b"request_status", id, b"status" | b"reply" | b"reject_code"]
        | [b"request_status", id, b"reject_message" | b"error_code"] => check_request_status(host, request, id),
        [b"canister", id, b"module_hash" | b"controllers"] => check_canister(effective, id).map(|_| ()),
        [b"canister", id, b"metadata", name] => {
            let canister = check_canister(effective, id)?;
            check_metadata(host, request, &canister, name)
        }
        _ => Err(HttpError::forbidden(format!("the path {} may not be read", display(path)))),
    }
}

fn check_request_status(host: &Host, request: &Authenticated, id: &[u8]) -> Result<(), HttpError> {
    let id: &[u8; 32] = id
        .try_into()
        .map_err(|_| HttpError::bad_request(format!("a request id of {} bytes instead of 32", id.len())))?;
    // That a request is unknown is no secret.
    let Some(status) = host.subnet().ingress_status(id) else { return Ok(()) };
    if status.sender != request.sender {
        return Err(HttpError::forbidden("the status of a request is for its sender only"));
    }
    request.check_target(&status.canister_id)
}

fn check_canister(effective: Effective, id: &[u8]) -> Result<Principal, HttpError> {
    let canister = Principal::try_from_slice(id)
        .map_err(|e| HttpError::bad_request(format!("a path names a canister by {}: {e}", hex::encode(id))))?;
    match effective {
        Effective::Canister(named) if named == canister => Ok(canister),
        Effective::Canister(named) => Err(HttpError::forbidden(format!(
            "a path is about canister {canister}, but the effective canister id in the address is {named}"
        ))),
        Effective::Subnet(_) => Err(HttpError::forbidden("paths about a canister are read at the canister's address")),
    }
}

fn check_metadata(host: &Host, request: &Authenticated, canister: &Principal, name: &[u8]) -> Result<(), HttpError> {
    let name = std::str::from_utf8(name)
        .map_err(|_| HttpError::bad_request(format!("the metadata name {} is not UTF-8", hex::encode(name))))?;
    let is_private = host.subnet().metadata(canister, name).is_some_and(|(is_public, _)| !is_public);
    let is_controller = || host.subnet().controllers(canister).unwrap_or_default().contains(&request.sender);
    if is_private && !is_controller() {
        return Err(HttpError::forbidden(format!(
            "the metadata {name:?} of canister {canister} is for its controllers only"
        )));
    }
    Ok(())
}

/// The path for people: text where a label is text, else hexadecimal.
fn display(path: &Path) -> String {
    let shown = path.iter().map(|label| match std::str::from_utf8(label) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => format!("/{text}"),
        _ => format!("/0x{}", hex::encode(label)),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_at_a_time() {
        let status = |id: u8| vec![b"request_status".to_vec(), vec![id; 32]];
        let deep = |id: u8| vec![b"request_status".to_vec(), vec![id; 32], b"reply".to_vec()];
        assert!(check_one_request(&[status(1), vec![b"time".to_vec()], deep(1)]).is_ok());
        assert!(check_one_request(&[status(1), deep(2)]).is_err());
        assert!(check_one_request(&[]).is_ok());
    }

    #[test]
    fn paths_are_shown_readably() {
        assert_eq!(display(&vec![b"canister".to_vec(), vec![0, 1], b"secret".to_vec()]), "/canister/0x0001/secret");
        assert_eq!(display(&vec![]), "");
    }
}
