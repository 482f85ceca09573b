//! The walk over rows, and the operators on each type.

use super::{Arithmetic, Comparison, Logic, MAX_RANK, View};
use crate::copy::Element;

/// Calls `row` with the place of each row of the output, and the operands' offsets there; then with what its last
/// dimension has of elements, and the operands' strides along it. There is one body of it for all operators.
#[inline(never)]
fn rows<const N: usize>(
    shape: &[usize],
    strides: [[usize; MAX_RANK]; N],
    length: usize,
    row: &mut dyn FnMut(usize, usize, [usize; N], [usize; N]),
) {
    assert_eq!(shape.iter().product::<usize>(), length, "elements of {shape:?}");
    if length == 0 {
        return;
    }
    let (columns, inner) = match shape.len() {
        0 => (1, [0; N]),
        rank => (shape[rank - 1], strides.map(|strides| strides[rank - 1])),
    };
    let outer = &shape[..shape.len().saturating_sub(1)];
    let mut at = [0usize; MAX_RANK];
    let mut offsets = [0; N];
    let mut place = 0;
    loop {
        row(place, columns, offsets, inner);
        place += columns;
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            at[axis] += 1;
            let wrapped = at[axis] == outer[axis];
            for (offset, strides) in offsets.iter_mut().zip(&strides) {
                *offset += strides[axis];
                if wrapped {
                    *offset -= outer[axis] * strides[axis];
                }
            }
            if !wrapped {
                break;
            }
            at[axis] = 0;
        }
    }
}

/// Operands that are as long as the row, or hold for all of it.
#[inline(always)]
fn binary<T: Element, To>(shape: &[usize], a: View<T>, b: View<T>, output: &mut [To], function: impl Fn(T, T) -> To) {
    let length = output.len();
    rows(shape, [a.strides, b.strides], length, &mut |place, columns, [a_at, b_at], inner| {
        let output = &mut output[place..][..columns];
        match inner {
            [0, 0] => {
                let (a, b) = (a.data[a_at], b.data[b_at]);
                output.iter_mut().for_each(|place| *place = function(a, b));
            }
            [0, _] => {
                let a = a.data[a_at];
                let b = &b.data[b_at..][..columns];
                output.iter_mut().zip(b).for_each(|(place, b)| *place = function(a, *b));
            }
            [_, 0] => {
                let a = &a.data[a_at..][..columns];
                let b = b.data[b_at];
                output.iter_mut().zip(a).for_each(|(place, a)| *place = function(*a, b));
            }
            _ => {
                let (a, b) = (&a.data[a_at..][..columns], &b.data[b_at..][..columns]);
                output.iter_mut().zip(a).zip(b).for_each(|((place, a), b)| *place = function(*a, *b));
            }
        }
    });
}

/// A type with [`super::arithmetic`].
pub trait Computable: Element {
    /// See [`super::arithmetic`].
    fn arithmetic(function: Arithmetic, shape: &[usize], a: View<Self>, b: View<Self>, output: &mut [Self]);
}

/// A type with [`super::compare`].
pub trait Comparable: Element {
    /// See [`super::compare`].
    fn compare(function: Comparison, shape: &[usize], a: View<Self>, b: View<Self>, output: &mut [u8]);
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(
            impl Computable for $type {
                fn arithmetic(
                    function: Arithmetic,
                    shape: &[usize],
                    a: View<Self>,
                    b: View<Self>,
                    output: &mut [Self],
                ) {
                    // The divisor 0 is taken out first, so that the division can't fail. Only the dearest operator has a
                    // loop of its own: a call for each element is less code for the others.
                    let function: fn(Self, Self) -> Self = match function {
                        Arithmetic::Div => {
                            return binary(shape, a, b, output, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) });
                        }
                        Arithmetic::Add => <$type>::wrapping_add,
                        Arithmetic::Sub => <$type>::wrapping_sub,
                        Arithmetic::Mul => <$type>::wrapping_mul,
                        Arithmetic::Mod => |a, b| {
                            let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
                            #[allow(unused_comparisons)]
                            let other_sign = rest != 0 && (rest < 0) != (b < 0);
                            if other_sign { rest.wrapping_add(b) } else { rest }
                        },
                        Arithmetic::Remainder => |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) },
                        Arithmetic::Min => Ord::min,
                        Arithmetic::Max => Ord::max,
                    };
                    binary(shape, a, b, output, function);
                }
            }
        )*
    };
}

