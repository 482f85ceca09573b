//! Windows that slide over the spatial axes of a tensor, whatever their number.

use super::array::{Result, elements, sizes, strides};
use super::call::Call;

/// Where a window lies at each of its positions.
pub(super) struct Window {
    pub kernel: Vec<usize>,
    /// Number of positions along each axis.
    pub positions: Vec<usize>,
    /// Sizes of what it slides over.
    input: Vec<usize>,
    steps: Vec<i64>,
    dilations: Vec<i64>,
    /// Padding before and after.
    begin: Vec<i64>,
    end: Vec<i64>,
}

/// The part of a window that lies on the input at one position.
pub(super) struct Taps {
    /// Index in the kernel and offset in the input.
    pub places: Vec<(usize, usize)>,
    /// How many of the kernel's elements lie on the input or its padding.
    pub with_padding: usize,
}

/// Positive numbers of an attribute, one an axis, all 1 if it is not there.
fn positive(call: &Call<'_>, name: &str, rank: usize) -> Result<Vec<i64>> {
    let values = call.ints(name).filter(|values| !values.is_empty()).map_or(vec![1; rank], <[i64]>::to_vec);
    let fits = |value: &i64| (1..1 << 24).contains(value);
    if values.len() != rank || !values.iter().all(fits) {
        return Err(format!("{name} {values:?} for {rank} axes"));
    }
    Ok(values)
}

impl Window {
    /// The window that a convolution or pooling slides over axes of these sizes.
    pub fn new(call: &Call<'_>, input: &[usize], kernel: &[usize]) -> Result<Window> {
        let mut window = Window::bare(call, input, kernel)?;
        let kernel_extent = |axis: usize| (kernel[axis] as i64 - 1) * window.dilations[axis] + 1;
        let auto_pad = call.text("auto_pad", "NOTSET");
        let rounds_up = call.flag("ceil_mode");
        for (axis, size) in input.iter().enumerate() {
            let (size, step, extent) = (*size as i64, window.steps[axis], kernel_extent(axis));
            if auto_pad.starts_with("SAME") {
                let total = ((size + step - 1) / step - 1).saturating_mul(step).saturating_add(extent - size).max(0);
                let less = total / 2;
                window.begin[axis] = if auto_pad == "SAME_LOWER" { total - less } else { less };
                window.end[axis] = total - window.begin[axis];
            } else if auto_pad == "VALID" {
                (window.begin[axis], window.end[axis]) = (0, 0);
            }
            let padded = size + window.begin[axis] + window.end[axis];
            let room = padded - extent;
            let mut positions = if room < 0 { 0 } else { room / step + 1 };
            if rounds_up && room >= 0 && room % step != 0 && positions * step < size + window.begin[axis] {
                // One more that begins on the input and ends beyond the padding.
                positions += 1;
            }
            window.positions.push(positions as usize);
        }
        elements(&window.positions)?;
        Ok(window)
    }

    /// As [`Window::new`], without positions.
    fn bare(call: &Call<'_>, input: &[usize], kernel: &[usize]) -> Result<Window> {
        let rank = input.len();
        if kernel.len() != rank || kernel.contains(&0) {
            return Err(format!("a kernel of shape {kernel:?} for {rank} axes"));
        }
        elements(kernel)?;
        let pads = call.ints("pads").filter(|pads| !pads.is_empty()).map_or(vec![0; 2 * rank], <[i64]>::to_vec);
        if pads.len() != 2 * rank || !pads.iter().all(|pad| (-(1 << 24)..1 << 24).contains(pad)) {
            return Err(format!("pads {pads:?} for {rank} axes"));
        }
        let (steps, dilations) = (positive(call, "strides", rank)?, positive(call, "dilations", rank)?);
        let (begin, end) = (pads[..rank].to_vec(), pads[rank..].to_vec());
        let (kernel, input) = (kernel.to_vec(), input.to_vec());
        Ok(Window { kernel, positions: Vec::new(), input, steps, dilations, begin, end })
    }

