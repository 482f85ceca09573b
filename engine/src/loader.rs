//! From files to a [`Plan`], in steps.
//!
//! 1. Walk: the ONNX file is passed field by field and sorted into graph and weights.
//! 2. The graph is decoded and checked.
//! 3. tract types the graph, with the weights as inputs of it and free sizes as symbols, and it is lowered to a list of
//!    steps. This can't pause; its cost grows with the nodes, not with the weights.
//! 4. Step by step, the weights it needs are read from their ranges and packed into the form its kernel reads: never more
//!    than one step's weights are on the heap in plain form.
//!
//! A graph that can't be typed that way goes to tract whole, see [`crate::whole`]: all weights are read, and tract then
//! parses, types, simplifies, optimises and plans, each in one call that can't pause. What tract can't run, and small graphs,
//! which gain nothing from it, are interpreted if all their operators can be, see [`crate::interpreter`].

use crate::interpreter::{self, Interpreter};
use crate::onnx::{Graph, Sizes, Walk};
use crate::plan::{Body, ProgramBody};
use crate::program::Program;
use crate::program::build::Build as ProgramBuild;
use crate::weights::WeightReader;
use crate::whole::Whole;
use crate::whole::variant::{Build, Parts, Variant};
use crate::{ElementType, EngineError, Meter, ModelFiles, Plan, Step, TensorSpec, graph};
use std::sync::Arc;

/// Work between two looks at the meter while walking: fields of the graph.
const FIELDS_PER_LOOK: u32 = 16;

/// Most instructions for each byte of a graph's protobuf, weights not counted, several times what was measured: decoding it,
/// and typing and lowering it.
const DECODE_INSTRUCTIONS_PER_BYTE: u64 = 2_000;
const TYPE_INSTRUCTIONS_PER_BYTE: u64 = 40_000;

/// Most bytes of weights that are kept beside tract's own form of them, in case it can't run the graph after all.
const KEPT_WEIGHT_BYTES_MAX: u64 = 64 << 20;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    pub free_dimensions: FreeDimensions,
    /// Leaves every operator a step of its own, to compare with: dearer, and the same but for roundings.
    pub without_fusion: bool,
    /// Whether float32 and float16 weights of products are quantised to int8, with a scale for each of a product's outputs.
    /// Products then take a third of the instructions and a quarter of the memory; what it does to the answers depends on
    /// the model.
    pub quantize_int8: bool,
    /// 4-bit weights are widened to int8 if all of them together then take at most this many bytes: products are a fifth
    /// faster and more exact, and take twice the memory.
    pub widen_int4_bytes_max: u64,
}

/// What is left of a heap of 4 GiB for weights, with room for a cache and for values: 4-bit weights of up to some 2.8e9
/// parameters are widened.
const WIDENED_BYTES_MAX: u64 = 3_200_000_000;

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            free_dimensions: FreeDimensions::default(),
            without_fusion: false,
            quantize_int8: false,
            widen_int4_bytes_max: WIDENED_BYTES_MAX,
        }
    }
}

/// What to make of dimensions of the inputs that the file leaves free (a batch, mostly), where tract runs the graph whole.
/// A program of ours takes any sizes.
///
/// tract optimises better for sizes it knows. A variant takes time to load and has its own form of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FreeDimensions {
    /// A variant for all of them being 1 and one for any sizes. Where tract can't make the latter (it loses track of
    /// sizes that a graph computes in int32), the weights are kept, and a session with other sizes begins by making a
    /// variant for its own.
    #[default]
    OneAndAny,
    /// Only the variant for 1.
    One,
    /// Only the variant for any sizes.
    Any,
}

/// Reads a model and makes a [`Plan`] of it.
pub struct Loader {
    files: Box<dyn ModelFiles>,
    options: LoadOptions,
    phase: Phase,
    weight_bytes: u64,
    /// Bytes of what is decoded, known after the walk.
    graph_bytes: u64,
    /// Variants to make after the current one.
    to_do: Vec<Sizes>,
    variants: Vec<Variant>,
    /// Whether the graph is interpreted, once it is known.
    interprets: bool,
    /// Why the graph could not be lowered.
    lowering_error: Option<EngineError>,
    /// Why the last variant could not be made.
    variant_error: Option<EngineError>,
    /// What each phase took of the first variant that was made.
    phase_instructions: [u64; Build::PHASES],
    phases_done: u64,
    phases_total: u64,
    progress: (u64, u64),
}

