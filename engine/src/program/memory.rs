//! Sizes and places of all values for inputs of given shapes.

use super::{Home, Program, SlotId, Work};
use crate::EngineError;
use crate::graph::dims::{Sizes, bind_symbols};
use crate::ops::Shapes;
use crate::program::Step;
use std::ops::Range;
use tract_onnx::tract_core::internal::SymbolValues;

/// Values start at multiples of this: a cache line, and more than any element's alignment.
pub(crate) const ALIGNMENT_BYTES: usize = 64;

/// Most bytes that a session's values may take at a time: what one allocation can have on a 32-bit target.
pub(crate) const MEMORY_BYTES_MAX: usize = i32::MAX as usize;

/// A program's values for inputs of given shapes.
#[derive(Debug)]
pub(crate) struct Layout {
    pub symbols: SymbolValues,
    pub sizes: Sizes,
    /// Of each step.
    pub steps: Vec<StepLayout>,
    /// Where each value is in the block, if it lives there.
    pub places: Vec<Range<usize>>,
    pub memory_bytes: usize,
    /// Bytes that each of `places` had when they were planned.
    room: Vec<usize>,
}

/// What a run does otherwise than the program says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exceptions {
    /// Values that are kept elsewhere, by slot; none for none.
    pub elsewhere: Vec<bool>,
    /// The step of which only the last row is wanted, see [`crate::ops::Operator::is_row_wise`].
    pub last_row: Option<usize>,
}

impl Exceptions {
    fn is_elsewhere(&self, slot: SlotId) -> bool {
        self.elsewhere.get(slot).copied().unwrap_or(false)
    }
}

#[derive(Debug)]
pub(crate) struct StepLayout {
    pub shapes: Shapes,
    pub units: usize,
    /// Instructions of all units.
    pub instructions: u64,
    pub scratch: Range<usize>,
    /// Values that no later step takes.
    pub dead: Vec<SlotId>,
    /// The first expressions of sizes that its shapes depend on, a bit each.
    depends: u128,
    scratch_room: usize,
}

impl Layout {
    pub fn new(program: &Program, shapes: &[Vec<u64>], exceptions: &Exceptions) -> Result<Layout, EngineError> {
        const PLACE: &str = "shapes of the inputs";
        let invalid = |reason: String| EngineError::invalid(PLACE, reason);
        let symbols = bind_symbols(&program.model, shapes).map_err(invalid)?;
        let sizes = program.dims.settle(&symbols).map_err(invalid)?;
        let last_uses = last_uses(program);
        let mut memory = Memory::default();
        let mut places = vec![0..0; program.values.len()];
        let mut steps = Vec::with_capacity(program.steps.len());
        for (index, step) in program.steps.iter().enumerate() {
            let shape = |slot: &SlotId| sizes.shape(&program.values[*slot].dims);
            let inputs = step.inputs.iter().map(shape).collect();
            let output = step.outputs.first().map(shape).unwrap_or_default();
            let mut shapes = Shapes { inputs, output, parameters: sizes.numbers(&step.parameters) };
            let is_last_row = exceptions.last_row == Some(index);
            if is_last_row {
                only_last_row(&mut shapes);
            }
            for output in &step.outputs {
                if matches!(program.values[*output].home, Home::Memory) && !exceptions.is_elsewhere(*output) {
                    let needed = match is_last_row {
                        true => shapes.output_elements() * program.values[*output].datum_type.size_of(),
                        false => bytes(program, &sizes, *output)?,
                    };
                    places[*output] = memory.take(needed)?;
                }
            }
            let (units, instructions, scratch_bytes) = match &step.work {
                Work::Native(operator) => {
                    let units = operator.units(&shapes).max(1);
                    (units, operator.instructions(&shapes, 0..units), operator.scratch_bytes(&shapes))
                }
                Work::Tract(_) => (1, 0, 0),
            };
            let scratch = memory.take(scratch_bytes)?;
            memory.give_back(scratch.clone());
            let mut dead: Vec<SlotId> = Vec::new();
            for slot in step.inputs.iter().chain(&step.outputs) {
                let root = program.root(*slot);
                if last_uses[root] == index && !dead.contains(&root) {
                    dead.push(root);
                    if matches!(program.values[root].home, Home::Memory) {
                        memory.give_back(places[root].clone());
                    }
                }
            }
            let (depends, scratch_room) = (depends(program, step), scratch.len());
            steps.push(StepLayout { shapes, units, instructions, scratch, dead, depends, scratch_room });
        }
        let room = places.iter().map(|place| place.len()).collect();
        Ok(Layout { symbols, sizes, steps, places, memory_bytes: memory.most, room })
    }

