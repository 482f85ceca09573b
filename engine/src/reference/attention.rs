//! Attention and what belongs to it.

use super::array::{Array, Result, broadcast_offsets, elements};
use super::call::Call;
use super::matmul::float_product;
use super::reduce::softmax_of;
use crate::ElementType;

/// Products that attention of queries and keys of these shapes adds up, an upper bound.
pub(crate) fn attention_products(queries: &[usize], keys: &[usize]) -> u64 {
    let product = |shape: &[usize]| shape.iter().fold(1u64, |total, size| total.saturating_mul(*size as u64));
    let length = |shape: &[usize]| shape.len().checked_sub(2).map_or(1, |axis| shape[axis] as u64);
    2 * product(queries).saturating_mul(length(keys).max(1))
}

/// Heads of an input: `(batch, heads, length, size)` as it is, or split out of `(batch, length, heads * size)`.
fn heads(x: &Array, count: i64) -> Result<Array> {
    match x.shape.as_slice() {
        [_, _, _, _] => Ok(x.clone()),
        &[batch, length, hidden] => {
            let count = usize::try_from(count).ok().filter(|count| *count > 0 && hidden % count == 0);
            let count = count.ok_or_else(|| format!("{hidden} numbers are not of that many heads"))?;
            x.reshaped(vec![batch, length, count, hidden / count])?.transposed(&[0, 2, 1, 3])
        }
        _ => Err(format!("shape {:?}", x.shape)),
    }
}

/// The opposite, for inputs of three axes.
fn joined(x: Array, rank: usize) -> Result<Array> {
    if rank == 4 {
        return Ok(x);
    }
    let x = x.transposed(&[0, 2, 1, 3])?;
    let shape = vec![x.shape[0], x.shape[1], x.shape[2] * x.shape[3]];
    x.reshaped(shape)
}

/// Sizes of attention over heads.
struct Sizes {
    batch: usize,
    heads: usize,
    /// Heads of queries that share one of keys.
    shared: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    value_depth: usize,
}

impl Sizes {
    fn new(q: &Array, k: &Array, v: &Array) -> Result<Sizes> {
        let error = || format!("shapes {:?}, {:?} and {:?}", q.shape, k.shape, v.shape);
        let (&[batch, heads, queries, depth], &[_, key_heads, keys, _]) = (q.shape.as_slice(), k.shape.as_slice())
        else {
            return Err(error());
        };
        let value_depth = v.shape.last().copied().unwrap_or(0);
        let fits = key_heads > 0 && heads % key_heads == 0 && k.shape == [batch, key_heads, keys, depth];
        if !fits || v.shape != [batch, key_heads, keys, value_depth] {
            return Err(error());
        }
        elements(&[batch, heads, queries, keys])?;
        Ok(Sizes { batch, heads, shared: heads / key_heads, queries, keys, depth, value_depth })
    }

    fn scores_shape(&self) -> Vec<usize> {
        vec![self.batch, self.heads, self.queries, self.keys]
    }

    /// Products of each query with each key, scaled.
    fn scores(&self, q: &Array, k: &Array, scale: f64) -> Vec<f64> {
        let (q, k) = (q.f64s(), k.f64s());
        let mut scores = Vec::with_capacity(self.batch * self.heads * self.queries * self.keys);
        for (head, queries) in q.chunks((self.queries * self.depth).max(1)).enumerate() {
            let keys = &k[head / self.shared * self.keys * self.depth..][..self.keys * self.depth];
            for query in queries.chunks(self.depth.max(1)) {
                let keys = keys.chunks(self.depth.max(1));
                scores.extend(keys.map(|key| query.iter().zip(key).map(|(x, y)| x * y).sum::<f64>() * scale));
            }
        }
        scores
    }

    /// Sums of values by their weights, of all heads.
    fn weigh(&self, weights: &[f64], v: &Array) -> Result<Array> {
        let v_numbers = v.f64s();
        let size = self.keys * self.value_depth;
        let of_head = |(head, weights): (usize, &[f64])| {
            let values = &v_numbers[head / self.shared * size..][..size];
            float_product(weights, values, self.keys, self.value_depth)
        };
        let values: Vec<f64> =
            weights.chunks((self.queries * self.keys).max(1)).enumerate().flat_map(of_head).collect();
        Array::floats(v.element_type, vec![self.batch, self.heads, self.queries, self.value_depth], &values)
    }
}