enum Phase {
    Walk(Walk),
    Decode(Walk),
    Type(Box<Graph>),
    Pack(Box<Graph>, Box<ProgramBuild>, Option<Box<Reading>>),
    Weights(Box<Graph>, Box<WeightReader>),
    Build(Box<Parts>, Build),
    Done(Arc<Plan>),
    /// A step failed; so does every later one.
    Failed(EngineError),
}

/// Stored tensors being read for a step: their indices, and the reader.
struct Reading {
    indices: Vec<usize>,
    reader: WeightReader,
}

impl Loader {
    /// Begins to load; reads nothing yet.
    pub fn new(files: Box<dyn ModelFiles>, options: LoadOptions) -> Result<Loader, EngineError> {
        // Until the walk has told: as if all of the file were weights.
        let weight_bytes = files.onnx().len();
        if weight_bytes == 0 {
            return Err(EngineError::invalid("ONNX file", "it is empty"));
        }
        Ok(Loader {
            files,
            options,
            phase: Phase::Walk(Walk::default()),
            weight_bytes,
            graph_bytes: 0,
            to_do: Vec::new(),
            variants: Vec::new(),
            interprets: false,
            lowering_error: None,
            variant_error: None,
            phase_instructions: [0; Build::PHASES],
            phases_done: 0,
            phases_total: 1 + Build::PHASES as u64,
            progress: (0, 0),
        })
    }

