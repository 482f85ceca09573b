//! A program that is run over and over for the next tokens of a text, its keys and values growing in place.
//!
//! They are found by their shape in the program: an input that only a step which appends to it takes, whose result is an
//! output and otherwise goes to steps that take keys and values with room behind them. The input is then never given, and
//! the step writes only what is new. Between tokens nothing is allocated: sizes are lines in the numbers of past and new
//! tokens, places are planned with room for some more.

use super::memory::{Exceptions, Layout};
use super::run::{Cache, Progress, Run, needed_steps};
use super::{Home, Program, SlotId, Work};
use crate::graph::dims::{Line, Sizes};
use crate::{EngineError, Meter};
use std::sync::Arc;
use tract_onnx::prelude::DatumType;

/// Positions that room is made for at a time.
const BLOCK_POSITIONS: usize = 64;

/// A run whose keys and values grow in place. See the module.
pub(crate) struct Decode {
    run: Run,
    /// The shape of each input.
    shapes: Vec<Vec<Line>>,
    /// The program's expressions of sizes.
    lines: Vec<Line>,
    sizes: Sizes,
    /// Positions that the present plan of memory has room for, and new ones in it.
    planned: (usize, usize),
    /// The steps that keys and values need, and those that the logits need too.
    orders: [Arc<[usize]>; 2],
    logits: SlotId,
}

impl Decode {
    /// `pairs` are the inputs and outputs that are past and present of the same; `logits` is an output; `shapes` of all
    /// inputs. `None` when the program's values can't grow in place.
    pub fn new(
        program: &Arc<Program>,
        pairs: &[(usize, usize)],
        logits: usize,
        shapes: Vec<Vec<Line>>,
    ) -> Result<Option<Decode>, EngineError> {
        if !program.is_native() {
            return Ok(None);
        }
        let lines = program.dims.lines(&program.model, &shapes);
        let (Some(lines), Some((caches, cache_of))) = (lines, find_caches(program, pairs)) else { return Ok(None) };
        let logits_slot = program.root(program.outputs[logits]);
        let is_float = program.values[logits_slot].datum_type == DatumType::F32;
        if !is_float || !matches!(program.values[logits_slot].home, Home::Memory) {
            return Ok(None);
        }
        let last_row = program.steps.iter().position(|step| match &step.work {
            Work::Native(operator) => step.outputs == [logits_slot] && step.inputs.len() == 1 && operator.is_row_wise(),
            Work::Tract(_) => false,
        });
        let presents: Vec<usize> = pairs.iter().map(|(_, present)| *present).collect();
        let all: Vec<usize> = presents.iter().copied().chain([logits]).collect();
        let orders: [Arc<[usize]>; 2] = [needed_steps(program, &presents).into(), needed_steps(program, &all).into()];
        let exceptions = Exceptions { elsewhere: cache_of.iter().map(Option::is_some).collect(), last_row };
        let layout = Arc::new(Layout::new(program, &at(&shapes, 0, 1), &exceptions)?);
        let mut run = Run::new(program.clone(), layout, Vec::new(), &all, Vec::new())?;
        run.set_inputs(shapes.len());
        (run.caches, run.cache_of, run.exceptions) = (caches, cache_of, exceptions);
        Ok(Some(Decode { run, shapes, lines, sizes: Sizes::default(), planned: (0, 0), orders, logits: logits_slot }))
    }

    /// Begins with `new` tokens behind `past`, after which all inputs have to be given. Whether there will be logits is
    /// told here.
    pub fn begin(&mut self, past: usize, new: usize, with_logits: bool) -> Result<(), EngineError> {
        let positions = past.saturating_add(new);
        let invalid = || EngineError::invalid("sizes", format!("{past} tokens and {new} more are too many"));
        if positions > i32::MAX as usize {
            return Err(invalid());
        }
        let program = self.run.program.clone();
        self.grow(past, positions)?;
        if !program.dims.settle_lines(&self.lines, past as i64, new as i64, &mut self.sizes) {
            return Err(invalid());
        }
        let mut fits = self.planned.1 == new && positions <= self.planned.0;
        if fits {
            let layout = Arc::get_mut(&mut self.run.layout);
            fits = match layout {
                Some(layout) => layout.resize(&program, &self.sizes, &self.run.exceptions)?,
                None => false,
            };
        }
        if !fits {
            let room = positions.next_multiple_of(BLOCK_POSITIONS);
            let shapes = at(&self.shapes, room - new, new);
            let mut layout = Layout::new(&program, &shapes, &self.run.exceptions)?;
            self.planned = (room, new);
            if !layout.resize(&program, &self.sizes, &self.run.exceptions)? {
                // More past does not always mean larger values: then exactly these.
                layout = Layout::new(&program, &at(&self.shapes, past, new), &self.run.exceptions)?;
                self.planned = (positions, new);
            }
            self.run.layout = Arc::new(layout);
        }
        let order = self.orders[usize::from(with_logits)].clone();
        let layout = self.run.layout.clone();
        self.run.restart(layout, order)
    }

