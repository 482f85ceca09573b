//! Operands with broadcasting, and the walk over rows.

use super::driver::{self, Kind, Order, Pass, Segment};
use super::fused::{PARAMETERS, STREAMS};
use super::{MAX_RANK, MAX_STEPS, Step, Unary, estimate};
use crate::lanes::{Lanes, Native};
use std::fmt;
use std::ops::Range;

/// A chain whose shapes do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeError {
    /// More dimensions than [`MAX_RANK`].
    Rank { rank: usize },
    /// More steps than [`MAX_STEPS`].
    Steps { steps: usize },
    /// A dimension of an operand that is neither 1 nor that of the output.
    Dimension { axis: usize, operand: usize, output: usize },
    /// An operand with fewer elements than its shape says.
    Elements { needed: usize, got: usize },
    /// An operand in place that is not the input of the chain.
    InPlace,
    /// Elements of the last dimension that are neither consecutive nor all the same.
    InnerStride { stride: usize },
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { rank } => write!(f, "{rank} dimensions, of at most {MAX_RANK}"),
            Self::Steps { steps } => write!(f, "a chain of {steps} steps, of at most {MAX_STEPS}"),
            Self::Dimension { axis, operand, output } => {
                write!(f, "dimension {axis} of the output is {output}, of an operand {operand}")
            }
            Self::Elements { needed, got } => {
                write!(f, "an operand has {got} elements of {needed} that its shape needs")
            }
            Self::InPlace => write!(f, "only the input of a chain can be in place"),
            Self::InnerStride { stride } => {
                write!(f, "stride {stride} in the last dimension: only 0 and 1 are possible")
            }
        }
    }
}

impl std::error::Error for ShapeError {}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    /// The output holds the input.
    Output,
    Number(f32),
    Elements(&'a [f32]),
}

/// A tensor as seen from the output: its elements and how far apart they are along each output dimension.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    data: Data<'a>,
    /// 0 along dimensions that are broadcast.
    strides: [usize; MAX_RANK],
}

impl<'a> Operand<'a> {
    /// One number for all elements.
    pub fn number(value: f32) -> Self {
        Self { data: Data::Number(value), strides: [0; MAX_RANK] }
    }

    /// The output's own elements before the chain runs: as its input, a chain in place.
    pub fn in_place(shape: &[usize]) -> Result<Self, ShapeError> {
        Ok(Self { data: Data::Output, strides: broadcast_strides(shape, shape)? })
    }

    /// A row-major tensor of the output's shape.
    pub fn full(data: &'a [f32], shape: &[usize]) -> Result<Self, ShapeError> {
        Self::broadcast(data, shape, shape)
    }

    /// A row-major tensor of shape `dims`, broadcast to the output's shape by the rules of ONNX and NumPy.
    pub fn broadcast(data: &'a [f32], dims: &[usize], shape: &[usize]) -> Result<Self, ShapeError> {
        let strides = broadcast_strides(dims, shape)?;
        Self::strided(data, &strides[..shape.len()], shape)
    }

    /// Elements at `sum of index * stride`, one stride per output dimension; the last is 0 or 1.
    pub fn strided(data: &'a [f32], strides: &[usize], shape: &[usize]) -> Result<Self, ShapeError> {
        if shape.len() > MAX_RANK || strides.len() != shape.len() {
            return Err(ShapeError::Rank { rank: shape.len().max(strides.len()) });
        }
        let mut all = [0; MAX_RANK];
        all[..strides.len()].copy_from_slice(strides);
        if !shape.contains(&0) {
            let last = shape.iter().zip(strides).try_fold(0usize, |sum, (dimension, stride)| {
                (dimension - 1).checked_mul(*stride).and_then(|far| sum.checked_add(far))
            });
            let needed = last.and_then(|last| last.checked_add(1)).unwrap_or(usize::MAX);
            if needed > data.len() {
                return Err(ShapeError::Elements { needed, got: data.len() });
            }
        }
        Ok(Self { data: Data::Elements(data), strides: all })
    }

    /// The element that belongs to an output element, by its row-major index. Panics for [`Operand::in_place`].
    pub fn at(&self, shape: &[usize], index: usize) -> f32 {
        let mut left = index;
        let mut offset = 0;
        for (dimension, stride) in shape.iter().zip(&self.strides).rev() {
            offset += left % dimension * stride;
            left /= dimension;
        }
        match self.data {
            Data::Number(value) => value,
            Data::Elements(data) => data[offset],
            Data::Output => panic!("an operand in place has no elements of its own"),
        }
    }
}

