//! The ONNX graph of a causal language model with the names and shapes of Hugging Face's exporter, taken apart into the
//! standard's operators but for its weights of 4 and 8 bits.
//!
//! Inputs: `input_ids` [batch, sequence], `attention_mask` [batch, past + sequence], `position_ids` [batch, sequence],
//! `past_key_values.N.key` and `.value` [batch, heads, past, head size]. Outputs: `logits` [batch, sequence, vocabulary],
//! `present.N.key` and `.value`.

use super::dequantise::BlockType;
use super::error::Result;
use super::model::{Architecture, Config, EMBEDDING, Model, OUTPUT, OUTPUT_NORM, layer_name};
use super::onnx::{BOOL, FLOAT, FLOAT16, Graph, INT64, Initializer, Node, Size, UINT8, ValueInfo};
use super::pack::Format;
use super::reader::TensorInfo;

/// Where the bytes of an initializer come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    Tensor(Part),
}

/// What of a tensor an initializer holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub tensor: TensorInfo,
    /// Heads whose rows are in llama's order and have to be in Hugging Face's.
    pub interleaved_heads: Option<u64>,
    pub kind: PartKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// All numbers, as float32.
    Floats,
    /// All numbers of an F16 tensor, as they are.
    Halves,
    Quants,
    Scales,
    ZeroPoints,
}

/// A matrix among the initializers.
#[derive(Clone)]
enum Matrix {
    /// The value of that name, [rows, columns] of float32.
    Float(String),
    /// The initializers `.q`, `.scales` and, if there are, `.zero_points` behind that name.
    Packed { name: String, format: Format, columns: u64, rows: u64 },
}

pub(super) struct Built {
    pub graph: Graph,
    pub initializers: Vec<(Initializer, Source)>,
}

struct Builder<'a> {
    model: &'a Model<'a>,
    nodes: Vec<Node>,
    initializers: Vec<(Initializer, Source)>,
}

/// Builds the graph. `rope_frequencies` are those of [`Config::rope_frequencies`].
pub(super) fn build(model: &Model<'_>, rope_frequencies: &[f32]) -> Result<Built> {
    let mut builder = Builder { model, nodes: Vec::new(), initializers: Vec::new() };
    builder.constants(rope_frequencies);
    builder.shared_values();
    let embedding = builder.matrix(EMBEDDING, None)?;
    builder.embed(&embedding, "hidden.0");
    for layer in 0..model.config.layers {
        builder.layer(layer)?;
    }
    let last = format!("hidden.{}", model.config.layers);
    builder.norm(&last, OUTPUT_NORM, "output_normed")?;
    let output = match model.tensor(OUTPUT) {
        Some(_) => builder.matrix(OUTPUT, None)?,
        None => embedding,
    };
    builder.product("output_normed", &output, "logits");
    Ok(builder.finish())
}

