//! Consecutive bytes.

use crate::lanes::Lanes;

/// Bytes of a vector.
const VECTOR: usize = 16;

/// `N` vectors in straight-line code.
#[inline(never)]
unsafe fn block<V: Lanes, const N: usize>(from: *const f32, to: *mut f32) {
    // SAFETY: the caller's.
    let one = |index: usize| unsafe { V::load(from.add(4 * index)).store(to.add(4 * index)) };
    one(0);
    one(1);
    one(2);
    one(3);
    if N >= 16 {
        one(4);
        one(5);
        one(6);
        one(7);
        one(8);
        one(9);
        one(10);
        one(11);
        one(12);
        one(13);
        one(14);
        one(15);
    }
}

/// Copies `bytes` bytes: vectors cost 4 per 16 bytes where `memory.copy` costs 100 and 1 a byte.
///
/// # Safety
/// Both are valid for `bytes` and do not overlap.
#[inline(always)]
pub unsafe fn copy<V: Lanes>(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's; all addresses below are less than `bytes` from the start.
    unsafe {
        if bytes < VECTOR {
            let mut at = 0;
            if bytes >= 8 {
                to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned());
                at = 8;
            }
            if bytes - at >= 4 {
                to.add(at).cast::<u32>().write_unaligned(from.add(at).cast::<u32>().read_unaligned());
                at += 4;
            }
            while at < bytes {
                *to.add(at) = *from.add(at);
                at += 1;
            }
            return;
        }
        let mut at = 0;
        while at + 16 * VECTOR <= bytes {
            block::<V, 16>(from.add(at).cast(), to.add(at).cast());
            at += 16 * VECTOR;
        }
        while at + 4 * VECTOR <= bytes {
            block::<V, 4>(from.add(at).cast(), to.add(at).cast());
            at += 4 * VECTOR;
        }
        while at + VECTOR <= bytes {
            V::load(from.add(at).cast()).store(to.add(at).cast());
            at += VECTOR;
        }
        if at < bytes {
            // The last vector overlaps the one before it.
            let at = bytes - VECTOR;
            V::load(from.add(at).cast()).store(to.add(at).cast());
        }
    }
}

/// Metered instructions of [`copy`].
pub fn cost(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    if bytes < 16 {
        return 30 + bytes % 4 * 14;
    }
    let (large, small, single) = (bytes / 256, bytes % 256 / 64, bytes % 64 / 16);
    45 + large * (64 + 28) + small * (16 + 28) + single * 20 + 14
}