    /// Works until `meter.spent() >= limit` or done; always does some work.
    ///
    /// A phase that can't pause is done alone, unless the graph is so small that it surely fits the limit: the call
    /// before it ends where it would begin, and the call that does it does nothing else. After typing, which tells how
    /// much memory the weights will take, every call ends. After an error every further call gives the same error.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let alone = self.next_phase_is_alone(meter.spent(), limit);
        loop {
            let types = matches!(self.phase, Phase::Type(_));
            self.advance(meter)?;
            let ends = alone || types || matches!(self.phase, Phase::Done(_));
            if ends || self.next_phase_is_alone(meter.spent(), limit) || meter.spent() >= limit {
                break;
            }
        }
        if matches!(self.phase, Phase::Done(_)) {
            return Ok(Step::Done);
        }
        let (done, total) = self.progress();
        // The total is only known after the walk: never show a step back.
        let ahead = |(done, total): (u64, u64), (old_done, old_total): (u64, u64)| {
            u128::from(done) * u128::from(old_total) >= u128::from(old_done) * u128::from(total)
        };
        if ahead((done, total), self.progress) {
            self.progress = (done, total);
        }
        Ok(Step::Paused { done: self.progress.0, total: self.progress.1 })
    }

    /// Whether the next [`Loader::step`] is a phase that can't pause.
    pub fn next_phase_is_indivisible(&self) -> bool {
        matches!(self.phase, Phase::Decode(_) | Phase::Type(_) | Phase::Build(..))
    }

    /// Whether the next [`Loader::step`] is a phase that can't pause and may not fit what `spent` leaves of `limit`: give
    /// it a message of its own.
    pub fn next_phase_is_alone(&self, spent: u64, limit: u64) -> bool {
        let instructions = match &self.phase {
            Phase::Decode(_) => self.graph_bytes.saturating_mul(DECODE_INSTRUCTIONS_PER_BYTE),
            Phase::Type(_) => self.graph_bytes.saturating_mul(TYPE_INSTRUCTIONS_PER_BYTE),
            Phase::Build(..) => u64::MAX,
            _ => return false,
        };
        spent.saturating_add(instructions) > limit
    }

    /// Bytes that the weights will take in memory, at most but for what their kernels pad; known once it is known how the
    /// graph runs, and before a weight is read.
    pub fn weight_memory_bytes(&self) -> Option<u64> {
        // tract keeps a weight as it is stored and once for each of up to two variants.
        const COPIES_BY_TRACT: u64 = 3;
        let (graph, build) = match &self.phase {
            Phase::Pack(graph, build, _) => (graph, build),
            Phase::Weights(..) => return Some(self.weight_bytes.saturating_mul(COPIES_BY_TRACT)),
            _ => return None,
        };
        let bytes = |tensor: &crate::onnx::StoredTensor| match tensor.element_type {
            // Half floats are kept as float32.
            ElementType::Float16 => tensor.bytes.saturating_mul(2),
            _ => tensor.bytes,
        };
        Some(graph.tensors.iter().map(bytes).fold(build.extra_weight_bytes(), u64::saturating_add))
    }

    /// The plan, once [`Step::Done`].
    pub fn finish(self) -> Result<Arc<Plan>, EngineError> {
        match self.phase {
            Phase::Done(plan) => Ok(plan),
            Phase::Failed(error) => Err(error),
            _ => {
                let (done, total) = self.progress;
                Err(EngineError::NotDone { place: "loading".into(), done, total })
            }
        }
    }

    /// Bytes read, then phases, each phase counted as an eighth of the bytes.
    fn progress(&self) -> (u64, u64) {
        let file_bytes = self.files.onnx().len();
        let bytes = file_bytes.saturating_add(self.weight_bytes);
        let phase = bytes / 8 + 1;
        let bytes_done = match &self.phase {
            Phase::Walk(walk) => walk.position().min(file_bytes),
            Phase::Decode(_) | Phase::Type(_) => file_bytes,
            Phase::Pack(_, build, _) => {
                let (done, total) = build.progress();
                file_bytes + (u128::from(self.weight_bytes) * done as u128 / total as u128) as u64
            }
            Phase::Weights(_, reader) => file_bytes + reader.bytes_done().min(self.weight_bytes),
            _ => bytes,
        };
        (bytes_done + self.phases_done * phase, bytes + self.phases_total * phase)
    }

    /// One piece of work.
    fn advance(&mut self, meter: &dyn Meter) -> Result<(), EngineError> {
        let interrupted = EngineError::invalid("loading", "an earlier step did not return");
        let phase = std::mem::replace(&mut self.phase, Phase::Failed(interrupted));
        let next = match phase {
            Phase::Walk(walk) => self.walk(walk),
            Phase::Decode(walk) => self.decode(walk),
            Phase::Type(graph) => self.type_graph(graph),
            Phase::Pack(graph, build, reading) => self.pack(graph, build, reading),
            Phase::Weights(graph, reader) => self.read_weights(graph, reader),
            Phase::Build(parts, build) => self.build(parts, build, meter),
            Phase::Done(plan) => Ok(Phase::Done(plan)),
            Phase::Failed(error) => Err(error),
        };
        match next {
            Ok(phase) => {
                self.phase = phase;
                Ok(())
            }
            Err(error) => {
                self.phase = Phase::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn walk(&mut self, mut walk: Walk) -> Result<Phase, EngineError> {
        for _ in 0..FIELDS_PER_LOOK {
            if walk.step(&*self.files)? {
                self.weight_bytes = walk.stored_bytes();
                self.graph_bytes = walk.kept_bytes();
                return Ok(Phase::Decode(walk));
            }
        }
        Ok(Phase::Walk(walk))
    }

    fn decode(&mut self, walk: Walk) -> Result<Phase, EngineError> {
        let graph = Graph::new(walk, &*self.files)?;
        if let Some(first) = crate::inspect::unsupported_operators(&graph).into_iter().next() {
            let (node, operator, reason) = (first.node, first.operator, first.reason);
            return Err(EngineError::Unsupported { node, operator, reason });
        }
        self.phases_done = 1;
        Ok(Phase::Type(Box::new(graph)))
    }

    /// Types the graph with free sizes as symbols and lowers it; where that can't be done, prepares to run it whole.
    fn type_graph(&mut self, mut graph: Box<Graph>) -> Result<Phase, EngineError> {
        match graph::lower(&mut graph, self.options) {
            Ok((lowered, model)) if !prefers_interpreter(&graph, &lowered) => {
                self.phases_done = self.phases_total;
                Ok(Phase::Pack(graph, Box::new(ProgramBuild::new(lowered, model)), None))
            }
            lowered => {
                self.interprets = interpreter::takes(&graph) && (lowered.is_ok() || graph.tensors.is_empty());
                let nothing_ours = || EngineError::invalid("planning", "too few of its operators have kernels");
                self.lowering_error = Some(lowered.err().unwrap_or_else(nothing_ours));
                self.to_do = match self.options.free_dimensions {
                    _ if !graph.has_free_dims() => vec![Sizes::One],
                    FreeDimensions::OneAndAny => vec![Sizes::Any, Sizes::One],
                    FreeDimensions::One => vec![Sizes::One],
                    FreeDimensions::Any => vec![Sizes::Any],
                };
                self.phases_total = 1 + (Build::PHASES * self.to_do.len()) as u64;
                if self.interprets {
                    self.phases_total = 1;
                }
                let reader = WeightReader::new(std::mem::take(&mut graph.tensors));
                Ok(Phase::Weights(graph, Box::new(reader)))
            }
        }
    }

    /// Reads a piece of what the next step needs, or makes the step.
    fn pack(
        &mut self,
        graph: Box<Graph>,
        mut build: Box<ProgramBuild>,
        reading: Option<Box<Reading>>,
    ) -> Result<Phase, EngineError> {
        if reading.is_none() && !build.stream(&graph.tensors, &*self.files)? {
            return Ok(Phase::Pack(graph, build, None));
        }
        let mut reading = reading.unwrap_or_else(|| {
            let indices = build.needs();
            let tensors = indices.iter().map(|index| graph.tensors[*index].clone()).collect();
            Box::new(Reading { indices, reader: WeightReader::new(tensors) })
        });
        if !reading.reader.step(&*self.files)? {
            return Ok(Phase::Pack(graph, build, Some(reading)));
        }
        let tensors = reading.reader.into_tensors().into_iter().map(|(_, tensor)| graph::single_precision(tensor));
        let stored = reading.indices.into_iter().zip(tensors).collect();
        let Some(program) = build.advance(stored)? else { return Ok(Phase::Pack(graph, build, None)) };
        let plan = Arc::new(self.program_plan(&graph, program)?);
        Ok(Phase::Done(plan))
    }

    fn program_plan(&self, graph: &Graph, program: Program) -> Result<Plan, EngineError> {
        let inputs = graph.specs(&Sizes::Any);
        let declared = graph.declared_outputs();
        let typed = program.outputs.iter().zip(&program.model.outputs).zip(&declared);
        let outputs = typed.map(|((slot, outlet), declared)| {
            let value = &program.values[*slot];
            let fact = crate::error::tract("planning", program.model.outlet_fact(*outlet))?;
            let element_type = ElementType::from_tract(fact.datum_type).ok_or_else(|| {
                let reason = format!("its elements are of type {:?}", fact.datum_type);
                EngineError::invalid(format!("output {:?}", declared.name), reason)
            })?;
            let shape = value.dims.iter().map(|dim| dim.known().map(|size| size as u64)).collect();
            Ok(TensorSpec { name: declared.name.clone(), element_type, shape })
        });
        let outputs = outputs.collect::<Result<Vec<_>, EngineError>>()?;
        let dims = graph.inputs.iter().map(|input| input.dims.clone()).collect();
        Ok(Plan::new(Body::Program(ProgramBody::new(program)), inputs, outputs, dims, self.weight_bytes))
    }

    fn read_weights(&mut self, graph: Box<Graph>, mut reader: Box<WeightReader>) -> Result<Phase, EngineError> {
        if !reader.step(&*self.files)? {
            return Ok(Phase::Weights(graph, reader));
        }
        let parts = Box::new(Parts { graph: *graph, weights: reader.into_tensors() });
        if self.interprets { self.interpreter_plan(parts) } else { self.next_variant(parts) }
    }

    fn interpreter_plan(&mut self, parts: Box<Parts>) -> Result<Phase, EngineError> {
        let Parts { mut graph, weights } = *parts;
        let (inputs, outputs) = (graph.specs(&Sizes::Any), graph.declared_outputs());
        let dims = graph.inputs.iter().map(|input| input.dims.clone()).collect();
        let interpreter = Arc::new(Interpreter::new(&mut graph, weights)?);
        let not_lowered = || EngineError::invalid("planning", "the graph was not lowered");
        let reason = self.lowering_error.take().unwrap_or_else(not_lowered);
        let body = Body::Interpreter(interpreter, reason);
        Ok(Phase::Done(Arc::new(Plan::new(body, inputs, outputs, dims, self.weight_bytes))))
    }

    fn build(&mut self, mut parts: Box<Parts>, mut build: Build, meter: &dyn Meter) -> Result<Phase, EngineError> {
        let phase = build.phases_done();
        let before = meter.spent();
        // The variant for any sizes may fail, and then the weights are needed again; so they are to interpret the graph.
        let keeps = self.weight_bytes <= KEPT_WEIGHT_BYTES_MAX && interpreter::takes(&parts.graph);
        let one_is_enough = self.options.free_dimensions != FreeDimensions::OneAndAny || !parts.graph.has_free_dims();
        let last = self.to_do.is_empty() && one_is_enough && !keeps;
        let made = build.step(&mut parts, last);
        let spent = meter.spent().saturating_sub(before);
        self.phases_done += 1;
        match made {
            Ok(None) => {
                self.note(phase, spent);
                Ok(Phase::Build(parts, build))
            }
            Ok(Some(variant)) => {
                self.note(phase, spent);
                self.variants.push(variant);
                self.variant_error = None;
                self.next_variant(parts)
            }
            Err(error) => {
                self.variant_error = Some(error);
                self.next_variant(parts)
            }
        }
    }

    /// Keeps what a phase took of the first variant.
    fn note(&mut self, phase: usize, instructions: u64) {
        if self.variants.is_empty() {
            self.phase_instructions[phase] = instructions;
        }
    }

    /// Goes on with the next variant, or to the end.
    fn next_variant(&mut self, parts: Box<Parts>) -> Result<Phase, EngineError> {
        if let Some(sizes) = self.to_do.pop() {
            self.phases_done = self.phases_total - (Build::PHASES * (self.to_do.len() + 1)) as u64;
            return Ok(Phase::Build(parts, Build::new(sizes)));
        }
        let failed = self.variant_error.take();
        if let (Some(error), true) = (&failed, self.variants.is_empty()) {
            if self.weight_bytes <= KEPT_WEIGHT_BYTES_MAX && interpreter::takes(&parts.graph) {
                return self.interpreter_plan(parts);
            }
            return Err(error.clone());
        }
        let dims = parts.graph.inputs.iter().map(|input| input.dims.clone()).collect();
        let variants = std::mem::take(&mut self.variants);
        let Some(widest) = variants.last() else { return Err(EngineError::invalid("planning", "there is no variant")) };
        let (mut inputs, mut outputs) = (widest.inputs.clone(), widest.outputs.clone());
        let parts = failed.map(|_| *parts);
        if let Some(parts) = &parts {
            inputs = parts.graph.specs(&Sizes::Any);
            // Sizes of the outputs may depend on those of the inputs in any way.
            for (output, declared) in outputs.iter_mut().zip(parts.graph.declared_outputs()) {
                if declared.shape.len() == output.shape.len() {
                    output.shape = declared.shape;
                } else {
                    output.shape.fill(None);
                }
            }
        }
        let not_lowered = || EngineError::invalid("planning", "the graph was not lowered");
        let reason = self.lowering_error.take().unwrap_or_else(not_lowered);
        let whole = Whole::new(variants, self.phase_instructions, parts, reason);
        Ok(Phase::Done(Arc::new(Plan::new(Body::Whole(Box::new(whole)), inputs, outputs, dims, self.weight_bytes))))
    }
}

/// Whether a graph that could be lowered is interpreted all the same: some of its steps would be tract's, and either all of
/// them, or there is no weight that a kernel would be worth it for. Interpreted, it gives the same bits everywhere.
fn prefers_interpreter(graph: &Graph, lowered: &graph::Graph) -> bool {
    let (ours, tracts) = lowered.count_steps();
    tracts > 0 && (ours == 0 || graph.tensors.is_empty()) && interpreter::takes(graph)
}
