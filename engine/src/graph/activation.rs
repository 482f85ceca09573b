//! Finds GELU and SiLU in the operators that they are taken apart into.

use super::pattern::is_about;
use super::{Graph, Node, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::Pointwise;
use onnx_kernels::pointwise::{Binary, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Puts one function in the place of each.
pub(super) fn fuse(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        let Some(node) = &graph.nodes[index] else { continue };
        let Some(&output) = node.outputs.first() else { continue };
        let Some((function, x)) = activation(graph, output) else { continue };
        if graph.dims(x) != graph.dims(output) {
            continue;
        }
        let (name, outputs) = (node.name.clone(), node.outputs.clone());
        let op = Op::Pointwise(Pointwise::unary(function));
        graph.replace(index, Node { name, op, inputs: vec![x], outputs });
    }
}

/// The function and argument that `value` is.
fn activation(graph: &Graph, value: ValueId) -> Option<(Unary, ValueId)> {
    // A number may be a factor of the whole or of one of its parts.
    let (whole, product) = graph.unscaled(value);
    for (outer, product) in [(whole, product), (1.0, value)] {
        let Some((Binary::Mul, a, b)) = graph.binary(product) else { continue };
        for (x, gate) in [(a, b), (b, a)] {
            for (x_factor, x) in [(1.0, x), graph.unscaled(x)] {
                for (gate_factor, gate) in [(1.0, gate), graph.unscaled(gate)] {
                    let factor = outer * x_factor * gate_factor;
                    if factor == 1.0 && graph.of(gate, Unary::Sigmoid) == Some(x) {
                        return Some((Unary::Silu, x));
                    }
                    if factor == 0.5
                        && let Some(function) = gelu(graph, gate, x)
                    {
                        return Some((function, x));
                    }
                }
            }
        }
    }
    None
}

/// The form of GELU that has this factor beside x / 2: `1 + erf(x / sqrt(2))` or `1 + tanh(..)`.
fn gelu(graph: &Graph, gate: ValueId, x: ValueId) -> Option<Unary> {
    let (Binary::Add, inner, 1.0) = graph.with_number(gate)? else { return None };
    match graph.unary(inner)? {
        (Unary::Erf, argument) => {
            let (factor, argument) = graph.unscaled(argument);
            (argument == x && is_about(factor, FRAC_1_SQRT_2)).then_some(Unary::Gelu)
        }
        (Unary::Tanh, argument) => is_tanh_argument(graph, argument, x).then_some(Unary::GeluTanh),
        _ => None,
    }
}

/// Whether `value` is `sqrt(2 / pi) (x + 0.044715 x^3)`.
fn is_tanh_argument(graph: &Graph, value: ValueId, x: ValueId) -> bool {
    const CUBIC: f64 = 0.044_715;
    let root = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let (factor, sum) = graph.unscaled(value);
    if is_about(factor, root)
        && let Some((Binary::Add, a, b)) = graph.binary(sum)
    {
        let cube = if a == x { b } else { a };
        return (a == x || b == x) && is_power(graph, cube, x, CUBIC, 3);
    }
    // The same with x taken out.
    let Some((Binary::Mul, a, b)) = graph.binary(value) else { return false };
    [(a, b), (b, a)].into_iter().any(|(linear, rest)| {
        let (factor, linear) = if linear == x { (1.0, x) } else { graph.unscaled(linear) };
        let Some((Binary::Add, square, 1.0)) = graph.with_number(rest) else { return false };
        linear == x && is_about(factor, root) && is_power(graph, square, x, CUBIC, 2)
    })
}

/// Whether `value` is `factor x^power`, however it is multiplied together.
fn is_power(graph: &Graph, value: ValueId, x: ValueId, factor: f64, power: u32) -> bool {
    power_of(graph, value, x, 4).is_some_and(|(found, exponent)| exponent == power && is_about(found, factor))
}

fn power_of(graph: &Graph, value: ValueId, x: ValueId, depth: u32) -> Option<(f32, u32)> {
    if value == x {
        return Some((1.0, 1));
    }
    let depth = depth.checked_sub(1)?;
    if let Some(argument) = graph.of(value, Unary::Square) {
        let (factor, exponent) = power_of(graph, argument, x, depth)?;
        return Some((factor * factor, 2 * exponent));
    }
    if let Some((function, argument, number)) = graph.with_number(value) {
        let (factor, exponent) = power_of(graph, argument, x, depth)?;
        return match function {
            Binary::Mul => Some((factor * number, exponent)),
            Binary::Div => Some((factor / number, exponent)),
            Binary::Pow if number == 3.0 => Some((factor * factor * factor, 3 * exponent)),
            _ => None,
        };
    }
    let (Binary::Mul, a, b) = graph.binary(value)? else { return None };
    let (first, one) = power_of(graph, a, x, depth)?;
    let (second, other) = power_of(graph, b, x, depth)?;
    Some((first * second, one + other))
}