    /// Other sizes, in the places that are planned. False, with the layout of no use any more, when these do not hold them.
    pub fn resize(&mut self, program: &Program, sizes: &Sizes, exceptions: &Exceptions) -> Result<bool, EngineError> {
        let changed = self.sizes.differing(sizes);
        self.sizes.clone_from(sizes);
        for (index, (step, layout)) in program.steps.iter().zip(&mut self.steps).enumerate() {
            if layout.depends & changed == 0 {
                continue;
            }
            let shapes = &mut layout.shapes;
            let fill = |shape: &mut Vec<usize>, slot: SlotId| {
                shape.iter_mut().zip(&program.values[slot].dims).for_each(|(size, dim)| *size = sizes.of(*dim));
            };
            shapes.inputs.iter_mut().zip(&step.inputs).for_each(|(shape, slot)| fill(shape, *slot));
            if let Some(output) = step.outputs.first() {
                fill(&mut shapes.output, *output);
            }
            shapes.parameters.iter_mut().zip(&step.parameters).for_each(|(to, dim)| *to = sizes.number(*dim));
            let is_last_row = exceptions.last_row == Some(index);
            if is_last_row {
                only_last_row(shapes);
            }
            for output in &step.outputs {
                if matches!(program.values[*output].home, Home::Memory) && !exceptions.is_elsewhere(*output) {
                    let needed = match is_last_row {
                        true => shapes.output_elements() * program.values[*output].datum_type.size_of(),
                        false => bytes(program, sizes, *output)?,
                    };
                    let place = &mut self.places[*output];
                    place.end = place.start + needed;
                    if needed > self.room[*output] {
                        return Ok(false);
                    }
                }
            }
            if let Work::Native(operator) = &step.work {
                layout.units = operator.units(shapes).max(1);
                layout.instructions = operator.instructions(shapes, 0..layout.units);
                let scratch = operator.scratch_bytes(shapes);
                layout.scratch.end = layout.scratch.start + scratch;
                if scratch > layout.scratch_room {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Instructions of all steps.
    pub fn instructions(&self) -> u64 {
        self.steps.iter().map(|step| step.instructions).fold(0, u64::saturating_add)
    }
}

/// One row of the first input and one of the output are left of an operator that does rows.
fn only_last_row(shapes: &mut Shapes) {
    for shape in shapes.inputs.iter_mut().take(1).chain(std::iter::once(&mut shapes.output)) {
        let rows = shape.len().saturating_sub(1);
        shape[..rows].fill(1);
    }
}

/// The expressions of sizes in a step's shapes, a bit each; all bits where there are more than bits.
fn depends(program: &Program, step: &Step) -> u128 {
    let values = step.inputs.iter().chain(&step.outputs).flat_map(|slot| &program.values[*slot].dims);
    values.chain(&step.parameters).fold(0, |bits, dim| bits | crate::graph::dims::bit(*dim))
}

/// The bytes of a value.
fn bytes(program: &Program, sizes: &Sizes, slot: SlotId) -> Result<usize, EngineError> {
    let value = &program.values[slot];
    let product = |bytes: usize, dim: &_| bytes.checked_mul(sizes.of(*dim));
    value
        .dims
        .iter()
        .try_fold(value.datum_type.size_of(), product)
        .ok_or_else(|| EngineError::invalid("shapes of the inputs", "a value has more bytes than there are"))
}

/// The last step that takes each value; its own for one that none takes; beyond all for outputs.
fn last_uses(program: &Program) -> Vec<usize> {
    let mut last = vec![0; program.values.len()];
    for (index, step) in program.steps.iter().enumerate() {
        for slot in step.inputs.iter().chain(&step.outputs) {
            last[program.root(*slot)] = index;
        }
    }
    for output in &program.outputs {
        last[program.root(*output)] = usize::MAX;
    }
    last
}

/// A block of memory being parcelled out, first fit.
#[derive(Default)]
struct Memory {
    /// Free parts below `end`, in order, none touching another.
    free: Vec<Range<usize>>,
    end: usize,
    most: usize,
}

impl Memory {
    fn take(&mut self, bytes: usize) -> Result<Range<usize>, EngineError> {
        if bytes == 0 {
            return Ok(0..0);
        }
        let too_large = |value: usize| EngineError::TooLarge {
            place: "bytes of the values between the steps".into(),
            value: value as u64,
            limit: MEMORY_BYTES_MAX as u64,
        };
        let needed = bytes.checked_next_multiple_of(ALIGNMENT_BYTES).ok_or_else(|| too_large(bytes))?;
        // The smallest part that is large enough.
        let fitting = self.free.iter().enumerate().filter(|(_, part)| part.len() >= needed);
        if let Some((index, _)) = fitting.min_by_key(|(_, part)| part.len()) {
            let part = &mut self.free[index];
            let start = part.start;
            part.start += needed;
            if part.start == part.end {
                self.free.remove(index);
            }
            return Ok(start..start + bytes);
        }
        // A free part at the end grows.
        let start = match self.free.last() {
            Some(part) if part.end == self.end => part.start,
            _ => self.end,
        };
        if start < self.end {
            self.free.pop();
        }
        let end = start.checked_add(needed).filter(|end| *end <= MEMORY_BYTES_MAX);
        self.end = end.ok_or_else(|| too_large(start.saturating_add(needed)))?;
        self.most = self.most.max(self.end);
        Ok(start..start + bytes)
    }

    fn give_back(&mut self, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        let part = part.start..part.end.next_multiple_of(ALIGNMENT_BYTES);
        let at = self.free.partition_point(|free| free.start < part.start);
        self.free.insert(at, part);
        // Joins it with its neighbours.
        if at + 1 < self.free.len() && self.free[at].end == self.free[at + 1].start {
            self.free[at].end = self.free[at + 1].end;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].end == self.free[at].start {
            self.free[at - 1].end = self.free[at].end;
            self.free.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_used_again() {
        let mut memory = Memory::default();
        let a = memory.take(100).unwrap();
        let b = memory.take(64).unwrap();
        let c = memory.take(1).unwrap();
        assert_eq!((a.clone(), b.clone(), c.clone()), (0..100, 128..192, 192..193));
        memory.give_back(b);
        memory.give_back(a);
        assert_eq!(memory.free, vec![0..192; 1]);
        assert_eq!(memory.take(192).unwrap(), 0..192);
        assert_eq!(memory.take(0).unwrap(), 0..0);
        memory.give_back(c);
        assert_eq!(memory.take(200).unwrap(), 192..392);
        assert_eq!(memory.most, 448);
        assert!(matches!(memory.take(MEMORY_BYTES_MAX), Err(EngineError::TooLarge { .. })));
    }
}
