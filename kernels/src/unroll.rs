//! What the vector kernels need to come out as straight-line code.
//!
//! A register array is a set of Wasm locals only while every index is a constant; otherwise it lives on the shadow stack
//! and each access is a load or a store. Loops are therefore unrolled here, by macro, and not left to a threshold of the
//! optimiser.

/// Repeats a block with `$index` a constant from 0 to count - 1. The block usually starts with `if $index < N`, N being a
/// const parameter, so that one body serves all sizes.
macro_rules! unroll {
    ($index:ident in 2 $block:block) => { $crate::unroll::unroll!(@ $index $block 0 1) };
    ($index:ident in 4 $block:block) => { $crate::unroll::unroll!(@ $index $block 0 1 2 3) };
    ($index:ident in 8 $block:block) => { $crate::unroll::unroll!(@ $index $block 0 1 2 3 4 5 6 7) };
    ($index:ident in 16 $block:block) => {
        $crate::unroll::unroll!(@ $index $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($index:ident in 32 $block:block) => {
        $crate::unroll::unroll!(@ $index $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    ($index:ident in 64 $block:block) => {
        $crate::unroll::unroll!(@ $index $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
            48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63)
    };
    (@ $index:ident $block:block $($value:literal)*) => {{
        $({
            #[allow(non_upper_case_globals)]
            const $index: usize = $value;
            $block
        })*
    }};
}
pub(crate) use unroll;

/// Loads one row `$row` of an array of vectors, one vector after the other, from `$from`: a pointer to f32.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
macro_rules! load_vectors {
    ($to:ident, $from:ident, $row:literal, [$($v:literal)*]) => {
        $( $to[$row][$v] = std::arch::wasm32::v128_load($from.add($v * 4).cast()); )*
    };
}
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use load_vectors;

/// A pointer that moves through memory in a loop, in steps the optimiser can't see.
///
/// Where it sees them, its strength reduction rewrites the loop's loads and stores in a way that loses their constant
/// offsets, and each of them then adds up its own address: two more instructions each. Passing the pointer through
/// memory once a step costs five.
pub(crate) struct Cursor<T> {
    cell: *const T,
}

impl<T> Cursor<T> {
    pub(crate) fn new(start: *const T) -> Self {
        Self { cell: start }
    }

    /// The pointer, `step` values after the last one told.
    #[inline(always)]
    pub(crate) fn advance(&mut self, from: *const T, step: usize) -> *const T {
        self.cell = from.wrapping_add(step);
        // SAFETY: `cell` is a valid, initialised value of this structure.
        unsafe { (&raw const self.cell).read_volatile() }
    }
}