pub(super) fn attention(call: &Call<'_>) -> Result<Vec<Array>> {
    let (query, key_heads) = (call.input(0)?, call.int("kv_num_heads", 0));
    let q = heads(query, call.int("q_num_heads", 0))?;
    let past = |index: usize, new: Array| match call.optional(index) {
        Some(past) => Array::concat(&[past.clone(), new], 2),
        None => Ok(new),
    };
    let (k, v) = (past(4, heads(call.input(1)?, key_heads)?)?, past(5, heads(call.input(2)?, key_heads)?)?);
    let sizes = Sizes::new(&q, &k, &v)?;
    let scale = call.attribute("scale").map_or(1.0 / (sizes.depth as f64).sqrt(), |scale| scale.f.into());
    let (softcap, mode) = (call.float("softcap", 0.0), call.int("qk_matmul_output_mode", 0));
    let mut scores = sizes.scores(&q, &k, scale);
    let mut shown = if mode == 0 { scores.clone() } else { Vec::new() };
    if softcap > 0.0 {
        scores.iter_mut().for_each(|score| *score = softcap * libm::tanh(*score / softcap));
    }
    if mode == 1 {
        shown.clone_from(&scores);
    }
    let shape = sizes.scores_shape();
    if let Some(mask) = call.optional(3) {
        let is_bool = mask.element_type == ElementType::Bool;
        let missing = sizes.keys.saturating_sub(mask.shape.last().copied().unwrap_or(0)) as i64;
        let mut after = vec![0; mask.rank()];
        if let Some(last) = after.last_mut() {
            *last = missing;
        }
        let nothing = Array::floats(mask.element_type, Vec::new(), &[if is_bool { 0.0 } else { f64::NEG_INFINITY }])?;
        let mask = super::movement::padded_array(mask, &vec![0; after.len()], &after, "constant", nothing.bytes())?;
        let (places, values) = (broadcast_offsets(&mask.shape, &shape)?, mask.f64s());
        for (score, place) in scores.iter_mut().zip(places) {
            *score += match is_bool {
                true if values[place] == 0.0 => f64::NEG_INFINITY,
                true => 0.0,
                false => values[place],
            };
        }
    }
    let lengths = call.optional(6).map(Array::i64s);
    let before = call.optional(4).map_or(0, |past| past.shape.get(2).copied().unwrap_or(0));
    for (index, score) in scores.iter_mut().enumerate() {
        let (key, query) = (index % sizes.keys, index / sizes.keys % sizes.queries);
        let is_later = call.flag("is_causal") && key > query + before;
        let length =
            lengths.as_ref().and_then(|lengths| lengths.get(index / (sizes.keys * sizes.queries * sizes.heads)));
        if is_later || length.is_some_and(|length| key as i64 >= *length) {
            *score = f64::NEG_INFINITY;
        }
    }
    if mode == 2 {
        shown.clone_from(&scores);
    }
    scores.chunks_mut(sizes.keys.max(1)).for_each(|row| softmax_of(row, false));
    if mode == 3 {
        shown.clone_from(&scores);
    }
    let y = sizes.weigh(&scores, &v)?;
    let shown = Array::floats(query.element_type, shape, &shown)?;
    Ok(vec![joined(super::unary::cast_to(&y, query.element_type)?, query.rank())?, k, v, shown])
}

/// `FlexAttention`: `modify` applies the graph of that name to scores or weights, if the node has it.
pub(crate) fn flex_attention(call: &Call<'_>, modify: &dyn Fn(&str, Array) -> Result<Array>) -> Result<Vec<Array>> {
    let (q, k, v) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let sizes = Sizes::new(q, k, v)?;
    let scale = call.attribute("scale").map_or(1.0 / (sizes.depth as f64).sqrt(), |scale| scale.f.into());
    let otherwise = if q.element_type == ElementType::Float16 { ElementType::Float32 } else { q.element_type };
    let precision = call.element_type("softmax_precision", otherwise)?;
    let scores = Array::floats(precision, sizes.scores_shape(), &sizes.scores(q, k, scale))?;
    let scores = modify("score_mod", scores)?;
    let mut weights = scores.f64s();
    weights.chunks_mut(sizes.keys.max(1)).for_each(|row| softmax_of(row, false));
    let weights = modify("prob_mod", Array::floats(precision, scores.shape.clone(), &weights)?)?;
    if weights.shape != sizes.scores_shape() {
        return Err(format!("a nested graph gives shape {:?}", weights.shape));
    }
    Ok(vec![sizes.weigh(&weights.f64s(), v)?])
}

