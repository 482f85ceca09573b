//! Loading: pauses, every place a weight can be in, and files that are not what they should be.

mod common;

use common::*;
use onnx_engine::{ByteSource, ModelFiles};
use onnx_engine::{
    EngineError, FreeDimensions, LoadOptions, Loader, Plan, READ_BYTES_MAX, ReadError, Session, Step, Tensor,
};
use prost::Message;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto};

fn logits(plan: &Arc<Plan>) -> Tensor {
    let input = f32_input(&[1, 2, 8, 8], &numbers(9, 128));
    let outputs = Some(vec!["logits".to_string()]);
    let mut session = Session::new(plan.clone(), vec![("image".into(), input)], outputs).unwrap();
    assert_eq!(session.step(&Free, u64::MAX).unwrap(), Step::Done);
    session.into_outputs().unwrap().remove(0).1
}

fn expected() -> Tensor {
    logits(&load(files(cnn_graph(Size::Fixed(1)))).unwrap())
}

fn initializer<'a>(graph: &'a mut GraphProto, name: &str) -> &'a mut TensorProto {
    graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

/// Loads with a pause after each piece of work, and checks what it tells of its progress.
fn load_in_steps(files: Files) -> (Arc<Plan>, u32) {
    let mut loader = Loader::new(Box::new(files), LoadOptions::default()).unwrap();
    let (mut steps, mut alones, mut last) = (0, 0, 0.0);
    loop {
        let alone = loader.next_phase_is_indivisible();
        let step = loader.step(&CountingMeter::new(1), 0).unwrap();
        steps += 1;
        let Step::Paused { done, total } = step else { break };
        assert!(done <= total);
        let part = done as f64 / total as f64;
        assert!(part >= last, "progress fell from {last} to {part}");
        // With the first of these phases the size of external weights becomes known; the bar may wait for it.
        assert!(!alone || alones == 0 || part > last, "a phase passed unnoticed");
        alones += u32::from(alone);
        last = part;
    }
    (loader.finish().unwrap(), steps)
}

#[test]
fn pauses_change_nothing() {
    let (plan, steps) = load_in_steps(files(cnn_graph(Size::Fixed(1))));
    assert!(steps > 6, "{steps} steps");
    assert_eq!(logits(&plan), expected());
}

#[test]
fn phases_that_can_not_pause_come_alone() {
    let mut loader = Loader::new(Box::new(files(cnn_graph(Size::Fixed(1)))), LoadOptions::default()).unwrap();
    let (mut alone, mut calls) = (0, 0);
    // With a budget that such a phase may not fit, a call ends before it and after it.
    loop {
        alone += u32::from(loader.next_phase_is_alone(0, 1_000));
        assert_eq!(loader.next_phase_is_alone(0, 1_000), loader.next_phase_is_indivisible());
        assert!(!loader.next_phase_is_alone(0, 1 << 40), "a graph of a few hundred bytes fits");
        if loader.step(&Free, 1_000).unwrap() == Step::Done {
            break;
        }
        calls += 1;
    }
    // The walk and the weights are a call each.
    assert_eq!(calls, alone + 1);
    assert_eq!(alone, 2);
}

#[test]
fn an_unfinished_loader_has_no_plan() {
    let mut loader = Loader::new(Box::new(files(cnn_graph(Size::Fixed(1)))), LoadOptions::default()).unwrap();
    loader.step(&Free, u64::MAX).unwrap();
    assert!(matches!(loader.finish(), Err(EngineError::NotDone { .. })));
}

