//! A WebAssembly body with 128-bit SIMD: the transforms are of four channels at a time, with all of a tile's values in
//! locals.

use super::tiles::Body;
use super::{ELEMENTS, portable};
use crate::gemm;
use crate::matrix::Clamp;
use std::arch::wasm32::*;

pub(super) const BODY: Body = Body { transform_input, gemm: gemm::gemm, transform_output };

/// Values of a vector, and its bytes.
const LANES: usize = 4;
const VECTOR_BYTES: usize = 16;

/// How far the transforms move from one vector of channels to the next, in bytes. It is read from memory in every round,
/// lest the compiler move 32 pointers instead of one offset.
static STEP: usize = VECTOR_BYTES;

/// The offsets in bytes at which a row of `len` values is read and written as vectors, `$offset` being each in turn: every
/// vector, and if a part of one is left, the last four values, the first of which are computed again, to the same bits.
macro_rules! for_each_vector {
    ($len:expr, $offset:ident, $body:block) => {
        let last = ($len - LANES) * size_of::<f32>();
        let mut $offset = 0;
        loop {
            $body
            if $offset == last {
                break;
            }
            $offset = ($offset + (&raw const STEP).read_volatile()).min(last);
        }
    };
}

/// B^T of four values: see [`super::naive::transform_input`].
#[inline(always)]
fn input_step(a: v128, b: v128, c: v128, d: v128) -> (v128, v128, v128, v128) {
    (f32x4_sub(a, c), f32x4_add(b, c), f32x4_sub(c, b), f32x4_sub(b, d))
}

/// A^T of four values: see [`super::naive::transform_output`].
#[inline(always)]
fn output_step(a: v128, b: v128, c: v128, d: v128) -> (v128, v128) {
    (f32x4_add(f32x4_add(a, b), c), f32x4_sub(f32x4_sub(b, c), d))
}

fn transform_input(pixels: &[&[f32]; ELEMENTS], transformed: &mut [f32], stride: usize) {
    let channels = pixels[0].len();
    if channels < LANES {
        return portable::transform_input(pixels, transformed, stride);
    }
    assert!(pixels.iter().all(|pixel| pixel.len() == channels));
    assert!((ELEMENTS - 1) * stride + channels <= transformed.len());
    let pixels = pixels.map(<[f32]>::as_ptr);
    // SAFETY: all pixels have `channels` values, as has each of the 16 places.
    unsafe { input_tile(&pixels, transformed.as_mut_ptr(), stride, channels) };
}

#[inline(never)]
unsafe fn input_tile(pixels: &[*const f32; ELEMENTS], to: *mut f32, stride: usize, channels: usize) {
    let [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15] = *pixels;
    macro_rules! load {
        ($offset:ident: $($value:ident = $from:ident),*) => { $( let $value = v128_load($from.byte_add($offset).cast()); )* };
    }
    macro_rules! store {
        ($place:ident, $($value:ident)*) => { $(
            v128_store($place.cast(), $value);
            #[allow(unused_assignments)]
            { $place = $place.wrapping_add(stride); }
        )* };
    }
    // SAFETY: the caller's word; offsets end four values before the end of the channels.
    unsafe {
        for_each_vector!(channels, offset, {
            load!(offset: d0 = p0, d4 = p4, d8 = p8, d12 = p12);
            let (r00, r10, r20, r30) = input_step(d0, d4, d8, d12);
            load!(offset: d1 = p1, d5 = p5, d9 = p9, d13 = p13);
            let (r01, r11, r21, r31) = input_step(d1, d5, d9, d13);
            load!(offset: d2 = p2, d6 = p6, d10 = p10, d14 = p14);
            let (r02, r12, r22, r32) = input_step(d2, d6, d10, d14);
            load!(offset: d3 = p3, d7 = p7, d11 = p11, d15 = p15);
            let (r03, r13, r23, r33) = input_step(d3, d7, d11, d15);
            let mut place = to.byte_add(offset);
            let (v0, v1, v2, v3) = input_step(r00, r01, r02, r03);
            store!(place, v0 v1 v2 v3);
            let (v0, v1, v2, v3) = input_step(r10, r11, r12, r13);
            store!(place, v0 v1 v2 v3);
            let (v0, v1, v2, v3) = input_step(r20, r21, r22, r23);
            store!(place, v0 v1 v2 v3);
            let (v0, v1, v2, v3) = input_step(r30, r31, r32, r33);
            store!(place, v0 v1 v2 v3);
        });
    }
}

fn transform_output(sums: &[f32], stride: usize, clamp: Clamp, pixels: [&mut [f32]; 4]) {
    let channels = pixels[0].len();
    if channels < LANES {
        return portable::transform_output(sums, stride, clamp, pixels);
    }
    assert!(pixels.iter().all(|pixel| pixel.len() == channels));
    assert!((ELEMENTS - 1) * stride + channels <= sums.len());
    let pixels = pixels.map(<[f32]>::as_mut_ptr);
    // SAFETY: all pixels have `channels` values, as has each of the 16 places.
    unsafe { output_tile(sums.as_ptr(), stride, clamp, &pixels, channels) };
}

#[inline(never)]
unsafe fn output_tile(from: *const f32, stride: usize, clamp: Clamp, pixels: &[*mut f32; 4], channels: usize) {
    let (low, high) = (f32x4_splat(clamp.low), f32x4_splat(clamp.high));
    let [p0, p1, p2, p3] = *pixels;
    macro_rules! load {
        ($place:ident, $($value:ident)*) => { $(
            let $value = v128_load($place.cast());
            #[allow(unused_assignments)]
            { $place = $place.wrapping_add(stride); }
        )* };
    }
    // SAFETY: the caller's word; offsets end four values before the end of the channels.
    unsafe {
        for_each_vector!(channels, offset, {
            let mut place = from.byte_add(offset);
            load!(place, m0 m1 m2 m3 m4 m5 m6 m7 m8 m9 m10 m11 m12 m13 m14 m15);
            let (r00, r10) = output_step(m0, m4, m8, m12);
            let (r01, r11) = output_step(m1, m5, m9, m13);
            let (r02, r12) = output_step(m2, m6, m10, m14);
            let (r03, r13) = output_step(m3, m7, m11, m15);
            let (y0, y1) = output_step(r00, r01, r02, r03);
            let (y2, y3) = output_step(r10, r11, r12, r13);
            v128_store(p0.byte_add(offset).cast(), f32x4_pmin(f32x4_pmax(y0, low), high));
            v128_store(p1.byte_add(offset).cast(), f32x4_pmin(f32x4_pmax(y1, low), high));
            v128_store(p2.byte_add(offset).cast(), f32x4_pmin(f32x4_pmax(y2, low), high));
            v128_store(p3.byte_add(offset).cast(), f32x4_pmin(f32x4_pmax(y3, low), high));
        });
    }
}
