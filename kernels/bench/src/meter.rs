//! Counting the instructions of a piece of code.

use crate::ic0;
use std::hint::black_box;

/// Metered instructions of `code`, without page charges: it runs twice, and the second time it touches no page that the
/// message has not read and written before.
pub fn instructions(mut code: impl FnMut()) -> u64 {
    code();
    counted(&mut code) - counted(&mut || ())
}

// A block's instructions are counted when it is entered: not inlined, so that what is counted is what is called.
#[inline(never)]
fn counted(code: &mut dyn FnMut()) -> u64 {
    let before = ic0::instructions();
    black_box(&mut *code)();
    ic0::instructions() - before
}

/// `count` values between -1 and 1.
pub fn floats(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index % 127) as f32 / 63.5 - 1.0).collect()
}
