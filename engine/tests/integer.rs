//! Graphs with 8-bit and 4-bit weights, against the definitions of their operators.

mod common;

use common::*;
use onnx_engine::{ElementType, LoadOptions, Loader, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT32: i32 = 6;

/// A fixed sequence of bytes.
fn bytes(seed: u32, count: usize) -> Vec<u8> {
    numbers(seed, count).into_iter().map(|number| ((number + 1.0) * 128.0) as u8).collect()
}

fn raw(name: &str, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type, raw_data, ..TensorProto::default() }
}

fn i32s(name: &str, values: &[i32]) -> TensorProto {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    raw(name, INT32, &[values.len() as i64], bytes)
}

/// A graph of one input and one output, both with a free first dimension.
fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>, x: (i32, &[i64]), y: (i32, &[i64])) -> GraphProto {
    let sizes = |rest: &[i64]| -> Vec<Size> {
        std::iter::once(Size::Named("N")).chain(rest.iter().map(|size| Size::Fixed(*size))).collect()
    };
    GraphProto {
        name: "integers".into(),
        node,
        initializer,
        input: vec![value("x", x.0, &sizes(x.1))],
        output: vec![value("y", y.0, &sizes(y.1))],
        ..GraphProto::default()
    }
}

fn load_with(graph: GraphProto, options: LoadOptions) -> Arc<Plan> {
    let mut loader = Loader::new(Box::new(files(graph)), options).unwrap();
    while loader.step(&Free, u64::MAX).unwrap() != Step::Done {}
    loader.finish().unwrap()
}

fn run(plan: &Arc<Plan>, x: Tensor) -> Vec<u8> {
    let mut session = Session::new(plan.clone(), vec![("x".into(), x)], None).unwrap();
    while session.step(&Free, u64::MAX).unwrap() != Step::Done {}
    session.into_outputs().unwrap()[0].1.bytes().to_vec()
}

