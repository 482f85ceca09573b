//! Operators on pairs of elements, with broadcasting.

use super::array::{Array, Numbers, Result, broadcast, broadcast_offsets, integer_bits};
use super::call::Call;
use super::unary::cast_to;
use crate::ElementType;

/// The remainder with the sign of the divisor, or with `truncates` that of the dividend.
fn remainder(x: f64, y: f64, truncates: bool) -> f64 {
    let rest = libm::fmod(x, y);
    if !truncates && rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
}

/// What an operator gives for two floats.
fn float(name: &str, x: f64, y: f64, truncates: bool) -> Option<f64> {
    Some(match name {
        "Add" | "Sum" | "Mean" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => remainder(x, y, truncates),
        "Pow" => libm::pow(x, y),
        "PRelu" => {
            if x < 0.0 {
                x * y
            } else {
                x
            }
        }
        "Max" if x.is_nan() || y.is_nan() => f64::NAN,
        "Max" => x.max(y),
        "Min" if x.is_nan() || y.is_nan() => f64::NAN,
        "Min" => x.min(y),
        _ => return None,
    })
}

/// What an operator gives for two integers of a type, before it is wrapped to it.
fn integer(name: &str, x: i64, y: i64, element_type: ElementType, truncates: bool) -> Option<i64> {
    let is_uint64 = element_type == ElementType::Uint64;
    let (ux, uy) = (x as u64, y as u64);
    Some(match name {
        "Add" | "Sum" | "Mean" => x.wrapping_add(y),
        "Sub" => x.wrapping_sub(y),
        "Mul" => x.wrapping_mul(y),
        // There is no quotient by 0; any value is as good, and nothing must end the run.
        "Div" | "Mod" if y == 0 => 0,
        "Div" if is_uint64 => (ux / uy) as i64,
        "Div" => x.wrapping_div(y),
        "Mod" if is_uint64 => (ux % uy) as i64,
        "Mod" => {
            let rest = x.wrapping_rem(y);
            if !truncates && rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
        }
        "Pow" => integer_power(x, y),
        "PRelu" => {
            if x < 0 && !is_uint64 {
                x.wrapping_mul(y)
            } else {
                x
            }
        }
        "Max" if is_uint64 => ux.max(uy) as i64,
        "Max" => x.max(y),
        "Min" if is_uint64 => ux.min(uy) as i64,
        "Min" => x.min(y),
        "And" | "BitwiseAnd" => x & y,
        "Or" | "BitwiseOr" => x | y,
        "Xor" | "BitwiseXor" => x ^ y,
        "ShiftLeft" => u32::try_from(y).ok().and_then(|by| x.checked_shl(by)).unwrap_or(0),
        "ShiftRight" => u32::try_from(y).ok().and_then(|by| ux.checked_shr(by)).unwrap_or(0) as i64,
        _ => return None,
    })
}

/// `x` to the power of `y`, wrapped around.
fn integer_power(x: i64, y: i64) -> i64 {
    let Ok(mut exponent) = u64::try_from(y) else {
        // A fraction, unless the base is 1 or -1.
        return match x {
            1 => 1,
            -1 => {
                if y % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        };
    };
    let (mut power, mut result) = (x, 1i64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(power);
        }
        power = power.wrapping_mul(power);
        exponent >>= 1;
    }
    result
}

/// The numbers of `x` as they stand in an array of `shape`.
pub(super) fn spread(x: &Array, shape: &[usize]) -> Result<Numbers> {
    if x.shape == shape {
        return Ok(x.numbers());
    }
    let offsets = broadcast_offsets(&x.shape, shape)?;
    Ok(match x.numbers() {
        Numbers::Floats(values) => Numbers::Floats(offsets.into_iter().map(|at| values[at]).collect()),
        Numbers::Integers(values) => Numbers::Integers(offsets.into_iter().map(|at| values[at]).collect()),
    })
}

fn combine(name: &str, x: &Array, y: &Array, truncates: bool) -> Result<Array> {
    let shape = broadcast(&[&x.shape, &y.shape])?;
    let unknown = || format!("{name} of {} and {}", x.element_type, y.element_type);
    let numbers = match (spread(x, &shape)?, spread(y, &shape)?) {
        (Numbers::Integers(xs), Numbers::Integers(ys)) => {
            let values = xs.iter().zip(&ys).map(|(a, b)| integer(name, *a, *b, x.element_type, truncates));
            Numbers::Integers(values.collect::<Option<_>>().ok_or_else(unknown)?)
        }
        (xs, ys) => {
            let values = floats(xs).into_iter().zip(floats(ys)).map(|(a, b)| float(name, a, b, truncates));
            Numbers::Floats(values.collect::<Option<_>>().ok_or_else(unknown)?)
        }
    };
    Array::from_numbers(x.element_type, shape, &numbers)
}

