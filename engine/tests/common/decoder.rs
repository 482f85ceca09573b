//! A causal language model of one layer, made in memory, and what it computes from its definition.

use super::*;

pub const VOCABULARY: usize = 23;
pub const POSITIONS: usize = 96;
pub const WIDTH: usize = 8;
pub const HEADS: usize = 2;
pub const HEAD: usize = WIDTH / HEADS;

/// Embedding and positions, one layer of causal attention with past keys and values, residual, logits. The form is that of
/// Hugging Face's exporter with decomposed attention.
pub fn causal_graph() -> GraphProto {
    let (sequence, past, total) = (Size::Named("sequence"), "past", "total");
    let (width, heads, head) = (WIDTH as i64, HEADS as i64, HEAD as i64);
    let cache = |name: &str, size: &'static str| {
        value(name, FLOAT, &[Size::Fixed(1), Size::Fixed(heads), Size::Named(size), Size::Fixed(head)])
    };
    let tokens = |name: &str, size: Size| value(name, INT64, &[Size::Fixed(1), size]);
    let mut node_list = vec![
        node("Gather", &["embedding", "input_ids"], &["token"]),
        node("Gather", &["positions", "position_ids"], &["place"]),
        node("Add", &["token", "place"], &["x"]),
    ];
    for part in ["q", "k", "v"] {
        let name = |suffix: &str| format!("{part}{suffix}");
        node_list.push(node("MatMul", &["x", &name("_weight")], &[&name("_flat")]));
        node_list.push(node("Reshape", &[&name("_flat"), "split"], &[&name("_split")]));
        node_list.push(node("Transpose", &[&name("_split")], &[part]).ints("perm", &[0, 2, 1, 3]));
    }
    node_list.extend([
        node("Concat", &["past_key_values.0.key", "k"], &["present.0.key"]).int("axis", 2),
        node("Concat", &["past_key_values.0.value", "v"], &["present.0.value"]).int("axis", 2),
        node("Transpose", &["present.0.key"], &["keys"]).ints("perm", &[0, 1, 3, 2]),
        node("MatMul", &["q", "keys"], &["products"]),
        node("Mul", &["products", "scale"], &["scores"]),
        node("Shape", &["attention_mask"], &["mask_shape"]),
        node("Gather", &["mask_shape", "one"], &["total"]).int("axis", 0),
        node("Range", &["zero", "total", "one"], &["key_positions"]),
        node("Unsqueeze", &["position_ids", "axes"], &["query_positions"]),
        node("LessOrEqual", &["key_positions", "query_positions"], &["sees"]),
        node("Where", &["sees", "scores", "hidden"], &["masked"]),
        node("Softmax", &["masked"], &["attention"]).int("axis", -1),
        node("MatMul", &["attention", "present.0.value"], &["mixed"]),
        node("Transpose", &["mixed"], &["mixed_rows"]).ints("perm", &[0, 2, 1, 3]),
        node("Reshape", &["mixed_rows", "join"], &["joined"]),
        node("MatMul", &["joined", "o_weight"], &["projected"]),
        node("Add", &["x", "projected"], &["y"]),
        node("MatMul", &["y", "head"], &["logits"]),
    ]);
    let weight = |name: &str, rows: usize, columns: usize, seed: u32| {
        tensor(name, &[rows as i64, columns as i64], &numbers(seed, rows * columns))
    };
    GraphProto {
        name: "causal".into(),
        node: node_list,
        initializer: vec![
            weight("embedding", VOCABULARY, WIDTH, 1),
            weight("positions", POSITIONS, WIDTH, 2),
            weight("q_weight", WIDTH, WIDTH, 3),
            weight("k_weight", WIDTH, WIDTH, 4),
            weight("v_weight", WIDTH, WIDTH, 5),
            weight("o_weight", WIDTH, WIDTH, 6),
            weight("head", WIDTH, VOCABULARY, 7),
            tensor("scale", &[], &[0.5]),
            tensor("hidden", &[], &[-1e30]),
            ints("split", &[4], &[0, 0, heads, head]),
            ints("join", &[3], &[0, 0, width]),
            ints("axes", &[2], &[1, 3]),
            ints("zero", &[], &[0]),
            ints("one", &[], &[1]),
        ],
        input: vec![
            tokens("input_ids", Size::Named("sequence")),
            tokens("attention_mask", Size::Named(total)),
            tokens("position_ids", Size::Named("sequence")),
            cache("past_key_values.0.key", past),
            cache("past_key_values.0.value", past),
        ],
        output: vec![
            value("logits", FLOAT, &[Size::Fixed(1), sequence, Size::Fixed(VOCABULARY as i64)]),
            cache("present.0.key", total),
            cache("present.0.value", total),
        ],
        ..GraphProto::default()
    }
}

/// The logits of the last of `tokens`.
pub fn causal_logits(tokens: &[u32]) -> Vec<f64> {
    let weight = |seed: u32, count: usize| numbers(seed, count).into_iter().map(f64::from).collect::<Vec<_>>();
    let (embedding, positions) = (weight(1, VOCABULARY * WIDTH), weight(2, POSITIONS * WIDTH));
    let product = |row: &[f64], seed: u32, columns: usize| {
        let weight = weight(seed, row.len() * columns);
        let dot = |column: usize| row.iter().enumerate().map(|(k, x)| x * weight[k * columns + column]).sum::<f64>();
        (0..columns).map(dot).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<f64>> = tokens
        .iter()
        .enumerate()
        .map(|(place, token)| {
            (0..WIDTH).map(|i| embedding[*token as usize * WIDTH + i] + positions[place * WIDTH + i]).collect()
        })
        .collect();
    let all = |seed: u32| rows.iter().map(|row| product(row, seed, WIDTH)).collect::<Vec<_>>();
    let (keys, values) = (all(4), all(5));
    let last = rows.last().unwrap();
    let query = product(last, 3, WIDTH);
    let mut mixed = Vec::new();
    for head in 0..HEADS {
        let range = head * HEAD..(head + 1) * HEAD;
        let score = |key: &Vec<f64>| range.clone().map(|i| query[i] * key[i]).sum::<f64>() * 0.5;
        let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
        let total: f64 = weights.iter().sum();
        mixed.extend(range.clone().map(|i| values.iter().zip(&weights).map(|(v, w)| v[i] * w / total).sum::<f64>()));
    }
    let y: Vec<f64> = last.iter().zip(product(&mixed, 6, WIDTH)).map(|(x, o)| x + o).collect();
    product(&y, 7, VOCABULARY)
}