/// `LinearAttention`: a state for each head, to which each step adds its key and value.
pub(super) fn linear_attention(call: &Call<'_>) -> Result<Vec<Array>> {
    let (query, key, value) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let key_heads = call.int("kv_num_heads", 0);
    let (q, k, v) = (heads(query, call.int("q_num_heads", 0))?, heads(key, key_heads)?, heads(value, key_heads)?);
    let sizes = Sizes::new(&q, &k, &v)?;
    let (steps, depth, width) = (sizes.queries, sizes.depth, sizes.value_depth);
    let states = sizes.batch * sizes.heads / sizes.shared;
    if sizes.keys != steps {
        return Err(format!("{steps} queries and {} keys", sizes.keys));
    }
    // Of each head and step one number, or one for each element of the key.
    let per_step = |index: usize| -> Result<Option<(Vec<f64>, usize)>> {
        let Some(x) = call.optional(index) else { return Ok(None) };
        let last = x.shape.last().copied().unwrap_or(0);
        let x = if last == 1 { x.broadcast_to(&[sizes.batch, steps, key_heads as usize])? } else { x.clone() };
        let x = heads(&x, key_heads)?;
        let width = x.shape[3];
        match x.len() == states * steps * width && (width == 1 || width == depth) {
            true => Ok(Some((x.f64s(), width))),
            false => Err(format!("input {index} has shape {:?}", x.shape)),
        }
    };
    let (decay, beta) = (per_step(4)?, per_step(5)?);
    let state_shape = vec![sizes.batch, sizes.heads / sizes.shared, depth, width];
    let (mut state, state_type) = match call.optional(3) {
        Some(state) if state.shape == state_shape => (state.f64s(), state.element_type),
        Some(state) => return Err(format!("a state of shape {:?}", state.shape)),
        None => (vec![0.0; elements(&state_shape)?], query.element_type),
    };
    let scale = match call.float("scale", 0.0) {
        0.0 => 1.0 / (depth as f64).sqrt(),
        scale => scale,
    };
    let (qs, ks, vs) = (q.f64s(), k.f64s(), v.f64s());
    let mut values = vec![0.0; sizes.batch * sizes.heads * steps * width];
    for (head, state) in state.chunks_mut((depth * width).max(1)).enumerate() {
        for step in 0..steps {
            let at = head * steps + step;
            let key = &ks[at * depth..(at + 1) * depth];
            let mut value = vs[at * width..(at + 1) * width].to_vec();
            if let Some((decay, of_key)) = &decay {
                for (row, state) in state.chunks_mut(width.max(1)).enumerate() {
                    let factor = libm::exp(decay[at * of_key + if *of_key == 1 { 0 } else { row }]);
                    state.iter_mut().for_each(|x| *x *= factor);
                }
            }
            if let Some((beta, of_key)) = &beta {
                for (column, value) in value.iter_mut().enumerate() {
                    let known: f64 = key.iter().enumerate().map(|(row, key)| state[row * width + column] * key).sum();
                    *value = beta[at * of_key] * (*value - known);
                }
            }
            for (row, state) in state.chunks_mut(width.max(1)).enumerate() {
                state.iter_mut().zip(&value).for_each(|(x, value)| *x += key[row] * value);
            }
            for shared in 0..sizes.shared {
                let to = (head * sizes.shared + shared) * steps + step;
                let read = float_product(&qs[to * depth..(to + 1) * depth], state, depth, width);
                values[to * width..(to + 1) * width].iter_mut().zip(read).for_each(|(to, sum)| *to = sum * scale);
            }
        }
    }
    let output = Array::floats(query.element_type, vec![sizes.batch, sizes.heads, steps, width], &values)?;
    Ok(vec![joined(output, query.rank())?, Array::floats(state_type, state_shape, &state)?])
}

pub(super) fn rotary_embedding(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, cos, sin) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let split = heads(x, call.int("num_heads", 0))?;
    let &[batch, _, length, size] = split.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let rotated = match usize::try_from(call.int("rotary_embedding_dim", 0)) {
        Ok(0) => size,
        Ok(rotated) if rotated <= size => rotated,
        _ => return Err("rotary_embedding_dim is out of range".into()),
    };
    let half = rotated / 2;
    let positions = call.optional(3).map(Array::i64s);
    // Rows of the caches: by position, or one for each step of each element of the batch.
    let rows = match &positions {
        Some(positions) if positions.len() == batch * length => positions.clone(),
        Some(positions) => return Err(format!("{} positions", positions.len())),
        None => (0..(batch * length) as i64).collect(),
    };
    let (cos_numbers, sin_numbers) = (cos.f64s(), sin.f64s());
    let fits = |row: &i64| usize::try_from(*row).is_ok_and(|row| (row + 1).saturating_mul(half) <= cos_numbers.len());
    if cos.shape != sin.shape || cos.shape.last() != Some(&half) || !rows.iter().all(fits) {
        return Err(format!("caches of shape {:?} for {half} angles", cos.shape));
    }
    let is_interleaved = call.flag("interleaved");
    let mut values = split.f64s();
    for (row, values) in values.chunks_mut(size.max(1)).enumerate() {
        let (image, step) = (row / (split.shape[1] * length), row % length);
        let cache = rows[image * length + step] as usize * half;
        for angle in 0..half {
            let (one, two) = if is_interleaved { (2 * angle, 2 * angle + 1) } else { (angle, half + angle) };
            let (cos, sin) = (cos_numbers[cache + angle], sin_numbers[cache + angle]);
            (values[one], values[two]) = (cos * values[one] - sin * values[two], sin * values[one] + cos * values[two]);
        }
    }
    Ok(vec![joined(Array::floats(x.element_type, split.shape.clone(), &values)?, x.rank())?])
}
