//! `install_code` and `install_chunked_code`: one message, all of it or nothing.

use super::super::Subnet;
use super::super::canister::{Canister, Code, LowMemoryHook};
use super::super::errors;
use super::super::prices;
use super::super::run::{SubnetInfo, plain_message};
use super::super::types::{ErrorCode, Rejection};
use super::{Call, decode, unit_reply};
use crate::execution::{Engine, EntryPoint, Instance, Module, Outcome, StableMemory, Trap};
use candid::Principal;
use ic_management_canister_types as ic00;

/// The instrumented start function.
const START_EXPORT: &str = "canister_start";
/// Metadata of a module that keeps its heap over upgrades.
const KEEPS_HEAP_SECTION: &str = "enhanced-orthogonal-persistence";

/// What is to be installed, and how.
struct Installation<'a> {
    mode: ic00::CanisterInstallMode,
    canister_id: Principal,
    wasm: &'a [u8],
    argument: &'a [u8],
    sender_version: Option<u64>,
    /// Spent before compiling, on putting chunks together.
    assembly_instructions: u64,
}

/// Instructions of an installation, over all of its messages.
#[derive(Default)]
struct Spent {
    instructions: u64,
}

impl Spent {
    fn left(&self) -> u64 {
        prices::INSTALL_INSTRUCTIONS.saturating_sub(self.instructions)
    }

    fn add_instructions(&mut self, instructions: u64) {
        self.instructions = self.instructions.saturating_add(instructions);
    }
}

impl Subnet {
    pub(super) fn install_code(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::InstallCodeArgs,)>(call.argument)?;
        let installation = Installation {
            mode: args.mode,
            canister_id: args.canister_id,
            wasm: &args.wasm_module,
            argument: &args.arg,
            sender_version: args.sender_canister_version,
            assembly_instructions: 0,
        };
        self.install(call, &installation)
    }

    pub(super) fn install_chunked_code(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::InstallChunkedCodeArgs,)>(call.argument)?;
        let wasm = self.assemble_chunks(&args, call)?;
        let installation = Installation {
            mode: args.mode,
            canister_id: args.target_canister,
            wasm: &wasm,
            argument: &args.arg,
            sender_version: args.sender_canister_version,
            assembly_instructions: prices::ASSEMBLE_CHUNK_INSTRUCTIONS * args.chunk_hashes_list.len() as u64,
        };
        self.install(call, &installation)
    }

    /// Prepays, installs, and gives back what was not used. On an error the canister is as it was, less the cycles.
    fn install(&mut self, call: &Call, installation: &Installation) -> Result<Vec<u8>, Rejection> {
        let id = installation.canister_id;
        let info = self.info.clone();
        let engine = &self.engine;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if installation.mode == ic00::CanisterInstallMode::Install && canister.code.is_some() {
            let message = format!(
                "Canister {id} cannot be installed because the canister is not empty. Try installing with \
                 mode='reinstall' instead."
            );
            return Err(Rejection::new(ErrorCode::CanisterNonEmpty, message));
        }
        canister.withdraw(prices::execution(prices::INSTALL_INSTRUCTIONS)).map_err(|missing| {
            let cause = errors::out_of_cycles_text(&id, Some(missing));
            Rejection::new(ErrorCode::CanisterOutOfCycles, format!("Canister installation failed with `{cause}`."))
        })?;
        let mut spent = Spent { instructions: installation.assembly_instructions };
        let result = install_on(canister, engine, &info, call.sender, installation, &mut spent);
        canister.settle_execution(prices::INSTALL_INSTRUCTIONS, spent.instructions);
        let slices = spent.instructions.div_ceil(prices::SLICE_INSTRUCTIONS).try_into().unwrap_or(u32::MAX);
        if let Ok(code) = result {
            let mode = match installation.mode {
                ic00::CanisterInstallMode::Install => ic00::CodeDeploymentMode::Install,
                ic00::CanisterInstallMode::Reinstall => ic00::CodeDeploymentMode::Reinstall,
                ic00::CanisterInstallMode::Upgrade(_) => ic00::CodeDeploymentMode::Upgrade,
            };
            let record = ic00::CodeDeploymentRecord { mode, module_hash: code.module_hash.to_vec() };
            canister.code = Some(code);
            canister.version += 1;
            let details = ic00::ChangeDetails::CodeDeployment(record);
            canister.record_change(info.time_ns, call.origin, installation.sender_version, details);
            self.certified.set_canister(canister);
            self.occupy(&id, slices);
            return Ok(unit_reply());
        }
        self.occupy(&id, slices);
        result.map(|_| unit_reply())
    }
}

