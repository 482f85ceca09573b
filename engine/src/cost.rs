//! What a node may cost, before it is run: an upper bound of its Wasm instructions by the Internet Computer's weights.
//!
//! The bound is made of multiplications, elements and pages touched. Rates were taken from measurements of tract
//! 0.23.9 with simd128 at opt-level z (kernels at 3) and rounded up generously: an estimate that is too high makes a
//! session pause early once (the cost of each node is measured as it runs), one that is too low could overrun a
//! message.
//!
//! | work | measured | rate here |
//! |---|---|---|
//! | f32 multiplication in a SIMD kernel, padding of tiles included | 3.0 to 5.4 | 8 |
//! | f32 in a direct convolution (depthwise 7.4 to 8.1) | 8.1 | 16 |
//! | i32 and quantised | 4 to 15.5 | 24 |
//! | f32 with 4-bit block weights | 9.5 to 24 | 40 |
//! | f16, and any kernel that is generic code | 92 to 216 | 500 |
//! | a sum of products left to the interpreter (`EinSum`) | up to 200 | 400 |
//! | an element in or out (cosine 102, convolution windows 60, softmax 36, add 10) | up to 102 | 150 |
//! | the same in f64 or f16 | | 600 |
//! | a 64 KiB page read and written for the first time in a message | 160,000 | 160,000 |

use std::cmp::max;
use tract_onnx::tract_core::internal::{Cost, DatumType, SymbolValues, TDim, TypedFact, TypedModel, TypedNode};
use tract_onnx::tract_core::ops::cnn::{MaxPool, OptMaxPool, OptSumPool, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_core::ops::matmul::optimized::OptMatMul;
use tract_onnx::tract_core::ops::matmul::pack::DynPackedExoticFact;
use tract_onnx::tract_core::ops::scan::{OptScan, Scan};
use tract_onnx::tract_core::tract_linalg::block_quant::{BlockQuantFact, PackedBlockQuantFact};
use tract_onnx::tract_core::tract_linalg::mmm::PackedExoticFact;
use tract_onnx_opl::ml::tree_ensemble_classifier::TreeEnsembleClassifier;

/// Calling an operator, making its outputs, symbols: measured 3,000 to 8,000 with shapes known beforehand.
const NODE_INSTRUCTIONS: u64 = 100_000;

/// First read and first write of a 64 KiB page in a message.
const PAGE_INSTRUCTIONS: u64 = 160_000;
const PAGE_BYTES: u64 = 65_536;

/// Working out sizes from symbols when a node has any: measured up to 900,000, much less the next time.
const SYMBOLIC_INSTRUCTIONS: u64 = 3_000_000;

const ELEMENT_INSTRUCTIONS: u64 = 150;
const ELEMENT_WIDE_INSTRUCTIONS: u64 = 600;

const F32_INSTRUCTIONS: u64 = 8;
const F32_DIRECT_INSTRUCTIONS: u64 = 16;
const I32_INSTRUCTIONS: u64 = 24;
const BLOCK_QUANT_INSTRUCTIONS: u64 = 40;
const GENERIC_INSTRUCTIONS: u64 = 500;
const INTERPRETED_INSTRUCTIONS: u64 = 400;
const DIVISION_INSTRUCTIONS: u64 = 60;

/// One value under a pooling kernel.
const POOL_INSTRUCTIONS: u64 = 60;

/// One comparison of a sort or of two boxes.
const COMPARISON_INSTRUCTIONS: u64 = 100;

/// Going down one tree, beside its nodes, and adding up its leaf.
const TREE_INSTRUCTIONS: u64 = 20_000;

/// One number of a tree's nodes and leaves (five and three numbers each).
const TREE_NUMBER_INSTRUCTIONS: u64 = 40;

/// Nested graphs in nested graphs that are looked into.
const BODY_DEPTH_MAX: u32 = 8;

/// Upper bound of the instructions that `node` takes, with the values of `symbols`.
pub(crate) fn node_instructions(model: &TypedModel, node: &TypedNode, symbols: &SymbolValues) -> u64 {
    estimate(model, node, symbols, 0)
}

/// What running a node again may take more than it took before: pages that were touched already that time, sizes that
/// had been worked out.
pub(crate) fn again_instructions(model: &TypedModel, node: &TypedNode, symbols: &SymbolValues) -> u64 {
    let symbolic = if is_symbolic(&Facts::of(model, node)) { SYMBOLIC_INSTRUCTIONS } else { 0 };
    page_instructions(model, node, symbols).saturating_add(symbolic)
}

fn is_symbolic(facts: &Facts<'_>) -> bool {
    facts.all().any(|fact| !fact.shape.is_concrete())
}

/// Instructions for touching the pages of a node's values, each for the first time in a message.
fn page_instructions(model: &TypedModel, node: &TypedNode, symbols: &SymbolValues) -> u64 {
    let facts = Facts::of(model, node);
    let largest = facts.largest_input(symbols);
    let touched = |fact: &TypedFact| {
        let bytes = elements(fact, symbols).unwrap_or(largest).saturating_mul(fact.datum_type.size_of() as u64);
        // A run of bytes lies across up to two pages more than it fills.
        (bytes / PAGE_BYTES + 2).saturating_mul(PAGE_INSTRUCTIONS)
    };
    if is_gather(node)
        && let [data, indices] = facts.inputs[..]
    {
        // Only the rows asked for are read, each on its own pages.
        let output = facts.outputs.first().map_or(0, |fact| touched(fact));
        let rows = elements(indices, symbols).unwrap_or(largest).saturating_mul(2 * PAGE_INSTRUCTIONS);
        let data = touched(data).min(output.saturating_add(rows));
        return data.saturating_add(touched(indices)).saturating_add(output);
    }
    facts.all().map(touched).fold(0, u64::saturating_add)
}

/// Operators that read as much of their first input as they write.
fn is_gather(node: &TypedNode) -> bool {
    matches!(&*node.op.name(), "Gather" | "GatherNd" | "GatherElements" | "Slice" | "StridedSlice" | "DynSlice")
}

struct Facts<'a> {
    inputs: Vec<&'a TypedFact>,
    outputs: Vec<&'a TypedFact>,
}

