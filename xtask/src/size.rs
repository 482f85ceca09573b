//! Where the canister's code bytes come from.

use crate::process::target_dir;
use std::collections::BTreeMap;
use std::fs;
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// Bytes of a module's code section.
pub fn code_section_bytes(wasm: &[u8]) -> Result<u64, String> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionStart { size, .. } = payload.map_err(|e| format!("not a Wasm module: {e}"))? {
            return Ok(u64::from(size));
        }
    }
    Ok(0)
}

/// Prints code bytes by crate, largest first, by the module's name section.
pub fn print_ledger() -> Result<(), String> {
    let path = target_dir().join("wasm/onnx-canister.wasm");
    let wasm =
        fs::read(&path).map_err(|e| format!("{}: {e} (run `cargo xtask build-canister` first)", path.display()))?;
    let ledger = ledger(&wasm)?;
    let mut rows: Vec<(&String, &u64)> = ledger.iter().collect();
    rows.sort_by_key(|(name, bytes)| (u64::MAX - **bytes, name.as_str()));
    println!("{:>12}  crate", "code bytes");
    for (name, bytes) in rows {
        println!("{bytes:>12}  {name}");
    }
    println!("{:>12}  code section", code_section_bytes(&wasm)?);
    Ok(())
}

/// Code bytes by the crate that a function's demangled name starts with.
fn ledger(wasm: &[u8]) -> Result<BTreeMap<String, u64>, String> {
    let mut imported_functions = 0;
    let mut body_bytes: Vec<u64> = Vec::new();
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|e| format!("not a Wasm module: {e}"))? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|e| format!("import section: {e}"))?;
                    imported_functions += u32::from(matches!(import.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionEntry(body) => body_bytes.push(body.range().len() as u64),
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(subsections) = section.as_known() {
                    for subsection in subsections {
                        if let Name::Function(map) = subsection.map_err(|e| format!("name section: {e}"))? {
                            for naming in map {
                                let naming = naming.map_err(|e| format!("name section: {e}"))?;
                                names.insert(naming.index, naming.name.to_string());
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let mut ledger = BTreeMap::new();
    for (index, bytes) in body_bytes.iter().enumerate() {
        let name = names.get(&(imported_functions + index as u32)).map_or("(no name)", String::as_str);
        *ledger.entry(crate_of(&format!("{:#}", rustc_demangle::demangle(name)))).or_default() += bytes;
    }
    Ok(ledger)
}

/// The crate a Rust symbol belongs to: the first path of the name, generics and `impl` brackets skipped.
fn crate_of(symbol: &str) -> String {
    let path = symbol.trim_start_matches(['<', '&', '(', '[', '*', '_', ' ']).trim_start_matches("mut ");
    let path = path.trim_start_matches("dyn ").trim_start_matches('<');
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let name = &path[..end];
    if path[end..].starts_with("::") || path[end..].starts_with('[') { name.to_string() } else { "(other)".to_string() }
}

#[cfg(test)]
mod tests {
    use super::crate_of;

    #[test]
    fn symbols_are_booked_to_the_crate_they_name_first() {
        assert_eq!(crate_of("tract_core::ops::cnn::conv::Conv::eval"), "tract_core");
        assert_eq!(crate_of("<tract_core::ops::Konst as tract_core::Op>::eval"), "tract_core");
        assert_eq!(crate_of("<alloc::vec::Vec<T> as Drop>::drop"), "alloc");
        assert_eq!(crate_of("core[1234]::fmt::write"), "core");
        assert_eq!(crate_of("memcpy"), "(other)");
    }
}