fn operators(plan: &Arc<Plan>, x: Tensor) -> Vec<String> {
    let mut session = Session::new(plan.clone(), vec![("x".into(), x)], None).unwrap();
    while session.step(&Free, u64::MAX).unwrap() != Step::Done {}
    session.profile().into_iter().map(|node| node.operator).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn u8_input(shape: &[u64], values: &[u8]) -> Tensor {
    Tensor::from_bytes(ElementType::Uint8, shape, values).unwrap()
}

#[test]
fn integer_products_are_exact() {
    let (m, k, n) = (9, 70, 33);
    let (x, w, zero_points) = (bytes(1, m * k), bytes(2, k * n), bytes(3, n));
    let plan = load(files(graph(
        vec![node("MatMulInteger", &["x", "w", "xz", "wz"], &["y"])],
        vec![
            raw("w", UINT8, &[k as i64, n as i64], w.clone()),
            raw("xz", UINT8, &[], vec![117]),
            raw("wz", UINT8, &[n as i64], zero_points.clone()),
        ],
        (UINT8, &[k as i64]),
        (INT32, &[n as i64]),
    )))
    .unwrap();
    assert!(plan.is_native());
    let got = run(&plan, u8_input(&[m as u64, k as u64], &x));
    for (at, got) in got.as_chunks().0.iter().enumerate() {
        let product = |index: usize| {
            let x = i32::from(x[at / n * k + index]) - 117;
            x * (i32::from(w[index * n + at % n]) - i32::from(zero_points[at % n]))
        };
        assert_eq!(i32::from_le_bytes(*got), (0..k).map(product).sum::<i32>());
    }
}

#[test]
fn dynamically_quantised_products_follow_the_standard() {
    let (m, k, n) = (5, 48, 20);
    let (x, w) = (numbers(1, m * k), bytes(2, k * n));
    let plan = load(files(graph(
        vec![
            node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
            node("MatMulInteger", &["q", "w", "z"], &["sums"]),
            node("Cast", &["sums"], &["floats"]).int("to", FLOAT.into()),
            node("Mul", &["s", "ws"], &["scale"]),
            node("Mul", &["floats", "scale"], &["y"]),
        ],
        vec![raw("w", INT8, &[k as i64, n as i64], w.clone()), tensor("ws", &[1], &[0.03])],
        (FLOAT, &[k as i64]),
        (FLOAT, &[n as i64]),
    )))
    .unwrap();
    assert!(plan.is_native());
    let got = f32s(&run(&plan, f32_input(&[m as u64, k as u64], &x)));
    let (least, largest) = x.iter().fold((0f32, 0f32), |(least, largest), x| (least.min(*x), largest.max(*x)));
    let scale = (largest - least) / 255.0;
    let zero_point = (-least / scale).round_ties_even();
    let quantised = |x: f32| (x / scale).round_ties_even().clamp(-zero_point, 255.0 - zero_point) as i32;
    for (at, got) in got.iter().enumerate() {
        let product = |index: usize| quantised(x[at / n * k + index]) * i32::from(w[index * n + at % n] as i8);
        assert_eq!(*got, (0..k).map(product).sum::<i32>() as f32 * (scale * 0.03));
    }
}

#[test]
fn quantised_products_and_convolutions_are_exact() {
    let (m, k, n) = (7, 24, 11);
    let (x, w, scales) = (bytes(1, m * k), bytes(2, k * n), numbers(3, n));
    let scales: Vec<f32> = scales.iter().map(|scale| scale.abs() * 0.01 + 0.001).collect();
    let bias: Vec<i32> = bytes(4, n).iter().map(|byte| i32::from(*byte) * 4_000_001 - 500_000_000).collect();
    let grids = || {
        vec![
            tensor("xs", &[], &[0.02]),
            raw("xz", UINT8, &[], vec![120]),
            tensor("ws", &[n as i64], &scales),
            raw("wz", INT8, &[n as i64], vec![0; n]),
            tensor("ys", &[], &[0.07]),
            raw("yz", UINT8, &[], vec![101]),
        ]
    };
    let expected = |row: usize, column: usize, weight: &dyn Fn(usize) -> u8, bias: i32| {
        let product = |index: usize| (i32::from(x[row * k + index]) - 120) * i32::from(weight(index) as i8);
        let sum = (0..k).map(product).sum::<i32>().wrapping_add(bias);
        let multiplier = 0.02 * scales[column] / 0.07;
        ((sum as f32 * multiplier).round_ties_even() as i32).saturating_add(101).clamp(0, 255) as u8
    };
    let inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"];
    let mut initializer = grids();
    initializer.push(raw("w", INT8, &[k as i64, n as i64], w.clone()));
    let product =
        graph(vec![node("QLinearMatMul", &inputs, &["y"])], initializer, (UINT8, &[k as i64]), (UINT8, &[n as i64]));
    let plan = load(files(product)).unwrap();
    let x_of_rows = || u8_input(&[m as u64, k as u64], &x);
    assert!(plan.is_native() && operators(&plan, x_of_rows()).contains(&"QLinearMatMul".to_string()));
    for (at, got) in run(&plan, x_of_rows()).into_iter().enumerate() {
        assert_eq!(got, expected(at / n, at % n, &|index| w[index * n + at % n], 0), "product {at}");
    }
    // A convolution of one pixel each, whose bias has more bits than a float32.
    let mut initializer = grids();
    initializer.extend([raw("w", INT8, &[n as i64, k as i64, 1, 1], w.clone()), i32s("b", &bias)]);
    let inputs = [&inputs[..], &["b"]].concat();
    let nodes = vec![node("QLinearConv", &inputs, &["y"])];
    let plan = load(files(graph(nodes, initializer, (UINT8, &[k as i64, 1, 1]), (UINT8, &[n as i64, 1, 1])))).unwrap();
    let x_of_images = || u8_input(&[m as u64, k as u64, 1, 1], &x);
    assert!(operators(&plan, x_of_images()).contains(&"QLinearConv".to_string()));
    for (at, got) in run(&plan, x_of_images()).into_iter().enumerate() {
        let weight = |index: usize| w[at % n * k + index];
        assert_eq!(got, expected(at / n, at % n, &weight, bias[at % n]), "convolution {at}");
    }
}

/// A convolution of `[2, 3, 6, 5]` by 3 x 3 with padding, of integers.
#[test]
fn integer_convolutions_are_exact() {
    let (channels, n, height, width) = (3, 4, 6, 5);
    let (x, w) = (bytes(1, 2 * channels * height * width), bytes(2, n * channels * 9));
    let plan = load(files(graph(
        vec![node("ConvInteger", &["x", "w", "xz", "wz"], &["y"]).ints("pads", &[1, 1, 1, 1])],
        vec![
            raw("w", UINT8, &[n as i64, channels as i64, 3, 3], w.clone()),
            raw("xz", UINT8, &[], vec![90]),
            raw("wz", UINT8, &[], vec![131]),
        ],
        (UINT8, &[channels as i64, height as i64, width as i64]),
        (INT32, &[n as i64, height as i64, width as i64]),
    )))
    .unwrap();
    assert!(plan.is_native());
    let got = run(&plan, u8_input(&[2, channels as u64, height as u64, width as u64], &x));
    for (at, got) in got.as_chunks().0.iter().enumerate() {
        let (column, row) = (at % width, at / width % height);
        let (out, image) = (at / width / height % n, at / width / height / n);
        let mut sum = 0;
        for (channel, tap) in (0..channels).flat_map(|channel| (0..9).map(move |tap| (channel, tap))) {
            let (from_row, from_column) = ((row + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1));
            if from_row < height && from_column < width {
                let x = x[((image * channels + channel) * height + from_row) * width + from_column];
                let w = w[(out * channels + channel) * 9 + tap];
                sum += (i32::from(x) - 90) * (i32::from(w) - 131);
            }
        }
        assert_eq!(i32::from_le_bytes(*got), sum);
    }
}

/// Int8 weights of all the forms that files give them, and what the float weights they stand for give.
#[test]
fn int8_weights_with_scales_stay_int8() {
    // Smaller tensors are constants of the graph and worked out before anything is lowered.
    let (m, k, n) = (6, 320, 60);
    let (x, w) = (numbers(1, m * k), bytes(2, k * n));
    let scales: Vec<f32> = numbers(3, n).iter().map(|scale| scale.abs() * 0.01 + 0.001).collect();
    let transposed: Vec<u8> = (0..n * k).map(|at| w[at % k * n + at / k]).collect();
    let (k_size, n_size) = (k as i64, n as i64);
    let forms: [(&str, Vec<NodeProto>, Vec<TensorProto>); 3] = [
        (
            "a cast times scales",
            vec![
                node("Cast", &["w"], &["wf"]).int("to", FLOAT.into()),
                node("Mul", &["wf", "s"], &["ws"]),
                node("MatMul", &["x", "ws"], &["y"]),
            ],
            vec![raw("w", INT8, &[k_size, n_size], w.clone()), tensor("s", &[1, n_size], &scales)],
        ),
        (
            "a cast times scales, transposed",
            vec![
                node("Cast", &["w"], &["wf"]).int("to", FLOAT.into()),
                node("Mul", &["s", "wf"], &["ws"]),
                node("Transpose", &["ws"], &["wt"]).ints("perm", &[1, 0]),
                node("MatMul", &["x", "wt"], &["y"]),
            ],
            vec![raw("w", INT8, &[n_size, k_size], transposed.clone()), tensor("s", &[n_size, 1], &scales)],
        ),
        (
            "DequantizeLinear",
            vec![
                node("DequantizeLinear", &["w", "s"], &["ws"]).int("axis", 0),
                node("Gemm", &["x", "ws"], &["y"]).int("transB", 1),
            ],
            vec![raw("w", INT8, &[n_size, k_size], transposed), tensor("s", &[n_size], &scales)],
        ),
    ];
    let mut results = Vec::new();
    for (form, nodes, initializer) in forms {
        let plan = load(files(graph(nodes, initializer, (FLOAT, &[k_size]), (FLOAT, &[n_size])))).unwrap();
        let x_of_rows = || f32_input(&[m as u64, k as u64], &x);
        assert_eq!(operators(&plan, x_of_rows()), ["MatMul (int8 weights)"], "{form}");
        results.push(f32s(&run(&plan, x_of_rows())));
    }
    assert!(results[0] == results[1] && results[0] == results[2]);
    for (at, got) in results[0].iter().enumerate() {
        let product = |index: usize| {
            f64::from(x[at / n * k + index]) * f64::from(w[index * n + at % n] as i8) * f64::from(scales[at % n])
        };
        let expected: f64 = (0..k).map(product).sum();
        assert!((f64::from(*got) - expected).abs() < 5e-3, "{got} for {expected}");
    }
}

#[test]
fn float_weights_are_quantised_when_that_is_asked_for() {
    let options = LoadOptions { quantize_int8: true, ..LoadOptions::default() };
    let plan = load_with(cnn_graph(Size::Named("N")), options);
    let image = numbers(7, 2 * 64);
    let input = || ("image".to_string(), f32_input(&[1, 2, 8, 8], &image));
    let mut session = Session::new(plan.clone(), vec![input()], None).unwrap();
    while session.step(&Free, u64::MAX).unwrap() != Step::Done {}
    let operators: Vec<String> = session.profile().into_iter().map(|node| node.operator).collect();
    for operator in ["Conv (int8 weights)", "MatMul (int8 weights)"] {
        assert!(operators.contains(&operator.to_string()), "{operators:?}");
    }
    let outputs = session.into_outputs().unwrap();
    let logits = f32s(outputs.iter().find(|(name, _)| name == "logits").unwrap().1.bytes());
    let expected = cnn_logits(&image);
    let largest = expected.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    for (got, expected) in logits.iter().zip(expected) {
        let difference = (f64::from(*got) - expected).abs();
        assert!(difference < 0.02 * largest, "{got} for {expected}");
    }
}

/// An embedding in blocks that is the output layer too: its bytes are picked by rows and packed for the product.
#[test]
fn weights_in_blocks_can_be_gathered_too() {
    let (k, n, m) = (64, 40, 3);
    let (x, w) = (numbers(1, m * k), bytes(2, n * k / 2));
    let scales: Vec<f32> = numbers(3, n * k / 32).iter().map(|scale| scale * 0.01).collect();
    let places = |stored: &str| {
        vec![
            node("Cast", &["x"], &["rows"]).int("to", INT64.into()),
            node("Gather", &[stored, "rows"], &["picked"]),
            node("Cast", &["picked"], &["numbers"]).int("to", FLOAT.into()),
            node("ReduceSum", &["numbers", "axes"], &["sums"]).int("keepdims", 0),
        ]
    };
    let product = |stored: &str| {
        let mut product = node("MatMulNBits", &["x", stored, "scales"], &["product"])
            .int("K", k as i64)
            .int("N", n as i64)
            .int("bits", 4)
            .int("block_size", 32);
        product.domain = "com.microsoft".into();
        product
    };
    let sum = node("Add", &["product", "sum"], &["y"]);
    let all_sums = node("ReduceSum", &["sums", "axis"], &["sum"]).int("keepdims", 1);
    let weights = || {
        vec![
            raw("w", UINT8, &[n as i64, k as i64 / 32, 16], w.clone()),
            tensor("scales", &[n as i64, k as i64 / 32], &scales),
            ints("axes", &[2], &[2, 3]),
            ints("axis", &[1], &[1]),
        ]
    };
    // As it is stored, and computed from what is stored.
    let turned = vec![
        node("Transpose", &["w"], &["turned"]).ints("perm", &[1, 0, 2]),
        node("Transpose", &["turned"], &["same"]).ints("perm", &[1, 0, 2]),
    ];
    let x_of_rows = || f32_input(&[m as u64, k as u64], &x);
    let mut results = Vec::new();
    for (stored, before) in [("w", Vec::new()), ("same", turned)] {
        let nodes = [before, places(stored), vec![all_sums.clone(), product(stored), sum.clone()]].concat();
        let plan = load(files(graph(nodes, weights(), (FLOAT, &[k as i64]), (FLOAT, &[n as i64])))).unwrap();
        assert!(plan.is_native());
        results.push(f32s(&run(&plan, x_of_rows())));
    }
    assert_eq!(results[0], results[1]);
    for (at, got) in results[0].iter().enumerate() {
        let (row, column) = (at / n, at % n);
        let of_row = |row: i64| &w[row as usize * k / 2..(row as usize + 1) * k / 2];
        let quant = |index: usize| i32::from(of_row(column as i64)[index / 2] >> (index % 2 * 4) & 15) - 8;
        let weight = |index: usize| f64::from(quant(index)) * f64::from(scales[column * k / 32 + index / 32]);
        let product: f64 = (0..k).map(|index| f64::from(x[row * k + index]) * weight(index)).sum();
        // All of x is from -1 to 1: rows 0, as it is cut off.
        let sums: i64 = (0..k).map(|_| of_row(0).iter().map(|byte| i64::from(*byte)).sum::<i64>()).sum();
        let expected = product + sums as f64;
        assert!((f64::from(*got) - expected).abs() < 1e-6 * expected.abs().max(1.0), "{got} for {expected}");
    }
}
