//! Products of matrices and sums of products.

use super::array::{Array, ELEMENTS_MAX, Numbers, Result, broadcast, broadcast_offsets, elements, strides};
use super::call::Call;
use super::quantize::{dequantized, quantized};
use crate::ElementType;

/// Most products that one operator adds up.
const PRODUCTS_MAX: u64 = 1 << 36;

/// The product of `m` by `k` and `k` by `n` numbers, each sum in order.
fn product<T: Copy + Default>(a: &[T], b: &[T], k: usize, n: usize, add: fn(T, T, T) -> T) -> Vec<T> {
    let mut result = vec![T::default(); a.len().checked_div(k).unwrap_or(0) * n];
    for (row, sums) in a.chunks(k.max(1)).zip(result.chunks_mut(n.max(1))) {
        for (x, weights) in row.iter().zip(b.chunks(n.max(1))) {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum = add(*sum, *x, *weight));
        }
    }
    result
}

pub(super) fn float_product(a: &[f64], b: &[f64], k: usize, n: usize) -> Vec<f64> {
    product(a, b, k, n, |sum, x, y| sum + x * y)
}

/// The product as NumPy's `matmul` defines it, of numbers in place of the arrays' own.
fn matmul_numbers(a: &Array, b: &Array, x: &Numbers, y: &Numbers) -> Result<(Vec<usize>, Numbers)> {
    let (mut left, mut right) = (a.shape.clone(), b.shape.clone());
    if left.is_empty() || right.is_empty() {
        return Err("a product of scalars".into());
    }
    let (is_row, is_column) = (left.len() == 1, right.len() == 1);
    if is_row {
        left.insert(0, 1);
    }
    if is_column {
        right.push(1);
    }
    let (&[ref outer_left @ .., m, k], &[ref outer_right @ .., inner, n]) = (&*left, &*right) else {
        return Err(format!("shapes {left:?} and {right:?}"));
    };
    if k != inner {
        return Err(format!("a product of shapes {:?} and {:?}", a.shape, b.shape));
    }
    let outer = broadcast(&[outer_left, outer_right])?;
    let mut shape = outer.clone();
    shape.extend((!is_row).then_some(m));
    shape.extend((!is_column).then_some(n));
    let total = elements(&shape)?;
    if (total as u64).saturating_mul(k as u64) > PRODUCTS_MAX {
        return Err(format!("{total} sums of {k} products"));
    }
    let lefts = broadcast_offsets(outer_left, &outer)?;
    let rights = broadcast_offsets(outer_right, &outer)?;
    let places = || lefts.iter().zip(&rights).map(|(l, r)| (l * m * k..(l + 1) * m * k, r * k * n..(r + 1) * k * n));
    let numbers = match (x, y) {
        (Numbers::Integers(x), Numbers::Integers(y)) => {
            let add = |sum: i64, x: i64, y: i64| sum.wrapping_add(x.wrapping_mul(y));
            let parts = places().flat_map(|(l, r)| product(&x[l], &y[r], k, n, add));
            let values: Vec<i64> = parts.collect();
            Numbers::Integers(if k == 0 { vec![0; total] } else { values })
        }
        (Numbers::Floats(x), Numbers::Floats(y)) => {
            let values: Vec<f64> = places().flat_map(|(l, r)| float_product(&x[l], &y[r], k, n)).collect();
            Numbers::Floats(if k == 0 { vec![0.0; total] } else { values })
        }
        _ => return Err(format!("a product of {} and {}", a.element_type, b.element_type)),
    };
    Ok((shape, numbers))
}

pub(super) fn matmul(call: &Call<'_>) -> Result<Vec<Array>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (shape, numbers) = matmul_numbers(a, b, &a.numbers(), &b.numbers())?;
    Ok(vec![Array::from_numbers(a.element_type, shape, &numbers)?])
}

