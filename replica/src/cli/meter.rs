//! `replica meter`: the instruction count of one message.

use crate::execution::{Engine, EntryPoint, Environment, Instance, Message, Module, Outcome, StableMemory, SystemInfo};
use anyhow::{Context, bail};
use candid::Principal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs one message of a canister and prints what it cost, as one line of JSON.
///
/// A start function and `canister_init` run first, as at an install; what they cost is reported apart.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The module, as Wasm (also gzipped) or as text.
    file: PathBuf,
    /// The exported function, such as "canister_update go" or "canister_query go".
    #[arg(long)]
    export: String,
    /// Run it as a non-replicated query. An update export is then run as the query of the same name.
    #[arg(long)]
    query: bool,
    /// Argument of the message.
    #[arg(long, value_name = "HEX", default_value = "")]
    arg_hex: String,
    /// Argument of canister_init.
    #[arg(long, value_name = "HEX", default_value = "")]
    init_arg_hex: String,
    /// Limit of the message, instead of the network's for its kind.
    #[arg(long)]
    instruction_limit: Option<u64>,
}

/// What a message cost and said.
#[derive(serde::Serialize, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Instructions of the message, page charges included.
    pub instructions: u64,
    /// Page charges alone.
    pub page_charge: u64,
    /// Slices of deterministic time slicing.
    pub slices: u32,
    /// Pages of 64 KiB written.
    pub pages_dirtied: u64,
    /// Instructions of the start function and canister_init.
    pub init_instructions: u64,
    /// Instructions charged for compiling the module.
    pub compile_instructions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject: Option<String>,
    /// Code and text of a trap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// A message to measure.
#[derive(Clone, Debug, Default)]
pub struct MeterRequest {
    /// The exported function, such as "canister_update go".
    pub export: String,
    /// Run it as a non-replicated query.
    pub query: bool,
    pub argument: Vec<u8>,
    pub init_argument: Vec<u8>,
    pub instruction_limit: Option<u64>,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file = arguments.file;
    let bytes = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let request = MeterRequest {
        export: arguments.export,
        query: arguments.query,
        argument: hex::decode(&arguments.arg_hex).context("--arg-hex is not hexadecimal")?,
        init_argument: hex::decode(&arguments.init_arg_hex).context("--init-arg-hex is not hexadecimal")?,
        instruction_limit: arguments.instruction_limit,
    };
    let measurement = measure(&Engine::new(None)?, &bytes, &request)
        .with_context(|| format!("{} cannot be measured", file.display()))?;
    println!("{}", serde_json::to_string(&measurement)?);
    Ok(())
}

/// Installs `bytes` (Wasm, gzipped Wasm or text) in a fresh canister and measures one message.
///
/// With `query`, the export of an update is run as a query: the code is the same, but writes to pages are free.
pub fn measure(engine: &Engine, bytes: &[u8], request: &MeterRequest) -> anyhow::Result<Measurement> {
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { gunzip(bytes)? } else { bytes.to_vec() };
    let mut wasm = wat::parse_bytes(&bytes)?.into_owned();
    let mut entry_point = entry_point(&request.export)?;
    if let (EntryPoint::Update(method), true) = (&entry_point, request.query) {
        wasm = as_query(&wasm, method)?;
        entry_point = EntryPoint::Query { method: method.clone(), replicated: false };
    }
    let module = Module::compile(engine, &wasm).map_err(|error| anyhow::anyhow!(error.message))?;
    let mut instance = Instance::new(engine, &module, StableMemory::new()?)
        .map_err(|trap| anyhow::anyhow!("{}: {}", trap.code.to_ic_string(), trap.message))?;

    let mut init_instructions = 0;
    for (export, init) in [("canister_start", EntryPoint::Start), ("canister_init", EntryPoint::Init)] {
        if module.has_export(export) && entry_point != init {
            let outcome = instance.execute(environment(init, request.init_argument.clone(), None));
            init_instructions += outcome.instructions;
            if let Err(trap) = outcome.result {
                bail!("{export} failed with {}: {}", trap.code.to_ic_string(), trap.message);
            }
        }
    }
    let outcome = instance.execute(environment(entry_point, request.argument.clone(), request.instruction_limit));
    Ok(measurement(outcome, init_instructions, module.compile_instructions()))
}

