//! `replica start`: a network on a port.

use super::shutdown;
use crate::doors::network::{Network, NetworkConfig, wall_clock_ns};
use crate::doors::{network_router, without_delay};
use crate::doors::pocketic::DEFAULT_DOMAIN;
use crate::subnet::SubnetConfig;
use anyhow::Context;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Options of `replica start`.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8123)]
    pub port: u16,
    /// Seed of the network's keys, 64 hexadecimal digits; without it the keys are always the same.
    #[arg(long, value_parser = parse_seed)]
    pub seed: Option<[u8; 32]>,
    /// Where compiled modules are kept between runs.
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// File to write {"port", "root_key", "url"} to, in one line, once the network answers.
    #[arg(long)]
    pub status_file: Option<PathBuf>,
}

fn parse_seed(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text).map_err(|e| format!("not hexadecimal: {e}"))?;
    bytes.try_into().map_err(|bytes: Vec<u8>| format!("{} bytes instead of 32", bytes.len()))
}

/// Starts the network and serves it until SIGINT or SIGTERM.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let network = Network::start(NetworkConfig {
        subnet: SubnetConfig {
            seed: arguments.seed.unwrap_or(super::DEFAULT_SEED),
            cache_dir: arguments.cache_dir.clone().or_else(super::default_cache_dir),
            start_time_ns: wall_clock_ns(),
            benchmark: false,
        },
        auto_progress: true,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(arguments, network));
    runtime.shutdown_background();
    served
}

async fn serve(arguments: Arguments, network: Network) -> anyhow::Result<()> {
    let address = SocketAddr::new(arguments.bind, arguments.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let root_key = hex::encode(&network.facts().root_key_der);
    let subnet = network.facts().subnet_id;
    let port = address.port();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = network_router(network, vec![DEFAULT_DOMAIN.into()]);
    let mut serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        axum::serve(without_delay(listener), router).with_graceful_shutdown(stopped).await
    });
    println!(
        "Embedded Internet Computer replica\n\
         \x20 url        {url}\n\
         \x20 canisters  http://<canister>.{DEFAULT_DOMAIN}:{port}\n\
         \x20 subnet     {subnet}\n\
         \x20 root key   {root_key}\n\
         \x20 stop it    Ctrl-C, or kill {}",
        std::process::id()
    );
    if let Some(path) = &arguments.status_file {
        write_status(path, &serde_json::json!({ "port": port, "root_key": root_key, "url": url }))?;
    }
    tokio::select! {
        ended = &mut serving => ended?.context("the server ended by itself")?,
        signal = shutdown::signal() => {
            signal.context("can't wait for signals")?;
            let _ = stop.send(());
            // A call that waits for its answer must not hold up the end.
            let _ = tokio::time::timeout(shutdown::GRACE, serving).await;
        }
    }
    if let Some(path) = &arguments.status_file {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Writes the file in one step, so that whoever waits for it never reads half a line.
fn write_status(path: &Path, status: &serde_json::Value) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || {
        std::fs::write(&temporary, format!("{status}\n"))?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("can't write the status file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_32_bytes_of_hexadecimal() {
        assert_eq!(parse_seed(&"0f".repeat(32)), Ok([15; 32]));
        assert!(parse_seed("0f").unwrap_err().contains("1 bytes"));
        assert!(parse_seed("xyz").unwrap_err().contains("not hexadecimal"));
    }
}
