//! The endpoints of one instance: everything below `/instances/<id>/`.

use super::Server;
use super::config::AutoProgressConfig;
use super::ingress::{self, principal};
use super::operations::{ApiError, Outcome, json};
use super::topology;
use super::types::{
    RawAddCycles, RawCanisterId, RawCycles, RawPrincipalId, RawSetStableMemory, RawStableMemory, RawSubnetId,
    RawTickConfigs, RawTime,
};
use crate::doors::network::Network;
use axum::body::Bytes;
use axum::http::Method;
use candid::Principal;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// One instance: its network, and how it shows itself.
#[derive(Clone)]
pub struct Instance {
    pub network: Network,
    pub with_nns: bool,
}

impl Instance {
    pub fn topology(&self) -> super::types::Topology {
        let facts = self.network.facts();
        if self.with_nns { topology::with_nns(facts) } else { topology::of_network(facts) }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("can't read the request: {e}")))
}

fn canister_not_found(id: &Principal) -> ApiError {
    ApiError::bad_request(format!("CanisterNotFound({id})"))
}

/// Does what `method` and `endpoint` (without the instance's prefix) ask for.
pub async fn serve(server: Arc<Server>, instance: Instance, method: Method, endpoint: String, body: Bytes) -> Outcome {
    let network = &instance.network;
    match (method.as_str(), endpoint.trim_matches('/')) {
        ("GET", "read/topology" | "_/topology") => json(&instance.topology()),
        ("GET", "read/get_time") => {
            let nanos_since_epoch = network.run(|host| host.time_ns()).await?;
            json(&RawTime { nanos_since_epoch })
        }
        ("GET", "read/get_canister_http") => json::<[(); 0]>(&[]),
        ("GET", "auto_progress") => json(&network.auto_progress()),
        ("POST", "auto_progress") => {
            parse::<AutoProgressConfig>(&body)?;
            network.run(|host| host.set_auto_progress(true)).await?;
            json(&())
        }
        ("POST", "stop_progress") => {
            network.run(|host| host.set_auto_progress(false)).await?;
            json(&())
        }
        ("POST", "read/query") => ingress::query(network, parse(&body)?).await,
        ("POST", "read/ingress_status") => ingress::status(network, parse(&body)?).await,
        ("POST", "update/submit_ingress_message") => ingress::submit(network, parse(&body)?).await,
        ("POST", "update/await_ingress_message") => ingress::await_message(network, parse(&body)?).await,
        ("POST", "read/pub_key") => public_key(&instance, &parse(&body)?),
        ("POST", "read/get_subnet") => get_subnet(network, &parse(&body)?).await,
        ("POST", "read/get_controllers") => get_controllers(network, &parse(&body)?).await,
        ("POST", "read/get_cycles") => get_cycles(network, &parse(&body)?).await,
        ("POST", "read/get_stable_memory") => get_stable_memory(network, &parse(&body)?).await,
        ("POST", "update/add_cycles") => add_cycles(network, &parse(&body)?).await,
        ("POST", "update/set_stable_memory") => set_stable_memory(&server, network, &parse(&body)?).await,
        ("POST", "update/set_time") => set_time(network, &parse(&body)?, false).await,
        ("POST", "update/set_certified_time") => set_time(network, &parse(&body)?, true).await,
        ("POST", "update/tick") => tick(network, &parse(&body)?).await,
        ("POST", "update/mock_canister_http" | "update/mock_flexible_canister_http") => Err(ApiError::bad_request(
            "there is no canister HTTP request to answer: this server makes no HTTP outcalls",
        )),
        ("POST", "update/delete_subnet") => {
            Err(ApiError::bad_request("the only subnet of an instance can't be deleted: delete the instance"))
        }
        ("POST", "update/canister_snapshot_download" | "update/canister_snapshot_upload") => {
            Err(ApiError::bad_request("canister snapshots are not supported by this server"))
        }
        (method, endpoint) => {
            Err(ApiError::not_found(format!("this server has no endpoint {method} /instances/<id>/{endpoint}")))
        }
    }
}

