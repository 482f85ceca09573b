//! The PocketIC server's REST interface, as far as the `pocket-ic` crate 16.1 needs it on one application subnet: the
//! crate starts this binary by `POCKET_IC_BIN`, makes instances and drives them. Each instance is a network of its
//! own, with the IC HTTP interface below `/instances/<id>/api` and, on request, a gateway on a port of its own.

mod activity;
mod blobs;
mod config;
mod gateways;
mod ingress;
mod instances;
mod operations;
pub mod topology;
mod types;

use super::cors;
use super::network::{Network, NetworkConfig};
use crate::subnet::SubnetConfig;
use activity::Activity;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use config::InstanceConfig;
pub use gateways::DEFAULT_DOMAIN;
use gateways::Gateways;
use instances::Instance;
use operations::{ApiError, Operations, json, respond};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::{CreateHttpGatewayResponse, CreateInstanceResponse, HttpGatewayBackend, HttpGatewayConfig};

/// Largest JSON request: an ingress message in base64 and then some.
const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

/// Everything the server holds.
pub struct Server {
    seed: [u8; 32],
    cache_dir: Option<PathBuf>,
    /// By id; deleted ones keep their place.
    instances: Mutex<Vec<Option<Instance>>>,
    operations: Operations,
    gateways: Gateways,
    blobs: blobs::BlobStore,
    activity: Arc<Activity>,
}

impl Server {
    /// A server without instances, whose instances all have the keys that `seed` gives.
    pub fn new(seed: [u8; 32], cache_dir: Option<PathBuf>) -> Arc<Server> {
        Arc::new(Server {
            seed,
            cache_dir,
            instances: Mutex::default(),
            operations: Operations::default(),
            gateways: Gateways::default(),
            blobs: blobs::BlobStore::default(),
            activity: Arc::default(),
        })
    }

    /// How long no request and no operation has been under way.
    pub fn idle_for(&self) -> Duration {
        self.activity.idle_for()
    }

