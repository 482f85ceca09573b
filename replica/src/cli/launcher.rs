//! The command line of `icp-cli-network-launcher`, which `icp network start` runs when
//! `ICP_CLI_NETWORK_LAUNCHER_PATH` names this binary.
//!
//! Source: the launcher's interface specification, versions 1.0 and 1.1 (`SPEC.md` of dfinity/icp-cli-network-launcher).
//! What needs more than one application subnet is accepted and told to have no effect.

use super::serving::{run as serve, write_status};
use crate::doors::pocketic::DEFAULT_DOMAIN;
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The option that says that the rest is for a launcher, and the variable that may stand for it.
const INTERFACE_OPTION: &str = "--interface-version";
const INTERFACE_VARIABLE: &str = "ICP_CLI_NETWORK_LAUNCHER_INTERFACE_VERSION";
/// Version of the status file.
const STATUS_VERSION: &str = "1";
const STATUS_FILE: &str = "status.json";

/// Options of the launcher's interface.
#[derive(Parser, Clone, Debug)]
#[command(name = "icp-cli-network-launcher", version = env!("CARGO_PKG_VERSION"))]
struct Arguments {
    /// Version of the interface that the caller speaks.
    #[arg(long)]
    interface_version: Option<String>,
    /// Port to listen on; without it a free one.
    #[arg(long, default_value_t = 0)]
    gateway_port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Folder to keep the state in.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Folder to write status.json to once the network answers.
    #[arg(long)]
    status_dir: Option<PathBuf>,
    /// Domain below which canisters are found, beside localhost.
    #[arg(long)]
    domain: Vec<String>,
    /// Taken for compatibility; there is always one application subnet.
    #[arg(long)]
    subnet: Vec<String>,
    /// Taken for compatibility.
    #[arg(long)]
    verbose: bool,
}

/// Whether this process was started as a launcher.
pub fn is_wanted(arguments: &[OsString]) -> bool {
    std::env::var_os(INTERFACE_VARIABLE).is_some()
        || arguments.iter().skip(1).any(|argument| {
            let text = argument.to_string_lossy();
            text == INTERFACE_OPTION || text.strip_prefix(INTERFACE_OPTION).is_some_and(|rest| rest.starts_with('='))
        })
}

/// Starts the network and serves it until SIGINT or SIGTERM.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<()> {
    let (known, unknown) = split(arguments);
    for option in &unknown {
        eprintln!("warning: {} has no effect on this network", option.to_string_lossy());
    }
    let matches = Arguments::command().get_matches_from(known);
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    for kind in arguments.subnet.iter().filter(|kind| *kind != "application") {
        eprintln!("warning: there is no {kind} subnet: this network is one application subnet");
    }
    let network = super::live_network(super::DEFAULT_SEED, super::default_cache_dir(), arguments.state_dir)?;
    let domains = std::iter::once(DEFAULT_DOMAIN.to_string()).chain(arguments.domain).collect();
    let status_dir = arguments.status_dir;
    serve(network, SocketAddr::new(arguments.bind, arguments.gateway_port), domains, |network, address| {
        let facts = network.facts();
        println!("embedded replica on http://{address}, subnet {}", facts.subnet_id);
        let Some(dir) = status_dir else { return Ok(()) };
        let status = serde_json::json!({
            "v": STATUS_VERSION,
            "gateway_port": address.port(),
            "root_key": hex::encode(&facts.root_key_der),
            "default_effective_canister_id": facts.default_effective_canister_id.to_text(),
            "supported_features": [],
        });
        write_status(&dir.join(STATUS_FILE), &status)
    })
}

/// The arguments that this version knows, and the options that it does not: a caller of a later version of the
/// interface may pass those.
fn split(arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let command = Arguments::command();
    let is_known = |name: &str| {
        let options = command.get_opts().map(|option| (option.get_long(), true));
        let flags = command.get_arguments().filter(|arg| !arg.get_action().takes_values());
        let found = options.chain(flags.map(|flag| (flag.get_long(), false))).find(|(long, _)| *long == Some(name));
        match (found, name) {
            (Some((_, takes_value)), _) => Some(takes_value),
            (None, "help" | "version") => Some(false),
            (None, _) => None,
        }
    };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    known.extend(arguments.next());
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let Some(option) = text.strip_prefix("--") else {
            known.push(argument);
            continue;
        };
        let (name, has_value) = option.split_once('=').map_or((option, false), |(name, _)| (name, true));
        let is_option = |next: &OsString| next.to_string_lossy().starts_with("--");
        match is_known(name) {
            Some(takes_value) => {
                known.push(argument);
                if takes_value && !has_value {
                    known.extend(arguments.next());
                }
            }
            None => {
                unknown.push(argument);
                // What follows an unknown option without a value of its own is that value.
                if !has_value && arguments.peek().is_some_and(|next| !is_option(next)) {
                    arguments.next();
                }
            }
        }
    }
    (known, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_interface_option_makes_a_launcher() {
        assert!(is_wanted(&words("replica --interface-version 1.1.0 --bind 127.0.0.1")));
        assert!(is_wanted(&words("replica --interface-version=1.1.0")));
        assert!(!is_wanted(&words("replica start --port 0")));
        assert!(!is_wanted(&words("replica --interface-versions")));
    }

    #[test]
    fn options_of_later_versions_are_set_aside() {
        let (known, unknown) = split(words(
            "replica --interface-version 1.9.0 --teleport --warp 9 --gateway-port=8000 --ii --artificial-delay-ms=5 \
             --state-dir --odd --verbose --domain a.example --domain=b.example",
        ));
        assert_eq!(unknown, words("--teleport --warp --ii --artificial-delay-ms=5"));
        let arguments = Arguments::try_parse_from(known.iter().filter(|word| *word != "--odd")).unwrap_err();
        // A value may begin with dashes; clap itself refuses that one.
        assert!(arguments.to_string().contains("--state-dir"), "{arguments}");
        let (known, _) = split(words("replica --interface-version 1.1.0 --domain a.example --gateway-port 8000"));
        let arguments = Arguments::try_parse_from(known).unwrap();
        assert_eq!((arguments.gateway_port, arguments.domain), (8000, vec!["a.example".to_string()]));
    }
}
