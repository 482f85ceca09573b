//! Rewrites a module so that it counts its own instructions.
//!
//! The algorithm is the network's (`injections` and `inject_metering` of its `instrumentation.rs`): a function body
//! is cut into straight blocks, and the cost of a block is subtracted where the block starts. The counter is compared
//! with zero only where code can be entered again: at function entries and loop headers, and at bulk operations.
//!
//! Beyond that the module keeps its shape, so that code is copied as bytes: one function is imported
//! (`out_of_instructions`, after the module's own imports), one is added at the end (the charge of bulk operations),
//! and the counter lies in a second memory (see [`super::meter::Counter`]).

use super::costs;
use super::meter::PENDING_OFFSET_BYTES;
use super::module::InvalidModule;
use super::sections::{Sections, undecodable};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, Encode, EntityType, ExportKind, ExportSection,
    FunctionSection, GlobalSection, ImportSection, MemorySection, MemoryType, TableSection, TypeSection, ValType,
};
use wasmparser::{DataKind, ExternalKind, Operator, TypeRef};

/// Module and name of the function that Wasm code calls when its counter is below zero.
pub(super) const HOST_MODULE: &str = "__";
pub(super) const OUT_OF_INSTRUCTIONS: &str = "out_of_instructions";
/// Export of the start function, so that it runs as a message.
pub(super) const START_EXPORT: &str = "canister_start";
/// Export of table 0, for callbacks.
pub(super) const TABLE_EXPORT: &str = "__table";
/// Exports of mutable globals are this and their number among the mutable globals.
pub(super) const GLOBAL_EXPORT_PREFIX: &str = "__global ";

/// A charge at most this high is subtracted as it is, so that the counter cannot wrap around.
const MAX_DYNAMIC_CHARGE: i64 = 1 << 62;

/// The module as it is compiled, and what its compilation costs.
pub(super) struct Instrumented {
    pub wasm: Vec<u8>,
    pub compile_instructions: u64,
}

/// Function indices after one more import.
struct Shift {
    imports: u32,
}

impl Shift {
    fn apply(&self, function: u32) -> u32 {
        if function < self.imports { function } else { function + 1 }
    }
}

impl Reencode for Shift {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Self::Error>> {
        Ok(self.apply(function))
    }
}

/// Instruments a module that [`super::validate::validate`] accepted.
pub(super) fn instrument(sections: &Sections<'_>) -> Result<Instrumented, InvalidModule> {
    let mut shift = Shift { imports: sections.imported_functions() };
    let mut module = wasm_encoder::Module::new();

    let mut types = TypeSection::new();
    if let Some(reader) = sections.type_section.clone() {
        shift.parse_type_section(&mut types, reader).map_err(undecodable)?;
    }
    let out_of_instructions_type = types.len();
    types.ty().function([], []);
    let charge_type = types.len();
    types.ty().function([ValType::I64], [ValType::I64]);
    module.section(&types);

    let mut imports = ImportSection::new();
    for import in &sections.imports {
        if let TypeRef::Func(type_index) = import.ty {
            imports.import(import.module, import.name, EntityType::Function(type_index));
        }
    }
    imports.import(HOST_MODULE, OUT_OF_INSTRUCTIONS, EntityType::Function(out_of_instructions_type));
    module.section(&imports);

    let mut functions = FunctionSection::new();
    for type_index in &sections.functions {
        functions.function(*type_index);
    }
    functions.function(charge_type);
    module.section(&functions);

    if let Some(reader) = sections.table_section.clone() {
        let mut tables = TableSection::new();
        shift.parse_table_section(&mut tables, reader).map_err(undecodable)?;
        module.section(&tables);
    }

    module.section(&memories(sections));

    if let Some(reader) = sections.global_section.clone() {
        let mut globals = GlobalSection::new();
        shift.parse_global_section(&mut globals, reader).map_err(undecodable)?;
        module.section(&globals);
    }

    module.section(&exports(sections, &shift));

    if let Some(reader) = sections.element_section.clone() {
        let mut elements = ElementSection::new();
        shift.parse_element_section(&mut elements, reader).map_err(undecodable)?;
        module.section(&elements);
    }
    if let Some(count) = sections.data_count {
        module.section(&DataCountSection { count });
    }

    let targets = Targets {
        imports: shift.imports,
        out_of_instructions: shift.imports,
        charge: shift.imports + 1 + sections.functions.len() as u32,
        memory64: sections.memory64(),
    };
    let mut code = CodeSection::new();
    let mut units = costs::COMPILE_UNITS_PER_GLOBAL * sections.globals.len() as u64;
    let mut scratch = Vec::new();
    for body in &sections.bodies {
        scratch.clear();
        units += targets.body(body, &mut scratch).map_err(undecodable)?;
        code.raw(&scratch);
    }
    scratch.clear();
    targets.charge_body(&mut scratch);
    code.raw(&scratch);
    module.section(&code);

    if let Some(reader) = sections.data_section.clone() {
        // Active segments are applied once, when the canister is installed; an empty passive segment keeps the
        // numbering, and behaves as an active segment does after instantiation.
        let mut data = DataSection::new();
        for segment in reader {
            let segment = segment.map_err(undecodable)?;
            match segment.kind {
                DataKind::Passive => data.passive(segment.data.iter().copied()),
                DataKind::Active { .. } => data.passive([]),
            };
        }
        module.section(&data);
    }
    Ok(Instrumented {
        wasm: module.finish(),
        compile_instructions: costs::COMPILE_BASE_INSTRUCTIONS + costs::COMPILE_UNIT_INSTRUCTIONS * units,
    })
}

