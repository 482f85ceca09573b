//! Casts of values whose types are known when they run only.

use super::{Bool, Cast, Number, cast};

/// An element type that is cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// Calls a macro with the Rust type of an element type.
macro_rules! with_type {
    ($type:expr, $apply:ident) => {
        match $type {
            Type::Bool => $apply!(Bool),
            Type::U8 => $apply!(u8),
            Type::I8 => $apply!(i8),
            Type::U16 => $apply!(u16),
            Type::I16 => $apply!(i16),
            Type::U32 => $apply!(u32),
            Type::I32 => $apply!(i32),
            Type::U64 => $apply!(u64),
            Type::I64 => $apply!(i64),
            Type::F32 => $apply!(f32),
            Type::F64 => $apply!(f64),
        }
    };
}

impl Type {
    /// Bytes of an element.
    pub fn size_bytes(self) -> usize {
        macro_rules! size {
            ($type:ty) => {
                size_of::<$type>()
            };
        }
        with_type!(self, size)
    }

    fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64)
    }

    /// Metered instructions of [`cast_bytes`], in WebAssembly with SIMD and without page charges; at most.
    pub fn estimate_instructions(self, to: Type, elements: usize) -> u64 {
        match (self.is_float(), to.is_float()) {
            (true, false) => super::estimate_instructions::<f32, i64>(elements),
            (false, true) => super::estimate_instructions::<i64, f32>(elements),
            _ => super::estimate_instructions::<i64, i32>(elements),
        }
    }
}

/// Elements of `from` into elements of `to`, both as bytes.
///
/// # Panics
/// When the slices do not have equally many elements, or are not aligned for them.
pub fn cast_bytes(from: Type, to: Type, input: &[u8], output: &mut [u8]) {
    macro_rules! of {
        ($type:ty) => {
            of_type::<$type>(view(input), to, output)
        };
    }
    with_type!(from, of);
}

/// Types that can be cast to all others.
trait CastAll:
    Cast<Bool>
    + Cast<u8>
    + Cast<i8>
    + Cast<u16>
    + Cast<i16>
    + Cast<u32>
    + Cast<i32>
    + Cast<u64>
    + Cast<i64>
    + Cast<f32>
    + Cast<f64>
{
}

impl<T> CastAll for T where
    T: Cast<Bool>
        + Cast<u8>
        + Cast<i8>
        + Cast<u16>
        + Cast<i16>
        + Cast<u32>
        + Cast<i32>
        + Cast<u64>
        + Cast<i64>
        + Cast<f32>
        + Cast<f64>
{
}

fn of_type<From: CastAll>(input: &[From], to: Type, output: &mut [u8]) {
    macro_rules! to {
        ($type:ty) => {
            cast::<From, $type>(input, view_mut(output))
        };
    }
    with_type!(to, to);
}

fn assert_fits<T>(address: usize, bytes: usize) {
    assert!(bytes.is_multiple_of(size_of::<T>()), "{bytes} bytes are no elements of {}", size_of::<T>());
    assert!(bytes == 0 || address.is_multiple_of(align_of::<T>()), "the elements are not aligned");
}

fn view<T: Number>(bytes: &[u8]) -> &[T] {
    assert_fits::<T>(bytes.as_ptr() as usize, bytes.len());
    if bytes.is_empty() {
        return &[];
    }
    // SAFETY: aligned and as long as said; any bits are a number, and `Bool` is a byte.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}

fn view_mut<T: Number>(bytes: &mut [u8]) -> &mut [T] {
    assert_fits::<T>(bytes.as_ptr() as usize, bytes.len());
    if bytes.is_empty() {
        return &mut [];
    }
    // SAFETY: as above, and any number is bytes.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8))]
    struct Aligned([u8; 16]);

    #[test]
    fn bytes_are_cast_as_their_types() {
        let mut input = Aligned([0; 16]);
        input.0[..8].copy_from_slice(&(-3i64).to_le_bytes());
        let mut output = Aligned([0; 16]);
        cast_bytes(Type::I64, Type::F32, &input.0, &mut output.0[..8]);
        assert_eq!(output.0[..8], [(-3f32).to_le_bytes(), 0f32.to_le_bytes()].concat());
        cast_bytes(Type::I64, Type::Bool, &input.0, &mut output.0[..2]);
        assert_eq!(output.0[..2], [1, 0]);
        cast_bytes(Type::Bool, Type::I64, &[7, 0], &mut output.0);
        assert_eq!(output.0, *[1i64.to_le_bytes(), 0i64.to_le_bytes()].as_flattened());
        cast_bytes(Type::F64, Type::F64, &[], &mut []);
    }

    #[test]
    #[should_panic(expected = "input and output differ in length")]
    fn lengths_that_differ_are_refused() {
        cast_bytes(Type::U8, Type::I8, &[1], &mut []);
    }
}
