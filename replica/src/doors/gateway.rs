//! The HTTP gateway: a browser's request to `http://<canister>.localhost:PORT/...` or `...?canisterId=<canister>`
//! becomes a call of the canister's `http_request` (HTTP Gateway Protocol Specification).
//!
//! The gateway is trusted as a local one is: it does not check the canister's certificates, and passes them through.

use super::cors;
use super::network::{CallOutcome, Network};
use crate::subnet::{Ingress, IngressState, QueryCall, Rejection};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use candid::types::value::{IDLArgs, IDLValue, IDLValueVisitor};
use candid::types::{Serializer, Type, TypeInner};
use candid::{CandidType, DecoderConfig, Deserialize, Func, Principal};
use ic_transport_types::EnvelopeContent;
use serde::Deserializer;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Largest body of a request, which has to fit into an ingress message.
const MAX_REQUEST_BODY_BYTES: usize = 2 * 1024 * 1024;

/// Largest body that streaming callbacks may add up to.
const MAX_RESPONSE_BODY_BYTES: usize = 512 * 1024 * 1024;

/// Most streaming callbacks for one response.
const MAX_STREAMING_CALLBACKS: usize = 1000;

/// Work that decoding one answer of a canister may cost, in the decoder's units (about bytes).
const DECODING_QUOTA: usize = 64 * 1024 * 1024;

/// How long an upgraded request waits for its update call.
const UPDATE_PATIENCE: Duration = Duration::from_secs(300);

/// How long the update call of an upgraded request may stay valid.
const UPDATE_TTL: Duration = Duration::from_secs(5 * 60);

/// The newest version of response certification that the gateway announces.
const CERTIFICATE_VERSION: u16 = 2;

#[derive(CandidType)]
struct HttpRequest {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: serde_bytes::ByteBuf,
    /// Only queries announce a version: update calls are certified by themselves.
    certificate_version: Option<u16>,
}

#[derive(CandidType, Deserialize)]
struct HttpResponse {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: serde_bytes::ByteBuf,
    upgrade: Option<bool>,
    streaming_strategy: Option<StreamingStrategy>,
}

#[derive(CandidType, Deserialize)]
enum StreamingStrategy {
    Callback(CallbackStrategy),
}

#[derive(CandidType, Deserialize)]
struct CallbackStrategy {
    callback: StreamingCallback,
    token: Token,
}

#[derive(CandidType, Deserialize)]
struct StreamingResponse {
    body: serde_bytes::ByteBuf,
    token: Option<Token>,
}

/// A function reference of whatever type the canister gives it.
struct StreamingCallback(Func);

impl CandidType for StreamingCallback {
    fn _ty() -> Type {
        TypeInner::Reserved.into()
    }
    fn idl_serialize<S: Serializer>(&self, serializer: S) -> Result<(), S::Error> {
        self.0.idl_serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StreamingCallback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_ignored_any(IDLValueVisitor)? {
            IDLValue::Func(principal, method) => Ok(StreamingCallback(Func { principal, method })),
            _ => Err(serde::de::Error::custom("the streaming callback is not a function")),
        }
    }
}

/// A token of whatever type the canister chose; it goes back as it came.
struct Token(IDLValue);

impl CandidType for Token {
    /// Every type is below the reserved one, so that a value of any type decodes.
    fn _ty() -> Type {
        TypeInner::Reserved.into()
    }
    fn idl_serialize<S: Serializer>(&self, _serializer: S) -> Result<(), S::Error> {
        Err(serde::ser::Error::custom("a token is sent as an argument of its own type"))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Nothing is ignored: the visitor takes the value as it is on the wire.
        deserializer.deserialize_ignored_any(IDLValueVisitor).map(Token)
    }
}

/// Why there is no response of a canister.
enum GatewayError {
    NoCanister(String),
    TooLarge(String),
    Rejected(Principal, String, Rejection),
    Malformed(Principal, String),
    Timeout(Principal),
    Network(super::network::NetworkError),
}

impl From<super::network::NetworkError> for GatewayError {
    fn from(error: super::network::NetworkError) -> Self {
        GatewayError::Network(error)
    }
}

impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            GatewayError::NoCanister(text) => (StatusCode::BAD_REQUEST, text),
            GatewayError::TooLarge(text) => (StatusCode::PAYLOAD_TOO_LARGE, text),
            GatewayError::Rejected(canister, method, rejection) => (
                StatusCode::BAD_GATEWAY,
                format!(
                    "canister {canister} rejected {method} ({:?}, {}): {}",
                    rejection.reject_code,
                    rejection.error_code.to_ic_string(),
                    rejection.message
                ),
            ),
            GatewayError::Malformed(canister, text) => {
                (StatusCode::BAD_GATEWAY, format!("canister {canister} gave a response that {text}"))
            }
            GatewayError::Timeout(canister) => {
                (StatusCode::GATEWAY_TIMEOUT, format!("canister {canister} did not answer in {UPDATE_PATIENCE:?}"))
            }
            GatewayError::Network(error) => return error.into_response(),
        };
        (status, format!("{text}\n")).into_response()
    }
}

/// Answers a request whose path is not one of the replica's own.
pub async fn serve(network: &Network, domains: &[String], request: Request) -> Response {
    let Some(canister) = canister_of(&request, domains) else {
        if request.uri().path() == "/" {
            return landing_page(network);
        }
        return GatewayError::NoCanister(
            "this address names no canister: use http://<canister>.localhost:PORT/ or ?canisterId=<canister>".into(),
        )
        .into_response();
    };
    let preflight = cors::preflight(request.method());
    match (forward(network, canister, request).await, preflight) {
        (Ok(response), _) => cors::allow_every_origin(response),
        // A canister without an answer to preflight requests lets every page call it.
        (Err(GatewayError::Rejected(..)), Some(preflight)) => preflight,
        (Err(error), _) => error.into_response(),
    }
}

fn landing_page(network: &Network) -> Response {
    let facts = network.facts();
    let text = format!(
        "An embedded Internet Computer replica.\nroot key: {}\nsubnet: {}\nstatus: /api/v2/status\n\
         canisters: http://<canister>.localhost:PORT/ or /?canisterId=<canister>\n",
        hex::encode(&facts.root_key_der),
        facts.subnet_id
    );
    text.into_response()
}

/// The canister that the host name or the parameter `canisterId` of the request, or else of its referrer, names.
fn canister_of(request: &Request, domains: &[String]) -> Option<Principal> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).or_else(|| request.uri().host())?;
    canister_of_host(host, domains)
        .or_else(|| request.uri().query().and_then(canister_of_query))
        .or_else(|| canister_of_query(header(header::REFERER)?.split_once('?')?.1))
}

fn canister_of_host(host: &str, domains: &[String]) -> Option<Principal> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let below = domains.iter().find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))?;
    let label = below.strip_suffix(".raw").unwrap_or(below);
    Principal::from_text(label).ok()
}

fn canister_of_query(query: &str) -> Option<Principal> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("canisterId="))?;
    Principal::from_text(value).ok()
}

async fn forward(network: &Network, canister: Principal, request: Request) -> Result<Response, GatewayError> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_REQUEST_BODY_BYTES).await.map_err(|_| {
        GatewayError::TooLarge(format!("the request's body is larger than {MAX_REQUEST_BODY_BYTES} bytes"))
    })?;
    let mut call = HttpRequest {
        method: parts.method.to_string(),
        url: parts.uri.path_and_query().map_or("/".into(), |url| url.to_string()),
        headers: request_headers(&parts.headers),
        body: serde_bytes::ByteBuf::from(body.to_vec()),
        certificate_version: Some(CERTIFICATE_VERSION),
    };
    let query_reply = query(network, canister, "http_request", encode(&call, canister)?).await?;
    let mut response: HttpResponse = decode(&query_reply, canister)?;
    if response.upgrade == Some(true) {
        call.certificate_version = None;
        let reply = update(network, canister, "http_request_update", encode(&call, canister)?).await?;
        response = decode(&reply, canister)?;
    }
    let mut body = response.body.into_vec();
    if let Some(StreamingStrategy::Callback(strategy)) = response.streaming_strategy {
        stream(network, canister, strategy, &mut body).await?;
    }
    let status = StatusCode::from_u16(response.status_code).map_err(|_| {
        GatewayError::Malformed(canister, format!("has status {}, which is no HTTP status", response.status_code))
    })?;
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    append_headers(answer.headers_mut(), &response.headers, canister)?;
    Ok(answer)
}

