//! 3x3 convolutions of enough channels, which are done by Winograd's algorithm.

mod common;

use common::*;
use onnx_engine::{Meter, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::GraphProto;

const CHANNELS: usize = 17;
const FILTERS: usize = 22;
const BATCH: usize = 2;

/// A convolution with padding, a bias, a sum with another input and Relu, on images whose last row and column of tiles
/// reach beyond them or not.
fn graph([height, width]: [usize; 2], has_residual: bool) -> GraphProto {
    let size = |channels: usize| [BATCH, channels, height, width].map(|size| size as i64);
    let mut nodes =
        vec![node("Conv", &["x", "w", "b"], &["conv"]).ints("pads", &[1, 1, 1, 1]).ints("kernel_shape", &[3, 3])];
    let mut inputs = vec![fixed("x", &size(CHANNELS))];
    if has_residual {
        nodes.push(node("Add", &["conv", "residual"], &["sum"]));
        inputs.push(fixed("residual", &size(FILTERS)));
    }
    nodes.push(node("Relu", &[if has_residual { "sum" } else { "conv" }], &["y"]));
    GraphProto {
        name: "convolution".into(),
        node: nodes,
        initializer: vec![
            tensor("w", &[FILTERS as i64, CHANNELS as i64, 3, 3], &numbers(1, FILTERS * CHANNELS * 9)),
            tensor("b", &[FILTERS as i64], &numbers(2, FILTERS)),
        ],
        input: inputs,
        output: vec![fixed("y", &size(FILTERS))],
        ..GraphProto::default()
    }
}

fn inputs([height, width]: [usize; 2], has_residual: bool) -> Vec<(String, Tensor)> {
    let input = |name: &str, seed: u32, channels: usize| {
        let shape = [BATCH, channels, height, width];
        let values = numbers(seed, shape.iter().product());
        (name.to_string(), f32_input(&shape.map(|size| size as u64), &values))
    };
    let residual = has_residual.then(|| input("residual", 4, FILTERS));
    [input("x", 3, CHANNELS)].into_iter().chain(residual).collect()
}

/// The definition, in float64.
fn expected([height, width]: [usize; 2], has_residual: bool) -> Vec<f64> {
    let (weights, bias) = (numbers(1, FILTERS * CHANNELS * 9), numbers(2, FILTERS));
    let inputs: Vec<Vec<f32>> =
        inputs([height, width], has_residual).into_iter().map(|(_, tensor)| tensor.to_f32().unwrap()).collect();
    let mut output = Vec::new();
    for image in 0..BATCH {
        for filter in 0..FILTERS {
            for row in 0..height {
                for column in 0..width {
                    let mut sum = f64::from(bias[filter]);
                    for channel in 0..CHANNELS {
                        for tap in 0..9 {
                            let (y, x) = ((row + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1));
                            if y < height && x < width {
                                let value = inputs[0][((image * CHANNELS + channel) * height + y) * width + x];
                                sum += f64::from(value) * f64::from(weights[(filter * CHANNELS + channel) * 9 + tap]);
                            }
                        }
                    }
                    if has_residual {
                        sum += f64::from(inputs[1][output.len()]);
                    }
                    output.push(sum.max(0.0));
                }
            }
        }
    }
    output
}

fn run(plan: &Arc<Plan>, inputs: Vec<(String, Tensor)>, meter: &dyn Meter, limit: u64) -> (Vec<f32>, u32) {
    let mut session = Session::new(plan.clone(), inputs, None).unwrap();
    let mut pauses = 0;
    while let Step::Paused { .. } = session.step(meter, limit).unwrap() {
        pauses += 1;
    }
    (session.into_outputs().unwrap().remove(0).1.to_f32().unwrap(), pauses)
}

#[test]
fn it_is_a_convolution_whose_bits_do_not_depend_on_pauses() {
    for size in [[6, 6], [9, 7], [13, 16], [28, 27]] {
        for has_residual in [false, true] {
            let plan = load(files(graph(size, has_residual))).unwrap();
            // The filter takes 16 values for each 9 weights.
            let (whole, _) = run(&plan, inputs(size, has_residual), &Free, u64::MAX);
            let expected = expected(size, has_residual);
            let largest = expected.iter().fold(0f64, |largest, value| largest.max(*value));
            for (index, (value, expected)) in whole.iter().zip(&expected).enumerate() {
                let error = (f64::from(*value) - expected).abs() / largest;
                assert!(error < 2e-6, "{size:?}: value {index} is {value}, not {expected}");
            }
            let (paused, pauses) = run(&plan, inputs(size, has_residual), &CountingMeter::new(1), 1);
            assert!(pauses > 0, "{size:?}");
            assert_eq!(paused, whole, "{size:?} with {pauses} pauses");
        }
    }
}
