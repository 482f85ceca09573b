//! Keys from icp's and dfx's stores, or from a PEM file.

use crate::error::usage;
use anyhow::{Context, Result, anyhow};
use candid::Principal;
use ic_agent::Identity;
use ic_agent::identity::{
    AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, Prime256v1Identity, Secp256k1Identity,
    SignedDelegation,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const ANONYMOUS: &str = "anonymous";

/// Who to call as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityChoice {
    /// The one selected in icp, else in dfx, else anonymous.
    Default,
    Anonymous,
    /// By its name in icp's store, else in dfx's.
    Named(String),
    Pem(PathBuf),
}

/// Where the two tools keep their keys.
struct Stores {
    icp: Option<PathBuf>,
    dfx: Option<PathBuf>,
}

pub(super) fn load(choice: &IdentityChoice) -> Result<Arc<dyn Identity>> {
    load_from(choice, &Stores::of_this_user())
}

fn load_from(choice: &IdentityChoice, stores: &Stores) -> Result<Arc<dyn Identity>> {
    match choice {
        IdentityChoice::Anonymous => Ok(Arc::new(AnonymousIdentity)),
        IdentityChoice::Pem(path) => {
            from_pem(&std::fs::read(path).with_context(|| format!("--pem {}", path.display()))?)
                .with_context(|| format!("--pem {}", path.display()))
        }
        IdentityChoice::Named(name) => from_stores(name, stores),
        IdentityChoice::Default => match stores.default_name() {
            Some(name) => from_stores(&name, stores),
            None => Ok(Arc::new(AnonymousIdentity)),
        },
    }
}

impl Stores {
    fn of_this_user() -> Self {
        let icp_home = std::env::var_os("ICP_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let icp_data = || Some(directories::ProjectDirs::from("org", "dfinity", "icp-cli")?.data_dir().to_path_buf());
        Self {
            icp: icp_home.or_else(icp_data).map(|home| home.join("identity")),
            dfx: directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".config/dfx")),
        }
    }

    fn default_name(&self) -> Option<String> {
        let files = [
            self.icp.as_ref().map(|dir| dir.join("identity_defaults.json")),
            self.dfx.as_ref().map(|dir| dir.join("identity.json")),
        ];
        files.into_iter().flatten().find_map(|path| Some(read_json(&path)?.get("default")?.as_str()?.to_string()))
    }
}

fn from_stores(name: &str, stores: &Stores) -> Result<Arc<dyn Identity>> {
    if name == ANONYMOUS {
        return Ok(Arc::new(AnonymousIdentity));
    }
    // The name becomes part of a path below.
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(usage(format!("--identity {name:?} is not a name")));
    }
    if let Some(found) = stores.icp.as_ref().and_then(|dir| from_icp(name, dir)) {
        return found;
    }
    if let Some(found) = stores.dfx.as_ref().and_then(|dir| from_dfx(name, dir)) {
        return found;
    }
    Err(usage(format!("--identity {name}: neither icp nor dfx has an identity of that name")))
}

/// `None` when the store does not list the name.
fn from_icp(name: &str, store: &Path) -> Option<Result<Arc<dyn Identity>>> {
    let list = read_json(&store.join("identity_list.json"))?;
    let entry = list.get("identities")?.get(name)?;
    let field = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(match (field("kind"), field("format")) {
        (ANONYMOUS, _) => Ok(Arc::new(AnonymousIdentity) as Arc<dyn Identity>),
        ("pem", "plaintext") => from_pem_file(&key_file(store, name)),
        ("delegation", _) => from_icp_delegation(name, entry, store),
        ("pending-delegation", _) => {
            Err(anyhow!("identity {name} of icp has no delegation yet: finish it with `icp identity delegation use`"))
        }
        _ => exported_by("icp", name),
    })
}

fn key_file(store: &Path, name: &str) -> PathBuf {
    store.join("keys").join(format!("{name}.pem"))
}