fn request_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// Headers that describe one connection or the length of the body, which the server sets by itself.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ]
    .contains(name)
}

fn append_headers(target: &mut HeaderMap, headers: &[(String, String)], from: Principal) -> Result<(), GatewayError> {
    for (name, value) in headers {
        let malformed = |_| GatewayError::Malformed(from, format!("has the malformed header {name:?}: {value:?}"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| malformed(e.to_string()))?;
        let value = HeaderValue::from_str(value).map_err(|e| malformed(e.to_string()))?;
        if !is_hop_by_hop(&name) {
            target.append(name, value);
        }
    }
    Ok(())
}

fn encode<T: CandidType>(value: &T, canister: Principal) -> Result<Vec<u8>, GatewayError> {
    candid::encode_one(value).map_err(|e| GatewayError::Malformed(canister, format!("can't be asked for: {e}")))
}

fn decode<T: CandidType + for<'a> Deserialize<'a>>(bytes: &[u8], canister: Principal) -> Result<T, GatewayError> {
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(DECODING_QUOTA).set_skipping_quota(DECODING_QUOTA);
    candid::utils::decode_one_with_config(bytes, &config)
        .map_err(|e| GatewayError::Malformed(canister, format!("is not of the gateway protocol's type: {e}")))
}

async fn query(
    network: &Network,
    canister_id: Principal,
    method: &str,
    argument: Vec<u8>,
) -> Result<Vec<u8>, GatewayError> {
    let call = QueryCall { sender: Principal::anonymous(), canister_id, method: method.into(), argument };
    let result = network
        .run(move |host| {
            host.follow_clock();
            host.subnet_mut().query(call)
        })
        .await?;
    result.map_err(|rejection| GatewayError::Rejected(canister_id, method.into(), rejection))
}

async fn update(
    network: &Network,
    canister_id: Principal,
    method: &str,
    argument: Vec<u8>,
) -> Result<Vec<u8>, GatewayError> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let expiry_ns = network.now_ns() + UPDATE_TTL.as_nanos() as u64;
    let content = EnvelopeContent::Call {
        nonce: Some([b"gateway".as_slice(), &NONCE.fetch_add(1, Ordering::Relaxed).to_be_bytes()].concat()),
        ingress_expiry: expiry_ns,
        sender: Principal::anonymous(),
        canister_id,
        method_name: method.into(),
        arg: argument.clone(),
        sender_info: None,
    };
    let id = *content.to_request_id();
    let sender = Principal::anonymous();
    let ingress = Ingress { id, sender, canister_id, method: method.into(), argument, expiry_ns };
    let rejected = |rejection| GatewayError::Rejected(canister_id, method.into(), rejection);
    match network.call(ingress, UPDATE_PATIENCE).await? {
        CallOutcome::Refused(rejection) => Err(rejected(rejection)),
        CallOutcome::Pending => Err(GatewayError::Timeout(canister_id)),
        CallOutcome::Certified(_) => {
            match network.run(move |host| host.subnet().ingress_status(&id).map(|status| status.state.clone())).await? {
                Some(IngressState::Replied(reply)) => Ok(reply),
                Some(IngressState::Rejected(rejection)) => Err(rejected(rejection)),
                _ => Err(GatewayError::Timeout(canister_id)),
            }
        }
    }
}

