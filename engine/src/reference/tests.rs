//! What the standard's own suite does not ask: arithmetic at the ends of types, and inputs that fit no operator.

use super::array::{Array, Numbers};
use super::call::Call;
use super::{MACHINE_LEARNING, STANDARD, TRAINING, find, knows};
use crate::ElementType;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let i = values.first().copied().unwrap_or_default();
    AttributeProto { name: name.into(), ints: values.to_vec(), i, f: i as f32, ..AttributeProto::default() }
}

fn run(
    name: &str,
    attributes: Vec<AttributeProto>,
    inputs: &[Option<Array>],
    opset: i64,
) -> Result<Vec<Array>, String> {
    let output = vec!["a".into(), "b".into()];
    let node = NodeProto { op_type: name.into(), attribute: attributes, output, ..NodeProto::default() };
    let found = ["", "ai.onnx.ml", "ai.onnx.preview.training"].into_iter().find_map(|domain| find(domain, name));
    found.ok_or("no such operator")?(&Call { node: &node, opset, inputs })
}

/// The first output for integers of a type.
fn integers(name: &str, element_type: ElementType, inputs: &[&[i64]]) -> Vec<i64> {
    let array = |values: &&[i64]| Array::integers(element_type, vec![values.len()], values).ok();
    let inputs: Vec<_> = inputs.iter().map(array).collect();
    run(name, Vec::new(), &inputs, 20).unwrap()[0].i64s()
}

#[test]
fn tables_are_in_order_and_know_their_operators() {
    for table in [STANDARD, MACHINE_LEARNING, TRAINING] {
        assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
    assert!(knows("", "Loop") && knows("ai.onnx", "Add") && knows("ai.onnx.preview", "FlexAttention"));
    assert!(!knows("ai.onnx.ml", "Add") && !knows("", "Binarizer") && !knows("com.example", "Add"));
}

#[test]
fn integers_wrap_around_and_uint64_is_unsigned() {
    use ElementType::*;
    assert_eq!(integers("Add", Int8, &[&[127, -128], &[1, -1]]), [-128, 127]);
    assert_eq!(integers("Mul", Uint16, &[&[65535], &[65535]]), [1]);
    assert_eq!(integers("Div", Int64, &[&[i64::MIN, 7, -7], &[-1, 0, 2]]), [i64::MIN, 0, -3]);
    assert_eq!(integers("Div", Uint64, &[&[-1], &[2]]), [i64::MAX]);
    assert_eq!(integers("Max", Uint64, &[&[-1], &[2]]), [-1]);
    assert_eq!(integers("Less", Uint64, &[&[-1, 1], &[2, 2]]), [0, 1]);
    assert_eq!(integers("ReduceMax", Uint64, &[&[-1, 1]]), [-1]);
    assert_eq!(integers("ArgMin", Uint64, &[&[-1, 1]]), [1]);
    assert_eq!(integers("Mod", Int32, &[&[-7, 7, 5], &[3, -3, 0]]), [2, -2, 0]);
    assert_eq!(integers("Abs", Int8, &[&[-128]]), [-128]);
    assert_eq!(integers("Pow", Int32, &[&[2, -1, 3, 2], &[31, -3, -1, 40]]), [i32::MIN.into(), -1, 0, 0]);
}

#[test]
fn slices_take_any_bounds_and_steps() {
    let vector = |values: &[i64]| Some(Array::vector(values).unwrap());
    let x = vector(&[0, 1, 2, 3, 4]);
    for (start, end, step, expected) in [
        (i64::MIN, i64::MAX, i64::MAX, &[0][..]),
        (i64::MAX, i64::MIN, -1, &[4, 3, 2, 1, 0]),
        (-1, i64::MIN, i64::MIN, &[4]),
        (3, 1, 1, &[]),
        (1, -1, 2, &[1, 3]),
    ] {
        let inputs = [x.clone(), vector(&[start]), vector(&[end]), vector(&[0]), vector(&[step])];
        assert_eq!(run("Slice", Vec::new(), &inputs, 13).unwrap()[0].i64s(), expected, "{start}:{end}:{step}");
    }
    let zero = [x.clone(), vector(&[0]), vector(&[5]), vector(&[0]), vector(&[0])];
    assert!(run("Slice", Vec::new(), &zero, 13).is_err());
}

#[test]
fn what_is_too_large_is_refused_before_it_is_made() {
    let huge = Some(Array::vector(&[1 << 20, 1 << 20]).unwrap());
    for name in ["ConstantOfShape", "Expand"] {
        let x = Some(Array::floats(ElementType::Float32, Vec::new(), &[1.0]).unwrap());
        let inputs = if name == "Expand" { vec![x, huge.clone()] } else { vec![huge.clone()] };
        assert!(run(name, Vec::new(), &inputs, 13).unwrap_err().contains("elements"), "{name}");
    }
}

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { name: name.into(), floats: values.to_vec(), ..AttributeProto::default() }
}

fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    let s = values.first().map(|value| value.as_bytes().to_vec()).unwrap_or_default();
    AttributeProto { name: name.into(), strings, s, ..AttributeProto::default() }
}

/// Both outputs of a classifier for a table of two columns.
fn classify(name: &str, attributes: Vec<AttributeProto>, rows: &[f64]) -> (Vec<i64>, Vec<f64>) {
    let x = Array::floats(ElementType::Float32, vec![rows.len() / 2, 2], rows).unwrap();
    let outputs = run(name, attributes, &[Some(x)], 1).unwrap();
    (outputs[0].i64s(), outputs[1].f64s())
}

/// Two trees: the first asks whether x0 <= 1 and then, where it is not, whether x1 < 5; the second is a leaf alone.
fn forest(weights: &[f32], classes: &[i64], labels: &[i64]) -> Vec<AttributeProto> {
    let modes = ["BRANCH_LEQ", "LEAF", "BRANCH_LT", "LEAF", "LEAF", "LEAF"];
    vec![
        ints("nodes_treeids", &[0, 0, 0, 0, 0, 7]),
        ints("nodes_nodeids", &[0, 1, 2, 3, 4, 0]),
        ints("nodes_featureids", &[0, 0, 1, 0, 0, 0]),
        ints("nodes_truenodeids", &[1, 0, 3, 0, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 4, 0, 0, 0]),
        ints("nodes_missing_value_tracks_true", &[1, 0, 0, 0, 0, 0]),
        floats("nodes_values", &[1.0, 0.0, 5.0, 0.0, 0.0, 0.0]),
        texts("nodes_modes", &modes),
        ints("class_treeids", &[0, 0, 0, 7]),
        ints("class_nodeids", &[1, 3, 4, 0]),
        ints("class_ids", classes),
        floats("class_weights", weights),
        ints("classlabels_int64s", labels),
    ]
}

#[test]
fn trees_vote() {
    let rows = [1.0, 9.0, 1.5, 4.0, 1.5, 5.0, f64::NAN, 0.0];
    let (labels, scores) =
        classify("TreeEnsembleClassifier", forest(&[1.0, 1.0, 1.0, 0.5], &[0, 1, 2, 2], &[10, 20, 30]), &rows);
    assert_eq!(labels, [10, 20, 30, 10]);
    assert_eq!(scores, [1.0, 0.0, 0.5, 0.0, 1.0, 0.5, 0.0, 0.0, 1.5, 1.0, 0.0, 0.5]);
    // One score tells two classes apart: by its sign, with a sigmoid of both.
    let mut attributes = forest(&[-2.0, 1.0, 3.0, 0.5], &[0, 0, 0, 0], &[4, 5]);
    attributes.push(texts("post_transform", &["LOGISTIC"]));
    let (labels, scores) = classify("TreeEnsembleClassifier", attributes, &rows);
    assert_eq!(labels, [4, 5, 5, 4]);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (row, score) in [-1.5, 1.5, 3.5, -1.5].into_iter().enumerate() {
        assert!(
            (scores[2 * row] - sigmoid(-score)).abs() < 1e-7 && (scores[2 * row + 1] - sigmoid(score)).abs() < 1e-7
        );
    }
    // A node that follows itself is no tree.
    let mut endless = forest(&[1.0; 4], &[0; 4], &[4, 5]);
    endless[4] = ints("nodes_falsenodeids", &[2, 0, 2, 0, 0, 0]);
    let x = Array::floats(ElementType::Float32, vec![1, 2], &[2.0, 9.0]).ok();
    assert_eq!(run("TreeEnsembleClassifier", endless, &[x], 1).unwrap_err(), "a tree has a cycle");
}

#[test]
fn linear_models_and_scalers() {
    let labels = ints("classlabels_ints", &[3, 8]);
    let weights = vec![floats("coefficients", &[1.0, -1.0]), floats("intercepts", &[0.5]), labels];
    let (found, scores) = classify("LinearClassifier", weights, &[1.0, 1.0, 0.0, 1.0]);
    assert_eq!((found, scores), (vec![8, 3], vec![-0.5, 0.5, 0.5, -0.5]));
    let x = Array::floats(ElementType::Float32, vec![1, 2], &[3.0, -4.0]).ok();
    let scaled =
        run("Scaler", vec![floats("offset", &[1.0, 0.0]), floats("scale", &[2.0])], std::slice::from_ref(&x), 1)
            .unwrap();
    assert_eq!(scaled[0].f64s(), [4.0, -8.0]);
    for (norm, expected) in [("L1", [3.0 / 7.0, -4.0 / 7.0]), ("L2", [0.6, -0.8]), ("MAX", [0.75, -1.0])] {
        let normal = run("Normalizer", vec![texts("norm", &[norm])], std::slice::from_ref(&x), 1).unwrap()[0].f64s();
        assert!(normal.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-7), "{norm}: {normal:?}");
    }
}