impl<'a> Facts<'a> {
    fn of(model: &'a TypedModel, node: &'a TypedNode) -> Facts<'a> {
        let inputs = node.inputs.iter().filter_map(|outlet| model.outlet_fact(*outlet).ok()).collect();
        Facts { inputs, outputs: node.outputs.iter().map(|output| &output.fact).collect() }
    }

    fn largest_input(&self, symbols: &SymbolValues) -> u64 {
        self.inputs.iter().filter_map(|fact| elements(fact, symbols)).max().unwrap_or(1)
    }

    fn all(&self) -> impl Iterator<Item = &'a TypedFact> {
        self.inputs.iter().chain(&self.outputs).copied()
    }
}

/// A size with the values of `symbols`; `None` while it depends on a symbol without a value.
fn size(dim: &TDim, symbols: &SymbolValues) -> Option<u64> {
    dim.eval(symbols).as_i64().map(|size| size.max(0) as u64)
}

/// Elements of a value; of one that is packed for a kernel, those of the packed form.
fn elements(fact: &TypedFact, symbols: &SymbolValues) -> Option<u64> {
    let shape = fact.shape.iter().try_fold(1u64, |product, dim| Some(product.saturating_mul(size(dim, symbols)?)))?;
    // Packed matrices have the shape of the batch; rows are rounded up to the kernel's, of which the widest has 64.
    const PANEL_MAX: u64 = 64;
    let Some(exotic) = &fact.exotic_fact else { return Some(shape) };
    let packed = if let Some(packed) = exotic.downcast_ref::<DynPackedExoticFact>() {
        (size(&packed.mn, symbols)?.saturating_add(PANEL_MAX)).saturating_mul(size(&packed.k, symbols)?)
    } else if let Some(packed) = exotic.downcast_ref::<PackedExoticFact>() {
        (size(&packed.mn, symbols)?.saturating_add(PANEL_MAX)).saturating_mul(packed.k as u64)
    } else {
        1
    };
    Some(shape.saturating_mul(packed))
}