#[test]
fn weights_are_found_wherever_the_format_allows() {
    let expected = expected();
    let check = |case: &str, files: Files| {
        let plan = load(files.clone()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(logits(&plan), expected, "{case}");
        assert_eq!(logits(&load_in_steps(files).0), expected, "{case}, in steps");
    };

    let mut graph = cnn_graph(Size::Fixed(1));
    for tensor in &mut graph.initializer {
        tensor.float_data = tensor.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        tensor.raw_data = Vec::new();
    }
    check("float_data", files(graph));

    let mut graph = cnn_graph(Size::Fixed(1));
    let mut external_files = std::collections::BTreeMap::new();
    for (index, tensor) in graph.initializer.iter_mut().enumerate() {
        let location = format!("weights/{index}.bin");
        let (moved, file) = external(tensor.clone(), &location, index * 7);
        *tensor = moved;
        external_files.insert(location, file);
    }
    check("external", Files { onnx: encode(graph), external: external_files });

    let mut graph = cnn_graph(Size::Fixed(1));
    for tensor in std::mem::take(&mut graph.initializer).into_iter().rev() {
        let name = tensor.name.clone();
        graph.node.insert(0, node("Constant", &[], &[&name]).tensor("value", tensor));
    }
    check("Constant nodes", files(graph));

    // Initializers listed as inputs, as before IR version 4: they are still no inputs to give.
    let mut graph = cnn_graph(Size::Fixed(1));
    graph.input.insert(0, fixed("gemm_w", &[10, 128]));
    graph.input.push(fixed("conv_b", &[8]));
    check("initializers among the inputs", files(graph));

    // A node and a weight of names that tract would make the same.
    let mut graph = cnn_graph(Size::Fixed(1));
    graph.node[0].name = "conv_w".into();
    graph.node[1].name = "conv_w".into();
    graph.node[2].name = String::new();
    check("clashing names", files(graph));
}

/// An int64 weight as varints, which are read piece by piece: elements of 1 to 10 bytes.
#[test]
fn varints_become_integers() {
    let values: Vec<i64> = (0..40_000).map(|index: i64| (index - 9) << (index % 60)).collect();
    let count = values.len() as i64;
    let graph = GraphProto {
        node: vec![node("Add", &["x", "w"], &["y"])],
        initializer: vec![ints("w", &[count], &values)],
        input: vec![value("x", INT64, &[Size::Fixed(1)])],
        output: vec![value("y", INT64, &[Size::Fixed(count)])],
        ..GraphProto::default()
    };
    let (plan, _) = load_in_steps(files(graph));
    let one = Tensor::from_bytes(onnx_engine::ElementType::Int64, &[1], &1i64.to_le_bytes()).unwrap();
    let mut session = Session::new(plan, vec![("x".into(), one)], None).unwrap();
    session.step(&Free, u64::MAX).unwrap();
    let sums = session.into_outputs().unwrap().remove(0).1;
    let sums = sums.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    assert!(sums.eq(values.iter().map(|value| value + 1)));
}

/// A source that notes the largest read.
struct Watched {
    files: Files,
    bytes: Vec<u8>,
    largest: Rc<Cell<usize>>,
}

impl ByteSource for Watched {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.largest.set(self.largest.get().max(buffer.len()));
        self.bytes.read_at(offset, buffer)
    }
}

impl ModelFiles for Watched {
    fn onnx(&self) -> &dyn ByteSource {
        self
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        self.files.external(location)
    }
}

#[test]
fn reads_are_bounded() {
    let count = READ_BYTES_MAX as i64 / 4 * 3 + 5;
    let graph = GraphProto {
        node: vec![node("Add", &["x", "w"], &["y"])],
        initializer: vec![tensor("w", &[count], &numbers(7, count as usize))],
        input: vec![fixed("x", &[1])],
        output: vec![fixed("y", &[count])],
        ..GraphProto::default()
    };
    let largest = Rc::new(Cell::new(0));
    let watched = Watched { files: Files::default(), bytes: encode(graph), largest: largest.clone() };
    let mut loader = Loader::new(Box::new(watched), LoadOptions::default()).unwrap();
    while loader.step(&CountingMeter::new(1), 0).unwrap() != Step::Done {}
    assert_eq!(largest.get(), READ_BYTES_MAX);
    let mut session =
        Session::new(loader.finish().unwrap(), vec![("x".into(), f32_input(&[1], &[0.0]))], None).unwrap();
    session.step(&Free, u64::MAX).unwrap();
    assert_eq!(session.into_outputs().unwrap()[0].1.to_f32().unwrap(), numbers(7, count as usize));
}

#[test]
fn free_dimensions_can_be_fixed() {
    let shape = |options: FreeDimensions| {
        let files = Box::new(files(repeat_rows()));
        let mut loader =
            Loader::new(files, LoadOptions { free_dimensions: options, ..LoadOptions::default() }).unwrap();
        while loader.step(&Free, u64::MAX).unwrap() != Step::Done {}
        loader.finish().map(|plan| plan.inputs()[0].shape[0])
    };
    // A graph that tract has to run whole, and can only for sizes that are known.
    assert_eq!(shape(FreeDimensions::One).unwrap(), Some(1));
    assert_eq!(shape(FreeDimensions::OneAndAny).unwrap(), None);
    // A name that would read as an expression is a name all the same.
    let plan = load(files(cnn_graph(Size::Named("batch-size")))).unwrap();
    assert_eq!(logits(&plan), expected());
}

fn error(files: Files) -> EngineError {
    load(files).expect_err("it loaded")
}

fn reason(graph: GraphProto) -> String {
    error(files(graph)).to_string()
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let of = |bytes: &[u8]| error(Files { onnx: bytes.to_vec(), ..Files::default() }).to_string();
    assert_eq!(of(b""), "ONNX file: it is empty");
    assert_eq!(of(&[0x08, 0x08]), "ONNX file: there is no graph in it: not an ONNX model");
    assert!(of(b"\x89PNG\r\n\x1a\n").starts_with("ONNX file at byte "));
    assert!(of(&[0x3a, 0x00, 0x3a, 0x00]).ends_with("a second graph"));
    let no_operator_set = "ONNX file: it does not say which operator set it uses (opset_import)";
    assert_eq!(of(&[0x3a, 0x00]), no_operator_set);
    // Every cut of a good file: an error, never a panic and never a model.
    let whole = encode(cnn_graph(Size::Fixed(1)));
    for length in (0..whole.len()).step_by(37) {
        let cut = Files { onnx: whole[..length].to_vec(), ..Files::default() };
        assert!(load(cut).is_err(), "the first {length} of {} bytes", whole.len());
    }
}