fn floats(numbers: Numbers) -> Vec<f64> {
    match numbers {
        Numbers::Floats(values) => values,
        Numbers::Integers(values) => values.into_iter().map(|value| value as f64).collect(),
    }
}

/// Operators of two inputs, and `Max`, `Min`, `Sum` and `Mean` of any number.
pub(super) fn binary(call: &Call<'_>) -> Result<Vec<Array>> {
    let name = match (&*call.node.op_type, call.text("direction", "")) {
        ("BitShift", "LEFT") => "ShiftLeft",
        ("BitShift", _) => "ShiftRight",
        (name, _) => name,
    };
    let is_variadic = matches!(name, "Max" | "Min" | "Sum" | "Mean");
    let truncates = call.flag("fmod");
    let mut result = call.input(0)?.clone();
    if !is_variadic {
        let mut second = call.input(1)?.clone();
        if call.flag("broadcast") {
            // Before operator set 7 the second input stood at an axis of the first.
            let at = super::array::axis(call.int("axis", -(second.rank() as i64)), result.rank().max(1))?;
            let after = result.rank().saturating_sub(at + second.rank());
            let shape = [second.shape.clone(), vec![1; after]].concat();
            second = second.reshaped(shape)?;
        }
        return Ok(vec![combine(name, &result, &second, truncates)?]);
    }
    let all = call.all();
    // A mean is taken of the exact sum, not of one that is rounded at each step.
    if name == "Mean" && all.len() > 1 {
        let element_type = result.element_type;
        result = cast_to(&result, ElementType::Float64)?;
        for input in &all[1..] {
            result = combine(name, &result, &cast_to(input, ElementType::Float64)?, truncates)?;
        }
        let mean: Vec<f64> = result.f64s().into_iter().map(|sum| sum / all.len() as f64).collect();
        return Ok(vec![Array::floats(element_type, result.shape.clone(), &mean)?]);
    }
    for input in all.get(1..).unwrap_or(&[]) {
        result = combine(name, &result, input, truncates)?;
    }
    Ok(vec![result])
}

/// `Equal`, `Greater`, `GreaterOrEqual`, `Less`, `LessOrEqual`.
pub(super) fn compare(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let shape = broadcast(&[&x.shape, &y.shape])?;
    let name = &*call.node.op_type;
    let holds = |order: Option<std::cmp::Ordering>| match name {
        "Equal" => order.is_some_and(|order| order.is_eq()),
        "Greater" => order.is_some_and(|order| order.is_gt()),
        "GreaterOrEqual" => order.is_some_and(|order| order.is_ge()),
        "Less" => order.is_some_and(|order| order.is_lt()),
        _ => order.is_some_and(|order| order.is_le()),
    };
    let values: Vec<bool> = match (spread(x, &shape)?, spread(y, &shape)?) {
        (Numbers::Integers(xs), Numbers::Integers(ys)) => {
            let flip = if x.is_uint64() { i64::MIN } else { 0 };
            xs.iter().zip(&ys).map(|(x, y)| holds(Some((x ^ flip).cmp(&(y ^ flip))))).collect()
        }
        (xs, ys) => floats(xs).iter().zip(&floats(ys)).map(|(x, y)| holds(x.partial_cmp(y))).collect(),
    };
    Ok(vec![Array::bools(shape, values)?])
}

/// `Where`.
pub(super) fn choose(call: &Call<'_>) -> Result<Vec<Array>> {
    let (condition, x, y) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let shape = broadcast(&[&condition.shape, &x.shape, &y.shape])?;
    let (condition, x, y) = (condition.broadcast_to(&shape)?, x.broadcast_to(&shape)?, y.broadcast_to(&shape)?);
    if x.element_type != y.element_type {
        return Err(format!("it chooses between {} and {}", x.element_type, y.element_type));
    }
    let size = x.element_bytes();
    let pairs = x.bytes().chunks(size).zip(y.bytes().chunks(size));
    let chosen =
        condition.bytes().iter().zip(pairs).flat_map(|(condition, (x, y))| if *condition != 0 { x } else { y });
    let bytes = chosen.copied().collect();
    Ok(vec![Array::new(x.element_type, shape, bytes)?])
}

/// The smallest and the largest number of an integer type; the largest of uint64 is the two's complement of it.
pub(super) fn integer_range(element_type: ElementType) -> (i64, i64) {
    let (bits, is_signed) = integer_bits(element_type);
    match is_signed {
        true => (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)),
        false => (0, (u64::MAX >> (64 - bits)) as i64),
    }
}
