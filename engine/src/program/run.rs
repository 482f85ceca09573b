//! A program under way for one request: step by step, a large step unit by unit.

use super::memory::{Exceptions, Layout};
use super::{Home, Program, SlotId, Work};
use crate::ops::{Call, Operator};
use crate::{EngineError, Meter, NodeProfile, Tensor, TensorSpec};
use std::ops::Range;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, IntoTValue, IntoTensor, TValue, TVec, Tensor as TractTensor, TractResult};
use tract_onnx::tract_core::internal::{SessionId, SymbolValues, TDim, TurnState};

/// A step of fewer instructions is not cut: pausing has its own cost.
pub(super) const DIVISIBLE_INSTRUCTIONS: u64 = 1_000_000;

pub(crate) struct Run {
    pub(super) program: Arc<Program>,
    pub(super) layout: Arc<Layout>,
    inputs: Vec<Given>,
    /// Values that grow in place.
    pub(super) caches: Vec<Cache>,
    /// The cache that a value is, by slot; none for none.
    pub(super) cache_of: Vec<Option<usize>>,
    pub(super) exceptions: Exceptions,
    /// The block of memory, in units that align every element type.
    memory: Vec<u64>,
    /// Of each value, what an operator of tract's made of it.
    tensors: Vec<Option<TValue>>,
    turn: TurnState,
    /// Steps that the outputs asked for need, in order.
    pub(super) order: Arc<[usize]>,
    done: usize,
    /// Units of the step under way that are done.
    units_done: usize,
    /// What each step has taken so far, by its index in the program.
    spent: Vec<u64>,
}

/// An input.
pub(crate) enum Given {
    /// No step needs it any more, or it is kept elsewhere.
    Nothing,
    Tensor(Tensor),
    /// Its bytes are the first so many of these.
    Buffer(Vec<u64>, usize),
}

impl Given {
    fn bytes(&self) -> &[u8] {
        match self {
            // Aligned, as the bytes of any element type have to be.
            Given::Nothing => bytemuck::cast_slice::<u64, u8>(&[]),
            Given::Tensor(tensor) => tensor.bytes(),
            Given::Buffer(words, length) => &bytemuck::cast_slice(words)[..*length],
        }
    }

    /// Room for so many bytes, to be written.
    pub fn buffer(&mut self, length: usize) -> &mut [u8] {
        if !matches!(self, Given::Buffer(..)) {
            *self = Given::Buffer(Vec::new(), 0);
        }
        match self {
            Given::Buffer(words, bytes) => {
                let needed = length.div_ceil(size_of::<u64>());
                if words.len() < needed {
                    words.resize(needed.next_power_of_two(), 0);
                }
                *bytes = length;
                &mut bytemuck::cast_slice_mut(words)[..length]
            }
            _ => &mut [],
        }
    }
}

/// Keys or values that grow in place: `[heads, capacity, columns]`.
pub(crate) struct Cache {
    pub data: Vec<f32>,
    pub heads: usize,
    pub columns: usize,
}

/// How far [`Run::step`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Paused,
    Done,
}

impl Run {
    /// `inputs` are in the program's order; `outputs` are indices of the program's.
    pub fn new(
        program: Arc<Program>,
        layout: Arc<Layout>,
        inputs: Vec<Tensor>,
        outputs: &[usize],
        memory: Vec<u64>,
    ) -> Result<Run, EngineError> {
        let mut memory = memory;
        make_room(&mut memory, &layout)?;
        let order = needed_steps(&program, outputs).into();
        let turn = TurnState { resolved_symbols: layout.symbols.clone(), ..TurnState::default() };
        let (values, steps) = (program.values.len(), program.steps.len());
        Ok(Run {
            program,
            layout,
            inputs: inputs.into_iter().map(Given::Tensor).collect(),
            caches: Vec::new(),
            cache_of: Vec::new(),
            exceptions: Exceptions::default(),
            memory,
            tensors: vec![None; values],
            turn,
            order,
            done: 0,
            units_done: 0,
            spent: vec![0; steps],
        })
    }

