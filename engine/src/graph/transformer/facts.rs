//! Types and shapes of the outputs, and whether the inputs fit together.

use super::Transformer;
use super::forms::Operator;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

/// Element type and shape of a value.
pub(super) type Fact = (DatumType, TVec<TDim>);

/// The facts of a node's inputs.
struct Facts<'a> {
    op: &'a Transformer,
    facts: &'a [Fact],
}

/// Sizes of an attention.
struct Sizes {
    batch: TDim,
    kv_heads: usize,
    columns: usize,
    value_columns: usize,
    /// New positions of keys and values.
    new: TDim,
}

impl Transformer {
    /// Those of the outputs that are wanted. Fails with what does not fit.
    pub(super) fn facts(&self, facts: &[Fact]) -> TractResult<Vec<Fact>> {
        let given = Facts { op: self, facts };
        let (datum_type, x) = given.fact(0)?;
        ensure!(!x.is_empty(), "its first input has no axes");
        let all = match self.operator {
            Operator::RMSNormalization => {
                let axis = self.int("axis", -1);
                ensure!(
                    axis == -1 || axis == x.len() as i64 - 1,
                    "attribute axis is {axis}, which is not the last one"
                );
                given.row(1, &x[x.len() - 1], "scale")?;
                vec![(datum_type, x)]
            }
            Operator::SkipLayerNormalization | Operator::SkipSimplifiedLayerNormalization => {
                let columns = &x[x.len() - 1];
                let last = given.fact(1)?.1.last().cloned();
                ensure!(last.as_ref() == Some(columns), "skip has rows of {last:?}, not of {columns}");
                for row in 2..self.inputs.len() {
                    given.row(row, columns, ["gamma", "beta", "bias"][row - 2])?;
                }
                vec![(datum_type, x); 4]
            }
            Operator::RotaryEmbedding | Operator::ContribRotaryEmbedding => {
                ensure!(matches!(x.len(), 3 | 4), "its first input has {} axes, not 3 or 4", x.len());
                vec![(datum_type, x)]
            }
            Operator::Attention => given.attention(datum_type, &x)?,
            Operator::MultiHeadAttention => given.multi_head(datum_type, &x)?,
            Operator::GroupQueryAttention => given.group_query(datum_type, &x)?,
            Operator::GatherBlockQuantized => vec![given.gather(datum_type, &x)?],
        };
        self.outputs.iter().map(|index| all.get(*index).cloned().with_context(|| format!("output {index}"))).collect()
    }
}

/// A size that is known and such that products with a few are in range.
fn known(size: &TDim) -> TractResult<usize> {
    let known = size.to_usize().ok().filter(|size| *size < 1 << 28);
    known.with_context(|| format!("a size is {size}, which is not known or too large"))
}

/// A size divided into so many parts.
fn part(size: &TDim, parts: usize, what: &str) -> TractResult<usize> {
    let known = known(size).ok().filter(|size| parts > 0 && size.is_multiple_of(parts));
    known.map(|size| size / parts).with_context(|| format!("{what} has rows of {size}, which are not {parts} heads"))
}