/// The numbers of an array less their zero point, which may be one for each index along an axis.
pub(super) fn centred(x: &Array, zero_point: Option<&Array>, along: usize) -> Result<Vec<i64>> {
    let mut values = x.i64s();
    let Some(zero_points) = zero_point.map(Array::i64s).filter(|points| !points.is_empty()) else { return Ok(values) };
    let inner = elements(x.shape.get(along + 1..).unwrap_or(&[]))?.max(1);
    let size = x.shape.get(along).copied().unwrap_or(1).max(1);
    if zero_points.len() != 1 && zero_points.len() != size {
        return Err(format!("{} zero points for {size} rows", zero_points.len()));
    }
    for (index, value) in values.iter_mut().enumerate() {
        let point = if zero_points.len() == 1 { 0 } else { index / inner % size };
        *value = value.wrapping_sub(zero_points[point]);
    }
    Ok(values)
}

pub(super) fn matmul_integer(call: &Call<'_>) -> Result<Vec<Array>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let x = Numbers::Integers(centred(a, call.optional(2), a.rank().saturating_sub(2))?);
    let y = Numbers::Integers(centred(b, call.optional(3), b.rank().saturating_sub(1))?);
    let (shape, numbers) = matmul_numbers(a, b, &x, &y)?;
    Ok(vec![Array::from_numbers(ElementType::Int32, shape, &numbers)?])
}

pub(super) fn qlinear_matmul(call: &Call<'_>) -> Result<Vec<Array>> {
    let (a, b, zero_point) = (call.input(0)?, call.input(3)?, call.input(7)?);
    let x = dequantized(a, call.input(1)?, call.optional(2), a.rank().saturating_sub(2), 0)?;
    let y = dequantized(b, call.input(4)?, call.optional(5), b.rank().saturating_sub(1), 0)?;
    let (shape, numbers) = matmul_numbers(a, b, &Numbers::Floats(x), &Numbers::Floats(y))?;
    let Numbers::Floats(values) = numbers else { return Err("its products are no floats".into()) };
    let along = shape.len().saturating_sub(1);
    let quantized = quantized(&values, &shape, call.input(6)?, Some(zero_point), along, 0, zero_point.element_type)?;
    Ok(vec![quantized])
}

pub(super) fn gemm(call: &Call<'_>) -> Result<Vec<Array>> {
    let side = |index: usize, name: &str| -> Result<Array> {
        let x = call.input(index)?;
        if x.rank() != 2 {
            return Err(format!("input {index} has shape {:?}", x.shape));
        }
        if call.flag(name) { x.transposed(&[1, 0]) } else { Ok(x.clone()) }
    };
    let (a, b) = (side(0, "transA")?, side(1, "transB")?);
    let (shape, numbers) = matmul_numbers(&a, &b, &Numbers::Floats(a.f64s()), &Numbers::Floats(b.f64s()))?;
    let Numbers::Floats(mut values) = numbers else { return Err("its products are no floats".into()) };
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    values.iter_mut().for_each(|value| *value *= alpha);
    if let Some(c) = call.optional(2) {
        let (places, added) = (broadcast_offsets(&c.shape, &shape)?, c.f64s());
        values.iter_mut().zip(places).for_each(|(value, place)| *value += beta * added[place]);
    }
    Ok(vec![Array::floats(a.element_type, shape, &values)?])
}

/// The axes of a term of an equation: each letter, or a negative number for an axis of an ellipsis, from the last.
fn term_axes(term: &str, rank: usize) -> Result<Vec<i64>> {
    let letters = term.chars().filter(|c| c.is_alphabetic()).count();
    let (before, after, has_ellipsis) = match term.split_once("...") {
        Some((before, after)) => (before, after, true),
        None => (term, "", false),
    };
    if letters > rank || !has_ellipsis && letters != rank {
        return Err(format!("term {term:?} for {rank} axes"));
    }
    let letters_of = |text: &str| text.chars().filter(|c| c.is_alphabetic()).map(|c| i64::from(u32::from(c))).collect();
    let (before, after): (Vec<i64>, Vec<i64>) = (letters_of(before), letters_of(after));
    let ellipsis = (1..=(rank - letters) as i64).rev().map(|index| -index);
    Ok(before.into_iter().chain(ellipsis).chain(after).collect())
}