    /// Begins again, with other inputs in another layout.
    pub(super) fn restart(&mut self, layout: Arc<Layout>, order: Arc<[usize]>) -> Result<(), EngineError> {
        make_room(&mut self.memory, &layout)?;
        (self.layout, self.order) = (layout, order);
        (self.done, self.units_done) = (0, 0);
        Ok(())
    }

    /// As many inputs, none of them given.
    pub(super) fn set_inputs(&mut self, count: usize) {
        self.inputs = (0..count).map(|_| Given::Nothing).collect();
    }

    /// The input of that index, to be given.
    pub(super) fn input(&mut self, index: usize) -> &mut Given {
        &mut self.inputs[index]
    }

    pub fn steps_done(&self) -> usize {
        self.done
    }

    pub fn steps_total(&self) -> usize {
        self.order.len()
    }

    /// Name and operator of the step under way or next.
    pub fn step_name(&self) -> String {
        self.order.get(self.done).map_or_else(String::new, |step| {
            let step = &self.program.steps[*step];
            format!("{} ({})", step.name, step.operator(&self.program.model))
        })
    }

    /// Instructions of the least that can be done next, an upper bound; 0 when done.
    pub fn next_instructions(&self) -> u64 {
        let Some(&index) = self.order.get(self.done) else { return 0 };
        let layout = &self.layout.steps[index];
        let units = layout.units;
        let left = match (self.units_done, &self.program.steps[index].work) {
            (0, Work::Native(_)) => layout.instructions,
            (done, _) => self.instructions(index, done..units),
        };
        if left < DIVISIBLE_INSTRUCTIONS {
            left
        } else {
            self.instructions(index, self.units_done..self.units_done + 1)
        }
    }

    fn instructions(&self, index: usize, units: Range<usize>) -> u64 {
        match &self.program.steps[index].work {
            Work::Native(operator) => operator.instructions(&self.layout.steps[index].shapes, units),
            Work::Tract(node) => {
                let model = &self.program.model;
                crate::cost::node_instructions(model, model.node(*node), &self.layout.symbols)
            }
        }
    }