fn estimate(model: &TypedModel, node: &TypedNode, symbols: &SymbolValues, depth: u32) -> u64 {
    let facts = Facts::of(model, node);
    let largest = facts.largest_input(symbols);
    let mut sum = NODE_INSTRUCTIONS.saturating_add(page_instructions(model, node, symbols));
    let mut add = |instructions: u64| sum = sum.saturating_add(instructions);

    if is_symbolic(&facts) {
        add(SYMBOLIC_INSTRUCTIONS);
    }
    // What a matrix product does with its constant weights, and a gather with its table, is counted elsewhere.
    let weights_are_counted = node.op_is::<OptMatMul>();
    let charged_inputs = facts
        .inputs
        .iter()
        .enumerate()
        .filter(|(index, fact)| !(weights_are_counted && fact.konst.is_some() || is_gather(node) && *index == 0));
    for fact in charged_inputs.map(|(_, fact)| fact).chain(&facts.outputs) {
        let wide = matches!(fact.datum_type, DatumType::F64 | DatumType::F16 | DatumType::TDim | DatumType::String);
        let rate = if wide { ELEMENT_WIDE_INSTRUCTIONS } else { ELEMENT_INSTRUCTIONS };
        // The size of a result that depends on values (NonZero) is taken as the largest input's.
        add(elements(fact, symbols).unwrap_or(largest).saturating_mul(rate));
    }
    add(multiplications(node, &facts, symbols));
    let outputs = facts.outputs.first().and_then(|fact| elements(fact, symbols)).unwrap_or(largest);
    if let Some(pool) = pool_spec(node) {
        let under_kernel = pool.kernel_shape.iter().fold(1u64, |product, size| product.saturating_mul(*size as u64));
        add(outputs.saturating_mul(under_kernel).saturating_mul(POOL_INSTRUCTIONS));
    }
    add(special(node, &facts, symbols, largest, outputs));
    if depth < BODY_DEPTH_MAX {
        add(bodies(node, &facts, symbols, depth));
    }
    sum
}

/// Work that grows faster than elements.
fn special(node: &TypedNode, facts: &Facts<'_>, symbols: &SymbolValues, largest: u64, outputs: u64) -> u64 {
    if let Some(op) = node.op_as::<TreeEnsembleClassifier>() {
        // Each row goes down each tree: at most through all of its nodes.
        let trees = &op.ensemble.data;
        let numbers = (trees.nodes.len() + trees.leaves.len()) as u64 * TREE_NUMBER_INSTRUCTIONS;
        let rows = facts.inputs.first().and_then(|fact| size(fact.shape.first()?, symbols)).unwrap_or(largest);
        return rows.saturating_mul(numbers + trees.trees.len() as u64 * TREE_INSTRUCTIONS);
    }
    let logarithm = u64::from(largest.max(2).ilog2()) + 1;
    match &*node.op.name() {
        "Topk" => largest.saturating_mul(logarithm).saturating_mul(COMPARISON_INSTRUCTIONS),
        "NonMaxSuppression" => {
            // Boxes [batch, boxes, 4] and scores [batch, classes, boxes]: in the worst case all pairs of boxes.
            let boxes = facts.inputs.first().and_then(|fact| fact.shape.get(1)).and_then(|dim| size(dim, symbols));
            let scores = facts.inputs.get(1).and_then(|fact| elements(fact, symbols)).unwrap_or(largest);
            scores.saturating_mul(boxes.unwrap_or(largest)).saturating_mul(COMPARISON_INSTRUCTIONS)
        }
        "Fft" | "STFT" => largest.saturating_mul(logarithm).saturating_mul(GENERIC_INSTRUCTIONS),
        // Interpolation reads a window of inputs for each output.
        "Resize" | "GridSample" => outputs.saturating_mul(16 * ELEMENT_INSTRUCTIONS),
        _ => 0,
    }
}

