//! A model ready to run.

use crate::interpreter::Interpreter;
use crate::onnx::Dim;
use crate::program::Program;
use crate::program::memory::{Exceptions, Layout};
use crate::whole::Whole;
use crate::whole::variant::InputShapes;
use crate::{ElementType, EngineError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Input shapes for which sizes and places of values are kept.
const LAYOUTS_MAX: usize = 8;

/// Name, type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element_type: ElementType,
    /// `None` for a dimension that is free.
    pub shape: Vec<Option<u64>>,
}

impl TensorSpec {
    /// Whether a tensor of that shape can be given.
    pub(crate) fn fits(&self, shape: &[u64]) -> bool {
        let fits = |(spec, size): (&Option<u64>, &u64)| spec.is_none_or(|spec| spec == *size);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }
}

/// A model ready to run, shared by its sessions.
///
/// Mostly it is a program of our own steps, good for all sizes of the inputs. Where a graph can't be typed with its free
/// sizes as symbols, it is interpreted node by node, or tract runs it whole.
pub struct Plan {
    pub(crate) body: Body,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    weight_bytes: u64,
    /// For each input, its dimensions with the names of the free ones.
    dims: Vec<Vec<Dim>>,
}

pub(crate) enum Body {
    Program(ProgramBody),
    Interpreter(Arc<Interpreter>, EngineError),
    Whole(Box<Whole>),
}

/// A program and what its sessions leave for the next.
pub(crate) struct ProgramBody {
    pub program: Arc<Program>,
    layouts: Mutex<Vec<(InputShapes, Arc<Layout>)>>,
    /// A block of memory of a session that is over: the next need not clear its own.
    memory: Mutex<Vec<u64>>,
}

impl ProgramBody {
    pub fn new(program: Program) -> ProgramBody {
        ProgramBody { program: Arc::new(program), layouts: Mutex::default(), memory: Mutex::default() }
    }

    /// Sizes and places for inputs of these shapes.
    pub fn layout(&self, shapes: &InputShapes) -> Result<Arc<Layout>, EngineError> {
        let mut layouts = lock(&self.layouts);
        if let Some((_, layout)) = layouts.iter().find(|(made_for, _)| made_for == shapes) {
            return Ok(layout.clone());
        }
        let layout = Arc::new(Layout::new(&self.program, shapes, &Exceptions::default())?);
        if layouts.len() == LAYOUTS_MAX {
            layouts.remove(0);
        }
        layouts.push((shapes.clone(), layout.clone()));
        Ok(layout)
    }

    pub fn take_memory(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.memory))
    }

    pub fn give_memory(&self, memory: Vec<u64>) {
        let mut kept = lock(&self.memory);
        if memory.len() > kept.len() {
            *kept = memory;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plan {
    pub(crate) fn new(
        body: Body,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        dims: Vec<Vec<Dim>>,
        weight_bytes: u64,
    ) -> Plan {
        Plan { body, inputs, outputs, weight_bytes, dims }
    }

    /// The inputs a request has to give.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Nodes that a session which computes every output runs.
    pub fn node_count(&self) -> usize {
        match &self.body {
            Body::Program(body) => body.program.steps.len(),
            Body::Interpreter(interpreter, _) => interpreter.node_count(),
            Body::Whole(whole) => whole.node_count(),
        }
    }

    /// Bytes of the weights as they were read; those of a few KiB each are not counted.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Bytes on the heap that the plan holds: the weights in the form that their kernels read. `None` where tract runs
    /// the graph whole.
    pub fn heap_bytes(&self) -> Option<u64> {
        match &self.body {
            Body::Program(body) => Some(body.program.weight_bytes()),
            Body::Interpreter(interpreter, _) => Some(interpreter.weight_bytes),
            Body::Whole(_) => None,
        }
    }

    /// Whether every node is done by an operator of ours, which gives the same bits natively and in Wasm.
    pub fn is_native(&self) -> bool {
        match &self.body {
            Body::Program(body) => body.program.is_native(),
            Body::Interpreter(..) => true,
            Body::Whole(_) => false,
        }
    }

    /// Why the graph is not a program of ours, where it is interpreted or tract runs it whole.
    pub fn whole_reason(&self) -> Option<&EngineError> {
        match &self.body {
            Body::Program(_) => None,
            Body::Interpreter(_, reason) => Some(reason),
            Body::Whole(whole) => Some(&whole.reason),
        }
    }

    /// Bytes that a session's values take at a time, for inputs of these shapes, but for values of tract's operators;
    /// `None` where there is no program of ours.
    pub fn session_bytes(&self, shapes: &[Vec<u64>]) -> Result<Option<u64>, EngineError> {
        match &self.body {
            Body::Program(body) => Ok(Some(body.layout(&shapes.to_vec())?.memory_bytes as u64)),
            Body::Interpreter(..) | Body::Whole(_) => Ok(None),
        }
    }

    /// Instructions of one inference on inputs of these shapes, without page charges, as far as they can be told
    /// beforehand: `None` where operators of tract's take part.
    pub fn estimate_instructions(&self, shapes: &[Vec<u64>]) -> Result<Option<u64>, EngineError> {
        match &self.body {
            Body::Program(body) if body.program.is_native() => Ok(Some(body.layout(&shapes.to_vec())?.instructions())),
            _ => Ok(None),
        }
    }

    /// Upper bound of the instructions of the most expensive part that can't be paused, with free dimensions taken as 1.
    pub fn largest_node_estimate_instructions(&self) -> u64 {
        match &self.body {
            Body::Program(body) => {
                let shapes = self.inputs.iter().map(|spec| spec.shape.iter().map(|size| size.unwrap_or(1)).collect());
                match body.layout(&shapes.collect()) {
                    Ok(layout) => body.program.largest_part_instructions(&layout),
                    Err(_) => 0,
                }
            }
            // Sizes are known only when it runs.
            Body::Interpreter(..) => 0,
            Body::Whole(whole) => whole.largest_node_estimate(),
        }
    }

    /// Whether equal names of free dimensions have equal sizes. Fails with the first input that contradicts another.
    pub(crate) fn check_free_dims(&self, shapes: &InputShapes) -> Result<(), EngineError> {
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        for ((spec, dims), shape) in self.inputs.iter().zip(&self.dims).zip(shapes) {
            let mut expected = spec.shape.clone();
            let mut agrees = true;
            for ((dim, size), expected) in dims.iter().zip(shape).zip(&mut expected) {
                let Dim::Free(name) = dim else { continue };
                if *sizes.entry(name).or_insert(*size) != *size {
                    *expected = sizes.get(name.as_str()).copied();
                    agrees = false;
                }
            }
            if !agrees {
                return Err(EngineError::TensorShape { name: spec.name.clone(), expected, got: shape.clone() });
            }
        }
        Ok(())
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