    /// Works while `meter.spent()` plus the estimate of what comes next stays within `limit`; the least that can be done
    /// is done in any case, unless it exceeds `node_limit`.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64, node_limit: u64) -> Result<Progress, EngineError> {
        let mut is_first = true;
        let mut before = meter.spent();
        while let Some(&index) = self.order.get(self.done) {
            let units = self.layout.steps[index].units;
            let least = self.next_instructions();
            let left = limit.saturating_sub(before);
            // Estimates may be too low by as much.
            let left = left - left / ESTIMATE_MARGIN;
            if least > left && !is_first {
                return Ok(Progress::Paused);
            }
            if least > node_limit {
                return Err(EngineError::NodeTooExpensive {
                    node: self.step_name(),
                    estimate: least,
                    limit: node_limit,
                });
            }
            // What is not cut has been told as a whole.
            let end = if least < DIVISIBLE_INSTRUCTIONS && least <= left {
                units
            } else {
                self.affordable(index, units, left)
            };
            self.run_units(index, self.units_done..end)
                .map_err(|reason| EngineError::Run { node: self.step_name(), reason })?;
            is_first = false;
            self.units_done = end;
            if end == units {
                self.free_dead(index);
                self.done += 1;
                self.units_done = 0;
            }
            let now = meter.spent();
            self.spent[index] += now.saturating_sub(before);
            before = now;
        }
        Ok(Progress::Done)
    }

    /// The end of the units that `instructions` are enough for; at least one unit, or all of a small step.
    fn affordable(&self, index: usize, units: usize, instructions: u64) -> usize {
        let first = self.units_done;
        let all = self.instructions(index, first..units);
        if all <= instructions || all < DIVISIBLE_INSTRUCTIONS {
            return units;
        }
        // Estimates grow with the units: the largest number of them that fits.
        let (mut fits, mut exceeds) = (first + 1, units);
        while exceeds - fits > 1 {
            let middle = fits + (exceeds - fits) / 2;
            if self.instructions(index, first..middle) <= instructions { fits = middle } else { exceeds = middle }
        }
        fits
    }

    fn run_units(&mut self, index: usize, units: Range<usize>) -> Result<(), String> {
        let program = self.program.clone();
        match &program.steps[index].work {
            Work::Native(operator) => self.run_native(&program, index, &**operator, units),
            Work::Tract(node) => self.run_tract(&program, index, *node),
        }
    }

    fn run_native(
        &mut self,
        program: &Program,
        index: usize,
        operator: &dyn Operator,
        units: Range<usize>,
    ) -> Result<(), String> {
        let step = &program.steps[index];
        let layout = &self.layout.steps[index];
        let output = step.outputs[0];
        // A value that grows in place is taken out while it is written.
        let grows = self.cache_of.get(output).copied().flatten();
        let mut own = grows.map(|cache| std::mem::take(&mut self.caches[cache].data));
        let (parts, output, scratch) = Parts::split(
            bytemuck::cast_slice_mut(&mut self.memory),
            self.layout.places[output].clone(),
            layout.scratch.clone(),
        );
        let mut few = [&[] as &[u8]; INPUTS_IN_PLACE];
        let mut many;
        let inputs = match step.inputs.len() {
            count if count <= INPUTS_IN_PLACE => &mut few[..count],
            count => {
                many = vec![&[] as &[u8]; count];
                &mut many[..]
            }
        };
        for (place, input) in inputs.iter_mut().zip(&step.inputs) {
            let root = program.root(*input);
            *place = match &program.values[root].home {
                Home::Memory => match self.cache_of.get(root).copied().flatten() {
                    Some(cache) => bytemuck::cast_slice(&self.caches[cache].data),
                    None => parts.get(self.layout.places[root].clone()),
                },
                Home::Input(input) => self.inputs[*input].bytes(),
                Home::Constant(tensor) => tensor.as_bytes(),
                Home::Tract => self.tensors[root].as_ref().map_or(&[], |tensor| tensor.as_bytes()),
                Home::Same(_) => &[],
            };
            // Nothing lies anywhere, but what is cast to elements has to be aligned.
            if place.is_empty() {
                *place = bytemuck::cast_slice::<u64, u8>(&[]);
            }
        }
        let scratch = if scratch.is_empty() { bytemuck::cast_slice_mut::<u64, u8>(&mut []) } else { scratch };
        let output = if output.is_empty() { bytemuck::cast_slice_mut::<u64, u8>(&mut []) } else { output };
        if self.exceptions.last_row == Some(index)
            && let Some(first) = inputs.first_mut()
        {
            let datum_type = program.values[step.inputs[0]].datum_type;
            let row = layout.shapes.inputs[0].iter().product::<usize>() * datum_type.size_of();
            *first = &first[first.len().saturating_sub(row)..];
        }
        let output = own.as_mut().map_or(output, |own| bytemuck::cast_slice_mut(own));
        let result = operator.run(Call { shapes: &layout.shapes, inputs, output, scratch, units });
        if let (Some(cache), Some(own)) = (grows, own) {
            self.caches[cache].data = own;
        }
        result
    }

    /// A value as a tensor of tract's, of the type that its operator was typed for.
    fn tensor(&self, program: &Program, slot: SlotId, datum_type: DatumType) -> Result<TValue, String> {
        let root = program.root(slot);
        let shape = self.layout.sizes.shape(&program.values[slot].dims);
        let error = |error: tract_onnx::prelude::TractError| format!("{error:#}");
        let whole = match &program.values[root].home {
            Home::Tract => self.tensors[root].clone(),
            Home::Constant(tensor) => Some(tensor.clone().into_tvalue()),
            _ => None,
        };
        let tensor = match whole {
            Some(value) if root == slot && value.datum_type() == datum_type => return Ok(value),
            Some(value) => {
                let mut tensor = value.into_tensor();
                tensor.set_shape(&shape).map_err(error)?;
                tensor
            }
            None => {
                let bytes = self.bytes(program, slot);
                let stored = program.values[slot].datum_type;
                let mut tensor = TractTensor::zero_aligned_dt(stored, &shape, 16).map_err(error)?;
                let to = tensor.as_bytes_mut();
                if to.len() != bytes.len() {
                    return Err(format!("a value has {} bytes, its shape {shape:?} needs {}", bytes.len(), to.len()));
                }
                to.copy_from_slice(bytes);
                tensor
            }
        };
        if tensor.datum_type() == datum_type {
            return Ok(tensor.into_tvalue());
        }
        if tensor.datum_type() == DatumType::TDim {
            return Ok(numbers(&tensor, &self.layout.symbols)
                .and_then(|t| Ok(t.cast_to_dt(datum_type)?.into_owned()))
                .map_err(error)?
                .into_tvalue());
        }
        Ok(tensor.cast_to_dt(datum_type).map_err(error)?.into_owned().into_tvalue())
    }

    fn run_tract(&mut self, program: &Program, index: usize, id: usize) -> Result<(), String> {
        let step = &program.steps[index];
        let node = program.model.node(id);
        let error = |error: tract_onnx::prelude::TractError| format!("{error:#}");
        let mut inputs = TVec::new();
        for (slot, outlet) in step.inputs.iter().zip(&node.inputs) {
            let fact = program.model.outlet_fact(*outlet).map_err(error)?;
            inputs.push(self.tensor(program, *slot, fact.datum_type)?);
        }
        let context = self.turn.context(SessionId::NONE, id);
        let outputs = match node.op.state(&context).map_err(error)? {
            Some(mut state) => state.eval(&context, node.op.as_op(), inputs),
            None => node.op.eval(&context, inputs),
        };
        for (slot, output) in step.outputs.iter().zip(outputs.map_err(error)?) {
            let shape = self.layout.sizes.shape(&program.values[*slot].dims);
            if output.shape() != shape {
                return Err(format!("it gives a value of shape {:?}, its type is of {shape:?}", output.shape()));
            }
            let output = match output.datum_type() {
                DatumType::F16 => output.cast_to_dt(DatumType::F32).map_err(error)?.into_owned().into_tvalue(),
                _ => output,
            };
            self.tensors[*slot] = Some(output);
        }
        Ok(())
    }

    fn free_dead(&mut self, index: usize) {
        for slot in &self.layout.steps[index].dead {
            self.tensors[*slot] = None;
            if let Home::Input(input) = self.program.values[*slot].home
                && matches!(self.inputs[input], Given::Tensor(_))
            {
                self.inputs[input] = Given::Nothing;
            }
        }
    }

    /// The bytes of a value that is not a tensor of tract's own types.
    pub(super) fn bytes<'a>(&'a self, program: &'a Program, slot: SlotId) -> &'a [u8] {
        let root = program.root(slot);
        match &program.values[root].home {
            Home::Memory => &bytemuck::cast_slice(&self.memory)[self.layout.places[root].clone()],
            Home::Input(input) => self.inputs[*input].bytes(),
            Home::Constant(tensor) => tensor.as_bytes(),
            Home::Tract => self.tensors[root].as_ref().map_or(&[], |tensor| tensor.as_bytes()),
            Home::Same(_) => &[],
        }
    }

    /// The program's output of that index, of the specification's element type.
    pub fn output(&self, index: usize, spec: &TensorSpec) -> Result<Tensor, EngineError> {
        let place = || format!("output {:?}", spec.name);
        let value = self.tensor(&self.program, self.program.outputs[index], spec.element_type.to_tract());
        let value = value.map_err(|reason| EngineError::Run { node: place(), reason })?;
        let tensor = Tensor::from_tract(value);
        tensor.ok_or_else(|| EngineError::Run { node: place(), reason: "it is not a plain tensor".into() })
    }

    /// What each step has taken so far, in the order they run.
    pub fn profile(&self) -> Vec<NodeProfile> {
        let of_step = |index: &usize| {
            let (step, layout) = (&self.program.steps[*index], &self.layout.steps[*index]);
            let multiply_accumulates = match &step.work {
                Work::Native(operator) => operator.multiply_accumulates(&layout.shapes),
                Work::Tract(_) => 0,
            };
            NodeProfile {
                node: step.name.clone(),
                operator: step.operator(&self.program.model),
                input_shapes: layout.shapes.inputs.clone(),
                output_shape: layout.shapes.output.clone(),
                multiply_accumulates,
                estimated_instructions: self.instructions(*index, 0..layout.units),
                instructions: self.spent[*index],
            }
        };
        self.order.iter().map(of_step).collect()
    }

    /// The block of memory, for another session.
    pub fn into_memory(self) -> Vec<u64> {
        self.memory
    }
}