integers!(i64 i32 u8);

/// IEEE 754-2019 `minimum`.
fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        f64::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    }
}

impl Computable for f64 {
    fn arithmetic(function: Arithmetic, shape: &[usize], a: View<Self>, b: View<Self>, output: &mut [Self]) {
        let function: fn(f64, f64) -> f64 = match function {
            Arithmetic::Add => |a, b| a + b,
            Arithmetic::Sub => |a, b| a - b,
            Arithmetic::Mul => |a, b| a * b,
            Arithmetic::Div => |a, b| a / b,
            // Exact, so that it does not matter whose function computes it.
            Arithmetic::Remainder => |a, b| a % b,
            Arithmetic::Mod => |a, b| {
                let rest = a % b;
                if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
            },
            Arithmetic::Min => minimum,
            Arithmetic::Max => |a, b| -minimum(-a, -b),
        };
        binary(shape, a, b, output, function);
    }
}

macro_rules! comparable {
    ($($type:ty)*) => {
        $(
            impl Comparable for $type {
                fn compare(
                    function: Comparison,
                    shape: &[usize],
                    a: View<Self>,
                    b: View<Self>,
                    output: &mut [u8],
                ) {
                    match function {
                        Comparison::Equal => binary(shape, a, b, output, |a, b| u8::from(a == b)),
                        Comparison::NotEqual => binary(shape, a, b, output, |a, b| u8::from(a != b)),
                        Comparison::Less => binary(shape, a, b, output, |a, b| u8::from(a < b)),
                        Comparison::LessOrEqual => binary(shape, a, b, output, |a, b| u8::from(a <= b)),
                    }
                }
            }
        )*
    };
}

comparable!(f32 f64 i64 i32 u8);

/// See [`super::logic`].
pub fn logic(function: Logic, shape: &[usize], a: View<u8>, b: View<u8>, output: &mut [u8]) {
    match function {
        Logic::And => binary(shape, a, b, output, |a, b| a & b),
        Logic::Or => binary(shape, a, b, output, |a, b| a | b),
        Logic::Xor => binary(shape, a, b, output, |a, b| a ^ b),
    }
}

macro_rules! selects {
    ($($name:ident $type:ty,)*) => {
        $(
            /// [`select`] of elements that are moved as this type.
            pub fn $name(shape: &[usize], condition: View<u8>, yes: View<$type>, no: View<$type>, output: &mut [$type]) {
                select(shape, condition, yes, no, output);
            }
        )*
    };
}

selects!(select_1 u8, select_2 u16, select_4 u32, select_8 u64,);

/// See [`super::select`].
fn select<T: Element>(shape: &[usize], condition: View<u8>, yes: View<T>, no: View<T>, output: &mut [T]) {
    let length = output.len();
    let strides = [condition.strides, yes.strides, no.strides];
    rows(shape, strides, length, &mut |place, columns, [at, yes_at, no_at], inner| {
        let output = &mut output[place..][..columns];
        // Operands that hold for the whole row are numbers, the others slices as long as it.
        let condition = &condition.data[at..];
        let (yes, no) = (&yes.data[yes_at..], &no.data[no_at..]);
        match inner {
            [0, step, other] => {
                let (chosen, step) = if condition[0] != 0 { (yes, step) } else { (no, other) };
                match step {
                    0 => output.fill(chosen[0]),
                    _ => output.copy_from_slice(&chosen[..columns]),
                }
            }
            [_, 0, 0] => pick(output, condition, |_| yes[0], |_| no[0]),
            [_, 0, _] => {
                let no = &no[..columns];
                pick(output, condition, |_| yes[0], |index| no[index]);
            }
            [_, _, 0] => {
                let yes = &yes[..columns];
                pick(output, condition, |index| yes[index], |_| no[0]);
            }
            _ => {
                let (yes, no) = (&yes[..columns], &no[..columns]);
                pick(output, condition, |index| yes[index], |index| no[index]);
            }
        }
    });
}

#[inline(always)]
fn pick<T: Element>(output: &mut [T], condition: &[u8], yes: impl Fn(usize) -> T, no: impl Fn(usize) -> T) {
    let condition = &condition[..output.len()];
    for index in 0..output.len() {
        let (yes, no) = (yes(index), no(index));
        output[index] = if condition[index] != 0 { yes } else { no };
    }
}