/// Compiles the module and runs what the mode asks for. The canister is changed only when all of it succeeds.
fn install_on(
    canister: &mut Canister,
    engine: &Engine,
    info: &SubnetInfo,
    sender: Principal,
    installation: &Installation,
    spent: &mut Spent,
) -> Result<Code, Rejection> {
    let id = canister.id;
    let compiled = Code::compile(engine, &id, installation.wasm)?;
    spent.add_instructions(compiled.module.compile_instructions());
    let mut installer = Installer { canister, engine, info, sender, spent };
    let flags = match installation.mode {
        ic00::CanisterInstallMode::Install | ic00::CanisterInstallMode::Reinstall => None,
        ic00::CanisterInstallMode::Upgrade(flags) => Some(flags.unwrap_or_default()),
    };
    let instance = match flags {
        None => installer.fresh(&compiled.module, installation.argument)?,
        Some(flags) => installer.upgrade(&compiled.module, flags, installation.argument)?,
    };
    Ok(compiled.with_instance(instance))
}

/// Runs the messages of one installation.
struct Installer<'a> {
    canister: &'a mut Canister,
    engine: &'a Engine,
    info: &'a SubnetInfo,
    sender: Principal,
    spent: &'a mut Spent,
}

impl Installer<'_> {
    /// Install and reinstall: empty memories, start, init.
    fn fresh(&mut self, module: &Module, argument: &[u8]) -> Result<Instance, Rejection> {
        let stable = StableMemory::new().map_err(|error| {
            let message = format!("Stable memory can't be set up: {error}");
            Rejection::new(ErrorCode::SubnetOversubscribed, message)
        })?;
        let mut instance = Instance::new(self.engine, module, stable).map_err(|trap| self.trapped(trap))?;
        let mut changes = Changes { certified_data: Some(Vec::new()), ..Changes::default() };
        self.run_if_exported(module, &mut instance, START_EXPORT, EntryPoint::Start, &[], &mut changes)?;
        self.run_if_exported(module, &mut instance, "canister_init", EntryPoint::Init, argument, &mut changes)?;
        self.commit(changes);
        Ok(instance)
    }

    /// Upgrade: pre_upgrade of the old module, then start and post_upgrade of the new one on the old stable memory.
    fn upgrade(&mut self, module: &Module, flags: ic00::UpgradeFlags, argument: &[u8]) -> Result<Instance, Rejection> {
        let Some(mut old) = self.canister.code.take() else { return Err(errors::no_wasm_module(&self.canister.id)) };
        let result = check_persistence(&old.module, flags).and_then(|()| {
            old.instance.checkpoint();
            let result = self.upgrade_from(&mut old, module, flags, argument);
            if result.is_err() {
                old.instance.rollback_to_checkpoint();
            }
            result
        });
        if result.is_err() {
            self.canister.code = Some(old);
        }
        result
    }

    /// The part of an upgrade that is undone when it fails; the stable memory is back in `old` then.
    fn upgrade_from(
        &mut self,
        old: &mut Code,
        module: &Module,
        flags: ic00::UpgradeFlags,
        argument: &[u8],
    ) -> Result<Instance, Rejection> {
        let mut changes = Changes::default();
        if !flags.skip_pre_upgrade.unwrap_or(false) {
            let Code { module: old_module, instance, .. } = old;
            let entry_point = EntryPoint::PreUpgrade;
            self.run_if_exported(old_module, instance, "canister_pre_upgrade", entry_point, &[], &mut changes)?;
        }
        let out_of_memory = |error: anyhow::Error| {
            Rejection::new(ErrorCode::SubnetOversubscribed, format!("Stable memory can't be set up: {error}"))
        };
        let placeholder = StableMemory::new().map_err(out_of_memory)?;
        let empty = StableMemory::new().map_err(out_of_memory)?;
        let mut new = Instance::new(self.engine, module, placeholder).map_err(|trap| self.trapped(trap))?;
        new.replace_stable(old.instance.replace_stable(empty));
        let result =
            self.run_if_exported(module, &mut new, START_EXPORT, EntryPoint::Start, &[], &mut changes).and_then(|()| {
                let entry_point = EntryPoint::PostUpgrade;
                self.run_if_exported(module, &mut new, "canister_post_upgrade", entry_point, argument, &mut changes)
            });
        match result {
            Ok(()) => {
                new.stable_mut().release_checkpoint();
                self.commit(changes);
                Ok(new)
            }
            Err(rejection) => {
                old.instance.replace_stable(new.into_stable());
                Err(rejection)
            }
        }
    }

    fn run_if_exported(
        &mut self,
        module: &Module,
        instance: &mut Instance,
        export: &str,
        entry_point: EntryPoint,
        argument: &[u8],
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        if !module.has_export(export) {
            return Ok(());
        }
        let message = plain_message(entry_point, self.sender, argument.to_vec());
        let environment = self.canister.environment(self.info, message, Some(self.spent.left()));
        let outcome: Outcome = instance.execute(environment);
        self.canister.keep_outcome(self.info, &outcome);
        self.spent.add_instructions(outcome.instructions);
        let effects = outcome.result.map_err(|trap| self.trapped(trap))?;
        changes.certified_data = effects.certified_data.or(changes.certified_data.take());
        changes.global_timer_ns = effects.global_timer_ns.or(changes.global_timer_ns);
        changes.cycles_burned += effects.cycles_burned;
        Ok(())
    }

    fn trapped(&self, trap: Trap) -> Rejection {
        errors::trapped(&self.canister.id, trap)
    }

    /// A change of module turns the timer off, unless the new module set it.
    fn commit(&mut self, changes: Changes) {
        let canister = &mut *self.canister;
        canister.global_timer_ns = changes.global_timer_ns.unwrap_or(0);
        canister.low_memory_hook = LowMemoryHook::default();
        if let Some(data) = changes.certified_data {
            canister.certified_data = data;
        }
        let burned = changes.cycles_burned.min(canister.cycles);
        canister.cycles -= burned;
        canister.counters.cycles.burned += burned;
    }
}

/// What the messages of an installation change beside memories.
#[derive(Default)]
struct Changes {
    certified_data: Option<Vec<u8>>,
    global_timer_ns: Option<u64>,
    cycles_burned: u128,
}

/// Modules that keep their heap over upgrades are refused: this subnet always replaces it.
fn check_persistence(old: &Module, flags: ic00::UpgradeFlags) -> Result<(), Rejection> {
    match flags.wasm_memory_persistence {
        Some(ic00::WasmMemoryPersistence::Keep) => Err(errors::contract_violation(
            "Invalid upgrade option: The `wasm_memory_persistence: opt Keep` upgrade option requires that the new \
             canister module supports enhanced orthogonal persistence, which this subnet does not offer.",
        )),
        None if old.custom_sections().contains_key(KEEPS_HEAP_SECTION) => Err(errors::contract_violation(
            "Missing upgrade option: Enhanced orthogonal persistence requires the `wasm_memory_persistence` upgrade \
             option.",
        )),
        Some(ic00::WasmMemoryPersistence::Replace) | None => Ok(()),
    }
}
