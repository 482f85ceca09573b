//! A model ready to run.

use crate::loader::tract;
use crate::{ElementType, EngineError, cost};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::tract_core::internal::{OutletId, SymbolValues, TypedModel, TypedSimplePlan};

/// Input shapes whose measured costs are kept.
const MEASURED_SHAPES_MAX: usize = 8;

/// Name, type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element_type: ElementType,
    /// `None` for a dimension that is free.
    pub shape: Vec<Option<u64>>,
}

/// The shapes of all inputs, in order.
pub(crate) type InputShapes = Vec<Vec<u64>>;

/// A model ready to run, shared by its sessions.
///
/// It has one or two variants: one optimised for every free dimension of the inputs being 1, and one for any size.
pub struct Plan {
    pub(crate) variants: Vec<Variant>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    weight_bytes: u64,
}

/// The model optimised for some sizes of its inputs.
pub(crate) struct Variant {
    pub tract: Arc<TypedSimplePlan>,
    pub inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Where each output comes from.
    pub output_outlets: Vec<OutletId>,
    largest_node_estimate: u64,
    /// Most instructions each node, by its place in the plan's order, was seen to take with inputs of these shapes.
    measured: Mutex<BTreeMap<InputShapes, Arc<Vec<u64>>>>,
}

impl Variant {
    pub fn new(model: TypedModel, inputs: Vec<TensorSpec>, output_names: &[String]) -> Result<Variant, EngineError> {
        if model.inputs.len() != inputs.len() || model.outputs.len() != output_names.len() {
            return Err(EngineError::invalid("planning", "the graph lost an input or output"));
        }
        let output_outlets = model.outputs.clone();
        let outputs = output_outlets
            .iter()
            .zip(output_names)
            .map(|(outlet, name)| {
                let fact = tract("planning", model.outlet_fact(*outlet))?;
                let element_type = ElementType::from_tract(fact.datum_type).ok_or_else(|| {
                    let reason = format!("its elements are of type {:?}", fact.datum_type);
                    EngineError::invalid(format!("output {name:?}"), reason)
                })?;
                let shape = fact.shape.iter().map(|dim| dim.as_i64().and_then(|size| u64::try_from(size).ok()));
                Ok(TensorSpec { name: name.clone(), element_type, shape: shape.collect() })
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let tract = tract("planning", TypedSimplePlan::new(model))?;
        let model = tract.model();
        let mut symbols = SymbolValues::default();
        for symbol in model.symbols.all_symbols() {
            symbols.set(&symbol, 1);
        }
        let estimates = tract.order_without_consts().iter();
        let largest = estimates.map(|node| cost::node_instructions(model, model.node(*node), &symbols)).max();
        let (largest_node_estimate, measured) = (largest.unwrap_or(0), Mutex::default());
        Ok(Variant { tract, inputs, outputs, output_outlets, largest_node_estimate, measured })
    }

    pub fn node_count(&self) -> usize {
        self.tract.order_without_consts().len()
    }

    /// What earlier sessions measured with inputs of these shapes; 0 where nothing is known.
    pub fn measured(&self, shapes: &InputShapes) -> Arc<Vec<u64>> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.get(shapes).cloned().unwrap_or_default()
    }

    /// Remembers what a session measured, by place in the order; where it measured nothing, 0.
    pub fn remember(&self, shapes: InputShapes, instructions: &[u64]) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if !measured.contains_key(&shapes) && measured.len() == MEASURED_SHAPES_MAX {
            measured.clear();
        }
        let most = Arc::make_mut(measured.entry(shapes).or_default());
        most.resize(self.node_count(), 0);
        most.iter_mut().zip(instructions).for_each(|(most, now)| *most = (*most).max(*now));
    }
}

impl Plan {
    /// `variants` is not empty; the last takes all that any takes.
    pub(crate) fn new(variants: Vec<Variant>, weight_bytes: u64) -> Result<Plan, EngineError> {
        let Some(widest) = variants.last() else { return Err(EngineError::invalid("planning", "there is no variant")) };
        let (inputs, outputs) = (widest.inputs.clone(), widest.outputs.clone());
        Ok(Plan { variants, inputs, outputs, weight_bytes })
    }

    /// Index of the variant to run for inputs of these shapes, which fit [`Plan::inputs`].
    pub(crate) fn variant_for(&self, shapes: &InputShapes) -> usize {
        let takes = |variant: &Variant| {
            variant.inputs.iter().zip(shapes).all(|(spec, shape)| {
                spec.shape.iter().zip(shape).all(|(spec, size)| spec.is_none_or(|spec| spec == *size))
            })
        };
        self.variants.iter().position(takes).unwrap_or(self.variants.len() - 1)
    }

    /// The inputs a request has to give.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Nodes that a session which computes every output runs; of two variants, the first's.
    pub fn node_count(&self) -> usize {
        self.variants.first().map_or(0, Variant::node_count)
    }

    /// Bytes of the weights as they were read; those of a few KiB each are not counted.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Upper bound of the most expensive node's instructions with free dimensions taken as 1.
    pub fn largest_node_estimate_instructions(&self) -> u64 {
        self.variants.iter().map(|variant| variant.largest_node_estimate).max().unwrap_or(0)
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("node_count", &self.node_count())
            .field("weight_bytes", &self.weight_bytes)
            .finish_non_exhaustive()
    }
}