fn memories(sections: &Sections<'_>) -> MemorySection {
    let mut memories = MemorySection::new();
    match sections.memories.first() {
        Some(memory) => memories.memory(MemoryType {
            minimum: memory.initial,
            maximum: memory.maximum,
            memory64: memory.memory64,
            shared: false,
            page_size_log2: None,
        }),
        None => memories.memory(MemoryType {
            minimum: 0,
            maximum: Some(0),
            memory64: false,
            shared: false,
            page_size_log2: None,
        }),
    };
    memories.memory(MemoryType { minimum: 1, maximum: Some(1), memory64: false, shared: false, page_size_log2: None });
    memories
}

fn exports(sections: &Sections<'_>, shift: &Shift) -> ExportSection {
    let mut exports = ExportSection::new();
    for export in &sections.exports {
        if export.kind == ExternalKind::Func && export.name.starts_with("canister_") {
            exports.export(export.name, ExportKind::Func, shift.apply(export.index));
        }
    }
    if let Some(start) = sections.start {
        exports.export(START_EXPORT, ExportKind::Func, shift.apply(start));
    }
    if sections.table_section.as_ref().is_some_and(|reader| reader.count() > 0) {
        exports.export(TABLE_EXPORT, ExportKind::Table, 0);
    }
    let mutable = sections.globals.iter().enumerate().filter(|(_, global)| global.mutable);
    for (number, (index, _)) in mutable.enumerate() {
        exports.export(&format!("{GLOBAL_EXPORT_PREFIX}{number}"), ExportKind::Global, index as u32);
    }
    exports
}

/// A place where straight-line code begins.
struct Block {
    /// Index of its first operator.
    start: usize,
    /// Code can be entered here again: check the counter.
    reentrant: bool,
    cost: u64,
}

/// Indices that injected code refers to.
struct Targets {
    /// Functions the module imports by itself.
    imports: u32,
    out_of_instructions: u32,
    charge: u32,
    memory64: bool,
}

impl Targets {
    /// Appends the instrumented body; returns the units of compilation it costs.
    fn body(&self, body: &wasmparser::FunctionBody<'_>, out: &mut Vec<u8>) -> wasmparser::Result<u64> {
        let (blocks, operators) = self.blocks(body)?;
        let mut units = operators;

        let bytes = body.as_bytes();
        let base = body.range().start;
        let mut reader = body.get_operators_reader()?;
        let mut copied = 0;
        let mut blocks = blocks.into_iter().peekable();
        let mut index = 0;
        while !reader.eof() {
            let position = reader.original_position() - base;
            let operator = reader.read()?;
            if let Some(block) = blocks.next_if(|block| block.start == index)
                && (block.cost > 0 || block.reentrant)
            {
                out.extend_from_slice(&bytes[copied..position]);
                copied = position;
                self.charge_block(&block, out);
                // Counted as the network's own sequence is: four operators, and six more for a check.
                units += if block.reentrant { 10 } else { 4 };
            }
            match operator {
                Operator::Call { function_index } => {
                    self.renumber(0x10, function_index, &bytes[copied..position], out);
                    copied = reader.original_position() - base;
                }
                Operator::ReturnCall { function_index } => {
                    self.renumber(0x12, function_index, &bytes[copied..position], out);
                    copied = reader.original_position() - base;
                }
                Operator::RefFunc { function_index } => {
                    self.renumber(0xd2, function_index, &bytes[copied..position], out);
                    copied = reader.original_position() - base;
                }
                _ => {}
            }
            if let Some(wide) = self.dynamic_operand(&operator) {
                out.extend_from_slice(&bytes[copied..position]);
                copied = position;
                if !wide {
                    out.push(I64_EXTEND_I32_U);
                }
                out.push(CALL);
                self.charge.encode(out);
                if !wide {
                    out.push(I32_WRAP_I64);
                }
                units += if wide { 1 } else { 3 };
            }
            index += 1;
        }
        out.extend_from_slice(&bytes[copied..]);
        Ok(units)
    }

