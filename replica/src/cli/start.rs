//! `replica start`: a network on a port.

use super::serving;
use crate::doors::pocketic::DEFAULT_DOMAIN;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

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
    /// Folder to keep the network's state in; without it the state is gone when the process ends.
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
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
    let network = super::live_network(
        arguments.seed.unwrap_or(super::DEFAULT_SEED),
        arguments.cache_dir.or_else(super::default_cache_dir),
        arguments.state_dir,
    )?;
    let address = SocketAddr::new(arguments.bind, arguments.port);
    let status_file = arguments.status_file.clone();
    let served = serving::run(network, address, vec![DEFAULT_DOMAIN.into()], |network, address| {
        let url = format!("http://{address}");
        let root_key = hex::encode(&network.facts().root_key_der);
        let port = address.port();
        println!(
            "Embedded Internet Computer replica\n\
             \x20 url        {url}\n\
             \x20 canisters  http://<canister>.{DEFAULT_DOMAIN}:{port}\n\
             \x20 subnet     {}\n\
             \x20 root key   {root_key}\n\
             \x20 stop it    Ctrl-C, or kill {}",
            network.facts().subnet_id,
            std::process::id()
        );
        match &arguments.status_file {
            Some(path) => {
                serving::write_status(path, &serde_json::json!({ "port": port, "root_key": root_key, "url": url }))
            }
            None => Ok(()),
        }
    });
    if let Some(path) = &status_file {
        let _ = std::fs::remove_file(path);
    }
    served
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
