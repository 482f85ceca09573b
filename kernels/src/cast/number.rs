//! Casts that are `as`.

/// A numeric type that values are cast from and to.
pub trait Number: Copy + 'static {
    /// Whether it is a float.
    const FLOAT: bool = false;
}

/// A cast, compiled in this crate for each pair of types.
pub trait Cast<To: Number>: Number {
    /// One value.
    fn cast_one(self) -> To;
    /// `output[i] = input[i]`, cast.
    ///
    /// # Panics
    /// When lengths differ.
    fn cast_all(input: &[Self], output: &mut [To]);
}

/// A bool as ONNX stores it: a byte, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bool(pub u8);

/// `output[i] = input[i]`, cast.
///
/// # Panics
/// When lengths differ.
pub fn cast<From: Cast<To>, To: Number>(input: &[From], output: &mut [To]) {
    From::cast_all(input, output);
}

/// Metered instructions of [`cast`], in WebAssembly with SIMD and without page charges; at most, since some pairs of types
/// have vector instructions.
pub fn estimate_instructions<From: Cast<To>, To: Number>(elements: usize) -> u64 {
    let each = match (From::FLOAT, To::FLOAT) {
        (true, false) => 31,
        (false, true) => 15,
        _ => 9,
    };
    100 + elements as u64 * each
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Number for $type {})*
    };
}

numbers!(Bool u8 i8 u16 i16 u32 i32 u64 i64);

impl Number for f32 {
    const FLOAT: bool = true;
}

impl Number for f64 {
    const FLOAT: bool = true;
}

macro_rules! casts {
    ($($from:ty => $($to:ty)*;)*) => {
        $($(
            impl Cast<$to> for $from {
                #[inline(always)]
                fn cast_one(self) -> $to {
                    self as $to
                }
                fn cast_all(input: &[$from], output: &mut [$to]) {
                    all(input, output);
                }
            }
        )*)*
    };
}

#[inline(always)]
fn all<From: Cast<To>, To: Number>(input: &[From], output: &mut [To]) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    for (place, value) in output.iter_mut().zip(input) {
        *place = value.cast_one();
    }
}

casts! {
    u8 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    i8 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    u16 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    i16 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    u32 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    i32 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    u64 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    i64 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    f32 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
    f64 => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64;
}

macro_rules! bools {
    ($($type:ty)*) => {
        $(
            impl Cast<Bool> for $type {
                #[inline(always)]
                fn cast_one(self) -> Bool {
                    Bool(u8::from(self != (0 as $type)))
                }
                fn cast_all(input: &[$type], output: &mut [Bool]) {
                    all(input, output);
                }
            }
            impl Cast<$type> for Bool {
                #[inline(always)]
                fn cast_one(self) -> $type {
                    u8::from(self.0 != 0) as $type
                }
                fn cast_all(input: &[Bool], output: &mut [$type]) {
                    all(input, output);
                }
            }
        )*
    };
}

bools!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

impl Cast<Bool> for Bool {
    #[inline(always)]
    fn cast_one(self) -> Bool {
        Bool(u8::from(self.0 != 0))
    }
    fn cast_all(input: &[Bool], output: &mut [Bool]) {
        all(input, output);
    }
}
