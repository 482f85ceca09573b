//! What dfx 0.32 asks of a network when it deploys without a wallet, asked through the library that it is made of.
//!
//! Source: `dfx-core` and `dfx` 0.32, `lib/operations/canister`: create_canister.rs, install_canister.rs,
//! deploy_canisters.rs. dfx itself is a binary that not every machine can download.

use anyhow::{Context, Result, ensure};
use candid::{Encode, Principal};
use end_to_end_tests::environment;
use end_to_end_tests::network::{Canister, INITIAL_CYCLES, Network};
use ic_utils::interfaces::ManagementCanister;
use ic_utils::interfaces::management_canister::CanisterStatusType;
use ic_utils::interfaces::management_canister::builders::{CanisterInstallMode, UpgradeFlags};
use onnx_canister_interface::{Health, InitArgs};
use sha2::{Digest, Sha256};

/// The size above which dfx sends a module in chunks: what an ingress message takes.
const INGRESS_BYTES: usize = 2 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_dfx_deploy_are_answered() -> Result<()> {
    let network = Network::start(0)?;
    let agent = network.agent()?;
    // `dfx deploy --network embedded`: the root key comes from the status endpoint.
    agent.fetch_root_key().await?;
    ensure!(agent.status().await?.replica_health_status.as_deref() == Some("healthy"));
    let management = ManagementCanister::create(&agent);

    // dfx canister create --no-wallet
    let (id,) = management
        .create_canister()
        .as_provisional_create_with_amount(Some(INITIAL_CYCLES))
        .with_effective_canister_id(Principal::from_text("rwlgt-iiaaa-aaaaa-aaaaa-cai")?)
        .with_wasm_memory_limit(4_u64 << 30)
        .with_freezing_threshold(90_u64 * 86_400)
        .call_and_wait()
        .await
        .context("provisional_create_canister_with_cycles")?;
    let (status,) = management.canister_status(&id).as_update().call().await?;
    ensure!(status.status == CanisterStatusType::Running && status.module_hash.is_none(), "{status:?}");
    ensure!(status.settings.wasm_memory_limit == 4_u64 << 30 && status.settings.controllers.len() == 1, "{status:?}");

    // dfx canister install: in chunks, since the module is too large for one message.
    let wasm = environment::canister_wasm()?;
    ensure!(wasm.len() > INGRESS_BYTES, "the module would not need chunks");
    let none = Encode!(&None::<InitArgs>)?;
    ensure!(agent.read_state_canister_module_hash(id).await.is_err(), "a hash without a module");
    management
        .install(&id, &wasm)
        .with_mode(CanisterInstallMode::Install)
        .with_raw_arg(none.clone())
        .call_and_wait()
        .await
        .context("install_code")?;
    let hash = Sha256::digest(&wasm).to_vec();
    ensure!(agent.read_state_canister_module_hash(id).await? == hash);
    ensure!(agent.read_state_canister_controllers(id).await? == [Principal::anonymous()]);
    let (chunks,) = management.stored_chunks(&id).await?;
    ensure!(chunks.is_empty(), "chunks were left behind");
    // dfx checks the Candid interface of what runs before it upgrades it.
    let interface = agent.read_state_canister_metadata(id, "candid:service").await?;
    ensure!(String::from_utf8(interface)?.contains("classify : (ClassifyRequest)"));

    // dfx deploy, again: stop, upgrade, start.
    management.stop_canister(&id).await.context("stop_canister")?;
    let upgrade = CanisterInstallMode::Upgrade(Some(UpgradeFlags {
        skip_pre_upgrade: Some(false),
        wasm_memory_persistence: None,
    }));
    management.install(&id, &wasm).with_mode(upgrade).with_raw_arg(none).call_and_wait().await.context("upgrade")?;
    management.start_canister(&id).await.context("start_canister")?;
    let (status,) = management.canister_status(&id).as_update().call().await?;
    ensure!(status.status == CanisterStatusType::Running && status.module_hash == Some(hash), "{status:?}");

    let canister = Canister { agent: agent.clone(), id };
    let health: Health = canister.query_plain("health").await?;
    ensure!(health.models_ready == 0 && !health.below_reserve, "{health:?}");

    // dfx canister delete
    management.stop_canister(&id).await?;
    management.delete_canister(&id).await?;
    ensure!(management.canister_status(&id).as_update().call().await.is_err());
    Ok(())
}