#[test]
fn nesting_is_bounded() {
    let mut inner = GraphProto::default();
    for _ in 0..40 {
        let attribute = AttributeProto { name: "body".into(), g: Some(inner), ..AttributeProto::default() };
        let mut outer = node("Loop", &[], &["x"]);
        outer.attribute.push(attribute);
        inner = GraphProto { node: vec![outer], ..GraphProto::default() };
    }
    assert!(matches!(error(files(inner)), EngineError::TooLarge { place, .. } if place.contains("nesting")));
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let with = |change: fn(&mut TensorProto), name: &str| {
        let mut graph = cnn_graph(Size::Fixed(1));
        change(initializer(&mut graph, name));
        reason(graph)
    };
    // One large weight, read from its range, and one small, kept in the graph: each fault is found in both.
    for (name, bytes) in [("gemm_w", 5120), ("gemm_b", 40)] {
        let short = with(|tensor| tensor.raw_data.truncate(tensor.raw_data.len() - 4), name);
        assert!(short.contains(&format!("has {} bytes, its shape needs {bytes}", bytes - 4)), "{short}");
        let none = with(|tensor| tensor.raw_data.clear(), name);
        assert!(none.contains(&format!("has 0 bytes, its shape needs {bytes}")), "{none}");
        assert!(with(|tensor| tensor.dims[0] = -1, name).contains("dimension -1 is negative"));
        assert!(with(|tensor| tensor.dims = vec![i64::MAX, i64::MAX, 3], name).contains("overflow"));
        assert!(with(|tensor| tensor.data_type = 16, name).contains("ONNX data type 16 are not supported"));
        assert!(with(|tensor| tensor.dims = vec![1; 17], name).contains("axes is 17, the limit is 16"));
        let wrong_field = with(
            |tensor| {
                tensor.raw_data.clear();
                tensor.int64_data = vec![1; 1280];
            },
            name,
        );
        assert!(wrong_field.contains("data field 7 can't hold float32"), "{wrong_field}");
    }
    let unnamed = with(|tensor| tensor.name.clear(), "gemm_b");
    assert!(unnamed.contains("an initializer has no name"), "{unnamed}");
    let twice = with(|tensor| tensor.name = "gemm_w".into(), "gemm_b");
    assert!(twice.contains("there are two initializers of that name"), "{twice}");
}

#[test]
fn external_files_that_do_not_fit_are_refused() {
    let with = |change: fn(&mut Files, &mut TensorProto)| {
        let mut graph = cnn_graph(Size::Fixed(1));
        let mut files = Files::default();
        let weight = initializer(&mut graph, "gemm_w");
        let (moved, file) = external(weight.clone(), "w.bin", 16);
        *weight = moved;
        files.external.insert("w.bin".into(), file);
        change(&mut files, weight);
        files.onnx = encode(graph);
        load(files)
    };
    assert!(with(|_, _| {}).is_ok());
    let reason = |change: fn(&mut Files, &mut TensorProto)| with(change).unwrap_err().to_string();
    assert_eq!(reason(|files, _| files.external.clear()), "tensor \"gemm_w\": external-data file \"w.bin\" is missing");
    let short = reason(|files, _| files.external.get_mut("w.bin").unwrap().truncate(5135));
    assert_eq!(short, "tensor \"gemm_w\": bytes 16 to 16+5120 of \"w.bin\", which has 5135 bytes");
    let length = reason(|_, tensor| tensor.external_data[2].value = "5116".into());
    assert_eq!(length, "tensor \"gemm_w\": it has 5116 bytes, its shape needs 5120");
    let path = reason(|_, tensor| tensor.external_data[0].value = "../w.bin".into());
    assert!(path.contains("not a relative path inside the model's directory"));
}