/// The part of what is left of a budget, one in as many, that no estimate may take.
const ESTIMATE_MARGIN: u64 = 8;

/// Inputs that a step may have without an allocation when it runs.
const INPUTS_IN_PLACE: usize = 12;

/// Makes a block of memory as large as the layout needs.
fn make_room(memory: &mut Vec<u64>, layout: &Layout) -> Result<(), EngineError> {
    let words = layout.memory_bytes.div_ceil(size_of::<u64>());
    if memory.len() < words {
        // What is in it is of no meaning: it need not be kept while it grows.
        *memory = Vec::new();
        memory.try_reserve_exact(words).map_err(|_| EngineError::TooLarge {
            place: "bytes of the values between the steps".into(),
            value: layout.memory_bytes as u64,
            limit: super::memory::MEMORY_BYTES_MAX as u64,
        })?;
        // By whole runs: one value at a time costs several times as much.
        static RUN: [u64; 4096] = [0; 4096];
        while memory.len() < words {
            memory.extend_from_slice(&RUN[..RUN.len().min(words - memory.len())]);
        }
    }
    Ok(())
}

/// The steps that these of the outputs need.
pub(super) fn needed_steps(program: &Program, outputs: &[usize]) -> Vec<usize> {
    let mut needed = vec![false; program.values.len()];
    for output in outputs {
        needed[program.root(program.outputs[*output])] = true;
    }
    let mut order = Vec::new();
    for (index, step) in program.steps.iter().enumerate().rev() {
        if step.outputs.iter().any(|output| needed[*output]) {
            step.inputs.iter().for_each(|input| needed[program.root(*input)] = true);
            order.push(index);
        }
    }
    order.reverse();
    order
}