impl Builder<'_> {
    fn node(&mut self, op_type: &str, inputs: &[&str], output: &str) {
        self.nodes.push(Node::new(op_type, inputs, output));
    }

    fn constant(&mut self, name: &str, data_type: i32, dims: &[u64], bytes: Vec<u8>) {
        let initializer = Initializer { name: name.to_string(), data_type, dims: dims.to_vec() };
        self.initializers.push((initializer, Source::Bytes(bytes)));
    }

    fn floats(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        self.constant(name, FLOAT, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }

    fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, INT64, &[values.len() as u64], bytes);
    }

    fn constants(&mut self, rope_frequencies: &[f32]) {
        let &Config { heads, kv_heads, head_size, epsilon, .. } = &self.model.config;
        self.floats("rope_frequencies", &[1, rope_frequencies.len() as u64], rope_frequencies);
        let scale = 1.0 / (head_size as f64).sqrt();
        let numbers = [
            ("zero", 0.0),
            ("lowest", f32::MIN),
            ("one", 1.0),
            ("two", 2.0),
            ("epsilon", epsilon),
            ("attention_scale", scale as f32),
        ];
        for (name, number) in numbers {
            self.floats(name, &[], &[number]);
        }
        for index in 0..3i64 {
            self.constant(&format!("index_{index}"), INT64, &[], index.to_le_bytes().to_vec());
        }
        let (heads, kv_heads, head_size) = (heads as i64, kv_heads as i64, head_size as i64);
        for (name, values) in [
            ("axis_0", &[0][..]),
            ("axis_1", &[1]),
            ("axis_2", &[2]),
            ("axis_3", &[3]),
            ("axes_0_1", &[0, 1]),
            ("axes_1_2", &[1, 2]),
            ("split_heads", &[0, 0, -1, head_size]),
            ("join_heads", &[0, 0, heads * head_size]),
            ("half_head", &[head_size / 2]),
            ("to_end", &[i64::MAX]),
        ] {
            self.integers(name, values);
        }
        if heads != kv_heads {
            self.integers("kv_heads_and_group", &[kv_heads, heads / kv_heads]);
            self.integers("heads", &[heads]);
            self.integers("head_size", &[head_size]);
        }
    }

    /// What all layers use: the mask, the rotary embedding's tables, shapes.
    fn shared_values(&mut self) {
        self.node("Shape", &["input_ids"], "input_shape");
        self.node("Gather", &["input_shape", "index_1"], "new");
        self.node("Shape", &["past_key_values.0.key"], "past_shape");
        self.node("Gather", &["past_shape", "index_2"], "past");
        self.node("Add", &["past", "new"], "total");
        self.node("Range", &["index_0", "total", "index_1"], "key_places");
        self.node("Unsqueeze", &["key_places", "axis_0"], "key_row");
        self.node("Range", &["past", "total", "index_1"], "query_places");
        self.node("Unsqueeze", &["query_places", "axis_1"], "query_column");
        self.node("LessOrEqual", &["key_row", "query_column"], "causal");
        self.node("Unsqueeze", &["causal", "axes_0_1"], "causal_mask");
        self.nodes.push(Node::new("Cast", &["attention_mask"], "given").int("to", BOOL.into()));
        self.node("Unsqueeze", &["given", "axes_1_2"], "given_mask");
        self.node("And", &["causal_mask", "given_mask"], "visible");
        self.node("Where", &["visible", "zero", "lowest"], "mask");
        self.node("Unsqueeze", &["position_ids", "axis_2"], "position_column");
        self.nodes.push(Node::new("Cast", &["position_column"], "positions").int("to", FLOAT.into()));
        self.node("MatMul", &["positions", "rope_frequencies"], "half_angles");
        self.nodes.push(Node::new("Concat", &["half_angles", "half_angles"], "angles").int("axis", -1));
        self.node("Cos", &["angles"], "cos_rows");
        self.node("Unsqueeze", &["cos_rows", "axis_1"], "cos");
        self.node("Sin", &["angles"], "sin_rows");
        self.node("Unsqueeze", &["sin_rows", "axis_1"], "sin");
        if self.is_grouped() {
            self.node("Gather", &["input_shape", "index_0"], "batch");
            self.node("Unsqueeze", &["batch", "axis_0"], "batch_1");
            self.node("Unsqueeze", &["total", "axis_0"], "total_1");
            let wide = ["batch_1", "kv_heads_and_group", "total_1", "head_size"];
            self.nodes.push(Node::new("Concat", &wide, "wide_shape").int("axis", 0));
            let repeated = ["batch_1", "heads", "total_1", "head_size"];
            self.nodes.push(Node::new("Concat", &repeated, "repeated_shape").int("axis", 0));
        }
    }

    /// Whether several heads of the queries share one of the keys.
    fn is_grouped(&self) -> bool {
        self.model.config.heads != self.model.config.kv_heads
    }

    fn part(&mut self, name: &str, data_type: i32, dims: &[u64], part: Part) {
        let initializer = Initializer { name: name.to_string(), data_type, dims: dims.to_vec() };
        self.initializers.push((initializer, Source::Tensor(part)));
    }

    /// A matrix with a row for each of the tensor's.
    fn matrix(&mut self, name: &str, interleaved_heads: Option<u64>) -> Result<Matrix> {
        let tensor = self.model.needed(name)?;
        let (columns, rows) = (tensor.dims[0], tensor.dims.get(1).copied().unwrap_or(1));
        let part = |kind| Part { tensor: tensor.clone(), interleaved_heads, kind };
        let Some(format) = Format::of(tensor.block_type) else {
            if tensor.block_type == BlockType::F16 {
                let halves = format!("{name}.f16");
                self.part(&halves, FLOAT16, &[rows, columns], part(PartKind::Halves));
                self.nodes.push(Node::new("Cast", &[&halves], name).int("to", FLOAT.into()));
            } else {
                self.part(name, FLOAT, &[rows, columns], part(PartKind::Floats));
            }
            return Ok(Matrix::Float(name.to_string()));
        };
        let blocks = columns / format.block_elements as u64;
        let quants = [rows, blocks, format.block_bytes() as u64];
        self.part(&format!("{name}.q"), UINT8, &quants, part(PartKind::Quants));
        self.part(&format!("{name}.scales"), FLOAT, &[rows, blocks], part(PartKind::Scales));
        if format.has_zero_points {
            self.part(&format!("{name}.zero_points"), FLOAT, &[rows, blocks], part(PartKind::ZeroPoints));
        }
        Ok(Matrix::Packed { name: name.to_string(), format, columns, rows })
    }

    /// `y = x matrix^T`.
    fn product(&mut self, x: &str, matrix: &Matrix, y: &str) {
        match matrix {
            Matrix::Float(name) => {
                let transposed = format!("{name}.transposed.{y}");
                self.nodes.push(Node::new("Transpose", &[name], &transposed).ints("perm", &[1, 0]));
                self.node("MatMul", &[x, &transposed], y);
            }
            Matrix::Packed { name, format, columns, rows } => {
                let parts = [format!("{name}.q"), format!("{name}.scales"), format!("{name}.zero_points")];
                let count = if format.has_zero_points { 3 } else { 2 };
                let inputs: Vec<&str> = std::iter::once(x).chain(parts[..count].iter().map(String::as_str)).collect();
                let mut node = Node::new("MatMulNBits", &inputs, y)
                    .int("K", *columns as i64)
                    .int("N", *rows as i64)
                    .int("accuracy_level", 1)
                    .int("bits", format.bits as i64)
                    .int("block_size", format.block_elements as i64);
                node.domain = "com.microsoft".to_string();
                self.nodes.push(node);
            }
        }
    }

    /// Rows of a matrix by the tokens' numbers. Those of packed ones are taken as they are and unpacked: so an embedding
    /// that is also the output layer is in the file once.
    fn embed(&mut self, matrix: &Matrix, y: &str) {
        let (name, format, columns) = match matrix {
            Matrix::Float(name) => return self.node("Gather", &[name, "input_ids"], y),
            Matrix::Packed { name, format, columns, .. } => (name, *format, *columns),
        };
        let blocks = columns / format.block_elements as u64;
        self.node("Gather", &[&format!("{name}.q"), "input_ids"], "embedded.q");
        self.nodes.push(Node::new("Cast", &["embedded.q"], "embedded.bytes").int("to", FLOAT.into()));
        let quants = match format.bits {
            8 => "embedded.bytes",
            _ => {
                self.floats("sixteen", &[], &[16.0]);
                self.floats("sixteenth", &[], &[1.0 / 16.0]);
                self.integers("axis_4", &[4]);
                self.integers("embedded_blocks", &[0, 0, blocks as i64, format.block_elements as i64]);
                self.node("Mul", &["embedded.bytes", "sixteenth"], "embedded.sixteenths");
                self.node("Floor", &["embedded.sixteenths"], "embedded.high");
                self.node("Mul", &["embedded.high", "sixteen"], "embedded.high_part");
                self.node("Sub", &["embedded.bytes", "embedded.high_part"], "embedded.low");
                self.node("Unsqueeze", &["embedded.low", "axis_4"], "embedded.low_column");
                self.node("Unsqueeze", &["embedded.high", "axis_4"], "embedded.high_column");
                let pair = ["embedded.low_column", "embedded.high_column"];
                self.nodes.push(Node::new("Concat", &pair, "embedded.pairs").int("axis", 4));
                self.node("Reshape", &["embedded.pairs", "embedded_blocks"], "embedded.quants");
                "embedded.quants"
            }
        };
        let zero_points = match format.has_zero_points {
            true => {
                self.node("Gather", &[&format!("{name}.zero_points"), "input_ids"], "embedded.zero_points");
                self.node("Unsqueeze", &["embedded.zero_points", "axis_3"], "embedded.zero_column");
                "embedded.zero_column"
            }
            false => {
                self.floats("embedded_middle", &[], &[format.middle().into()]);
                "embedded_middle"
            }
        };
        self.integers("embedded_row", &[0, 0, columns as i64]);
        self.node("Gather", &[&format!("{name}.scales"), "input_ids"], "embedded.scales");
        self.node("Unsqueeze", &["embedded.scales", "axis_3"], "embedded.scale_column");
        self.node("Sub", &[quants, zero_points], "embedded.centred");
        self.node("Mul", &["embedded.centred", "embedded.scale_column"], "embedded.blocks");
        self.node("Reshape", &["embedded.blocks", "embedded_row"], y);
    }

    /// A vector of float32.
    fn vector(&mut self, name: &str, interleaved_heads: Option<u64>) -> Result<()> {
        let tensor = self.model.needed(name)?.clone();
        let dims = tensor.dims.clone();
        self.part(name, FLOAT, &dims, Part { tensor, interleaved_heads, kind: PartKind::Floats });
        Ok(())
    }

    /// `y = x / sqrt(mean(x^2) + epsilon) * weight`.
    fn norm(&mut self, x: &str, weight: &str, y: &str) -> Result<()> {
        self.vector(weight, None)?;
        let at = |name: &str| format!("{y}.{name}");
        self.node("Pow", &[x, "two"], &at("squares"));
        self.nodes.push(Node::new("ReduceMean", &[&at("squares")], &at("mean")).ints("axes", &[-1]));
        self.node("Add", &[&at("mean"), "epsilon"], &at("shifted"));
        self.node("Sqrt", &[&at("shifted")], &at("root"));
        self.node("Div", &["one", &at("root")], &at("inverse"));
        self.node("Mul", &[x, &at("inverse")], &at("scaled"));
        self.node("Mul", &[weight, &at("scaled")], y);
        Ok(())
    }

    /// A product with a layer's weights and the bias, if there is one.
    fn linear(&mut self, layer: u64, part: &str, x: &str, y: &str) -> Result<()> {
        let config = &self.model.config;
        let interleaved_heads = match (config.architecture, part) {
            (Architecture::Llama, "attn_q") => Some(config.heads),
            (Architecture::Llama, "attn_k") => Some(config.kv_heads),
            _ => None,
        };
        let matrix = self.matrix(&layer_name(layer, &format!("{part}.weight")), interleaved_heads)?;
        let bias = layer_name(layer, &format!("{part}.bias"));
        if self.model.tensor(&bias).is_none() {
            self.product(x, &matrix, y);
            return Ok(());
        }
        let plain = format!("{y}.without_bias");
        self.product(x, &matrix, &plain);
        self.vector(&bias, interleaved_heads)?;
        self.node("Add", &[&plain, &bias], y);
        Ok(())
    }

    /// `x cos + concat(-x2, x1) sin`.
    fn rotate(&mut self, x: &str, y: &str) {
        let at = |name: &str| format!("{y}.{name}");
        self.node("Slice", &[x, "axis_0", "half_head", "axis_3"], &at("low"));
        self.node("Slice", &[x, "half_head", "to_end", "axis_3"], &at("high"));
        self.node("Neg", &[&at("high")], &at("negated"));
        self.nodes.push(Node::new("Concat", &[&at("negated"), &at("low")], &at("turned")).int("axis", -1));
        self.node("Mul", &[x, "cos"], &at("by_cos"));
        self.node("Mul", &[&at("turned"), "sin"], &at("by_sin"));
        self.node("Add", &[&at("by_cos"), &at("by_sin")], y);
    }

    fn layer(&mut self, layer: u64) -> Result<()> {
        let at = |name: &str| format!("layer.{layer}.{name}");
        let x = format!("hidden.{layer}");
        self.norm(&x, &layer_name(layer, "attn_norm.weight"), &at("attention_normed"))?;
        for name in ["q", "k", "v"] {
            let (flat, split) = (at(&format!("{name}.flat")), at(&format!("{name}.split")));
            self.linear(layer, &format!("attn_{name}"), &at("attention_normed"), &flat)?;
            self.node("Reshape", &[&flat, "split_heads"], &split);
            self.nodes.push(Node::new("Transpose", &[&split], &at(name)).ints("perm", &[0, 2, 1, 3]));
        }
        self.rotate(&at("q"), &at("queries"));
        self.rotate(&at("k"), &at("new_keys"));
        for (kind, new, all) in [("key", at("new_keys"), at("keys")), ("value", at("v"), at("values"))] {
            let (past, present) = (format!("past_key_values.{layer}.{kind}"), format!("present.{layer}.{kind}"));
            self.nodes.push(Node::new("Concat", &[&past, &new], &present).int("axis", 2));
            if self.is_grouped() {
                let (single, wide) = (format!("{all}.single"), format!("{all}.wide"));
                self.node("Unsqueeze", &[&present, "axis_2"], &single);
                self.node("Expand", &[&single, "wide_shape"], &wide);
                self.node("Reshape", &[&wide, "repeated_shape"], &all);
            }
        }
        let (keys, values) = match self.is_grouped() {
            true => (at("keys"), at("values")),
            false => (format!("present.{layer}.key"), format!("present.{layer}.value")),
        };
        self.nodes.push(Node::new("Transpose", &[&keys], &at("keys.turned")).ints("perm", &[0, 1, 3, 2]));
        self.node("MatMul", &[&at("queries"), &at("keys.turned")], &at("products"));
        self.node("Mul", &[&at("products"), "attention_scale"], &at("scores"));
        self.node("Add", &[&at("scores"), "mask"], &at("masked"));
        self.nodes.push(Node::new("Softmax", &[&at("masked")], &at("weights")).int("axis", -1));
        self.node("MatMul", &[&at("weights"), &values], &at("mixed"));
        self.nodes.push(Node::new("Transpose", &[&at("mixed")], &at("mixed.rows")).ints("perm", &[0, 2, 1, 3]));
        self.node("Reshape", &[&at("mixed.rows"), "join_heads"], &at("joined"));
        self.linear(layer, "attn_output", &at("joined"), &at("attended"))?;
        self.node("Add", &[&x, &at("attended")], &at("between"));
        self.norm(&at("between"), &layer_name(layer, "ffn_norm.weight"), &at("inner_normed"))?;
        self.linear(layer, "ffn_gate", &at("inner_normed"), &at("gate"))?;
        self.linear(layer, "ffn_up", &at("inner_normed"), &at("up"))?;
        self.node("Sigmoid", &[&at("gate")], &at("sigmoid"));
        self.node("Mul", &[&at("gate"), &at("sigmoid")], &at("silu"));
        self.node("Mul", &[&at("silu"), &at("up")], &at("gated"));
        self.linear(layer, "ffn_down", &at("gated"), &at("down"))?;
        self.node("Add", &[&at("between"), &at("down")], &format!("hidden.{}", layer + 1));
        Ok(())
    }

    fn finish(self) -> Built {
        let &Config { kv_heads, head_size, vocabulary, layers, .. } = &self.model.config;
        let tokens = |name: &str, size| ValueInfo::new(name, INT64, &[Size::Named("batch"), Size::Named(size)]);
        let cache = |prefix: &'static str, size| {
            (0..layers).flat_map(|layer| ["key", "value"].map(|kind| (layer, kind))).map(move |(layer, kind)| {
                let sizes = [Size::Named("batch"), Size::Known(kv_heads), Size::Named(size), Size::Known(head_size)];
                ValueInfo::new(&format!("{prefix}.{layer}.{kind}"), FLOAT, &sizes)
            })
        };
        let sizes = [Size::Named("batch"), Size::Named("sequence"), Size::Known(vocabulary)];
        let input =
            [tokens("input_ids", "sequence"), tokens("attention_mask", "total"), tokens("position_ids", "sequence")];
        let graph = Graph {
            node: self.nodes,
            name: "causal language model".to_string(),
            input: input.into_iter().chain(cache("past_key_values", "past")).collect(),
            output: std::iter::once(ValueInfo::new("logits", FLOAT, &sizes)).chain(cache("present", "total")).collect(),
        };
        Built { graph, initializers: self.initializers }
    }
}