/// Appends what the canister's streaming callback gives, token by token.
async fn stream(
    network: &Network,
    canister: Principal,
    strategy: CallbackStrategy,
    body: &mut Vec<u8>,
) -> Result<(), GatewayError> {
    let CallbackStrategy { callback: StreamingCallback(callback), token } = strategy;
    if callback.principal != canister {
        return Err(GatewayError::Malformed(
            canister,
            format!("streams from another canister, {}", callback.principal),
        ));
    }
    let mut next = Some(token);
    for _ in 0..MAX_STREAMING_CALLBACKS {
        let Some(Token(token)) = next else { return Ok(()) };
        let argument = IDLArgs::new(&[token])
            .to_bytes()
            .map_err(|e| GatewayError::Malformed(canister, format!("has a token that can't be sent back: {e}")))?;
        let reply = query(network, canister, &callback.method, argument).await?;
        let chunk: StreamingResponse = decode(&reply, canister)?;
        if body.len() + chunk.body.len() > MAX_RESPONSE_BODY_BYTES {
            return Err(GatewayError::Malformed(
                canister,
                format!("streams more than {MAX_RESPONSE_BODY_BYTES} bytes"),
            ));
        }
        body.extend_from_slice(&chunk.body);
        next = chunk.token;
    }
    Err(GatewayError::Malformed(canister, format!("streams in more than {MAX_STREAMING_CALLBACKS} pieces")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_or_the_query_names_the_canister() {
        let id = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 1]);
        let domains = vec!["localhost".to_string(), "test.example".to_string()];
        let of = |host: &str, url: &str| {
            let request = Request::builder().uri(url).header(header::HOST, host).body(Body::empty()).unwrap();
            canister_of(&request, &domains)
        };
        for host in [format!("{id}.localhost:8123"), format!("{id}.localhost"), format!("{id}.raw.localhost:80")] {
            assert_eq!(of(&host, "/"), Some(id), "{host}");
        }
        assert_eq!(of(&format!("{id}.test.example"), "/x?y=1"), Some(id));
        assert_eq!(of("localhost:8123", &format!("/?a=b&canisterId={id}")), Some(id));
        for host in
            ["localhost:8123".to_string(), format!("{id}.elsewhere"), format!("{id}localhost"), "x.localhost".into()]
        {
            assert_eq!(of(&host, "/"), None, "{host}");
        }
        assert_eq!(of("localhost", "/?canisterId=nonsense"), None);
        let referred = Request::builder()
            .uri("/style.css")
            .header(header::HOST, "localhost:1")
            .header(header::REFERER, format!("http://localhost:1/?canisterId={id}"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(canister_of(&referred, &domains), Some(id));
    }

    #[test]
    fn headers_pass_once_each() {
        let id = Principal::anonymous();
        let mut headers = HeaderMap::new();
        let given: Vec<(String, String)> = [
            ("Content-Type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("Content-Length", "999"),
            ("transfer-encoding", "chunked"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
        assert!(append_headers(&mut headers, &given, id).is_ok());
        assert_eq!(headers.get_all(header::CONTENT_TYPE).iter().count(), 1);
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 2);
        assert!(!headers.contains_key(header::CONTENT_LENGTH) && !headers.contains_key(header::TRANSFER_ENCODING));
        assert!(append_headers(&mut headers, &[("bad name".into(), "x".into())], id).is_err());
        assert!(append_headers(&mut headers, &[("x".into(), "new\nline".into())], id).is_err());
    }

    /// A token of a type that the gateway has never heard of survives the round trip.
    #[test]
    fn tokens_keep_their_type_and_value() {
        #[derive(CandidType, Deserialize, Debug, PartialEq)]
        struct CanisterToken {
            key: String,
            index: u64,
            sha256: Option<serde_bytes::ByteBuf>,
        }
        #[derive(CandidType)]
        struct Streamed {
            body: serde_bytes::ByteBuf,
            token: Option<CanisterToken>,
        }
        let token = CanisterToken { key: "/a".into(), index: 3, sha256: Some(serde_bytes::ByteBuf::from(vec![1, 2])) };
        let bytes = candid::encode_one(Streamed { body: serde_bytes::ByteBuf::from(vec![9]), token: Some(token) });
        let Ok(decoded) = decode::<StreamingResponse>(&bytes.unwrap(), Principal::anonymous()) else {
            panic!("a streaming response does not decode");
        };
        let argument = IDLArgs::new(&[decoded.token.unwrap().0]).to_bytes().unwrap();
        let back: CanisterToken = candid::decode_one(&argument).unwrap();
        assert_eq!(
            back,
            CanisterToken { key: "/a".into(), index: 3, sha256: Some(serde_bytes::ByteBuf::from(vec![1, 2])) }
        );
    }
}
