//! Operators along axes: reductions, running sums, softmax, sorting.

use super::array::{Array, ELEMENTS_MAX, Numbers, Result, axis, elements, strides};
use super::call::Call;
use crate::ElementType;
use std::cmp::Ordering;

/// For each result of a reduction over `axes` the elements it is made of, in order: the offset of the first, and the
/// offsets of all from it.
pub(super) fn groups(shape: &[usize], axes: &[usize]) -> Result<(Vec<usize>, Vec<usize>)> {
    let own = strides(shape);
    let part = |reduced: bool| -> Result<Vec<usize>> {
        let chosen: Vec<usize> = (0..shape.len()).filter(|axis| axes.contains(axis) == reduced).collect();
        let shape: Vec<usize> = chosen.iter().map(|axis| shape[*axis]).collect();
        let strides: Vec<isize> = chosen.iter().map(|axis| own[*axis] as isize).collect();
        super::array::offsets(&shape, &strides, 0)
    };
    Ok((part(false)?, part(true)?))
}

fn float(name: &str, values: impl Iterator<Item = f64> + Clone, count: usize) -> f64 {
    match name {
        "ReduceL1" => values.map(f64::abs).sum(),
        "ReduceL2" => values.map(|x| x * x).sum::<f64>().sqrt(),
        "ReduceLogSum" => libm::log(values.sum()),
        "ReduceLogSumExp" => {
            let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
            let from = if largest.is_finite() { largest } else { 0.0 };
            libm::log(values.map(|x| libm::exp(x - from)).sum()) + from
        }
        "ReduceMax" => {
            values.fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
        }
        "ReduceMin" => values.fold(f64::INFINITY, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }),
        "ReduceMean" => values.sum::<f64>() / count as f64,
        "ReduceProd" => values.product(),
        "ReduceSumSquare" => values.map(|x| x * x).sum(),
        // A sum of nothing is 0 and not the -0 that std's sum begins with.
        _ => values.fold(0.0, |a, b| a + b),
    }
}

/// Reductions of integers that are exact; `None` of the others.
fn integer(name: &str, values: impl Iterator<Item = i64>, element_type: ElementType) -> Option<i64> {
    let flip = if element_type == ElementType::Uint64 { i64::MIN } else { 0 };
    let (low, high) = super::binary::integer_range(element_type);
    Some(match name {
        "ReduceSum" => values.fold(0, i64::wrapping_add),
        "ReduceProd" => values.fold(1, i64::wrapping_mul),
        "ReduceSumSquare" => values.fold(0, |sum, x| sum.wrapping_add(x.wrapping_mul(x))),
        "ReduceL1" => values.fold(0, |sum, x| sum.wrapping_add(x.wrapping_abs())),
        "ReduceMax" => values.fold(low ^ flip, |a, b| a.max(b ^ flip)) ^ flip,
        "ReduceMin" => values.fold(high ^ flip, |a, b| a.min(b ^ flip)) ^ flip,
        _ => return None,
    })
}

/// The `Reduce` operators.
pub(super) fn reduce(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let name = &*call.node.op_type;
    let axes = match call.ints_or_input("axes", 1).unwrap_or_default() {
        axes if axes.is_empty() && call.flag("noop_with_empty_axes") => Vec::new(),
        axes if axes.is_empty() => (0..x.rank()).collect(),
        axes => axes.into_iter().map(|at| axis(at, x.rank())).collect::<Result<Vec<_>>>()?,
    };
    let keeps = call.int("keepdims", 1) != 0;
    let of_axis = |(axis, size): (usize, &usize)| match (axes.contains(&axis), keeps) {
        (false, _) => Some(*size),
        (true, true) => Some(1),
        (true, false) => None,
    };
    let shape: Vec<usize> = x.shape.iter().enumerate().filter_map(of_axis).collect();
    let (starts, steps) = groups(&x.shape, &axes)?;
    if let Numbers::Integers(values) = x.numbers() {
        let results =
            starts.iter().map(|start| integer(name, steps.iter().map(|step| values[start + step]), x.element_type));
        if let Some(results) = results.collect::<Option<Vec<_>>>() {
            return Ok(vec![Array::integers(x.element_type, shape, &results)?]);
        }
    }
    let values = x.f64s();
    let results = starts.iter().map(|start| float(name, steps.iter().map(|step| values[start + step]), steps.len()));
    Ok(vec![Array::floats(x.element_type, shape, &results.collect::<Vec<_>>())?])
}

/// The order of two elements of an array, by their indices; NaN comes after all numbers.
fn order(numbers: &Numbers, flip: i64, one: usize, other: usize) -> Ordering {
    match numbers {
        Numbers::Floats(values) => {
            let (x, y) = (values[one], values[other]);
            x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
        }
        Numbers::Integers(values) => (values[one] ^ flip).cmp(&(values[other] ^ flip)),
    }
}

