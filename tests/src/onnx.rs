//! Small ONNX files, written byte by byte: what the tests upload where a real model would only be slower.
//!
//! Field numbers are those of `onnx.proto` (ONNX 1.16, IR version 8).

/// Appends protobuf fields.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u32, value: u64) -> Self {
        self.push_varint(u64::from(field) << 3);
        self.push_varint(value);
        self
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.push_varint(u64::from(field) << 3 | 2);
        self.push_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// Where a weight's bytes are.
enum Data<'a> {
    Raw(&'a [f32]),
    /// int64 in the file.
    Integers(&'a [i64]),
    /// `location`, offset and length in bytes.
    External(&'a str, u64, u64),
}

fn tensor(name: &str, shape: &[u64], data: Data) -> Message {
    let mut message = Message::default();
    for dimension in shape {
        message = message.varint(1, *dimension);
    }
    let element_type = if matches!(data, Data::Integers(_)) { 7 } else { 1 };
    message = message.varint(2, element_type).bytes(8, name.as_bytes());
    match data {
        Data::Raw(values) => message.bytes(9, &little_endian(values)),
        Data::Integers(values) => {
            message.bytes(9, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        }
        Data::External(location, offset, length) => {
            let entry = |key: &str, value: &str| Message::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
            message
                .message(13, entry("location", location))
                .message(13, entry("offset", &offset.to_string()))
                .message(13, entry("length", &length.to_string()))
                .varint(14, 1)
        }
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Message {
    let mut message = Message::default();
    for input in inputs {
        message = message.bytes(1, input.as_bytes());
    }
    message
        .bytes(2, output.as_bytes())
        .bytes(3, format!("{operator}_{output}").as_bytes())
        .bytes(4, operator.as_bytes())
}

fn value_info(name: &str, shape: &[u64]) -> Message {
    let mut dimensions = Message::default();
    for dimension in shape {
        dimensions = dimensions.message(1, Message::default().varint(1, *dimension));
    }
    let tensor_type = Message::default().varint(1, 1).message(2, dimensions);
    Message::default().bytes(1, name.as_bytes()).message(2, Message::default().message(1, tensor_type))
}

/// The file of a graph, by the rules of operator set 13.
fn model(graph: Message) -> Message {
    Message::default()
        .varint(1, 8)
        .bytes(2, b"onnx-canister tests")
        .message(7, graph)
        .message(8, Message::default().bytes(1, b"").varint(2, 13))
}

/// `y = ConstantOfShape(sizes * sizes)`, beside an input `x`: only running the graph tells how large `y` is.
pub fn constant_of_computed_shape(sizes: &[i64]) -> Vec<u8> {
    let graph = Message::default()
        .message(1, node("Mul", &["sizes", "sizes"], "shape"))
        .message(1, node("ConstantOfShape", &["shape"], "y"))
        .bytes(2, b"bomb")
        .message(5, tensor("sizes", &[sizes.len() as u64], Data::Integers(sizes)))
        .message(11, value_info("x", &[1]))
        .message(12, value_info("y", &[1]));
    model(graph).0
}

/// f32 values as an ONNX file stores them.
pub fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Weights between -0.5 and 0.5 from a linear congruential sequence: the same on every machine.
pub fn weights(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1_u32 << 24) as f32 - 0.5
        })
        .collect()
}

/// A chain of `layers` blocks `x -> relu(x W + b)`, input `x` and output `y` of shape `[1, width]`.
pub struct Mlp {
    pub width: u64,
    pub layers: u32,
}

impl Mlp {
    /// The ONNX file with its weights inside.
    pub fn file(&self) -> Vec<u8> {
        self.model(|name, shape, values| tensor(name, shape, Data::Raw(values))).0
    }

    /// The ONNX file, and the external-data file `location` that holds its weight matrices.
    pub fn file_with_external_data(&self, location: &str) -> (Vec<u8>, Vec<u8>) {
        let mut external = Vec::new();
        let model = self.model(|name, shape, values| {
            let offset = external.len() as u64;
            let bytes = little_endian(values);
            external.extend_from_slice(&bytes);
            tensor(name, shape, Data::External(location, offset, bytes.len() as u64))
        });
        (model.0, external)
    }

    /// The answer to `x`, computed in f64 straight from the definition.
    pub fn reference(&self, x: &[f32]) -> Vec<f32> {
        let width = self.width as usize;
        let mut values: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
        for layer in 0..self.layers {
            let (matrix, bias) = self.layer(layer);
            values = (0..width)
                .map(|column| {
                    let sum: f64 = (0..width).map(|row| values[row] * f64::from(matrix[row * width + column])).sum();
                    (sum + f64::from(bias[column])).max(0.0)
                })
                .collect();
        }
        values.iter().map(|value| *value as f32).collect()
    }

    /// Weight matrix `[width, width]` (row-major, input by output) and bias `[width]` of a layer.
    fn layer(&self, layer: u32) -> (Vec<f32>, Vec<f32>) {
        let width = self.width as usize;
        // Scaled so that values neither vanish nor explode over many layers.
        let scale = 3.4 / (width as f32).sqrt();
        let matrix = weights(width * width, 2 * layer + 1).into_iter().map(|w| w * scale).collect();
        (matrix, weights(width, 2 * layer + 2))
    }

    /// The whole file; `matrix` writes the tensor of a weight matrix from its name, shape and values.
    fn model(&self, mut matrix: impl FnMut(&str, &[u64], &[f32]) -> Message) -> Message {
        let mut graph = Message::default();
        let mut initializers = Vec::new();
        let mut value = "x".to_string();
        for layer in 0..self.layers {
            let (values, bias) = self.layer(layer);
            let (w, b) = (format!("w{layer}"), format!("b{layer}"));
            let (product, sum) = (format!("product{layer}"), format!("sum{layer}"));
            let out = if layer + 1 == self.layers { "y".to_string() } else { format!("hidden{layer}") };
            graph = graph
                .message(1, node("MatMul", &[&value, &w], &product))
                .message(1, node("Add", &[&product, &b], &sum))
                .message(1, node("Relu", &[&sum], &out));
            initializers.push(matrix(&w, &[self.width, self.width], &values));
            initializers.push(tensor(&b, &[self.width], Data::Raw(&bias)));
            value = out;
        }
        graph = graph.bytes(2, b"mlp");
        for initializer in initializers {
            graph = graph.message(5, initializer);
        }
        graph = graph.message(11, value_info("x", &[1, self.width])).message(12, value_info("y", &[1, self.width]));
        model(graph)
    }
}

/// Rows made of a column and a row, each multiplied by the same matrix again and again: much work for few bytes.
///
/// `x = column + row` of shape `[rows, width]`, then `products` times `x = tanh(x W)`; inputs `column` `[rows, 1]` and `row`
/// `[1, width]`, output `y`: rows 0, 1 and the last of `x`.
pub struct Outer {
    pub rows: u64,
    pub width: u64,
    pub products: u32,
}

impl Outer {
    /// The ONNX file.
    pub fn file(&self) -> Vec<u8> {
        let picked = [0, 1, self.rows as i64 - 1];
        let mut graph = Message::default().message(1, node("Add", &["column", "row"], "x0"));
        for product in 0..self.products {
            let (before, sum, after) = (format!("x{product}"), format!("sum{product}"), format!("x{}", product + 1));
            graph = graph.message(1, node("MatMul", &[&before, "w"], &sum)).message(1, node("Tanh", &[&sum], &after));
        }
        let last = format!("x{}", self.products);
        graph = graph
            .message(1, node("Gather", &[&last, "picked"], "y"))
            .bytes(2, b"outer")
            .message(5, tensor("w", &[self.width, self.width], Data::Raw(&self.matrix())))
            .message(5, tensor("picked", &[picked.len() as u64], Data::Integers(&picked)))
            .message(11, value_info("column", &[self.rows, 1]))
            .message(11, value_info("row", &[1, self.width]))
            .message(12, value_info("y", &[picked.len() as u64, self.width]));
        model(graph).0
    }

    /// The answer, computed in f64 straight from the definition.
    pub fn reference(&self, column: &[f32], row: &[f32]) -> Vec<f32> {
        let (width, matrix) = (self.width as usize, self.matrix());
        let row_of = |index: usize| {
            let mut x: Vec<f64> = row.iter().map(|value| f64::from(column[index] + value)).collect();
            for _ in 0..self.products {
                let mut sums = vec![0.0_f64; width];
                for (value, weights) in x.iter().zip(matrix.chunks_exact(width)) {
                    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * f64::from(*weight));
                }
                x = sums.into_iter().map(f64::tanh).collect();
            }
            x.into_iter().map(|value| value as f32).collect::<Vec<f32>>()
        };
        [0, 1, self.rows as usize - 1].into_iter().flat_map(row_of).collect()
    }

    /// Row-major, input by output; scaled so that values neither vanish nor are all at the ends of tanh.
    fn matrix(&self) -> Vec<f32> {
        let scale = 3.4 / (self.width as f32).sqrt();
        weights((self.width * self.width) as usize, 9).into_iter().map(|weight| weight * scale).collect()
    }
}