/// A session key to which somebody's key delegates, as `icp identity delegation` keeps them.
fn from_icp_delegation(name: &str, entry: &Value, store: &Path) -> Result<Arc<dyn Identity>> {
    let storage = entry.get("storage");
    let field = |key: &str| storage.and_then(|storage| storage.get(key)?.as_str()).unwrap_or_default();
    if (field("kind"), field("format")) != ("pem", "plaintext") {
        return Err(anyhow!(
            "identity {name} of icp is a delegation whose key only icp can unlock: use one stored in plaintext, or a key"
        ));
    }
    let session = from_pem_file(&key_file(store, name))?;
    let path = store.join("delegations").join(format!("{name}.json"));
    let read = || delegated(session, &read_json(&path).context("not a JSON file that can be read")?);
    read().with_context(|| path.display().to_string())
}

/// The identity of the key that the chain begins with, for which `session` signs.
fn delegated(session: Arc<dyn Identity>, chain: &Value) -> Result<Arc<dyn Identity>> {
    let bytes = |value: &Value, key: &str| -> Result<Vec<u8>> {
        let text = value.get(key).and_then(Value::as_str).with_context(|| format!("no {key}"))?;
        hex::decode(text).with_context(|| key.to_string())
    };
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let links = chain.get("delegations").and_then(Value::as_array).context("no delegations")?;
    let mut signed = Vec::with_capacity(links.len());
    for link in links {
        let delegation = link.get("delegation").context("no delegation")?;
        let expiration = delegation.get("expiration").and_then(Value::as_str).context("no expiration")?;
        let expiration = u64::from_str_radix(expiration, 16).context("expiration")?;
        if u128::from(expiration) <= now_ns {
            return Err(anyhow!("the delegation has expired: ask for another with `icp identity delegation request`"));
        }
        let targets = match delegation.get("targets").and_then(Value::as_array) {
            None => None,
            Some(targets) => Some(targets.iter().map(target).collect::<Result<Vec<_>>>()?),
        };
        let pubkey = bytes(delegation, "pubkey")?;
        signed.push(SignedDelegation {
            delegation: Delegation { pubkey, expiration, targets, permissions: None },
            signature: bytes(link, "signature")?,
        });
    }
    Ok(Arc::new(DelegatedIdentity::new_unchecked(bytes(chain, "publicKey")?, Box::new(session), signed)))
}

/// A canister that a delegation is limited to: its id as text or as hexadecimal bytes.
fn target(value: &Value) -> Result<Principal> {
    let text = value.as_str().context("a target that is no text")?;
    if let Ok(principal) = Principal::from_text(text) {
        return Ok(principal);
    }
    let bytes = hex::decode(text).with_context(|| format!("target {text}"))?;
    Principal::try_from_slice(&bytes).with_context(|| format!("target {text}"))
}

/// `None` when the store has no such folder.
fn from_dfx(name: &str, store: &Path) -> Option<Result<Arc<dyn Identity>>> {
    let folder = store.join("identity").join(name);
    if !folder.is_dir() {
        return None;
    }
    let plain = folder.join("identity.pem");
    Some(if plain.is_file() { from_pem_file(&plain) } else { exported_by("dfx", name) })
}

/// Encrypted keys and those in the system's keyring: their own tool knows how to unlock them, and asks on the terminal.
fn exported_by(tool: &str, name: &str) -> Result<Arc<dyn Identity>> {
    let output = Command::new(tool)
        .args(["identity", "export", name])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running `{tool} identity export {name}` to unlock the identity"))?;
    if !output.status.success() {
        return Err(anyhow!("`{tool} identity export {name}` did not give the key ({})", output.status));
    }
    from_pem(&output.stdout).with_context(|| format!("key of identity {name} in {tool}"))
}

fn from_pem_file(path: &Path) -> Result<Arc<dyn Identity>> {
    let read = || from_pem(&std::fs::read(path)?);
    read().with_context(|| path.display().to_string())
}

/// An Ed25519, secp256k1 or prime256v1 private key, in PKCS#8 or SEC1.
fn from_pem(pem: &[u8]) -> Result<Arc<dyn Identity>> {
    let ed25519 = match BasicIdentity::from_pem(pem) {
        Ok(identity) => return Ok(Arc::new(identity)),
        Err(error) => error,
    };
    if let Ok(identity) = Secp256k1Identity::from_pem(pem) {
        return Ok(Arc::new(identity));
    }
    if let Ok(identity) = Prime256v1Identity::from_pem(pem) {
        return Ok(Arc::new(identity));
    }
    Err(anyhow!("not a private key of Ed25519, secp256k1 or prime256v1 in PEM ({ed25519})"))
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests;