/// The numbers below `count` in an order, those that are equal in it as they were. One sort serves all operators.
pub(super) fn sorted(count: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..count).collect();
    sorted.sort_by(|one, other| order(*one, *other));
    sorted
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", 0), x.rank())?;
    let (starts, steps) = groups(&x.shape, &[along])?;
    let (numbers, flip) = (x.numbers(), if x.is_uint64() { i64::MIN } else { 0 });
    let (takes_last, is_max) = (call.flag("select_last_index"), call.node.op_type == "ArgMax");
    if steps.is_empty() && !starts.is_empty() {
        return Err("the axis is empty".into());
    }
    let best = |start: &usize| {
        let mut best = 0;
        for index in 1..steps.len() {
            let order = order(&numbers, flip, start + steps[index], start + steps[best]);
            let order = if is_max { order } else { order.reverse() };
            if order.is_gt() || order.is_eq() && takes_last {
                best = index;
            }
        }
        best as i64
    };
    let values: Vec<i64> = starts.iter().map(best).collect();
    let mut shape = x.shape.clone();
    match call.int("keepdims", 1) {
        0 => drop(shape.remove(along)),
        _ => shape[along] = 1,
    }
    Ok(vec![Array::integers(ElementType::Int64, shape, &values)?])
}

/// `CumSum` and `CumProd`.
pub(super) fn cumulate(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = axis(call.input(1)?.scalar_i64()?, x.rank())?;
    let (starts, mut steps) = groups(&x.shape, &[along])?;
    if call.flag("reverse") {
        steps.reverse();
    }
    let (excludes, is_sum) = (call.flag("exclusive"), call.node.op_type == "CumSum");
    let numbers = match x.numbers() {
        Numbers::Floats(mut values) => {
            for start in starts {
                let mut total = if is_sum { 0.0 } else { 1.0 };
                for step in &steps {
                    let value = &mut values[start + step];
                    let next = if is_sum { total + *value } else { total * *value };
                    *value = if excludes { total } else { next };
                    total = next;
                }
            }
            Numbers::Floats(values)
        }
        Numbers::Integers(mut values) => {
            for start in starts {
                let mut total = i64::from(!is_sum);
                for step in &steps {
                    let value = &mut values[start + step];
                    let next = if is_sum { total.wrapping_add(*value) } else { total.wrapping_mul(*value) };
                    *value = if excludes { total } else { next };
                    total = next;
                }
            }
            Numbers::Integers(values)
        }
    };
    Ok(vec![Array::from_numbers(x.element_type, x.shape.clone(), &numbers)?])
}

/// Replaces each number by its share of the exponentials, or by that share's logarithm.
pub(super) fn softmax_of(values: &mut [f64], of_logarithm: bool) {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let from = if largest.is_finite() { largest } else { 0.0 };
    let total: f64 = values.iter().map(|x| libm::exp(x - from)).sum();
    for value in values {
        *value = match of_logarithm {
            true => *value - from - libm::log(total),
            false => libm::exp(*value - from) / total,
        };
    }
}

/// `Softmax`, `LogSoftmax`, `Hardmax` and `LpNormalization`: before operator set 13 the first three go over all axes from
/// theirs on.
pub(super) fn softmax(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let name = &*call.node.op_type;
    let is_norm = name == "LpNormalization";
    let old = call.opset < 13 && !is_norm;
    let at = call.int("axis", if old { 1 } else { -1 });
    let axes: Vec<usize> = match (old, at) {
        (true, at) if at == x.rank() as i64 => Vec::new(),
        (true, at) => (axis(at, x.rank())?..x.rank()).collect(),
        (false, at) if x.rank() == 0 && (at == -1 || at == 0) => Vec::new(),
        (false, at) => vec![axis(at, x.rank())?],
    };
    let (starts, steps) = groups(&x.shape, &axes)?;
    let mut values = x.f64s();
    for start in starts {
        let mut row: Vec<f64> = steps.iter().map(|step| values[start + step]).collect();
        match name {
            "Softmax" => softmax_of(&mut row, false),
            "LogSoftmax" => softmax_of(&mut row, true),
            "LpNormalization" => {
                let norm = match call.int("p", 2) {
                    1 => row.iter().map(|x| x.abs()).sum::<f64>(),
                    _ => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
                };
                row.iter_mut().for_each(|x| *x = if norm == 0.0 { 0.0 } else { *x / norm });
            }
            _ => {
                let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let first = row.iter().position(|x| *x == largest);
                row.iter_mut().enumerate().for_each(|(index, x)| *x = f64::from(u8::from(Some(index) == first)));
            }
        }
        steps.iter().zip(row).for_each(|(step, value)| values[start + step] = value);
    }
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &values)?])
}