    /// The window of a transposed convolution: its positions are the elements of the input, and what it slides over is
    /// the output.
    pub fn transposed(call: &Call<'_>, input: &[usize], kernel: &[usize]) -> Result<Window> {
        let rank = input.len();
        let mut window = Window::bare(call, &vec![0; rank], kernel)?;
        let wanted = call.ints("output_shape").filter(|shape| !shape.is_empty());
        let auto_pad = call.text("auto_pad", "NOTSET");
        window.positions = input.to_vec();
        for axis in 0..rank {
            let added = call.ints("output_padding").and_then(|added| added.get(axis).copied()).unwrap_or(0);
            let extent = (kernel[axis] as i64 - 1) * window.dilations[axis] + 1;
            let step = window.steps[axis];
            let whole = step * (input[axis] as i64 - 1) + added.clamp(0, 1 << 24) + extent;
            let wanted = match wanted.map(|shape| shape.get(shape.len().saturating_sub(rank) + axis).copied()) {
                Some(size) => Some(size.filter(|size| *size >= 0).ok_or("its output shape has too few sizes")?),
                None if auto_pad.starts_with("SAME") => Some(input[axis] as i64 * step),
                None => None,
            };
            if let Some(size) = wanted {
                let total = (whole.saturating_sub(size)).max(0);
                let begin = if auto_pad == "SAME_UPPER" { total / 2 } else { total - total / 2 };
                (window.begin[axis], window.end[axis]) = (begin, total - begin);
                window.input[axis] = size as usize;
            } else {
                let size = whole - window.begin[axis] - window.end[axis];
                window.input[axis] = usize::try_from(size).map_err(|_| format!("an output size of {size}"))?;
            }
        }
        elements(&window.input)?;
        Ok(window)
    }

    /// Sizes of what it slides over.
    pub fn input(&self) -> &[usize] {
        &self.input
    }

    /// Number of positions.
    pub fn count(&self) -> usize {
        self.positions.iter().product()
    }

    pub fn kernel_elements(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The input's coordinate under the kernel's first element, along an axis.
    pub fn corner(&self, axis: usize, position: usize) -> i64 {
        position as i64 * self.steps[axis] - self.begin[axis]
    }

    pub fn dilation(&self, axis: usize) -> i64 {
        self.dilations[axis]
    }

    pub fn taps(&self, position: usize) -> Taps {
        let (places_of, own) = (strides(&self.positions), strides(&self.input));
        let mut taps = Taps { places: vec![(0, 0)], with_padding: 1 };
        for axis in 0..self.kernel.len() {
            let corner = self.corner(axis, position / places_of[axis] % self.positions[axis]);
            let size = self.input[axis] as i64;
            let at = |index: usize| corner + index as i64 * self.dilations[axis];
            let padded = |index: &usize| (-self.begin[axis]..size + self.end[axis]).contains(&at(*index));
            taps.with_padding *= (0..self.kernel[axis]).filter(padded).count();
            let inside: Vec<usize> = (0..self.kernel[axis]).filter(|index| (0..size).contains(&at(*index))).collect();
            let next = |(kernel, offset): &(usize, usize)| {
                let (kernel, offset) = (kernel * self.kernel[axis], *offset);
                let place = |index: &usize| (kernel + index, offset + at(*index) as usize * own[axis]);
                inside.iter().map(place).collect::<Vec<_>>()
            };
            taps.places = taps.places.iter().flat_map(next).collect();
        }
        taps
    }
}

/// The shape of a kernel from its attribute, else `otherwise`.
pub(super) fn kernel_shape(call: &Call<'_>, otherwise: &[usize]) -> Result<Vec<usize>> {
    match call.ints("kernel_shape").filter(|shape| !shape.is_empty()) {
        Some(shape) => sizes(shape),
        None => Ok(otherwise.to_vec()),
    }
}
