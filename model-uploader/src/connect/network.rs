//! Where a network is and which key signs for it.

use super::upward;
use crate::error::usage;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

/// The public Internet Computer.
pub const MAINNET: &str = "ic";
/// The network on this machine.
pub const LOCAL_NETWORK: &str = "local";

const MAINNET_URL: &str = "https://icp-api.io";
/// Domains that answer for mainnet, with all below them.
const MAINNET_DOMAINS: [&str; 5] = ["icp-api.io", "icp0.io", "ic0.app", "icp.net", "internetcomputer.org"];
/// Where `icp network start` listens by default.
const ICP_LOCAL_URL: &str = "http://127.0.0.1:8000";
/// Where `dfx start` listens by default.
const DFX_LOCAL_URL: &str = "http://127.0.0.1:4943";
/// A BLS12-381 public key in DER, in bytes.
const ROOT_KEY_BYTES: usize = 133;

/// A user's wish for the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKey {
    Fetch,
    /// DER.
    Key(Vec<u8>),
}

impl FromStr for RootKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "fetch" {
            return Ok(Self::Fetch);
        }
        let key = hex::decode(text).map_err(|e| format!("neither 'fetch' nor hexadecimal: {e}"))?;
        if key.len() != ROOT_KEY_BYTES {
            return Err(format!("{} bytes, a root key in DER has {ROOT_KEY_BYTES}", key.len()));
        }
        Ok(Self::Key(key))
    }
}

