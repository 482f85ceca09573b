//! Runs an operator by itself, for the tests beside the operators.

use super::{Call, Operator, Shapes};

/// A fixed sequence of numbers from -1 to 1.
pub fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A fixed sequence of bytes.
pub fn bytes(seed: u32, count: usize) -> Vec<u8> {
    numbers(seed, count).into_iter().map(|number| ((number + 1.0) * 128.0) as u8).collect()
}

/// The bytes of the output, with all units in one call and then unit by unit, which must not differ.
pub fn run(operator: &dyn Operator, inputs: &[(&[usize], &[u8])], output: &[usize], element_bytes: usize) -> Vec<u8> {
    let shapes = Shapes {
        inputs: inputs.iter().map(|(shape, _)| shape.to_vec()).collect(),
        output: output.to_vec(),
        parameters: vec![],
    };
    let inputs: Vec<&[u8]> = inputs.iter().map(|(_, bytes)| *bytes).collect();
    let units = operator.units(&shapes);
    // Every result and every value of the scratch has to be written before it is read.
    let mut scratch = vec![u64::MAX; operator.scratch_bytes(&shapes).div_ceil(8)];
    let mut run = |parts: Vec<std::ops::Range<usize>>| {
        let mut output = vec![u64::MAX; (shapes.output_elements() * element_bytes).div_ceil(8)];
        for units in parts {
            let bytes = &mut bytemuck::cast_slice_mut(&mut output)[..shapes.output_elements() * element_bytes];
            let scratch = bytemuck::cast_slice_mut(&mut scratch);
            operator.run(Call { shapes: &shapes, inputs: &inputs, output: bytes, scratch, units }).unwrap();
        }
        bytemuck::cast_slice(&output)[..shapes.output_elements() * element_bytes].to_vec()
    };
    #[allow(clippy::single_range_in_vec_init)]
    let whole = run(vec![0..units]);
    assert_eq!(run((0..units).map(|unit| unit..unit + 1).collect()), whole, "unit by unit");
    whole
}

/// Checks that the first rows of a product have the same bits when 1, 2, 7 or 64 rows are computed, and gives the 64.
/// `row` is a row's shape in the input, `n` its length in the output.
pub fn run_rows(operator: &dyn Operator, x: &[u8], x_row_bytes: usize, k: usize, n: usize, extra: &[u8]) -> Vec<u8> {
    let run = |m: usize| {
        let extra_shape = [extra.len()];
        let mut inputs: Vec<(&[usize], &[u8])> = vec![];
        let shape = [m, k];
        inputs.push((&shape, &x[..m * x_row_bytes]));
        if !extra.is_empty() {
            inputs.push((&extra_shape, extra));
        }
        run(operator, &inputs, &[m, n], 4)
    };
    let all = run(64);
    for m in [1, 2, 7] {
        assert_eq!(run(m), all[..m * 4 * n], "{m} rows");
    }
    all
}