/// Sums of products, at the rate of the kernel that does them.
fn multiplications(node: &TypedNode, facts: &Facts<'_>, symbols: &SymbolValues) -> u64 {
    let Ok(costs) = node.op.cost(&facts.inputs) else { return 0 };
    let mut sum = 0u64;
    for (cost, count) in &costs {
        let rate = match cost {
            Cost::FMA(datum_type) => multiplication_instructions(node, facts, *datum_type),
            Cost::Div(_) => DIVISION_INSTRUCTIONS,
            Cost::Custom(true, _) => GENERIC_INSTRUCTIONS,
            _ => continue,
        };
        let count = size(count, symbols).unwrap_or(0);
        sum = sum.saturating_add(count.saturating_mul(rate));
    }
    if let Some(matmul) = node.op_as::<OptMatMul>() {
        return padded(matmul, sum, symbols);
    }
    sum
}

fn multiplication_instructions(node: &TypedNode, facts: &Facts<'_>, datum_type: DatumType) -> u64 {
    if &*node.op.name() == "EinSum" {
        return INTERPRETED_INSTRUCTIONS;
    }
    if let Some(matmul) = node.op_as::<OptMatMul>()
        && matmul.mmm.iter().any(|kernel| kernel.name().starts_with("generic"))
    {
        return GENERIC_INSTRUCTIONS;
    }
    let block_quant = facts.inputs.iter().filter_map(|fact| fact.exotic_fact.as_ref()).any(|fact| {
        fact.downcast_ref::<BlockQuantFact>().is_some() || fact.downcast_ref::<PackedBlockQuantFact>().is_some()
    });
    match datum_type.unquantized() {
        DatumType::F32 if block_quant => BLOCK_QUANT_INSTRUCTIONS,
        DatumType::F32 if node.op_is::<OptMatMul>() => F32_INSTRUCTIONS,
        DatumType::F32 => F32_DIRECT_INSTRUCTIONS,
        DatumType::I32 | DatumType::I8 | DatumType::U8 => I32_INSTRUCTIONS,
        _ => GENERIC_INSTRUCTIONS,
    }
}

/// A kernel computes whole tiles: rows and columns count as rounded up to the tile's.
fn padded(matmul: &OptMatMul, instructions: u64, symbols: &SymbolValues) -> u64 {
    let (Some(m), Some(n)) = (size(matmul.m(), symbols), size(matmul.n(), symbols)) else {
        return instructions.saturating_mul(64);
    };
    if m == 0 || n == 0 {
        return 0;
    }
    let tiles = matmul.mmm.iter().map(|kernel| {
        let (rows, columns) = (kernel.mr() as u64, kernel.nr() as u64);
        (m.div_ceil(rows) * rows).saturating_mul(n.div_ceil(columns) * columns)
    });
    let padded = tiles.max().unwrap_or(m.saturating_mul(n));
    (u128::from(instructions) * u128::from(padded) / (u128::from(m) * u128::from(n))).min(u64::MAX.into()) as u64
}

fn pool_spec(node: &TypedNode) -> Option<&PoolSpec> {
    node.op_as::<MaxPool>()
        .map(|op| &op.pool_spec)
        .or_else(|| node.op_as::<OptMaxPool>().map(|op| &op.pool_spec))
        .or_else(|| node.op_as::<SumPool>().map(|op| &op.pool_spec))
        .or_else(|| node.op_as::<OptSumPool>().map(|op| &op.pool_spec))
}

/// Nested graphs: a loop's body as often as it turns, of two branches the more expensive.
fn bodies(node: &TypedNode, facts: &Facts<'_>, symbols: &SymbolValues, depth: u32) -> u64 {
    let body = |model: &TypedModel| {
        model.nodes.iter().map(|node| estimate(model, node, symbols, depth + 1)).fold(0, u64::saturating_add)
    };
    if let Some(op) = node.op_as::<OptScan>() {
        let turns = op.iteration_count(&facts.inputs).and_then(|count| size(&count, symbols)).unwrap_or(1);
        return body(op.plan.model()).saturating_mul(turns);
    }
    if let Some(op) = node.op_as::<Scan>() {
        let turns = op.iteration_count(&facts.inputs).and_then(|count| size(&count, symbols)).unwrap_or(1);
        return body(&op.body).saturating_mul(turns);
    }
    if let Some(op) = node.op_as::<IfThenElse>() {
        return max(body(&op.then_body), body(&op.else_body));
    }
    0
}
