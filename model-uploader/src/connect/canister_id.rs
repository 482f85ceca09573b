//! A canister's id by its name in the project, from the files that icp and dfx keep.

use super::upward;
use crate::error::usage;
use anyhow::Result;
use candid::Principal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Resolves `canister`, an id or a name; `None` is `ICP_CLI_CID`'s business of the caller, then the project's only one.
pub(super) fn resolve(canister: Option<&str>, network: &str, directory: &Path) -> Result<Principal> {
    if let Some(id) = canister.and_then(|text| Principal::from_text(text).ok()) {
        return Ok(id);
    }
    let known = known_canisters(network, directory);
    let names = || known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match canister {
        Some(name) => known.get(name).copied().ok_or_else(|| {
            usage(if known.is_empty() {
                format!(
                    "--canister {name}: not a canister id, and no canister of network '{network}' is recorded in {}",
                    directory.display()
                )
            } else {
                format!(
                    "--canister {name}: not a canister id, nor one of the canisters of network '{network}': {}",
                    names()
                )
            })
        }),
        None => match known.len() {
            1 => Ok(known.into_values().next().unwrap_or(Principal::management_canister())),
            0 => Err(usage(format!(
                "--canister is missing, and no canister of network '{network}' is recorded in {}",
                directory.display()
            ))),
            _ => Err(usage(format!("--canister is missing; network '{network}' has: {}", names()))),
        },
    }
}

/// Name to id, by the first file that names each.
fn known_canisters(network: &str, directory: &Path) -> BTreeMap<String, Principal> {
    let mut known = BTreeMap::new();
    for directory in upward(directory) {
        for path in files(directory, network) {
            let Some(Value::Object(entries)) =
                std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
            else {
                continue;
            };
            for (name, entry) in entries {
                // icp writes the id, dfx an object with the id by network.
                let id = entry.as_str().or_else(|| entry.get(network)?.as_str());
                if let Some(id) = id.and_then(|text| Principal::from_text(text).ok()) {
                    known.entry(name).or_insert(id);
                }
            }
        }
    }
    known
}

fn files(directory: &Path, network: &str) -> [PathBuf; 4] {
    let mapping = format!("{network}.ids.json");
    [
        directory.join(".icp/data/mappings").join(&mapping),
        directory.join(".icp/cache/mappings").join(&mapping),
        directory.join(".dfx").join(network).join("canister_ids.json"),
        directory.join("canister_ids.json"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "bkyz2-fmaaa-aaaaa-qaaaq-cai";
    const B: &str = "bd3sg-teaaa-aaaaa-qaaba-cai";

    fn write(dir: &Path, path: &str, text: &str) -> Result<()> {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    #[test]
    fn names_are_found_in_the_files_of_both_tools_from_a_folder_below() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let inner = dir.path().join("x/y");
        std::fs::create_dir_all(&inner)?;
        assert_eq!(resolve(Some(A), "local", &inner)?.to_text(), A);
        assert!(resolve(None, "local", &inner).is_err());

        write(dir.path(), ".icp/cache/mappings/local.ids.json", &format!(r#"{{"one":"{A}"}}"#))?;
        assert_eq!(resolve(Some("one"), "local", &inner)?.to_text(), A);
        assert_eq!(resolve(None, "local", &inner)?.to_text(), A);
        assert!(resolve(Some("one"), "ic", &inner).is_err());

        write(
            dir.path(),
            "canister_ids.json",
            &format!(r#"{{"two":{{"local":"{B}","ic":"{A}"}},"one":{{"local":"{B}"}}}}"#),
        )?;
        assert_eq!(resolve(Some("two"), "local", &inner)?.to_text(), B);
        assert_eq!(resolve(Some("two"), "ic", &inner)?.to_text(), A);
        assert_eq!(resolve(Some("one"), "local", &inner)?.to_text(), A);
        assert!(resolve(None, "local", &inner).is_err_and(|e| e.to_string().contains("one, two")));
        assert!(resolve(Some("three"), "local", &inner).is_err_and(|e| e.to_string().contains("one, two")));
        Ok(())
    }
}