    /// The server's routes.
    pub fn router(self: &Arc<Self>) -> Router {
        async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
            let _busy = server.activity.begin();
            if let Some(response) = cors::preflight(request.method()) {
                return response;
            }
            let response = server.route(request).await.unwrap_or_else(IntoResponse::into_response);
            cors::allow_every_origin(response)
        }
        Router::new().fallback(handle).with_state(self.clone())
    }

    async fn route(self: &Arc<Self>, request: Request) -> Result<Response, ApiError> {
        let method = request.method().clone();
        let path = request.uri().path().trim_matches('/').to_owned();
        let segments: Vec<&str> = path.split('/').collect();
        match (method.as_str(), &segments[..]) {
            ("GET", ["status"]) => Ok(StatusCode::OK.into_response()),
            ("GET", ["instances"]) => Ok(respond(json(&self.list_instances()))),
            ("POST", ["instances"]) => Ok(self.create_instance(request).await),
            ("DELETE", ["instances", id]) => self.delete_instance(id),
            ("GET" | "POST", ["instances", id, "api" | "_", ..]) => {
                let instance = self.instance(id)?;
                Ok(serve_network_of(&instance, id, request).await)
            }
            ("GET" | "POST", ["instances", id, rest @ ..]) => {
                let (instance, endpoint) = (self.instance(id)?, rest.join("/"));
                let instance_id = id.parse().unwrap_or_default();
                let body = read_body(request, MAX_JSON_BYTES).await?;
                let operation = instances::serve(self.clone(), instance, method, endpoint, body);
                Ok(self.operations.run(&self.activity, instance_id, operation).await)
            }
            ("GET", ["read_graph", state_label, op_id]) => Ok(self.operations.read(state_label, op_id).await),
            ("DELETE", ["prune_graph", state_label, op_id]) => {
                self.operations.prune(state_label, op_id);
                Ok(StatusCode::OK.into_response())
            }
            ("POST", ["blobstore"]) => self.put_blob(request).await,
            ("GET", ["blobstore", id]) => self.get_blob(id),
            ("GET", ["http_gateway"]) => Ok(respond(json(&self.gateways.list()))),
            ("POST", ["http_gateway"]) => Ok(self.create_gateway(request).await),
            ("POST", ["http_gateway", id, "stop"]) => match id.parse() {
                Ok(number) if self.gateways.stop(number) => Ok(respond(json(&()))),
                _ => Err(ApiError::not_found(format!("there is no HTTP gateway {id}"))),
            },
            ("POST", ["verify_signature"]) => {
                Ok(respond(json(&Err::<(), _>("canister signatures are not checked by this server"))))
            }
            _ => Err(ApiError::not_found(format!("this server has no endpoint {method} /{path}"))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instance(&self, id: &str) -> Result<Instance, ApiError> {
        let number: Option<usize> = id.parse().ok();
        number
            .and_then(|number| self.lock().get(number).cloned().flatten())
            .ok_or_else(|| ApiError::not_found(format!("Instance {id} was not found.")))
    }

    fn list_instances(&self) -> Vec<&'static str> {
        self.lock().iter().map(|instance| if instance.is_some() { "Available" } else { "Deleted" }).collect()
    }

    fn delete_instance(&self, id: &str) -> Result<Response, ApiError> {
        self.instance(id)?;
        let number: usize = id.parse().unwrap_or_default();
        self.gateways.stop_of_instance(number);
        // The subnet's thread ends with the last handle.
        self.lock()[number] = None;
        Ok(StatusCode::OK.into_response())
    }

    async fn create_instance(&self, request: Request) -> Response {
        match self.try_create_instance(request).await {
            Ok(created) => (StatusCode::CREATED, Json(created)).into_response(),
            Err(message) => (StatusCode::BAD_REQUEST, Json(CreateInstanceResponse::Error { message })).into_response(),
        }
    }

    async fn try_create_instance(&self, request: Request) -> Result<CreateInstanceResponse, String> {
        let body = read_body(request, MAX_JSON_BYTES).await.map_err(|e| e.message)?;
        let config: InstanceConfig =
            serde_json::from_slice(&body).map_err(|e| format!("can't read the instance's configuration: {e}"))?;
        let plan = config.plan()?;
        let network_config = NetworkConfig {
            subnet: SubnetConfig {
                seed: self.seed,
                cache_dir: self.cache_dir.clone(),
                start_time_ns: plan.start_time_ns,
                benchmark: plan.benchmark,
                system_canisters: false,
                state_dir: None,
            },
            auto_progress: false,
        };
        let network = tokio::task::spawn_blocking(move || Network::start(network_config))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("can't make the subnet: {e:#}"))?;
        if plan.auto_progress {
            network.run(|host| host.set_auto_progress(true)).await.map_err(|e| e.to_string())?;
        }
        let instance = Instance { network: network.clone(), with_nns: plan.with_nns };
        let topology = instance.topology();
        let instance_id = {
            let mut instances = self.lock();
            instances.push(Some(instance));
            instances.len() - 1
        };
        let http_gateway_info = match config.http_gateway_config {
            None => None,
            Some(gateway) => {
                let config = HttpGatewayConfig {
                    ip_addr: gateway.ip_addr,
                    port: gateway.port,
                    forward_to: HttpGatewayBackend::PocketIcInstance(instance_id),
                    domains: gateway.domains,
                    https_config: gateway.https_config,
                    domain_custom_provider_local_file: gateway.domain_custom_provider_local_file,
                };
                match self.gateways.start(config, network).await {
                    Ok(info) => Some(info),
                    Err(message) => {
                        self.lock()[instance_id] = None;
                        return Err(message);
                    }
                }
            }
        };
        Ok(CreateInstanceResponse::Created { instance_id, topology, http_gateway_info })
    }

    async fn create_gateway(&self, request: Request) -> Response {
        match self.try_create_gateway(request).await {
            Ok(info) => (StatusCode::CREATED, Json(CreateHttpGatewayResponse::Created(info))).into_response(),
            Err(message) => {
                (StatusCode::BAD_REQUEST, Json(CreateHttpGatewayResponse::Error { message })).into_response()
            }
        }
    }

    async fn try_create_gateway(&self, request: Request) -> Result<types::HttpGatewayInfo, String> {
        let body = read_body(request, MAX_JSON_BYTES).await.map_err(|e| e.message)?;
        let config: HttpGatewayConfig =
            serde_json::from_slice(&body).map_err(|e| format!("can't read the gateway's configuration: {e}"))?;
        let HttpGatewayBackend::PocketIcInstance(id) = config.forward_to else {
            return Err("a gateway forwards to an instance of this server, not to another replica".into());
        };
        let instance = self.instance(&id.to_string()).map_err(|e| e.message)?;
        self.gateways.start(config, instance.network).await
    }

    async fn put_blob(&self, request: Request) -> Result<Response, ApiError> {
        let is_gzip = match request.headers().get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None => false,
            Some(b"gzip") => true,
            Some(other) => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(ApiError::bad_request(format!("blobs come plain or as gzip, not as {name:?}")));
            }
        };
        let bytes = read_body(request, blobs::MAX_BLOB_BYTES).await?;
        Ok(hex::encode(self.blobs.put(bytes, is_gzip)).into_response())
    }

    fn get_blob(&self, id: &str) -> Result<Response, ApiError> {
        let found = hex::decode(id).ok().and_then(|key| self.blobs.get(&key));
        let (bytes, is_gzip) = found.ok_or_else(|| ApiError::not_found(format!("no blob {id} was uploaded")))?;
        if is_gzip {
            return Ok(([(header::CONTENT_ENCODING, "gzip")], bytes).into_response());
        }
        Ok(bytes.into_response())
    }
}

/// The IC HTTP interface and the replica's own pages, with the instance's prefix taken off the path.
async fn serve_network_of(instance: &Instance, id: &str, mut request: Request) -> Response {
    if request.uri().path().trim_end_matches('/').ends_with("/_/topology") {
        return respond(json(&instance.topology()));
    }
    let prefix = format!("/instances/{id}");
    let stripped = request.uri().path().strip_prefix(&prefix).unwrap_or_default().parse::<Uri>();
    match stripped {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return ApiError::bad_request(format!("malformed path: {error}")).into_response(),
    }
    super::serve_network(&instance.network, &[], request).await
}

async fn read_body(request: Request, limit: usize) -> Result<axum::body::Bytes, ApiError> {
    axum::body::to_bytes(request.into_body(), limit).await.map_err(|e| ApiError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        message: format!("the body is larger than {limit} bytes or was cut off: {e}"),
    })
}
