//! Serving a network on a port until the process is asked to stop.

use super::shutdown;
use crate::doors::network::Network;
use crate::doors::{network_router, without_delay};
use anyhow::Context;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves `network` at `address`, calls `ready` once it answers, and ends at SIGINT or SIGTERM with its state saved.
pub fn run(
    network: Network,
    address: SocketAddr,
    domains: Vec<String>,
    ready: impl FnOnce(&Network, SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(network, address, domains, ready));
    runtime.shutdown_background();
    served
}

async fn serve(
    network: Network,
    address: SocketAddr,
    domains: Vec<String>,
    ready: impl FnOnce(&Network, SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Before anybody is told that the network is there, so that no signal is missed.
    let stop_signal = shutdown::signal();
    tokio::pin!(stop_signal);
    let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let router = network_router(network.clone(), domains);
    let mut serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        axum::serve(without_delay(listener), router).with_graceful_shutdown(stopped).await
    });
    ready(&network, address)?;
    tokio::select! {
        ended = &mut serving => ended?.context("the server ended by itself")?,
        signal = &mut stop_signal => {
            signal.context("can't wait for signals")?;
            let _ = stop.send(());
            // A call that waits for its answer must not hold up the end.
            let _ = tokio::time::timeout(shutdown::GRACE, serving).await;
        }
    }
    network.run(|host| host.save()).await?.context("the state can't be saved")
}

/// Writes a line of JSON in one step, so that whoever waits for the file never reads half of it.
pub fn write_status(path: &Path, status: &serde_json::Value) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        std::fs::write(&temporary, format!("{status}\n"))?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("can't write the status file {}", path.display()))
}
