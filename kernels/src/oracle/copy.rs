//! Copies and gathers.

use super::{Numbers, equal};
use crate::copy::{self, Copy, Element, Gather, Layout};

/// Shapes to transpose in every order.
const SHAPES: &[&[usize]] = &[
    &[],
    &[7],
    &[0, 3],
    &[1, 5],
    &[3, 4],
    &[5, 17],
    &[9, 33],
    &[40, 64],
    &[2, 3, 5],
    &[3, 9, 20],
    &[1, 6, 4, 7],
    &[2, 8, 3, 16],
    &[2, 3, 2, 3, 2, 1, 2, 5],
];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for shape in SHAPES {
        for round in 0..6 {
            let mut permutation: Vec<usize> = (0..shape.len()).collect();
            match round {
                0 => {}
                1 => permutation.reverse(),
                _ => (1..shape.len()).for_each(|axis| permutation.swap(axis, numbers.below(axis + 1))),
            }
            let transpose = Copy::transpose(shape, &permutation);
            let count = shape.iter().product();
            checked += every_size(&mut numbers, &transpose, count, count, &format!("{shape:?} by {permutation:?}"))?;
        }
    }
    for _ in 0..150 {
        // Any strides for the input: repeated, backwards, with steps. Room around the elements in the output.
        let rank = numbers.below(5);
        let dims: Vec<usize> =
            (0..rank).map(|_| [0, 1, 2, 3, 5, 8, 17][numbers.below(70).div_ceil(10).min(6)]).collect();
        let mut input = Layout { offset: 0, strides: [0; copy::MAX_RANK] };
        let mut length = 1;
        for (axis, dimension) in dims.iter().enumerate() {
            let stride = [0, 1, 1, 2, 3, 30, 7001][numbers.below(7)];
            let backwards = numbers.below(4) == 0;
            let far = dimension.saturating_sub(1) * stride;
            length += far;
            input.offset += if backwards { far } else { 0 };
            input.strides[axis] = if backwards { -(stride as isize) } else { stride as isize };
        }
        let padded: Vec<usize> = dims.iter().map(|dimension| dimension + numbers.below(3)).collect();
        let mut output = Layout::row_major(&padded);
        output.offset = numbers.below(4);
        let total = padded.iter().product::<usize>() + output.offset;
        let copy = Copy::new(&dims, input, output);
        checked += every_size(&mut numbers, &copy, length, total, &format!("{copy:?}"))?;
    }
    Ok(checked + gathers(&mut numbers)?)
}

fn every_size(numbers: &mut Numbers, copy: &Copy, from: usize, to: usize, case: &str) -> Result<u32, String> {
    let bytes = |numbers: &mut Numbers| numbers.next();
    one_size(copy, (0..from).map(|_| bytes(numbers) as u8).collect(), to, 0xaa, case)?;
    one_size(copy, (0..from).map(|_| bytes(numbers) as u16).collect(), to, 0xaaaa, case)?;
    one_size(copy, (0..from).map(|_| bytes(numbers) as u32).collect(), to, 0xaaaa, case)?;
    one_size(copy, (0..from).map(|_| bytes(numbers)).collect(), to, 0xaaaa, case)?;
    Ok(4)
}

fn one_size<T: Element + PartialEq + std::fmt::Debug>(
    copy: &Copy,
    input: Vec<T>,
    to: usize,
    before: T,
    case: &str,
) -> Result<(), String> {
    let case = format!("{case}, {} bytes", size_of::<T>());
    let mut reference = vec![before; to];
    copy::naive::run(copy, &input, &mut reference);
    let mut output = vec![before; to];
    copy::portable::run(copy, &input, &mut output);
    equal("copy", "portable", &case, &reference, &output)?;
    let mut output = vec![before; to];
    copy.run(&input, &mut output);
    equal("copy", "selected", &case, &reference, &output)
}

fn gathers(numbers: &mut Numbers) -> Result<u32, String> {
    let mut checked = 0;
    for (outer, length, inner) in [(1, 1, 1), (1, 30, 7), (2, 5, 3), (3, 4, 0), (1, 9, 64), (1, 3, 100), (2, 6, 1)] {
        let gather = Gather { outer, length, inner };
        let input: Vec<f32> = numbers.floats(outer * length * inner);
        let indices: Vec<i64> = (0..5).map(|_| numbers.below(2 * length) as i64 - length as i64).collect();
        let mut reference = Vec::new();
        for block in 0..outer {
            for index in &indices {
                let row = block * length + index.rem_euclid(length as i64) as usize;
                reference.extend_from_slice(&input[row * inner..][..inner]);
            }
        }
        let mut output = vec![9.0; reference.len()];
        let cut = numbers.below(5 * outer + 1);
        let (head, tail) = output.split_at_mut(cut * inner);
        gather.run(&input, &indices, cut..5 * outer, tail).map_err(|e| e.to_string())?;
        gather.run(&input, &indices, 0..cut, head).map_err(|e| e.to_string())?;
        equal("gather", "selected", &format!("{gather:?} of {indices:?}"), &reference, &output)?;
        for index in [length as i64, -1 - length as i64, i64::MIN, i64::MAX] {
            let result = gather.run(&input, &[index], 0..1, &mut output[..inner]);
            equal("gather", "selected", "an index outside", &[true], &[result.is_err()])?;
        }
        checked += 5;
    }
    Ok(checked)
}
