//! The IC HTTP interface (Interface Specification, "HTTPS Interface"): status, calls, queries and certified reads.
//! Endpoints of all versions that clients use are served alike; only the second version of `call` never waits.

mod call;
mod envelope;
mod query;
mod read_state;
mod signature;

use super::cors;
use super::network::{Network, NetworkError};
use crate::certification::to_cbor;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use candid::Principal;
use serde::Serialize;

/// Size of an ingress message, its envelope included, on application subnets.
const MAX_INGRESS_BYTES: usize = 2 * 1024 * 1024;

/// Size of a query's or read's envelope: what boundary nodes let through.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Version of the Interface Specification that `status` tells.
const IC_API_VERSION: &str = "0.18.0";

/// What goes wrong before the subnet sees a request; the status and the sentence that the client gets.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    message: String,
}

impl HttpError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        HttpError { status, message: message.into() }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        HttpError::new(StatusCode::BAD_REQUEST, message)
    }

    fn forbidden(message: impl Into<String>) -> Self {
        HttpError::new(StatusCode::FORBIDDEN, message)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.status, self.message).into_response()
    }
}

impl From<NetworkError> for HttpError {
    fn from(error: NetworkError) -> Self {
        let status = error.into_response().status();
        HttpError::new(status, error.to_string())
    }
}

/// Whom the address of a request names: the canister or subnet that routing and certificates are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effective {
    Canister(Principal),
    Subnet(Principal),
}

/// A CBOR response with the self-describing tag.
fn cbor_response<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CONTENT_TYPE, "application/cbor")], to_cbor(value)).into_response()
}

/// Answers a request below `/api/`.
pub async fn serve(network: &Network, path: &str, request: Request) -> Response {
    if let Some(response) = cors::preflight(request.method()) {
        return response;
    }
    let response = route(network, path, request).await.unwrap_or_else(IntoResponse::into_response);
    cors::allow_every_origin(response)
}

async fn route(network: &Network, path: &str, request: Request) -> Result<Response, HttpError> {
    let method = request.method().clone();
    let segments: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    match (&method, &segments[..]) {
        (&Method::GET, ["v2", "status"]) => Ok(status(network)),
        (&Method::POST, [version @ ("v2" | "v3" | "v4"), scope, id, endpoint]) => {
            let effective = parse_effective(scope, id)?;
            if let Effective::Subnet(subnet) = effective
                && subnet != network.facts().subnet_id
            {
                return Err(HttpError::bad_request(format!(
                    "subnet {subnet} is not here: this replica is subnet {}",
                    network.facts().subnet_id
                )));
            }
            match *endpoint {
                "call" => {
                    let body = read_body(request, MAX_INGRESS_BYTES).await?;
                    call::serve(network, effective, *version != "v2", &body).await
                }
                "query" => query::serve(network, effective, &read_body(request, MAX_REQUEST_BYTES).await?).await,
                "read_state" => {
                    read_state::serve(network, effective, &read_body(request, MAX_REQUEST_BYTES).await?).await
                }
                _ => Err(not_found(&method, path)),
            }
        }
        _ => Err(not_found(&method, path)),
    }
}

fn not_found(method: &Method, path: &str) -> HttpError {
    HttpError::new(StatusCode::NOT_FOUND, format!("this replica has no endpoint {method} {path}"))
}

fn parse_effective(scope: &str, id: &str) -> Result<Effective, HttpError> {
    let principal =
        Principal::from_text(id).map_err(|e| HttpError::bad_request(format!("{id:?} is not a principal: {e}")))?;
    match scope {
        "canister" => Ok(Effective::Canister(principal)),
        "subnet" => Ok(Effective::Subnet(principal)),
        _ => Err(HttpError::bad_request(format!("{scope:?} is neither canister nor subnet"))),
    }
}

/// The body, if it has at most `limit` bytes.
async fn read_body(request: Request, limit: usize) -> Result<Bytes, HttpError> {
    axum::body::to_bytes(request.into_body(), limit).await.map_err(|_| {
        HttpError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request is larger than the {limit} bytes that this endpoint takes, or was cut off"),
        )
    })
}

fn status(network: &Network) -> Response {
    #[derive(Serialize)]
    struct Status<'a> {
        ic_api_version: &'a str,
        impl_version: &'a str,
        replica_health_status: &'a str,
        #[serde(with = "serde_bytes")]
        root_key: &'a [u8],
    }
    cbor_response(
        StatusCode::OK,
        &Status {
            ic_api_version: IC_API_VERSION,
            impl_version: env!("CARGO_PKG_VERSION"),
            replica_health_status: "healthy",
            root_key: &network.facts().root_key_der,
        },
    )
}