#[derive(Debug)]
pub(super) struct Target {
    pub url: String,
    pub is_mainnet: bool,
    /// What the project's own tool says the key is.
    pub known_root_key: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RootKeySource {
    /// Compiled into the agent.
    Mainnet,
    Known(Vec<u8>),
    Fetch,
}

pub(super) fn resolve(network: &str, replica_url: Option<&str>, directory: &Path) -> Result<Target> {
    if let Some(url) = replica_url {
        return Ok(Target { is_mainnet: is_mainnet_url(url), url: url.to_string(), known_root_key: None });
    }
    if network == MAINNET {
        return Ok(Target { url: MAINNET_URL.to_string(), is_mainnet: true, known_root_key: None });
    }
    let found = ask_icp(network, directory).or_else(|| dfx_url(network, directory).map(|url| (url, None)));
    let (url, known_root_key) = match found {
        Some(found) => found,
        None if network == LOCAL_NETWORK => (default_local_url(directory).to_string(), None),
        None => {
            return Err(usage(format!(
                "network '{network}' is not known to icp or dfx in {}: name its address with --replica-url",
                directory.display()
            )));
        }
    };
    Ok(Target { is_mainnet: is_mainnet_url(&url), url, known_root_key })
}

/// Decides what to trust. Mainnet's key is never asked for over the network.
pub(super) fn root_key(wish: Option<&RootKey>, target: &Target) -> Result<RootKeySource> {
    match (wish, target.is_mainnet) {
        (Some(RootKey::Key(key)), _) => Ok(RootKeySource::Known(key.clone())),
        (Some(RootKey::Fetch), true) => {
            Err(usage("--root-key fetch would trust whoever answers; mainnet's key is known, leave it out"))
        }
        (None, true) => Ok(RootKeySource::Mainnet),
        (None, false) => Ok(match &target.known_root_key {
            Some(key) => RootKeySource::Known(key.clone()),
            None => RootKeySource::Fetch,
        }),
        (Some(RootKey::Fetch), false) => Ok(RootKeySource::Fetch),
    }
}

fn is_mainnet_url(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    let host = host_and_port.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    MAINNET_DOMAINS
        .iter()
        .any(|domain| host == *domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// Address and root key by `icp network status`, if icp is installed and the directory has a project with that
/// environment.
fn ask_icp(environment: &str, directory: &Path) -> Option<(String, Option<Vec<u8>>)> {
    upward(directory).find(|dir| dir.join("icp.yaml").is_file())?;
    let output = Command::new("icp")
        .args(["network", "status", "-e", environment, "--json"])
        .current_dir(directory)
        .env("RUST_BACKTRACE", "0")
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    parse_icp_status(&output.stdout)
}

fn parse_icp_status(json: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let status: Value = serde_json::from_slice(json).ok()?;
    let url = status.get("api_url")?.as_str()?.to_string();
    let key = status.get("root_key").and_then(Value::as_str).and_then(|text| hex::decode(text).ok());
    Some((url, key.filter(|key| key.len() == ROOT_KEY_BYTES)))
}

/// Address by the nearest `dfx.json`, then by the user's `networks.json`.
fn dfx_url(network: &str, directory: &Path) -> Option<String> {
    let project = upward(directory).map(|dir| dir.join("dfx.json")).find(|path| path.is_file());
    let from_project =
        project.and_then(|path| read_json(&path)).and_then(|json| dfx_network(json.get("networks")?, network));
    from_project.or_else(|| {
        let home = directories::BaseDirs::new()?.home_dir().to_path_buf();
        dfx_network(&read_json(&home.join(".config/dfx/networks.json"))?, network)
    })
}

fn dfx_network(networks: &Value, name: &str) -> Option<String> {
    let network = networks.get(name)?;
    if let Some(provider) = network.get("providers").and_then(|providers| providers.get(0)).and_then(Value::as_str) {
        return Some(provider.to_string());
    }
    network.get("bind").and_then(Value::as_str).map(|bind| format!("http://{bind}"))
}

/// dfx's port in a project that only dfx knows, icp's elsewhere.
fn default_local_url(directory: &Path) -> &'static str {
    let project = upward(directory).find(|dir| dir.join("icp.yaml").is_file() || dir.join("dfx.json").is_file());
    match project {
        Some(dir) if !dir.join("icp.yaml").is_file() => DFX_LOCAL_URL,
        _ => ICP_LOCAL_URL,
    }
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target { url: url.to_string(), is_mainnet: is_mainnet_url(url), known_root_key: None }
    }

    #[test]
    fn mainnet_is_known_by_its_hosts() {
        for url in ["https://icp-api.io", "https://ICP0.io/", "https://icp0.io:443/x", "https://a.ic0.app"] {
            assert!(is_mainnet_url(url), "{url}");
        }
        for url in [
            "http://127.0.0.1:8000",
            "https://noticp0.io",
            "http://localhost:4943/?x=icp0.io",
            "https://icp0.io.example",
        ] {
            assert!(!is_mainnet_url(url), "{url}");
        }
    }

    #[test]
    fn mainnets_root_key_is_never_fetched() {
        let mainnet = target("https://icp0.io");
        assert_eq!(root_key(None, &mainnet).ok(), Some(RootKeySource::Mainnet));
        assert!(root_key(Some(&RootKey::Fetch), &mainnet).is_err());
        let local = target("http://127.0.0.1:8000");
        assert_eq!(root_key(None, &local).ok(), Some(RootKeySource::Fetch));
        let key = RootKey::Key(vec![7; ROOT_KEY_BYTES]);
        assert_eq!(root_key(Some(&key), &local).ok(), Some(RootKeySource::Known(vec![7; ROOT_KEY_BYTES])));
    }

    #[test]
    fn root_keys_are_read_from_hexadecimal() {
        assert_eq!("fetch".parse(), Ok(RootKey::Fetch));
        assert_eq!("00".repeat(ROOT_KEY_BYTES).parse(), Ok(RootKey::Key(vec![0; ROOT_KEY_BYTES])));
        assert!("00".parse::<RootKey>().is_err_and(|e| e.contains("1 bytes")));
        assert!("xy".parse::<RootKey>().is_err());
    }

    #[test]
    fn icp_status_gives_address_and_key() {
        let key = "ab".repeat(ROOT_KEY_BYTES);
        let json = format!(r#"{{"managed":false,"api_url":"http://127.0.0.1:8123/","root_key":"{key}"}}"#);
        let expected = ("http://127.0.0.1:8123/".to_string(), Some(vec![0xab; ROOT_KEY_BYTES]));
        assert_eq!(parse_icp_status(json.as_bytes()), Some(expected));
        assert_eq!(parse_icp_status(b"not json"), None);
    }

    #[test]
    fn networks_come_from_dfx_json_and_defaults_from_the_kind_of_project() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner)?;
        assert_eq!(resolve("local", None, &inner)?.url, ICP_LOCAL_URL);
        std::fs::write(
            dir.path().join("dfx.json"),
            r#"{"networks":{"embedded":{"providers":["http://127.0.0.1:8123"]},"other":{"bind":"127.0.0.1:9000"}}}"#,
        )?;
        assert_eq!(resolve("embedded", None, &inner)?.url, "http://127.0.0.1:8123");
        assert_eq!(resolve("other", None, &inner)?.url, "http://127.0.0.1:9000");
        assert!(resolve("nowhere", None, &inner).is_err_and(|e| e.to_string().contains("nowhere")));
        assert_eq!(resolve("nowhere", Some("http://[::1]:1"), &inner)?.url, "http://[::1]:1");
        assert!(resolve("ic", None, &inner)?.is_mainnet);
        Ok(())
    }
}