/// Strides of a row-major tensor of shape `dims`, one for each dimension of `shape`, with whose last ones its own are
/// aligned; 0 where it is broadcast.
pub fn broadcast_strides(dims: &[usize], shape: &[usize]) -> Result<[usize; MAX_RANK], ShapeError> {
    if shape.len() > MAX_RANK || dims.len() > shape.len() {
        return Err(ShapeError::Rank { rank: shape.len().max(dims.len()) });
    }
    let mut strides = [0; MAX_RANK];
    let mut stride = 1usize;
    let skipped = shape.len() - dims.len();
    for axis in (skipped..shape.len()).rev() {
        let (operand, output) = (dims[axis - skipped], shape[axis]);
        if operand != 1 && operand != output {
            return Err(ShapeError::Dimension { axis, operand, output });
        }
        strides[axis] = if operand == 1 { 0 } else { stride };
        stride = stride.saturating_mul(operand);
    }
    Ok(strides)
}

/// Dimensions without those of one element, and with neighbours merged where every operand's strides allow it.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// All but the last dimension, padded with ones in front.
    outer: [usize; MAX_RANK],
    /// The last one.
    columns: usize,
}

/// An operand during a run.
#[derive(Clone, Copy)]
struct Source {
    /// Null where the operand is a number or the output.
    elements: *const f32,
    /// Of the present row.
    offset: usize,
    /// Stride along the columns.
    inner: usize,
    strides: [usize; MAX_RANK],
}

/// A pass, and where its parameters and streams come from.
#[derive(Clone, Copy)]
struct Wired {
    pass: Pass,
    /// The parameters that are the same in every row.
    numbers: [f32; PARAMETERS],
    /// The others: place among the parameters, and operand.
    parameters: [(usize, usize); PARAMETERS],
    parameter_count: usize,
    /// Operands.
    streams: [usize; STREAMS],
    stream_count: usize,
}

