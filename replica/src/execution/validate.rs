//! What a module must keep to be installed.

use super::costs;
use super::module::InvalidModule;
use super::sections::{Sections, undecodable};
use std::collections::BTreeSet;
use wasmparser::{DataKind, ExternalKind, FuncType, Operator, TypeRef, ValType, Validator, WasmFeatures};

/// Wasm proposals the network accepts.
fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::FLOATS
        | WasmFeatures::MEMORY64
        | WasmFeatures::GC_TYPES
}

fn invalid(message: String) -> InvalidModule {
    InvalidModule { message }
}

/// Checks a module against the Wasm standard and the network's limits.
pub(super) fn validate(wasm: &[u8], sections: &Sections<'_>) -> Result<(), InvalidModule> {
    if wasm.len() as u64 > costs::MAX_MODULE_BYTES {
        return Err(invalid(format!(
            "Wasm module size of {} exceeds the maximum allowed size of {}.",
            wasm.len(),
            costs::MAX_MODULE_BYTES
        )));
    }
    if sections.code_bytes > costs::MAX_CODE_SECTION_BYTES {
        return Err(invalid(format!(
            "Wasm module code section size of {} exceeds the maximum allowed size of {}.",
            sections.code_bytes,
            costs::MAX_CODE_SECTION_BYTES
        )));
    }
    Validator::new_with_features(features()).validate_all(wasm).map_err(|error| {
        invalid(format!("Wasmtime failed to validate wasm module wasmtime::Module::validate() failed with {error}"))
    })?;
    check_imports(sections)?;
    check_exports(sections)?;
    check_data(sections)?;
    check_memory_and_tables(sections)?;
    check_globals(sections)?;
    if sections.functions.len() as u64 > costs::MAX_FUNCTIONS {
        return Err(invalid(format!(
            "Wasm module defined {} functions which exceeds the maximum number allowed {}.",
            sections.functions.len(),
            costs::MAX_FUNCTIONS
        )));
    }
    check_code(sections)?;
    sections.icp_sections().map(|_| ())
}

/// The types that letters of [`costs::SystemCall`] stand for.
fn value_types(letters: &str, memory64: bool) -> Vec<ValType> {
    letters
        .chars()
        .map(|letter| match letter {
            'l' => ValType::I64,
            'w' if memory64 => ValType::I64,
            _ => ValType::I32,
        })
        .collect()
}

fn check_imports(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    let fail = |text: String| Err(invalid(format!("Wasm module has an invalid import section. {text}")));
    let memory64 = sections.memory64();
    for import in &sections.imports {
        let TypeRef::Func(type_index) = import.ty else {
            let what = match import.ty {
                TypeRef::Global(_) => "globals",
                TypeRef::Memory(_) => "memories",
                TypeRef::Table(_) => "tables",
                _ => "tags",
            };
            return fail(format!("Importing {what} is not allowed."));
        };
        let call = costs::system_call(import.name).filter(|call| !(memory64 && call.wasm32_only));
        let Some(call) = call else {
            return fail(format!(
                "Module imports function '{}' from '{}' that is not exported by the runtime.",
                import.name, import.module
            ));
        };
        if import.module != "ic0" {
            return fail(format!(
                "Module imports function {:?} from {:?}, expected to be imported from one of [\"ic0\"] instead.",
                import.name, import.module
            ));
        }
        let parameters = value_types(call.parameters, memory64);
        let results = value_types(call.results, memory64);
        check_signature(import.name, function_type(sections, type_index)?, &parameters, &results)?;
    }
    Ok(())
}

fn function_type<'s>(sections: &'s Sections<'_>, type_index: u32) -> Result<&'s FuncType, InvalidModule> {
    sections.types.get(type_index as usize).ok_or_else(|| undecodable(format!("no type {type_index}")))
}

fn check_signature(
    name: &str,
    actual: &FuncType,
    parameters: &[ValType],
    results: &[ValType],
) -> Result<(), InvalidModule> {
    for (what, expected, found) in [("input", parameters, actual.params()), ("return", results, actual.results())] {
        if expected != found {
            return Err(invalid(format!(
                "Wasm module has an invalid function signature. Expected {what} params {expected:?} for '{name}', \
                 got {found:?}."
            )));
        }
    }
    Ok(())
}