fn measurement(outcome: Outcome, init_instructions: u64, compile_instructions: u64) -> Measurement {
    let (response, error) = match outcome.result {
        Ok(effects) => (effects.response, None),
        Err(trap) => (None, Some(format!("{}: {}", trap.code.to_ic_string(), trap.message))),
    };
    let (reply, reject) = match response {
        Some(Ok(reply)) => (Some(reply), None),
        Some(Err(reject)) => (None, Some(reject)),
        None => (None, None),
    };
    Measurement {
        instructions: outcome.instructions,
        page_charge: outcome.page_charge,
        slices: outcome.slices,
        pages_dirtied: outcome.pages_dirtied,
        init_instructions,
        compile_instructions,
        reply_hex: reply.map(hex::encode),
        reject,
        error,
        log: outcome.log.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect(),
    }
}

fn gunzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let limit = crate::execution::costs::MAX_MODULE_BYTES;
    let mut wasm = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(limit + 1).read_to_end(&mut wasm)?;
    if wasm.len() as u64 > limit {
        bail!("the module is larger than {limit} bytes when unpacked");
    }
    Ok(wasm)
}

/// The module with the update method `method` exported as a query.
fn as_query(wasm: &[u8], method: &str) -> anyhow::Result<Vec<u8>> {
    let (old, new) = (format!("canister_update {method}"), format!("canister_query {method}"));
    let mut module = wasm_encoder::Module::new();
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let wasmparser::Payload::ExportSection(reader) = payload {
            let mut exports = wasm_encoder::ExportSection::new();
            for export in reader {
                let export = export?;
                let name = if export.name == old { new.as_str() } else { export.name };
                exports.export(name, export.kind.into(), export.index);
            }
            module.section(&exports);
        } else if let Some((id, range)) = payload.as_section() {
            module.section(&wasm_encoder::RawSection { id, data: &wasm[range] });
        }
    }
    Ok(module.finish())
}

fn entry_point(export: &str) -> anyhow::Result<EntryPoint> {
    Ok(match export.split_once(' ') {
        Some(("canister_update", method)) => EntryPoint::Update(method.to_string()),
        Some(("canister_query", method)) => EntryPoint::Query { method: method.to_string(), replicated: false },
        Some(("canister_composite_query", method)) => EntryPoint::CompositeQuery(method.to_string()),
        _ => match export {
            "canister_start" => EntryPoint::Start,
            "canister_init" => EntryPoint::Init,
            "canister_pre_upgrade" => EntryPoint::PreUpgrade,
            "canister_post_upgrade" => EntryPoint::PostUpgrade,
            "canister_inspect_message" => EntryPoint::InspectMessage(String::new()),
            "canister_heartbeat" => EntryPoint::Heartbeat,
            "canister_global_timer" => EntryPoint::GlobalTimer,
            "canister_on_low_wasm_memory" => EntryPoint::OnLowWasmMemory,
            _ => bail!("{export:?} is not an export the network calls"),
        },
    })
}

/// A canister without history: rich, anonymous caller, time 0.
fn environment(entry_point: EntryPoint, argument: Vec<u8>, instruction_limit: Option<u64>) -> Environment {
    Environment {
        system: SystemInfo {
            canister_id: Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1]),
            subnet_id: Principal::management_canister(),
            root_key: Arc::new(Vec::new()),
            time_ns: 0,
            controllers: vec![Principal::anonymous()],
            status: 1,
            canister_version: 1,
            cycle_balance: 1_000_000_000_000_000,
            freezing_limit: 0,
            call_reservation: 0,
            global_timer_ns: 0,
            environment_variables: BTreeMap::new(),
            data_certificate: None,
            wasm_memory_limit_bytes: 0,
            log_remaining_bytes: crate::execution::costs::LOG_CAPACITY_BYTES,
        },
        message: Message {
            entry_point,
            caller: Principal::anonymous(),
            argument,
            reject: None,
            cycles_available: 0,
            cycles_refunded: 0,
            deadline_ns: 0,
            already_responded: false,
            call_context_instructions: 0,
        },
        instruction_limit,
        in_composite_query: false,
    }
}
