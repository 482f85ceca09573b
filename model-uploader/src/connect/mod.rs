//! From what a user names (a canister, a network, an identity) to a [`Client`].

mod canister_id;
mod identity;
mod network;

pub use identity::IdentityChoice;
pub use network::{LOCAL_NETWORK, MAINNET, RootKey};

use crate::agent_transport::{AgentTransport, reason_of};
use crate::client::{CallError, Client};
use anyhow::{Context, Result, anyhow};
use candid::Principal;
use ic_agent::Agent;
use ic_agent::agent::route_provider::RoundRobinRouteProvider;
use std::path::{Path, PathBuf};

/// What a user said about where to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// A canister's id, or its name in the project; `None` is the project's only canister.
    pub canister: Option<String>,
    /// `local`, `ic`, or an environment of the project.
    pub network: String,
    pub replica_url: Option<String>,
    pub identity: IdentityChoice,
    /// `None` asks the network, except on mainnet, whose key is known.
    pub root_key: Option<RootKey>,
    /// Where the project is looked for, here and upward.
    pub directory: PathBuf,
}

/// An open connection to one canister.
pub struct Connection {
    pub client: Client<AgentTransport>,
    pub canister: Principal,
    pub replica_url: String,
    /// Who calls.
    pub caller: Principal,
}

/// Finds network, canister and identity, and makes sure of the root key.
///
/// # Errors
/// [`crate::error::UsageError`] when something named is not there; others when the network does not answer.
pub async fn connect(options: &ConnectOptions) -> Result<Connection> {
    let identity = identity::load(&options.identity)?;
    let caller = identity.sender().map_err(|reason| anyhow!("identity: {reason}"))?;
    let target = network::resolve(&options.network, options.replica_url.as_deref(), &options.directory)?;
    let canister = canister_id::resolve(options.canister.as_deref(), &options.network, &options.directory)?;

    let route = RoundRobinRouteProvider::new(vec![&target.url])
        .map_err(|e| crate::error::usage(format!("--replica-url {}: {e}", target.url)))?;
    let agent = Agent::builder()
        .with_route_provider(route)
        .with_arc_identity(identity)
        .build()
        .with_context(|| format!("connecting to {}", target.url))?;
    match network::root_key(options.root_key.as_ref(), &target)? {
        network::RootKeySource::Mainnet => {}
        network::RootKeySource::Known(key) => agent.set_root_key(key),
        network::RootKeySource::Fetch => {
            agent.fetch_root_key().await.map_err(|error| CallError::Unreachable {
                method: "asking for the root key",
                attempts: 1,
                message: reason_of(&error),
            })?;
        }
    }
    Ok(Connection {
        client: Client::new(AgentTransport::new(agent, canister)),
        canister,
        replica_url: target.url,
        caller,
    })
}

/// `directory` and those above it, nearest first.
fn upward(directory: &Path) -> impl Iterator<Item = &Path> {
    directory.ancestors()
}