/// Exports that the network calls, and that take and return nothing.
const SYSTEM_EXPORTS: [&str; 7] = [
    "canister_init",
    "canister_inspect_message",
    "canister_pre_upgrade",
    "canister_post_upgrade",
    "canister_heartbeat",
    "canister_global_timer",
    "canister_on_low_wasm_memory",
];

fn check_exports(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    let fail = |text: String| Err(invalid(format!("Wasm module has an invalid export section. {text}")));
    let imported: Vec<u32> = sections
        .imports
        .iter()
        .filter_map(|import| if let TypeRef::Func(type_index) = import.ty { Some(type_index) } else { None })
        .collect();
    let mut methods = BTreeSet::new();
    let mut names_bytes = 0u64;
    for export in &sections.exports {
        if costs::RESERVED_EXPORTS.contains(&export.name) {
            return fail(format!("Exporting reserved symbol {} not allowed.", export.name));
        }
        if export.kind != ExternalKind::Func || !export.name.starts_with("canister_") {
            continue;
        }
        let method = ["canister_update ", "canister_query ", "canister_composite_query "]
            .iter()
            .find_map(|prefix| export.name.strip_prefix(prefix));
        if let Some(method) = method {
            if !methods.insert(method) {
                return Err(invalid(format!(
                    "Duplicate function '{method}' exported multiple times with different call types: update, query, \
                     or composite_query."
                )));
            }
            names_bytes += method.len() as u64;
        } else if !SYSTEM_EXPORTS.contains(&export.name) {
            return fail(format!("Exporting reserved function '{}' with \"canister_\" prefix", export.name));
        }
        let index = export.index as usize;
        let type_index = match index.checked_sub(imported.len()) {
            None => imported[index],
            Some(defined) => {
                *sections.functions.get(defined).ok_or_else(|| undecodable(format!("no function {index}")))?
            }
        };
        check_signature(export.name, function_type(sections, type_index)?, &[], &[])?;
    }
    if methods.len() as u64 > costs::MAX_EXPORTED_METHODS {
        return Err(invalid(format!(
            "The number of exported functions called `canister_update <name>`, `canister_query <name>`, or \
             `canister_composite_query <name>` is {} which exceeds {}.",
            methods.len(),
            costs::MAX_EXPORTED_METHODS
        )));
    }
    if names_bytes > costs::MAX_EXPORTED_NAMES_BYTES {
        return Err(invalid(format!(
            "The sum of `<name>` lengths in exported functions called `canister_update <name>`, `canister_query \
             <name>`, or `canister_composite_query <name>` is {names_bytes} which exceeds the allowed limit of {}.",
            costs::MAX_EXPORTED_NAMES_BYTES
        )));
    }
    Ok(())
}

/// Active data segments: constant offsets, inside of the initial memory.
pub(super) fn active_segments<'a>(sections: &Sections<'a>) -> Result<Vec<(u64, &'a [u8])>, InvalidModule> {
    let fail = |text: String| invalid(format!("Wasm module has an invalid data section. {text}"));
    let memory64 = sections.memory64();
    let initial_bytes = sections.memories.first().map_or(0, |memory| memory.initial.saturating_mul(65_536));
    let mut segments = Vec::new();
    let reader = sections.data_section.clone();
    for (index, segment) in reader.into_iter().flatten().enumerate() {
        let segment = segment.map_err(undecodable)?;
        let DataKind::Active { offset_expr, .. } = segment.kind else { continue };
        let mut operators = offset_expr.get_operators_reader();
        let offset = match (operators.read().map_err(undecodable)?, memory64) {
            (Operator::I32Const { value }, false) => u64::from(value as u32),
            (Operator::I64Const { value }, true) => value as u64,
            (other, _) => {
                return Err(fail(format!(
                    "Invalid offset expression in data segment for {}bit memory: {other:?}",
                    if memory64 { 64 } else { 32 }
                )));
            }
        };
        let fits = offset.checked_add(segment.data.len() as u64).is_some_and(|end| end <= initial_bytes);
        if !fits {
            return Err(fail(format!(
                "Data segment {index} of {} bytes at {offset} does not fit into the initial memory of {initial_bytes} \
                 bytes.",
                segment.data.len()
            )));
        }
        segments.push((offset, segment.data));
    }
    Ok(segments)
}

