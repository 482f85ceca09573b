//! The sections of a Wasm module, read once for validation, instrumentation and execution.

use super::module::{CustomSection, InvalidModule};
use std::collections::BTreeMap;
use wasmparser::{
    CustomSectionReader, DataSectionReader, ElementSectionReader, Export, ExternalKind, FuncType, FunctionBody,
    GlobalSectionReader, GlobalType, Import, KnownCustom, MemoryType, Name, Parser, Payload, TableSectionReader,
    TypeRef, TypeSectionReader,
};

/// A module that was decoded but not yet checked.
#[derive(Default)]
pub(super) struct Sections<'a> {
    pub type_section: Option<TypeSectionReader<'a>>,
    pub types: Vec<FuncType>,
    pub imports: Vec<Import<'a>>,
    /// Type index of every function the module defines.
    pub functions: Vec<u32>,
    pub table_section: Option<TableSectionReader<'a>>,
    pub memories: Vec<MemoryType>,
    pub global_section: Option<GlobalSectionReader<'a>>,
    pub globals: Vec<GlobalType>,
    pub exports: Vec<Export<'a>>,
    pub start: Option<u32>,
    pub element_section: Option<ElementSectionReader<'a>>,
    pub data_count: Option<u32>,
    pub data_section: Option<DataSectionReader<'a>>,
    pub code_bytes: u64,
    pub bodies: Vec<FunctionBody<'a>>,
    pub custom: Vec<CustomSectionReader<'a>>,
}

/// An error of the decoder, worded as the network words it.
pub(super) fn undecodable(error: impl std::fmt::Display) -> InvalidModule {
    InvalidModule { message: format!("Failed to decode wasm module: {error}") }
}

impl<'a> Sections<'a> {
    pub(super) fn read(wasm: &'a [u8]) -> Result<Self, InvalidModule> {
        let mut sections = Sections::default();
        for payload in Parser::new(0).parse_all(wasm) {
            sections.add(payload.map_err(undecodable)?).map_err(undecodable)?;
        }
        Ok(sections)
    }

    fn add(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(reader) => {
                self.types = reader.clone().into_iter_err_on_gc_types().collect::<Result<_, _>>()?;
                self.type_section = Some(reader);
            }
            Payload::ImportSection(reader) => {
                self.imports = reader.into_imports().collect::<Result<_, _>>()?;
            }
            Payload::FunctionSection(reader) => self.functions = reader.into_iter().collect::<Result<_, _>>()?,
            Payload::TableSection(reader) => self.table_section = Some(reader),
            Payload::MemorySection(reader) => self.memories = reader.into_iter().collect::<Result<_, _>>()?,
            Payload::GlobalSection(reader) => {
                self.globals =
                    reader.clone().into_iter().map(|global| Ok(global?.ty)).collect::<wasmparser::Result<_>>()?;
                self.global_section = Some(reader);
            }
            Payload::ExportSection(reader) => self.exports = reader.into_iter().collect::<Result<_, _>>()?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(reader) => self.element_section = Some(reader),
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::DataSection(reader) => self.data_section = Some(reader),
            Payload::CodeSectionStart { size, .. } => self.code_bytes = u64::from(size),
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::CustomSection(reader) => self.custom.push(reader),
            _ => {}
        }
        Ok(())
    }

    /// Functions the module imports; defined functions are numbered after them.
    pub(super) fn imported_functions(&self) -> u32 {
        self.imports.iter().filter(|import| matches!(import.ty, TypeRef::Func(_))).count() as u32
    }

    /// Whether the heap is addressed by 64 bits.
    pub(super) fn memory64(&self) -> bool {
        self.memories.first().is_some_and(|memory| memory.memory64)
    }

    /// Names of the exported functions.
    pub(super) fn exported_functions(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.exports.iter().filter(|export| export.kind == ExternalKind::Func).map(|export| export.name)
    }

    /// Names of functions by index, from the name section; unreadable parts of it are skipped.
    pub(super) fn function_names(&self) -> BTreeMap<u32, String> {
        let mut names = BTreeMap::new();
        for section in &self.custom {
            if let KnownCustom::Name(reader) = section.as_known() {
                for subsection in reader.into_iter().flatten() {
                    if let Name::Function(map) = subsection {
                        names.extend(
                            map.into_iter()
                                .flatten()
                                .map(|naming| (naming.index, format!("{:#}", rustc_demangle::demangle(naming.name)))),
                        );
                    }
                }
            }
        }
        names
    }

    /// The `icp:` sections by name.
    pub(super) fn icp_sections(&self) -> Result<BTreeMap<String, CustomSection>, InvalidModule> {
        let invalid =
            |text: String| InvalidModule { message: format!("Wasm module has an invalid custom section. {text}") };
        let mut sections = BTreeMap::new();
        let mut total_bytes = 0u64;
        for section in self.custom.iter().filter(|section| section.name().starts_with("icp:")) {
            let scope = section.name();
            let (name, is_public) = match (scope.strip_prefix("icp:public "), scope.strip_prefix("icp:private ")) {
                (Some(name), _) => (name, true),
                (_, Some(name)) => (name, false),
                _ if scope == "icp:public" || scope == "icp:private" => {
                    let text = "'icp:' section names must have a space after the public/private scope";
                    return Err(invalid(text.to_string()));
                }
                _ => {
                    return Err(invalid(format!(
                        "Invalid custom section: Custom section '{scope}' has no public/private scope defined."
                    )));
                }
            };
            total_bytes += (section.data().len() + name.len()) as u64;
            if total_bytes > super::costs::MAX_CUSTOM_SECTIONS_BYTES {
                return Err(invalid(format!(
                    "Invalid custom sections: total size of the custom sections exceeds the maximum allowed: size \
                     {total_bytes} bytes, allowed {} bytes",
                    super::costs::MAX_CUSTOM_SECTIONS_BYTES
                )));
            }
            let custom = CustomSection { is_public, data: section.data().to_vec() };
            if sections.insert(name.to_string(), custom).is_some() {
                return Err(invalid(format!("Invalid custom section: name {name} already exists")));
            }
            if sections.len() as u64 > super::costs::MAX_CUSTOM_SECTIONS {
                return Err(InvalidModule {
                    message: format!(
                        "Wasm module defined {} custom sections which exceeds the maximum number allowed {}.",
                        sections.len(),
                        super::costs::MAX_CUSTOM_SECTIONS
                    ),
                });
            }
        }
        Ok(sections)
    }
}
