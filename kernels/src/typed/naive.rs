//! The reference: each element by itself.

use super::{Arithmetic, Comparison, Logic, View};
use crate::copy::Element;

/// Every element of a function of two.
pub fn binary<T: Element, To>(
    shape: &[usize],
    a: View<T>,
    b: View<T>,
    output: &mut [To],
    function: impl Fn(T, T) -> To,
) {
    for (index, place) in output.iter_mut().enumerate() {
        *place = function(a.at(shape, index), b.at(shape, index));
    }
}

/// Arithmetic on i64, by i128.
pub fn i64(function: Arithmetic, a: i64, b: i64) -> i64 {
    let (wide, by) = (i128::from(a), i128::from(b));
    let result = match function {
        Arithmetic::Add => wide + by,
        Arithmetic::Sub => wide - by,
        Arithmetic::Mul => wide * by,
        Arithmetic::Min => wide.min(by),
        Arithmetic::Max => wide.max(by),
        _ if by == 0 => 0,
        Arithmetic::Div => wide / by,
        Arithmetic::Remainder => wide % by,
        Arithmetic::Mod => ((wide % by) + by) % by,
    };
    result as i64
}

/// Comparison.
pub fn compare<T: PartialOrd>(function: Comparison, a: T, b: T) -> u8 {
    let holds = match function {
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b,
        Comparison::Less => a < b,
        Comparison::LessOrEqual => a <= b,
    };
    u8::from(holds)
}

/// Logic.
pub fn logic(function: Logic, a: u8, b: u8) -> u8 {
    match function {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// Every element of a selection.
pub fn select<T: Element>(shape: &[usize], condition: View<u8>, yes: View<T>, no: View<T>, output: &mut [T]) {
    for (index, place) in output.iter_mut().enumerate() {
        let chosen = if condition.at(shape, index) != 0 { yes } else { no };
        *place = chosen.at(shape, index);
    }
}