fn check_data(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    active_segments(sections).map(|_| ())
}

fn check_memory_and_tables(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    if sections.memories.len() > 1 {
        return Err(invalid(format!(
            "Wasm module defined {} memories which exceeds the maximum number allowed 1.",
            sections.memories.len()
        )));
    }
    if let Some(memory) = sections.memories.first().filter(|memory| memory.memory64) {
        let allowed = costs::MAX_HEAP64_BYTES / costs::WASM_PAGE_BYTES;
        let defined = memory.maximum.unwrap_or(0).max(memory.initial);
        if defined > allowed {
            return Err(invalid(format!(
                "Wasm module defined memory size of {defined} pages which exceeds the maximum allowed size of \
                 {allowed} pages."
            )));
        }
    }
    let mut tables = 0;
    for table in sections.table_section.clone().into_iter().flatten() {
        let table = table.map_err(undecodable)?;
        tables += 1;
        if table.ty.initial > costs::MAX_TABLE_ELEMENTS {
            return Err(invalid(format!(
                "Wasm module defined a table of {} elements which exceeds the maximum number allowed {}.",
                table.ty.initial,
                costs::MAX_TABLE_ELEMENTS
            )));
        }
    }
    if tables > costs::MAX_TABLES {
        return Err(invalid(format!(
            "Wasm module defined {tables} tables which exceeds the maximum number allowed {}.",
            costs::MAX_TABLES
        )));
    }
    Ok(())
}

fn check_globals(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    if sections.globals.len() as u64 > costs::MAX_GLOBALS {
        return Err(invalid(format!(
            "Wasm module defined {} globals which exceeds the maximum number allowed {}.",
            sections.globals.len(),
            costs::MAX_GLOBALS
        )));
    }
    for global in &sections.globals {
        if let ValType::Ref(_) = global.content_type {
            return Err(invalid(format!(
                "Wasm module has an invalid global section. Unsupported global type: {:?}",
                global.content_type
            )));
        }
    }
    Ok(())
}

fn check_code(sections: &Sections<'_>) -> Result<(), InvalidModule> {
    for (index, body) in sections.bodies.iter().enumerate() {
        let mut operators = 0u64;
        let mut complexity = 0u64;
        let mut reader = body.get_operators_reader().map_err(undecodable)?;
        while !reader.eof() {
            let operator = reader.read().map_err(undecodable)?;
            let forbidden = match operator {
                Operator::TableSet { .. } => Some("table.set"),
                Operator::TableGrow { .. } => Some("table.grow"),
                Operator::TableFill { .. } => Some("table.fill"),
                Operator::TableCopy { .. } => Some("table.copy"),
                Operator::TableInit { .. } => Some("table.init"),
                _ => None,
            };
            if let Some(instruction) = forbidden {
                return Err(invalid(format!(
                    "Wasm module contains a function at index {index} with unsupported instruction {instruction}."
                )));
            }
            operators += 1;
            complexity += costs::operator_complexity(&operator);
        }
        if complexity > costs::MAX_FUNCTION_COMPLEXITY {
            return Err(invalid(format!(
                "Wasm module contains a function at index {index} with complexity {complexity} which exceeds the \
                 maximum complexity allowed {}.",
                costs::MAX_FUNCTION_COMPLEXITY
            )));
        }
        if operators > costs::MAX_FUNCTION_OPERATORS {
            return Err(invalid(format!(
                "Wasm module contains a function at index {index} of size {operators} that exceeds the maximum \
                 allowed size of {}.",
                costs::MAX_FUNCTION_OPERATORS
            )));
        }
    }
    Ok(())
}