/// An element-wise computation: an input, and steps on it. See the module.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    grid: Grid,
    elements: usize,
    kinds: [Kind; MAX_STEPS],
    steps: usize,
    /// The input, then the operand of each step; a number where a step has none. Strides as in `grid`: those of the outer
    /// dimensions, then that along the columns.
    operands: [(Operand<'a>, usize); MAX_STEPS + 1],
}

impl<'a> Chain<'a> {
    /// Prepares `steps` on `input` for an output of `shape`. Computes nothing and allocates nothing.
    pub fn new(shape: &[usize], input: Operand<'a>, steps: &[Step<'a>]) -> Result<Self, ShapeError> {
        if shape.len() > MAX_RANK {
            return Err(ShapeError::Rank { rank: shape.len() });
        }
        if steps.len() > MAX_STEPS {
            return Err(ShapeError::Steps { steps: steps.len() });
        }
        let mut operands = [(Operand::number(0.0), 0); MAX_STEPS + 1];
        operands[0].0 = input;
        for ((place, _), step) in operands[1..].iter_mut().zip(steps) {
            if let Step::Binary(_, operand) | Step::Reversed(_, operand) = step {
                *place = *operand;
            }
        }
        if operands[1..].iter().any(|(operand, _)| matches!(operand.data, Data::Output)) {
            return Err(ShapeError::InPlace);
        }
        let used = &mut operands[..steps.len() + 1];
        let grid = collapse(shape, used)?;
        for (operand, inner) in used.iter() {
            if *inner > 1 {
                return Err(ShapeError::InnerStride { stride: *inner });
            }
            // Shapes may differ between the operands and the chain; what was checked then counts for nothing here.
            if let Data::Elements(data) = operand.data {
                let last = grid.outer.iter().zip(&operand.strides).try_fold(0usize, |sum, (dimension, stride)| {
                    (dimension.saturating_sub(1)).checked_mul(*stride).and_then(|far| sum.checked_add(far))
                });
                let needed = last
                    .and_then(|last| last.checked_add(grid.columns.saturating_sub(1) * inner + 1))
                    .unwrap_or(usize::MAX);
                if needed > data.len() && !shape.contains(&0) {
                    return Err(ShapeError::Elements { needed, got: data.len() });
                }
            }
        }
        let mut kinds = [Kind::Unary(Unary::Relu); MAX_STEPS];
        for ((kind, step), (_, inner)) in kinds.iter_mut().zip(steps).zip(&operands[1..]) {
            let binary = |function, order| match inner {
                0 => Kind::Parameter(function, order),
                _ => Kind::Stream(function, order),
            };
            *kind = match step {
                Step::Unary(function) => Kind::Unary(*function),
                Step::Binary(function, _) => binary(*function, Order::ValueFirst),
                Step::Reversed(function, _) => binary(*function, Order::ValueSecond),
            };
        }
        let elements = shape.iter().product();
        Ok(Self { grid, elements, kinds, steps: steps.len(), operands })
    }

    /// Elements of the output.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Computes the elements of `range`, by row-major index, into `output`, which has as many. In place, `output` holds
    /// their inputs. Ranges may be cut anywhere: an element does not depend on the range it is computed in.
    ///
    /// Panics if `range` is not within the output or `output` not as long.
    pub fn run(&self, range: Range<usize>, output: &mut [f32]) {
        self.run_with::<Native>(range, output);
    }

    pub(super) fn run_with<V: Lanes>(&self, range: Range<usize>, output: &mut [f32]) {
        assert!(range.start <= range.end && range.end <= self.elements, "{range:?} of {}", self.elements);
        assert_eq!(range.len(), output.len(), "range and output differ in length");
        if range.is_empty() {
            return;
        }
        let (passes, count) = self.passes::<V>();
        let mut sources = self.sources();
        let columns = self.grid.columns;
        let mut coordinates = [0; MAX_RANK];
        let mut column = range.start % columns;
        let mut left = range.start / columns;
        for axis in (0..MAX_RANK).rev() {
            coordinates[axis] = left % self.grid.outer[axis];
            left /= self.grid.outer[axis];
            for source in &mut sources[..self.steps + 1] {
                source.offset += coordinates[axis] * source.strides[axis];
            }
        }
        let mut done = 0;
        while done < output.len() {
            let elements = (columns - column).min(output.len() - done);
            // SAFETY: `elements` from `done` on are within `output`, and what operands have at a row that is within the
            // grid and at columns that are is within their data, as `new` checked.
            unsafe { self.segment(&passes[..count], &sources, column, output.as_mut_ptr().add(done), elements) };
            done += elements;
            column = 0;
            // The next row: the last dimension first.
            for axis in (0..MAX_RANK).rev() {
                let dimension = self.grid.outer[axis];
                if dimension == 1 {
                    continue;
                }
                coordinates[axis] += 1;
                let wrapped = coordinates[axis] == dimension;
                for source in &mut sources[..self.steps + 1] {
                    source.offset += source.strides[axis];
                    if wrapped {
                        source.offset -= dimension * source.strides[axis];
                    }
                }
                if !wrapped {
                    break;
                }
                coordinates[axis] = 0;
            }
        }
    }

    /// Where the operands start.
    fn sources(&self) -> [Source; MAX_STEPS + 1] {
        self.operands.map(|(operand, inner)| Source {
            elements: match operand.data {
                Data::Elements(data) => data.as_ptr(),
                Data::Output | Data::Number(_) => std::ptr::null(),
            },
            offset: 0,
            inner,
            strides: operand.strides,
        })
    }

    /// The passes that make up the chain, and how many.
    fn passes<V: Lanes>(&self) -> ([Wired; MAX_STEPS], usize) {
        let nothing = Pass { body: driver::nothing, cost: 0, steps: 0 };
        let mut passes = [Wired {
            pass: nothing,
            numbers: [0.0; PARAMETERS],
            parameters: [(0, 0); PARAMETERS],
            parameter_count: 0,
            streams: [0; STREAMS],
            stream_count: 0,
        }; MAX_STEPS];
        let mut count = 0;
        let mut step = 0;
        while step < self.steps {
            let pass = driver::select::<V>(&self.kinds[step..self.steps]);
            let wired = &mut passes[count];
            wired.pass = pass;
            let mut slot = 0;
            for index in step..step + pass.steps {
                match self.kinds[index] {
                    Kind::Unary(function) => {
                        let (numbers, count) = driver::parameters(function);
                        // Fused, a Relu is a clamp without an upper limit.
                        let count = if pass.steps > 1 && function == Unary::Relu { 2 } else { count };
                        wired.numbers[slot..slot + count].copy_from_slice(&numbers[..count]);
                        slot += count;
                    }
                    Kind::Parameter(..) => {
                        if let Data::Number(number) = self.operands[index + 1].0.data {
                            wired.numbers[slot] = number;
                        } else {
                            wired.parameters[wired.parameter_count] = (slot, index + 1);
                            wired.parameter_count += 1;
                        }
                        slot += 1;
                    }
                    Kind::Stream(..) => {
                        wired.streams[wired.stream_count] = index + 1;
                        wired.stream_count += 1;
                    }
                }
            }
            count += 1;
            step += pass.steps;
        }
        (passes, count)
    }

    /// Runs all passes over `elements` of a row from `column` on, into `output`.
    ///
    /// # Safety
    /// `output` is valid for `elements`; every source is readable at its offset and, where it goes along the columns, for
    /// `elements` from `column` on.
    unsafe fn segment(
        &self,
        passes: &[Wired],
        sources: &[Source; MAX_STEPS + 1],
        column: usize,
        output: *mut f32,
        elements: usize,
    ) {
        // SAFETY: the caller's; so it is in the whole function. Data and output are different slices, but for the value.
        let place = |source: &Source| unsafe { source.elements.add(source.offset + column * source.inner) };
        let input = &sources[0];
        let mut value: *const f32 = output;
        let number = match self.operands[0].0.data {
            Data::Output => None,
            Data::Elements(_) if input.inner == 1 => {
                value = place(input);
                None
            }
            Data::Elements(_) => Some(unsafe { *place(input) }),
            Data::Number(number) => Some(number),
        };
        if let Some(number) = number {
            for index in 0..elements {
                unsafe { *output.add(index) = number };
            }
        }
        if passes.is_empty() && value != output.cast_const() {
            unsafe { value.copy_to_nonoverlapping(output, elements) };
        }
        for wired in passes {
            let mut parameters = wired.numbers;
            for (slot, operand) in &wired.parameters[..wired.parameter_count] {
                parameters[*slot] = unsafe { *place(&sources[*operand]) };
            }
            let mut streams = [value; STREAMS];
            for (stream, operand) in streams.iter_mut().zip(&wired.streams[..wired.stream_count]) {
                *stream = place(&sources[*operand]);
            }
            let segment = Segment { value, streams, output, elements };
            unsafe { (wired.pass.body)(&segment, &parameters) };
            value = output;
        }
    }

    /// Instructions of [`Chain::run`] over `range`, in WebAssembly with SIMD.
    pub fn estimate_instructions(&self, range: Range<usize>) -> u64 {
        let (passes, count) = self.passes::<Native>();
        let columns = self.grid.columns.max(1);
        let rows = range.len().div_ceil(columns).max(1);
        let each = range.len().div_ceil(rows);
        let per_row = estimate::ROW + estimate::ROW_STEP * self.steps as u64;
        let passes = passes[..count].iter().map(|wired| estimate::segments(wired.pass, rows, each)).sum::<u64>();
        estimate::CHAIN + rows as u64 * per_row + passes
    }
}