#[test]
fn graphs_that_do_not_hang_together_are_refused() {
    let with = |change: fn(&mut GraphProto)| {
        let mut graph = cnn_graph(Size::Fixed(1));
        change(&mut graph);
        reason(graph)
    };
    let undefined = with(|graph| graph.node[1].input[0] = "nothing".into());
    assert_eq!(undefined, "node \"relu_node\" (Relu): its input \"nothing\" is not defined anywhere");
    let missing_weight = with(|graph| {
        graph.initializer.remove(2);
    });
    assert!(missing_weight.contains("its input \"gemm_w\" is not defined anywhere"), "{missing_weight}");
    let no_output = with(|graph| graph.output[0].name = "nothing".into());
    assert_eq!(no_output, "output \"nothing\": no node computes it");
    let twice = with(|graph| graph.node[1].output[0] = "conv".into());
    assert!(twice.contains("gives a value that is already defined"), "{twice}");
    let cycle = with(|graph| graph.node[0].input[0] = "relu".into());
    assert_eq!(cycle, "finding types and shapes: Loop detected");
    let unknown = with(|graph| graph.node[1].op_type = "Frobnicate".into());
    assert_eq!(unknown, "node #1 relu_node (Frobnicate): the operator is not supported");
    let random = with(|graph| graph.node[1].op_type = "RandomNormalLike".into());
    assert_eq!(random, "node #1 relu_node (RandomNormalLike): it draws random numbers without a seed");
    let domain = with(|graph| graph.node[1].domain = "example.org".into());
    assert_eq!(domain, "node #1 relu_node (example.org.Relu): the operator is not supported");
    let sparse = with(|graph| graph.sparse_initializer.push(SparseTensorProto::default()));
    assert!(sparse.contains("sparse tensors are not supported"), "{sparse}");
    let no_type = with(|graph| graph.input[0].r#type = None);
    assert_eq!(no_type, "input \"image\": it has no tensor type");
}

/// Shapes that do not go together are found when the node is run, at the latest.
#[test]
fn a_bias_of_a_wrong_shape_is_named() {
    let mut graph = cnn_graph(Size::Fixed(1));
    initializer(&mut graph, "conv_b").dims = vec![4];
    initializer(&mut graph, "conv_b").raw_data.truncate(16);
    let found = load(files(graph)).and_then(|plan| {
        let mut session = Session::new(plan, vec![("image".into(), f32_input(&[1, 2, 8, 8], &numbers(5, 128)))], None)?;
        session.step(&Free, u64::MAX)
    });
    let error = found.expect_err("it ran").to_string();
    assert!(error.contains("conv") && error.contains("biases of shape [4] for 8 channels"), "{error}");
}

#[test]
fn an_error_stays() {
    let mut graph = cnn_graph(Size::Fixed(1));
    graph.node[1].op_type = "Frobnicate".into();
    let mut loader = Loader::new(Box::new(files(graph)), LoadOptions::default()).unwrap();
    let first = loop {
        if let Err(error) = loader.step(&Free, 0) {
            break error;
        }
    };
    assert_eq!(loader.step(&Free, 0), Err(first.clone()));
    assert_eq!(loader.finish().err(), Some(first));
}

#[test]
fn a_failing_source_is_named() {
    struct Failing(Vec<u8>);
    impl ByteSource for Failing {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
            let (length, available) = (buffer.len() as u64, self.len());
            Err(ReadError { offset, length, available, reason: "the disk is gone".into() })
        }
    }
    impl ModelFiles for Failing {
        fn onnx(&self) -> &dyn ByteSource {
            self
        }
        fn external(&self, _: &str) -> Option<&dyn ByteSource> {
            None
        }
    }
    let mut loader = Loader::new(Box::new(Failing(vec![0x3a; 10])), LoadOptions::default()).unwrap();
    let error = loader.step(&Free, 0).unwrap_err();
    assert!(
        matches!(&error, EngineError::Read { file, error } if file == "ONNX file" && error.available == 10),
        "{error}"
    );
}

#[test]
fn inspect_tells_what_a_file_holds() {
    let mut graph = cnn_graph(Size::Named("N"));
    graph.node[4].op_type = "Frobnicate".into();
    let inspection = onnx_engine::inspect(&files(graph)).unwrap();
    assert_eq!(inspection.opset, 13);
    assert_eq!(inspection.inputs[0].shape, [None, Some(2), Some(8), Some(8)]);
    let outputs: Vec<_> =
        inspection.outputs.iter().map(|output| (output.name.as_str(), output.shape.as_slice())).collect();
    assert_eq!(outputs, [("probabilities", &[None, Some(10)][..]), ("logits", &[None, Some(10)])]);
    let operators: Vec<_> = inspection.operators.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let one = |name| (name, 1);
    assert_eq!(operators, ["Conv", "Flatten", "Frobnicate", "MaxPool", "Relu", "Softmax"].map(one));
    assert_eq!(inspection.unsupported.len(), 1);
    assert_eq!(inspection.unsupported[0].operator, "Frobnicate");
    assert_eq!(inspection.weight_bytes, 5120);
    // Nothing is decoded of a model that is only half there.
    let broken = ModelProto { producer_name: "x".into(), ..ModelProto::default() }.encode_to_vec();
    assert!(onnx_engine::inspect(&Files { onnx: broken, ..Files::default() }).is_err());
}