/// A generator of numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // xorshift64 by Marsaglia.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn number(&mut self) -> i64 {
        const NUMBERS: [i64; 16] = [0, 1, 2, 3, 4, 7, 1, 2, 0, 1, -1, -2, 1000, i64::MAX, i64::MIN, 1 << 31];
        NUMBERS[self.below(NUMBERS.len())]
    }

    fn array(&mut self) -> Array {
        use ElementType::*;
        const TYPES: [ElementType; 12] =
            [Float32, Int64, Float32, Int64, Float64, Float16, Uint8, Int8, Int32, Uint64, Bool, Uint16];
        let shape: Vec<usize> = (0..self.below(6)).map(|_| [1, 2, 3, 4, 2, 0][self.below(6)]).collect();
        let count = shape.iter().product();
        let values: Vec<i64> = (0..count).map(|_| self.number()).collect();
        let element_type = TYPES[self.below(TYPES.len())];
        Array::from_numbers(element_type, shape, &Numbers::Integers(values)).unwrap()
    }

    fn attribute(&mut self, name: &str) -> AttributeProto {
        let count = self.below(5);
        let values: Vec<i64> = (0..count).map(|_| self.number()).collect();
        let mut attribute = ints(name, &values);
        attribute.floats = values.iter().map(|value| *value as f32).collect();
        const TEXTS: [&str; 14] = [
            "none",
            "add",
            "max",
            "linear",
            "cubic",
            "reflect",
            "edge",
            "SAME_UPPER",
            "VALID",
            "ab,bc->ac",
            "...a->a",
            "bidirectional",
            "circular",
            "tf_crop_and_resize",
        ];
        attribute.s = TEXTS[self.below(TEXTS.len())].into();
        let array = self.array();
        attribute.t = Some(TensorProto {
            dims: array.shape.iter().map(|size| *size as i64).collect(),
            data_type: array.element_type.to_onnx(),
            raw_data: array.bytes().to_vec(),
            ..TensorProto::default()
        });
        attribute
    }
}

/// Attributes that operators have, of all operators.
const ATTRIBUTES: &str = "axis axes keepdims perm shape pads strides dilations kernel_shape group mode auto_pad ceil_mode \
    count_include_pad p storage_order alpha beta gamma epsilon num_groups scale q_num_heads kv_num_heads is_causal softcap \
    qk_matmul_output_mode reduction batch_dims blocksize block_size k largest sorted upper num_outputs split starts ends \
    equation fmod direction to dtype value value_ints size hidden_size layout activations clip input_forget \
    linear_before_reset output_height output_width sampling_ratio onesided inverse output_datatype periodic \
    training_mode transA transB noop_with_empty_axes exclusive reverse select_last_index allowzero ignore_index \
    output_shape output_padding offset_group antialias keep_aspect_ratio_policy coordinate_transformation_mode \
    exclude_outside align_corners padding_mode center_point_box interleaved num_heads rotary_embedding_dim time_axis \
    batch_axis stash_type pool_int64s ngram_counts ngram_indexes min_gram_length max_gram_length max_skip_count \
    nodes_splits nodes_modes leaf_weights nodes_featureids leaf_targetids nodes_truenodeids nodes_falsenodeids \
    nodes_trueleafs nodes_falseleafs tree_roots n_targets aggregate_function membership_values depth output_dtype";

/// Nothing that a file or a request can hold makes an operator panic.
#[test]
fn no_operator_panics_whatever_it_is_given() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let attributes: Vec<&str> = ATTRIBUTES.split_whitespace().collect();
    let (mut done, mut panicked) = (0, Vec::new());
    for (name, _) in STANDARD.iter().chain(MACHINE_LEARNING).chain(TRAINING) {
        for _ in 0..ROUNDS {
            let count = random.below(8);
            let mut inputs: Vec<Option<Array>> = (0..count).map(|_| Some(random.array())).collect();
            // Shapes that go together come up more often when inputs are alike.
            if count > 1 && random.below(2) == 0 {
                inputs[1] = inputs[0].clone();
            }
            if count > 0 && random.below(4) == 0 {
                let at = random.below(count);
                inputs[at] = None;
            }
            let mut given = Vec::new();
            for _ in 0..random.below(20) {
                let name = attributes[random.below(attributes.len())];
                given.push(random.attribute(name));
            }
            let opset = [1, 8, 13, 20, 24][random.below(5)];
            match catch_unwind(AssertUnwindSafe(|| run(name, given, &inputs, opset))) {
                Ok(result) => done += usize::from(result.is_ok()),
                Err(_) if panicked.last() == Some(name) => {}
                Err(_) => panicked.push(*name),
            }
        }
    }
    assert!(panicked.is_empty(), "{panicked:?}");
    // Many fit by chance, so that not only the checks at the beginning are tried.
    assert!(done > STANDARD.len() * ROUNDS / 20, "{done}");
}

/// Inputs that each operator is tried with.
const ROUNDS: usize = 40;
