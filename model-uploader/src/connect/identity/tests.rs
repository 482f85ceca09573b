//! Keys made with OpenSSL for these tests; what principal each has was told by icp.

use super::*;

const ED25519: (&str, &str) = (
    "7ior5-c3oht-jjrr5-dgcud-26knw-mzf2n-zdxzl-spkvh-ixiil-mhsuw-oae",
    "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINR60j5FhU6Dq7fa8oZBWLrREwzUdM2L1sVWBbXrkgLy
-----END PRIVATE KEY-----
",
);
const SECP256K1: (&str, &str) = (
    "4522l-duh3f-sr5ze-wat2h-khuhz-cv7zm-u5vd4-e4ag2-vmqzf-n5v5x-mqe",
    "-----BEGIN PRIVATE KEY-----
MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgiEgTVlP6y37URxNn17HV
XpvWP9uyjQduulXZzQNQwZehRANCAAQhpKmu+HXtIFawhfhtgx1y8xr7FnNbqyUe
Ojna9SYLxTIejd9sS1ewC+szvqHf7Vu8/LW1CmFTwY1LkP1Bcn6V
-----END PRIVATE KEY-----
",
);
/// The same key.
const SECP256K1_SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHQCAQEEIIhIE1ZT+st+1EcTZ9ex1V6b1j/bso0HbrpV2c0DUMGXoAcGBSuBBAAK
oUQDQgAEIaSprvh17SBWsIX4bYMdcvMa+xZzW6slHjo52vUmC8UyHo3fbEtXsAvr
M76h3+1bvPy1tQphU8GNS5D9QXJ+lQ==
-----END EC PRIVATE KEY-----
";
const PRIME256V1: (&str, &str) = (
    "y44vr-kjd7k-shmrt-rzlok-gs77t-fw3fx-qrryn-4w4iw-ctr6p-igbyk-gae",
    "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2A2hey8cQ1usnEFw
XJpbomflMi88triJQw4loXd9VvmhRANCAASEYUmDjONNCjShFq40UY+JIuaRhBNo
gFRhgr6bhcC5ZIcoUMfOgaGZEBuErI/36WYzRMBVPfGyp8GjhQiwfvUC
-----END PRIVATE KEY-----
",
);
const ANONYMOUS_PRINCIPAL: &str = "2vxsx-fae";

fn principal(identity: Result<Arc<dyn Identity>>) -> Result<String> {
    Ok(identity?.sender().map_err(|e| anyhow!(e))?.to_text())
}

fn write(path: PathBuf, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::write(path, text)?)
}

#[test]
fn every_kind_of_key_gives_the_principal_that_icp_gives() -> Result<()> {
    for (expected, pem) in [ED25519, SECP256K1, (SECP256K1.0, SECP256K1_SEC1), PRIME256V1] {
        assert_eq!(principal(from_pem(pem.as_bytes()))?, expected);
    }
    for bad in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(from_pem(bad.as_bytes()).is_err(), "{bad}");
    }
    Ok(())
}

#[test]
fn names_are_looked_up_in_icps_store_then_in_dfxs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (icp, dfx) = (dir.path().join("icp"), dir.path().join("dfx"));
    let stores = Stores { icp: Some(icp.clone()), dfx: Some(dfx.clone()) };
    let load = |choice| principal(load_from(&choice, &stores));
    let named = |name: &str| IdentityChoice::Named(name.to_string());

    assert_eq!(load(IdentityChoice::Default)?, ANONYMOUS_PRINCIPAL, "no store, no default");
    write(
        icp.join("identity_list.json"),
        r#"{"v":1,"identities":{"anonymous":{"kind":"anonymous"},"a":{"kind":"pem","format":"plaintext","algorithm":"ed25519"}}}"#,
    )?;
    write(icp.join("keys/a.pem"), ED25519.1)?;
    write(dfx.join("identity/a/identity.pem"), PRIME256V1.1)?;
    write(dfx.join("identity/b/identity.pem"), SECP256K1_SEC1)?;
    assert_eq!(load(named("a"))?, ED25519.0);
    assert_eq!(load(named("b"))?, SECP256K1.0);
    assert_eq!(load(named("anonymous"))?, ANONYMOUS_PRINCIPAL);

    write(dfx.join("identity.json"), r#"{"default":"b"}"#)?;
    assert_eq!(load(IdentityChoice::Default)?, SECP256K1.0);
    write(icp.join("identity_defaults.json"), r#"{"v":1,"default":"a"}"#)?;
    assert_eq!(load(IdentityChoice::Default)?, ED25519.0);
    assert_eq!(load(IdentityChoice::Anonymous)?, ANONYMOUS_PRINCIPAL);
    assert_eq!(load(IdentityChoice::Pem(icp.join("keys/a.pem")))?, ED25519.0);

    for name in ["c", "", "../a", "a/b"] {
        assert!(load(named(name)).is_err(), "{name}");
    }
    assert!(load(IdentityChoice::Pem(icp.join("none.pem"))).is_err());
    Ok(())
}

/// Files as `icp identity delegation request`, `sign` and `use` leave them.
#[test]
fn a_delegation_speaks_for_the_key_that_signed_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let icp = dir.path().join("icp");
    let stores = Stores { icp: Some(icp.clone()), dfx: None };
    let owner = Secp256k1Identity::from_pem(SECP256K1.1.as_bytes())?;
    let session = Prime256v1Identity::from_pem(PRIME256V1.1.as_bytes())?;
    let chain = |expiration: u64| -> Result<String> {
        let delegation = Delegation {
            pubkey: session.public_key().context("a public key")?,
            expiration,
            targets: Some(vec![Principal::management_canister()]),
            permissions: None,
        };
        let signature = owner.sign_delegation(&delegation).map_err(|e| anyhow!(e))?.signature.context("a signature")?;
        Ok(serde_json::json!({
            "publicKey": hex::encode(owner.public_key().context("a public key")?),
            "delegations": [{
                "signature": hex::encode(signature),
                "delegation": {
                    "pubkey": hex::encode(&delegation.pubkey),
                    "expiration": format!("{expiration:x}"),
                    "targets": ["aaaaa-aa"],
                },
            }],
        })
        .to_string())
    };
    let list = |kind: &str, format: &str| {
        format!(r#"{{"identities":{{"s":{{"kind":"{kind}","storage":{{"kind":"pem","format":"{format}"}}}}}}}}"#)
    };
    write(icp.join("identity_list.json"), &list("delegation", "plaintext"))?;
    write(icp.join("keys/s.pem"), PRIME256V1.1)?;
    write(icp.join("delegations/s.json"), &chain(u64::MAX)?)?;
    let load = || load_from(&IdentityChoice::Named("s".to_string()), &stores);
    assert_eq!(principal(load())?, SECP256K1.0);
    assert_eq!(load()?.delegation_chain().len(), 1);

    let refusal = || load().err().map(|error| format!("{error:#}")).unwrap_or_default();
    write(icp.join("delegations/s.json"), &chain(1)?)?;
    assert!(refusal().contains("expired"), "{}", refusal());
    write(icp.join("delegations/s.json"), "{}")?;
    assert!(refusal().contains("s.json") && refusal().contains("no delegations"), "{}", refusal());
    write(icp.join("identity_list.json"), &list("delegation", "pbes2"))?;
    assert!(refusal().contains("only icp can unlock"), "{}", refusal());
    write(icp.join("identity_list.json"), &list("pending-delegation", "plaintext"))?;
    assert!(refusal().contains("no delegation yet"), "{}", refusal());
    Ok(())
}