/// Sizes that are symbolic in tract, with the values of the symbols, as int64.
fn numbers(sizes: &TractTensor, symbols: &SymbolValues) -> TractResult<TractTensor> {
    let mut values = TractTensor::zero_dt(DatumType::I64, sizes.shape())?;
    // Nothing lies anywhere, also where no number could.
    if sizes.shape().contains(&0) {
        return Ok(values);
    }
    let from = sizes.try_as_plain_ram()?;
    let to: &mut [i64] = bytemuck::cast_slice_mut(values.as_bytes_mut());
    for (to, size) in to.iter_mut().zip(from.as_slice::<TDim>()?) {
        *to = size.eval(symbols).to_i64()?;
    }
    Ok(values)
}

/// The block of memory around a step's output and scratch.
struct Parts<'a> {
    /// Each with where it starts.
    parts: [(usize, &'a [u8]); 3],
}

impl<'a> Parts<'a> {
    /// Takes two parts out, which do not overlap, to be written.
    fn split(
        memory: &'a mut [u8],
        output: Range<usize>,
        scratch: Range<usize>,
    ) -> (Parts<'a>, &'a mut [u8], &'a mut [u8]) {
        let output_first = output.start <= scratch.start;
        let (first, second) = if output_first { (&output, &scratch) } else { (&scratch, &output) };
        let second_start = second.start.max(first.end);
        let (before, rest) = memory.split_at_mut(first.start);
        let (first_part, rest) = rest.split_at_mut(first.len());
        let (between, rest) = rest.split_at_mut(second_start - first.end);
        let (second_part, after) = rest.split_at_mut(second.len());
        let after_start = second_start + second.len();
        let parts = [(0, &*before), (first.end, &*between), (after_start, &*after)];
        let parts = Parts { parts };
        if output_first { (parts, first_part, second_part) } else { (parts, second_part, first_part) }
    }

    /// A part that lies in none of the two.
    fn get(&self, range: Range<usize>) -> &'a [u8] {
        let holds = |(start, part): &&(usize, &'a [u8])| *start <= range.start && range.end <= start + part.len();
        match self.parts.iter().find(holds) {
            Some((start, part)) => &part[range.start - start..range.end - start],
            // Only an empty value lies nowhere.
            None => &[],
        }
    }
}