fn public_key(instance: &Instance, subnet: &RawSubnetId) -> Outcome {
    let id = principal(&subnet.subnet_id)?;
    let facts = instance.network.facts();
    if id == facts.subnet_id || (instance.with_nns && id == topology::nns_subnet_id(facts)) {
        return json(&facts.root_key_der);
    }
    Err(ApiError::bad_request(format!("SubnetNotFound({id})")))
}

async fn get_subnet(network: &Network, canister: &RawCanisterId) -> Outcome {
    let id = principal(&canister.canister_id)?;
    let exists = network.run(move |host| host.subnet().canister_exists(&id)).await?;
    let subnet_id = (&network.facts().subnet_id).into();
    json(&exists.then_some(RawSubnetId { subnet_id }))
}

async fn get_controllers(network: &Network, canister: &RawCanisterId) -> Outcome {
    let id = principal(&canister.canister_id)?;
    let controllers = network.run(move |host| host.subnet().controllers(&id)).await?;
    let controllers = controllers.ok_or_else(|| canister_not_found(&id))?;
    let raw = |controller: &Principal| RawPrincipalId { principal_id: controller.into() };
    json(&controllers.iter().map(raw).collect::<Vec<_>>())
}

async fn get_cycles(network: &Network, canister: &RawCanisterId) -> Outcome {
    let id = principal(&canister.canister_id)?;
    let cycles = network.run(move |host| host.subnet().cycles(&id)).await?.ok_or_else(|| canister_not_found(&id))?;
    json(&RawCycles { cycles })
}

async fn add_cycles(network: &Network, request: &RawAddCycles) -> Outcome {
    let (id, amount) = (principal(&request.canister_id)?, request.amount);
    let balance = network.run(move |host| host.subnet_mut().add_cycles(&id, amount)).await?;
    json(&RawCycles { cycles: balance.ok_or_else(|| canister_not_found(&id))? })
}

async fn get_stable_memory(network: &Network, canister: &RawCanisterId) -> Outcome {
    let id = principal(&canister.canister_id)?;
    let blob = network.run(move |host| host.subnet().stable_memory(&id)).await?;
    let blob = blob.ok_or_else(|| ApiError::bad_request(format!("CanisterIsEmpty({id})")))?;
    json(&RawStableMemory { blob: super::types::Base64(blob) })
}

async fn set_stable_memory(server: &Server, network: &Network, request: &RawSetStableMemory) -> Outcome {
    let id = principal(&request.canister_id)?;
    let bytes = server.blobs.get_unpacked(&request.blob_id.0)?;
    if network.run(move |host| host.subnet_mut().set_stable_memory(&id, bytes)).await? {
        return json(&());
    }
    Err(ApiError::bad_request(format!("CanisterIsEmpty({id})")))
}

/// Sets the time of the next round; a certified time is that of a round at once.
async fn set_time(network: &Network, time: &RawTime, certified: bool) -> Outcome {
    let wanted_ns = time.nanos_since_epoch;
    let refused = network
        .run(move |host| {
            let now_ns = host.time_ns();
            if !host.set_time_ns(wanted_ns) {
                return Some(now_ns);
            }
            if certified && wanted_ns > now_ns {
                host.round();
            }
            None
        })
        .await?;
    match refused {
        None => json(&()),
        Some(now_ns) => Err(ApiError::bad_request(format!("SettingTimeIntoPast(({now_ns}, {wanted_ns}))"))),
    }
}

async fn tick(network: &Network, configs: &RawTickConfigs) -> Outcome {
    if configs.blockmakers.is_some() {
        return Err(ApiError::bad_request("the subnet has one node, so its block maker can't be chosen"));
    }
    network.run(|host| host.round()).await?;
    json(&())
}