    /// The bytes of an input of that index, of which there must be `length`, to be written.
    pub fn input(&mut self, index: usize, length: usize) -> &mut [u8] {
        self.run.input(index).buffer(length)
    }

    /// As [`Run::step`].
    pub fn step(&mut self, meter: &dyn Meter, limit: u64, node_limit: u64) -> Result<Progress, EngineError> {
        self.run.step(meter, limit, node_limit)
    }

    /// As [`Run::next_instructions`].
    pub fn next_instructions(&self) -> u64 {
        self.run.next_instructions()
    }

    /// The logits of the last token, after a run with logits; `vocabulary` of them.
    pub fn logits(&self, vocabulary: usize) -> Option<&[f32]> {
        let logits: &[f32] = bytemuck::try_cast_slice(self.run.bytes(&self.run.program, self.logits)).ok()?;
        logits.get(logits.len().checked_sub(vocabulary)?..)
    }

    /// Bytes that keys and values take.
    pub fn cache_bytes(&self) -> u64 {
        self.run.caches.iter().map(|cache| size_of_val(&*cache.data) as u64).sum()
    }

    /// Makes room for `positions`, keeping the first `past`.
    fn grow(&mut self, past: usize, positions: usize) -> Result<(), EngineError> {
        for cache in &mut self.run.caches {
            let row = cache.heads * cache.columns;
            let capacity = cache.data.len().checked_div(row).unwrap_or(positions);
            if capacity >= positions {
                continue;
            }
            // By a quarter at least, so that a long text is not copied over and over.
            let wanted = positions.max(capacity + capacity / 4).next_multiple_of(BLOCK_POSITIONS);
            let too_large = || EngineError::TooLarge {
                place: "bytes of the keys or values of a layer".into(),
                value: (row as u64).saturating_mul(4).saturating_mul(wanted as u64),
                limit: super::memory::MEMORY_BYTES_MAX as u64,
            };
            let elements = row.checked_mul(wanted).filter(|elements| *elements <= super::memory::MEMORY_BYTES_MAX / 4);
            let elements = elements.ok_or_else(too_large)?;
            let mut data: Vec<f32> = Vec::new();
            data.try_reserve_exact(elements).map_err(|_| too_large())?;
            let kept = past.min(capacity) * cache.columns;
            for head in 0..cache.heads {
                let start = head * capacity * cache.columns;
                data.extend_from_slice(&cache.data[start..start + kept]);
                data.resize((head + 1) * wanted * cache.columns, 0.0);
            }
            cache.data = data;
        }
        Ok(())
    }
}

/// The inputs' shapes at so many past and new tokens.
fn at(shapes: &[Vec<Line>], past: usize, new: usize) -> Vec<Vec<u64>> {
    let size = |line: &Line| line.at(past as i64, new as i64).max(0) as u64;
    shapes.iter().map(|shape| shape.iter().map(size).collect()).collect()
}

/// The values that grow in place, empty, and which of them each slot is. `None` when a pair can't.
fn find_caches(program: &Program, pairs: &[(usize, usize)]) -> Option<(Vec<Cache>, Vec<Option<usize>>)> {
    let mut caches = Vec::new();
    let mut cache_of = vec![None; program.values.len()];
    for (past, present) in pairs {
        let present = program.outputs[*present];
        let slot = &program.values[present];
        // Another shape of the same would be of no use: its bytes do not follow each other.
        let is_alone = !program.values.iter().any(|slot| matches!(slot.home, Home::Same(of) if of == present));
        if !matches!(slot.home, Home::Memory) || slot.datum_type != DatumType::F32 || !is_alone {
            return None;
        }
        let &[_, heads, _, columns] = slot.dims.as_slice() else { return None };
        let mut appended = false;
        for step in &program.steps {
            let Work::Native(operator) = &step.work else { return None };
            if step.outputs.contains(&present) {
                let input = &program.values[*step.inputs.first()?].home;
                appended = operator.appends() && matches!(input, Home::Input(index) if index == past);
                continue;
            }
            let takes = |(index, input): (usize, &SlotId)| *input != present || operator.takes_room(index);
            let is_past = |input: &SlotId| matches!(program.values[*input].home, Home::Input(index) if index == *past);
            if !step.inputs.iter().enumerate().all(takes)
                || step.inputs.iter().any(|input| is_past(&program.root(*input)))
            {
                return None;
            }
        }
        if !appended {
            return None;
        }
        cache_of[present] = Some(caches.len());
        caches.push(Cache { data: Vec::new(), heads: heads.known()?, columns: columns.known()? });
    }
    Some((caches, cache_of))
}