impl Facts<'_> {
    fn fact(&self, input: usize) -> TractResult<Fact> {
        self.get(input).with_context(|| format!("input {input} is missing"))
    }

    fn get(&self, input: usize) -> Option<Fact> {
        self.facts.get((*self.op.inputs.get(input)?)?).cloned()
    }

    /// Checks that an input, if it is there, is a row of so many.
    fn row(&self, input: usize, columns: &TDim, what: &str) -> TractResult<()> {
        let Some((_, shape)) = self.get(input) else { return Ok(()) };
        let is_row = shape.last() == Some(columns) && shape.iter().rev().skip(1).all(|size| size.is_one());
        ensure!(is_row, "{what} has shape {shape:?}, not [{columns}]");
        Ok(())
    }

    /// Checks an input's shape.
    fn shaped(&self, input: usize, wanted: &[TDim], what: &str) -> TractResult<()> {
        let (_, shape) = self.fact(input)?;
        ensure!(&*shape == wanted, "{what} has shape {shape:?}, not {wanted:?}");
        Ok(())
    }

    /// Output, present keys and present values, with the past, if there is one, in two inputs from `past` on.
    fn outputs(&self, datum_type: DatumType, y: TVec<TDim>, sizes: &Sizes, past: usize) -> TractResult<Vec<Fact>> {
        ensure!(
            sizes.kv_heads > 0 && sizes.columns > 0 && sizes.value_columns > 0,
            "a head of keys or values is empty"
        );
        let mut positions = sizes.new.clone();
        let of = |positions: &TDim, columns: usize| {
            tvec!(sizes.batch.clone(), sizes.kv_heads.to_dim(), positions.clone(), columns.to_dim())
        };
        if self.op.has(past) || self.op.has(past + 1) {
            let before = self.fact(past)?.1.get(2).cloned().context("the past has not four axes")?;
            self.shaped(past, &of(&before, sizes.columns), "past_key")?;
            self.shaped(past + 1, &of(&before, sizes.value_columns), "past_value")?;
            positions += before;
        }
        let (keys, values) = (of(&positions, sizes.columns), of(&positions, sizes.value_columns));
        Ok(vec![(datum_type, y), (datum_type, keys), (datum_type, values)])
    }

    fn group_query(&self, datum_type: DatumType, query: &[TDim]) -> TractResult<Vec<Fact>> {
        let [batch, positions, hidden] = query else { bail!("query has shape {query:?}, not of 3 axes") };
        let (heads, kv_heads) = (self.op.count("num_heads")?, self.op.count("kv_num_heads")?);
        let shares = kv_heads > 0 && heads.is_multiple_of(kv_heads);
        ensure!(shares, "{heads} heads of queries do not share {kv_heads} heads of keys");
        let is_packed = !self.op.has(1);
        let columns = part(hidden, if is_packed { heads + 2 * kv_heads } else { heads }, "query")?;
        if !is_packed {
            let new = [batch.clone(), positions.clone(), (kv_heads * columns).to_dim()];
            self.shaped(1, &new, "key")?;
            self.shaped(2, &new, "value")?;
        }
        if self.op.int("do_rotary", 0) != 0 {
            let (cosines, sines) = (self.fact(7)?.1, self.fact(8)?.1);
            let fits = |half: usize| half > 0 && 2 * half <= columns;
            ensure!(
                cosines == sines && cosines.len() == 2 && known(&cosines[1]).is_ok_and(fits),
                "cos_cache and sin_cache have shapes {cosines:?} and {sines:?} for heads of {columns}"
            );
        }
        let (batch, new) = (batch.clone(), positions.clone());
        let y = tvec!(batch.clone(), new.clone(), (heads * columns).to_dim());
        let sizes = Sizes { batch, kv_heads, columns, value_columns: columns, new };
        self.outputs(datum_type, y, &sizes, 3)
    }

    fn multi_head(&self, datum_type: DatumType, query: &[TDim]) -> TractResult<Vec<Fact>> {
        let heads = self.op.count("num_heads")?;
        let (batch, positions) = (query[0].clone(), query.get(1).cloned().context("query has one axis")?);
        let heads_dim = heads.to_dim();
        let (columns, new, value_columns) = match (query, self.op.has(1), self.op.has(2)) {
            ([_, _, of, three, columns], false, false) if *of == heads_dim && *three == 3.to_dim() => {
                (known(columns)?, positions.clone(), known(columns)?)
            }
            ([_, _, hidden], true, _) => {
                let columns = part(hidden, heads, "query")?;
                let key = self.fact(1)?.1;
                let new = key.get(if key.len() == 4 { 2 } else { 1 }).cloned().context("key has one axis")?;
                let wide = columns.to_dim();
                let wanted: TVec<TDim> = match key.len() {
                    3 => tvec!(batch.clone(), new.clone(), hidden.clone()),
                    4 => tvec!(batch.clone(), heads_dim.clone(), new.clone(), wide),
                    _ => tvec!(batch.clone(), new.clone(), heads_dim.clone(), 2.to_dim(), wide),
                };
                self.shaped(1, &wanted, "key")?;
                ensure!(
                    self.op.has(2) != (key.len() == 5),
                    "key has {} axes, and value is beside it or not",
                    key.len()
                );
                let value_columns = if self.op.has(2) {
                    let value = self.fact(2)?.1;
                    let last = value.last().context("value has no axes")?;
                    let of_head = part(last, if key.len() == 4 { 1 } else { heads }, "value")?;
                    let mut wanted = wanted;
                    if let Some(size) = wanted.last_mut() {
                        *size = last.clone();
                    }
                    self.shaped(2, &wanted, "value")?;
                    of_head
                } else {
                    columns
                };
                (columns, new, value_columns)
            }
            _ => bail!("query has shape {query:?}, with {heads} heads"),
        };
        if self.op.has(3) {
            ensure!(query.len() == 3 && self.op.has(2), "a bias of packed values is not supported");
            self.row(3, &(heads.to_dim() * (2 * columns + value_columns) as i64), "bias")?;
        }
        let y = tvec!(batch.clone(), positions, heads.to_dim() * value_columns as i64);
        let sizes = Sizes { batch, kv_heads: heads, columns, value_columns, new };
        self.outputs(datum_type, y, &sizes, 6)
    }

    fn attention(&self, datum_type: DatumType, query: &[TDim]) -> TractResult<Vec<Fact>> {
        let split = |shape: &[TDim], heads: &str, what: &str| match *shape {
            [ref batch, ref heads, ref positions, ref columns] => {
                Ok((batch.clone(), known(heads)?, positions.clone(), known(columns)?))
            }
            [ref batch, ref positions, ref hidden] => {
                let heads = self.op.count(heads)?;
                Ok((batch.clone(), heads, positions.clone(), part(hidden, heads, what)?))
            }
            _ => bail!("{what} has shape {shape:?}"),
        };
        let (batch, heads, positions, columns) = split(query, "q_num_heads", "Q")?;
        let (key, value) = (self.fact(1)?.1, self.fact(2)?.1);
        let (key_batch, kv_heads, new, key_columns) = split(&key, "kv_num_heads", "K")?;
        let (value_batch, value_heads, value_new, value_columns) = split(&value, "kv_num_heads", "V")?;
        let fits = key_batch == batch && value_batch == batch && key_columns == columns && value_new == new;
        let shares = kv_heads > 0 && value_heads == kv_heads && heads.is_multiple_of(kv_heads);
        ensure!(fits && shares, "Q, K and V have shapes {query:?}, {key:?} and {value:?}");
        let y = match query.len() {
            4 => tvec!(batch.clone(), heads.to_dim(), positions, value_columns.to_dim()),
            _ => tvec!(batch.clone(), positions, (heads * value_columns).to_dim()),
        };
        let sizes = Sizes { batch, kv_heads, columns, value_columns, new };
        self.outputs(datum_type, y, &sizes, 4)
    }

    fn gather(&self, datum_type: DatumType, data: &[TDim]) -> TractResult<Fact> {
        let (bits, block) = (self.op.int("bits", 4), self.op.int("block_size", 128));
        let axis = self.op.int("quantize_axis", 1);
        let [rows, bytes] = data else { bail!("data has shape {data:?}, not of 2 axes") };
        ensure!(datum_type == DatumType::U8, "data is {datum_type:?}, not bytes");
        ensure!(matches!(axis, 1 | -1), "attribute quantize_axis is {axis}, which is not the last one");
        ensure!((16..1 << 31).contains(&block) && block & (block - 1) == 0, "blocks of {block}");
        let columns = known(bytes)? * if bits == 4 { 2 } else { 1 };
        let blocks = columns.div_ceil(block as usize);
        self.shaped(2, &[rows.clone(), blocks.to_dim()], "scales")?;
        if self.op.has(3) {
            let packed = if bits == 4 { blocks.div_ceil(2) } else { blocks };
            self.shaped(3, &[rows.clone(), packed.to_dim()], "zero_points")?;
            let of = self.fact(3)?.0;
            ensure!(of == DatumType::U8, "zero_points are {of:?}, not bytes");
        }
        let mut shape = self.fact(1)?.1;
        shape.push(columns.to_dim());
        Ok((self.fact(2)?.0, shape))
    }
}