/// Merges dimensions and rewrites the operands' strides to match.
fn collapse(shape: &[usize], operands: &mut [(Operand, usize)]) -> Result<Grid, ShapeError> {
    let mut outer = [1usize; MAX_RANK];
    let mut merged = [[0usize; MAX_RANK]; MAX_STEPS + 1];
    // Dimensions found so far, from the last one on, go to the end of `outer`; the very last becomes the columns.
    let mut place = MAX_RANK;
    for axis in (0..shape.len()).rev() {
        let dimension = shape[axis];
        if dimension == 1 {
            continue;
        }
        let joins = place < MAX_RANK
            && operands
                .iter()
                .zip(&merged)
                .all(|((operand, _), strides)| Some(operand.strides[axis]) == strides[place].checked_mul(outer[place]));
        if joins {
            outer[place] =
                outer[place].checked_mul(dimension).ok_or(ShapeError::Elements { needed: usize::MAX, got: 0 })?;
        } else {
            place -= 1;
            outer[place] = dimension;
            for ((operand, _), strides) in operands.iter().zip(&mut merged) {
                strides[place] = operand.strides[axis];
            }
        }
    }
    let columns = outer[MAX_RANK - 1];
    for ((operand, inner), strides) in operands.iter_mut().zip(&merged) {
        *inner = strides[MAX_RANK - 1];
        operand.strides = *strides;
        operand.strides[MAX_RANK - 1] = 0;
    }
    outer[MAX_RANK - 1] = 1;
    Ok(Grid { outer, columns })
}