/// `Einsum`: sums over all axes that the result has not.
pub(super) fn einsum(call: &Call<'_>) -> Result<Vec<Array>> {
    let equation: String = call.text("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (&*equation, None),
    };
    let inputs = call.all();
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != inputs.len() {
        return Err(format!("equation {equation:?} for {} inputs", inputs.len()));
    }
    let axes = terms.iter().zip(&inputs).map(|(term, x)| term_axes(term, x.rank())).collect::<Result<Vec<_>>>()?;
    let mut known: Vec<(i64, usize)> = Vec::new();
    for (axes, x) in axes.iter().zip(&inputs) {
        for (label, size) in axes.iter().zip(&x.shape) {
            match known.iter_mut().find(|(other, _)| other == label) {
                Some((_, other)) if *other == 1 => *other = *size,
                Some((_, other)) if *size != 1 && other != size => return Err(format!("sizes {other} and {size}")),
                Some(_) => {}
                None => known.push((*label, *size)),
            }
        }
    }
    // The axes of ellipses come first in a result that is not told, and then the letters that are there once.
    let ellipsis = known.iter().filter(|(label, _)| *label < 0).count();
    let result = match right {
        Some(right) => {
            let letters = right.chars().filter(|c| c.is_alphabetic()).count();
            term_axes(right, letters + if right.contains("...") { ellipsis } else { 0 })?
        }
        None => {
            let count = |label: i64| axes.iter().flatten().filter(|other| **other == label).count();
            let mut single: Vec<i64> = known.iter().map(|(label, _)| *label).collect();
            single.retain(|label| *label < 0 || count(*label) == 1);
            single.sort_unstable();
            single
        }
    };
    let size_of = |label: &i64| known.iter().find(|(other, _)| other == label).map(|(_, size)| *size);
    let mut labels = result.clone();
    labels.extend(known.iter().map(|(label, _)| *label).filter(|label| !result.contains(label)));
    let sizes = labels.iter().map(size_of).collect::<Option<Vec<_>>>().ok_or("the result has an axis of its own")?;
    let total = sizes.iter().fold(1usize, |total, size| total.saturating_mul(*size));
    if total > 8 * ELEMENTS_MAX {
        return Err(format!("{total} products"));
    }
    let shape: Vec<usize> = sizes[..result.len()].to_vec();
    let summed: Vec<usize> = sizes[result.len()..].to_vec();
    let step = |input: usize, label: &i64| -> isize {
        let own = strides(&inputs[input].shape);
        let axes =
            axes[input].iter().enumerate().filter(|(axis, other)| *other == label && inputs[input].shape[*axis] != 1);
        axes.map(|(axis, _)| own[axis] as isize).sum()
    };
    let offsets_of = |shape: &[usize], labels: &[i64]| -> Result<Vec<Vec<usize>>> {
        let of_input = |input: usize| {
            let steps: Vec<isize> = labels.iter().map(|label| step(input, label)).collect();
            super::array::offsets(shape, &steps, 0)
        };
        (0..inputs.len()).map(of_input).collect()
    };
    let (starts, steps) = (offsets_of(&shape, &labels[..result.len()])?, offsets_of(&summed, &labels[result.len()..])?);
    let values: Vec<Vec<f64>> = inputs.iter().map(|input| input.f64s()).collect();
    let term = |at: usize, step: usize| -> f64 {
        values.iter().enumerate().map(|(input, values)| values[starts[input][at] + steps[input][step]]).product()
    };
    let count = elements(&summed)?;
    let sums: Vec<f64> =
        (0..elements(&shape)?).map(|at| (0..count).map(|step| term(at, step)).fold(0.0, |a, b| a + b)).collect();
    let element_type = call.input(0)?.element_type;
    Ok(vec![Array::floats(element_type, shape, &sums)?])
}