    /// Cuts a body into blocks and sums their costs; also counts the operators.
    fn blocks(&self, body: &wasmparser::FunctionBody<'_>) -> wasmparser::Result<(Vec<Block>, u64)> {
        let mut blocks = Vec::new();
        let mut current = Block { start: 0, reentrant: true, cost: costs::FUNCTION_ENTRY_INSTRUCTIONS };
        let mut reader = body.get_operators_reader()?;
        let mut index = 0;
        while !reader.eof() {
            let operator = reader.read()?;
            current.cost += costs::operator_instructions(&operator, self.memory64);
            let reentrant = match operator {
                Operator::Loop { .. } => Some(true),
                Operator::If { .. }
                | Operator::Else
                | Operator::Br { .. }
                | Operator::BrIf { .. }
                | Operator::BrTable { .. }
                | Operator::End
                | Operator::Return
                | Operator::Unreachable
                | Operator::ReturnCall { .. }
                | Operator::ReturnCallIndirect { .. } => Some(false),
                _ => None,
            };
            index += 1;
            if let Some(reentrant) = reentrant {
                blocks.push(std::mem::replace(&mut current, Block { start: index, reentrant, cost: 0 }));
            }
        }
        Ok((blocks, index as u64))
    }

    /// Whether the operator pays for its length operand, and whether that operand has 64 bits.
    fn dynamic_operand(&self, operator: &Operator<'_>) -> Option<bool> {
        match operator {
            Operator::MemoryFill { .. } | Operator::MemoryCopy { .. } => Some(self.memory64),
            // Lengths in data segments have 32 bits whatever the memory.
            Operator::MemoryInit { .. } => Some(false),
            _ => None,
        }
    }

    fn renumber(&self, opcode: u8, function: u32, before: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(before);
        out.push(opcode);
        Shift { imports: self.imports }.apply(function).encode(out);
    }

    fn charge_block(&self, block: &Block, out: &mut Vec<u8>) {
        if block.cost == 0 {
            // A compiler may drop a subtraction of zero, and with it the store that makes it load the page charges
            // again; the function call cannot be seen through.
            out.push(I64_CONST);
            0i64.encode(out);
            out.push(CALL);
            self.charge.encode(out);
            out.push(DROP);
            return;
        }
        out.extend_from_slice(&[I32_CONST, 0]);
        load_counter(0, out);
        out.push(I64_CONST);
        (block.cost as i64).encode(out);
        out.push(I64_SUB);
        store_counter(out);
        if block.reentrant {
            self.check(out);
        }
    }

    /// Calls the host if the counter, page charges included, is below zero.
    fn check(&self, out: &mut Vec<u8>) {
        load_counter(0, out);
        load_counter(PENDING_OFFSET_BYTES, out);
        out.extend_from_slice(&[I64_LT_S, IF, VOID, CALL]);
        self.out_of_instructions.encode(out);
        out.push(END);
    }

    /// The added function: subtracts its argument, checks the counter, and returns the argument.
    fn charge_body(&self, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&[I32_CONST, 0]);
        load_counter(0, out);
        out.extend_from_slice(&[LOCAL_GET, 0, I64_CONST]);
        MAX_DYNAMIC_CHARGE.encode(out);
        out.extend_from_slice(&[LOCAL_GET, 0, I64_CONST]);
        MAX_DYNAMIC_CHARGE.encode(out);
        out.extend_from_slice(&[I64_LT_U, SELECT, I64_SUB]);
        store_counter(out);
        self.check(out);
        out.extend_from_slice(&[LOCAL_GET, 0, END]);
    }
}

/// `i32.const 0`, then `i64.load` at `offset` of the counter's memory.
fn load_counter(offset: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[I32_CONST, 0, I64_LOAD, ALIGN_8_WITH_MEMORY_INDEX, COUNTER_MEMORY]);
    offset.encode(out);
}

/// `i64.store` of the value above an address to the counter.
fn store_counter(out: &mut Vec<u8>) {
    out.extend_from_slice(&[I64_STORE, ALIGN_8_WITH_MEMORY_INDEX, COUNTER_MEMORY, 0]);
}

const COUNTER_MEMORY: u8 = 1;
/// Alignment 2^3, and the flag that says that a memory index follows.
const ALIGN_8_WITH_MEMORY_INDEX: u8 = 3 | 0x40;

const IF: u8 = 0x04;
const VOID: u8 = 0x40;
const END: u8 = 0x0b;
const CALL: u8 = 0x10;
const DROP: u8 = 0x1a;
const SELECT: u8 = 0x1b;
const LOCAL_GET: u8 = 0x20;
const I64_LOAD: u8 = 0x29;
const I64_STORE: u8 = 0x37;
const I32_CONST: u8 = 0x41;
const I64_CONST: u8 = 0x42;
const I64_LT_S: u8 = 0x53;
const I64_LT_U: u8 = 0x54;
const I64_SUB: u8 = 0x7d;
const I32_WRAP_I64: u8 = 0xa7;
const I64_EXTEND_I32_U: u8 = 0xad;
