//! The reference: element by element.

use super::{Copy, Element};

/// See [`Copy::run`].
pub fn run<T: Element>(copy: &Copy, input: &[T], output: &mut [T]) {
    for index in 0..copy.elements() {
        let mut left = index;
        let (mut from, mut to) = (copy.input.offset as isize, copy.output.offset as isize);
        for (axis, dimension) in copy.dims.iter().enumerate().rev() {
            let at = (left % dimension) as isize;
            left /= dimension;
            from += at * copy.input.strides[axis];
            to += at * copy.output.strides[axis];
        }
        output[to as usize] = input[from as usize];
    }
}