/// `TopK`; of equal elements the first comes first.
pub(super) fn top_k(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", -1), x.rank())?;
    let k = match call.attribute("k") {
        Some(attribute) => attribute.i,
        None => call.input(1)?.scalar_i64()?,
    };
    let k = usize::try_from(k).ok().filter(|k| *k <= x.shape[along]).ok_or_else(|| format!("{k} of {:?}", x.shape))?;
    let (starts, steps) = groups(&x.shape, &[along])?;
    let (numbers, flip) = (x.numbers(), if x.is_uint64() { i64::MIN } else { 0 });
    let takes_largest = call.int("largest", 1) != 0;
    let mut shape = x.shape.clone();
    shape[along] = k;
    let (count, stride) = (elements(&shape)?, strides(&shape)[along]);
    let (mut places, mut indices) = (vec![0; count], vec![0i64; count]);
    // An empty axis has no rows to tell apart.
    for start in starts.into_iter().filter(|_| count > 0) {
        let sorted = sorted(steps.len(), &|one, other| {
            let order = order(&numbers, flip, start + steps[one], start + steps[other]);
            if takes_largest { order.reverse() } else { order }
        });
        // The row of a result starts where that of the input does, with the axis' size in between.
        let first = start / (stride * x.shape[along]) * (stride * k) + start % stride;
        for (rank, index) in sorted.into_iter().take(k).enumerate() {
            places[first + rank * stride] = start + steps[index];
            indices[first + rank * stride] = index as i64;
        }
    }
    Ok(vec![x.pick(shape.clone(), &places)?, Array::integers(ElementType::Int64, shape, &indices)?])
}

/// `Unique`: values, first indices, inverse indices and counts.
pub(super) fn unique(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = match call.attribute("axis") {
        Some(attribute) => Some(axis(attribute.i, x.rank())?),
        None => None,
    };
    let (starts, steps) = match along {
        // Each index along the axis is a row of elements.
        Some(along) => groups(&x.shape, &(0..x.rank()).filter(|axis| *axis != along).collect::<Vec<_>>())?,
        None => ((0..x.len()).collect(), vec![0]),
    };
    let (numbers, flip) = (x.numbers(), if x.is_uint64() { i64::MIN } else { 0 });
    let compare = |one: usize, other: usize| {
        let orders = steps.iter().map(|step| order(&numbers, flip, starts[one] + step, starts[other] + step));
        orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    // Runs of equal rows; the sort keeps the first of each first.
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for row in sorted(starts.len(), &compare) {
        match runs.last_mut() {
            Some(run) if compare(run[0], row).is_eq() => run.push(row),
            _ => runs.push(vec![row]),
        }
    }
    if call.int("sorted", 1) == 0 {
        let by_first = sorted(runs.len(), &|one, other| runs[one][0].cmp(&runs[other][0]));
        runs = by_first.into_iter().map(|index| std::mem::take(&mut runs[index])).collect();
    }
    let mut inverse = vec![0i64; starts.len()];
    for (index, run) in runs.iter().enumerate() {
        run.iter().for_each(|row| inverse[*row] = index as i64);
    }
    let firsts: Vec<i64> = runs.iter().map(|run| run[0] as i64).collect();
    let counts: Vec<i64> = runs.iter().map(|run| run.len() as i64).collect();
    let values = match along {
        Some(along) => {
            let rows = firsts.iter().map(|row| x.part(along, *row as usize, 1)).collect::<Result<Vec<_>>>()?;
            if rows.is_empty() { x.clone() } else { Array::concat(&rows, along)? }
        }
        None => x.pick(vec![firsts.len()], &firsts.iter().map(|first| *first as usize).collect::<Vec<_>>())?,
    };
    Ok(vec![values, Array::vector(&firsts)?, Array::vector(&inverse)?, Array::vector(&counts)?])
}

/// Most elements of a matrix whose determinant is worked out.
const MATRIX_ELEMENTS_MAX: usize = ELEMENTS_MAX >> 8;

/// `Det`: by elimination with the largest pivot.
pub(super) fn determinant(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let &[ref outer @ .., n, columns] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    if n != columns || n * n > MATRIX_ELEMENTS_MAX {
        return Err(format!("shape {:?}", x.shape));
    }
    let mut values = x.f64s();
    let mut results = Vec::new();
    for matrix in values.chunks_mut((n * n).max(1)) {
        let mut determinant = 1.0;
        for column in 0..n {
            let size = |row: &usize| matrix[row * n + column].abs();
            let pivot = (column..n).max_by(|one, other| size(one).total_cmp(&size(other))).unwrap_or(column);
            if pivot != column {
                (0..n).for_each(|index| matrix.swap(pivot * n + index, column * n + index));
                determinant = -determinant;
            }
            let head = matrix[column * n + column];
            determinant *= head;
            if head == 0.0 {
                break;
            }
            for row in column + 1..n {
                let factor = matrix[row * n + column] / head;
                (column..n).for_each(|index| matrix[row * n + index] -= factor * matrix[column * n + index]);
            }
        }
        results.push(determinant);
    }
    Ok(vec![Array::floats(x.element_type, outer.to_vec(), &results)?])
}
