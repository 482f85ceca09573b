//! Blocks of GGUF as the weights of `MatMulNBits`: whole numbers of 4 or 8 bits, a scale for each block, and for blocks
//! with an offset a zero point that is no whole number.

use super::dequantise::{BlockType, Group, Zero, groups};
use super::error::{GgufError, Result};

/// Weights of `MatMulNBits`, rows one after another.
#[derive(Debug, PartialEq)]
pub(super) struct Packed {
    /// Whole numbers; those of 4 bits in pairs, the first in the low bits.
    pub quants: Vec<u8>,
    /// One for each block.
    pub scales: Vec<f32>,
    /// One for each block, or none where it is the middle of the range.
    pub zero_points: Vec<f32>,
}

/// How a block type is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub bits: usize,
    pub block_elements: usize,
    pub has_zero_points: bool,
}

impl Format {
    /// `None` for a type without blocks.
    pub fn of(block_type: BlockType) -> Option<Self> {
        let block_elements = block_type.group_elements()?;
        let (bits, has_zero_points) = match block_type {
            BlockType::Q4_0 => (4, false),
            BlockType::Q4_1 | BlockType::Q4K => (4, true),
            _ => (8, false),
        };
        Some(Self { bits, block_elements, has_zero_points })
    }

    /// The zero point where none is given.
    pub const fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// Bytes of a block's whole numbers.
    pub const fn block_bytes(self) -> usize {
        self.block_elements * self.bits / 8
    }
}

/// Packs whole blocks. `(quant - zero point) * scale` in float32 is the number that GGUF gives, exactly so without zero
/// points, and else within one unit in the last place of the block's largest.
///
/// # Errors
/// [`GgufError::NotFinite`] when a scale or an offset is not a finite number.
pub(super) fn pack(tensor: &str, block_type: BlockType, format: Format, bytes: &[u8]) -> Result<Packed> {
    let blocks = bytes.len() / block_type.bytes() * (block_type.elements() / format.block_elements);
    let mut packed = Packed {
        quants: Vec::with_capacity(blocks * format.block_bytes()),
        scales: Vec::with_capacity(blocks),
        zero_points: Vec::with_capacity(if format.has_zero_points { blocks } else { 0 }),
    };
    let mut wrong = None;
    for block in bytes.chunks_exact(block_type.bytes()) {
        groups(block_type, block, |group| {
            if !group.is_finite() {
                wrong.get_or_insert(packed.scales.len());
            }
            packed.push(format, &group);
        });
    }
    match wrong {
        Some(block) => Err(GgufError::NotFinite { tensor: tensor.to_string(), block }),
        None => Ok(packed),
    }
}

impl Packed {
    fn push(&mut self, format: Format, group: &Group<'_>) {
        match group.zero {
            Zero::Centre(centre) => {
                // The quants of 6 bits lie in the middle of 8.
                let moved = format.middle() - centre;
                self.push_quants(format, group.quants.iter().map(|quant| quant + moved));
                self.scales.push(group.scale);
            }
            Zero::Offset(offset) => self.push_with_offset(format, group, offset),
        }
    }

    /// The zero point is `-offset / scale`. Its rounding is small beside the block's largest number as long as the offset is,
    /// so quants that have a least one above 0 are moved down to 0. Of a block that is one number throughout, be it
    /// because its scale is 0, the number itself is the scale.
    fn push_with_offset(&mut self, format: Format, group: &Group<'_>, offset: f32) {
        let numbers = || group.quants.iter().map(|quant| group.number(*quant));
        let lowest = numbers().fold(f32::INFINITY, f32::min);
        let largest = numbers().fold(0f32, |largest, number| largest.max(number.abs()));
        if numbers().all(|number| number == lowest) {
            self.push_quants(format, group.quants.iter().map(|_| format.middle() + 1));
            self.scales.push(lowest);
            self.zero_points.push(format.middle().into());
            return;
        }
        let least = group.quants.iter().copied().min().unwrap_or(0);
        let offset = if least == 0 { offset } else { group.number(least) };
        let unit = largest.next_up() - largest;
        if (offset / group.scale).abs() >= WHOLE_NUMBERS_MAX {
            // All lie within 15 units of each other: these are the scale, and a zero point of whole units is exact.
            let units = numbers().map(|number| ((number - lowest) / unit).round_ties_even().min(15.0) as u8);
            self.push_quants(format, units);
            self.scales.push(unit);
            self.zero_points.push(-lowest / unit);
            return;
        }
        let (scale, zero_point) = nearest(group, least, offset, unit);
        self.push_quants(format, group.quants.iter().map(|quant| quant - least));
        self.scales.push(scale);
        self.zero_points.push(zero_point);
    }

    fn push_quants(&mut self, format: Format, quants: impl Iterator<Item = u8>) {
        if format.bits == 8 {
            self.quants.extend(quants);
            return;
        }
        let mut low = None;
        for quant in quants {
            match low.take() {
                None => low = Some(quant),
                Some(low) => self.quants.push(low | quant << 4),
            }
        }
    }
}

/// The least float32 whose successor is more than 1 away.
const WHOLE_NUMBERS_MAX: f32 = 16_777_216.0;

/// The scale and zero point that give the block's numbers within a unit: the plain ones but for one block in ten thousand,
/// where roundings add up and one of their neighbours is nearer.
fn nearest(group: &Group<'_>, least: u8, offset: f32, unit: f32) -> (f32, f32) {
    let worst = |scale: f32, zero_point: f32| {
        let difference = |quant: &u8| ((f32::from(quant - least) - zero_point) * scale - group.number(*quant)).abs();
        group.quants.iter().map(difference).fold(0f32, f32::max)
    };
    let plain = (group.scale, -offset / group.scale);
    let mut best = (worst(plain.0, plain.1), plain);
    if best.0 <= unit {
        return plain;
    }
    for scale in [plain.0, plain.0.next_down(), plain.0.next_up()] {
        let zero_point = -offset / scale;
        for zero_point in [zero_point, zero_point.next_down(), zero_point.next_up()] {
            let worst = worst(scale, zero_point);
            if worst < best.0 {
                best = (worst, (scale, zero_point));
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::super::dequantise::dequantise;
    use super::*;

    const BLOCK_TYPES: [(BlockType, &[u8]); 5] = [
        (BlockType::Q4_0, include_bytes!("testdata/q4_0.blocks")),
        (BlockType::Q4_1, include_bytes!("testdata/q4_1.blocks")),
        (BlockType::Q8_0, include_bytes!("testdata/q8_0.blocks")),
        (BlockType::Q4K, include_bytes!("testdata/q4_k.blocks")),
        (BlockType::Q6K, include_bytes!("testdata/q6_k.blocks")),
    ];

    /// What ONNX defines: `(quant - zero point) * scale`.
    fn numbers(format: Format, packed: &Packed) -> Vec<f32> {
        let of_block = |block: usize| {
            let zero_point = if format.has_zero_points { packed.zero_points[block] } else { format.middle().into() };
            (0..format.block_elements).map(move |at| {
                let bytes = &packed.quants[block * format.block_bytes()..];
                let quant = if format.bits == 8 { bytes[at] } else { bytes[at / 2] >> (at % 2 * 4) & 15 };
                (f32::from(quant) - zero_point) * packed.scales[block]
            })
        };
        (0..packed.scales.len()).flat_map(of_block).collect()
    }

    /// One unit in the last place of a number.
    fn unit(number: f32) -> f32 {
        let number = number.abs().max(f32::MIN_POSITIVE);
        f32::from_bits(number.to_bits() + 1) - number
    }

    fn check(block_type: BlockType, blocks: &[u8]) {
        let format = Format::of(block_type).unwrap();
        let packed = pack("t", block_type, format, blocks).unwrap();
        assert_eq!(packed.zero_points.len(), if format.has_zero_points { packed.scales.len() } else { 0 });
        let (got, expected) = (numbers(format, &packed), dequantise(block_type, blocks));
        assert_eq!(got.len(), expected.len());
        let blocks = got.chunks(format.block_elements).zip(expected.chunks(format.block_elements));
        for (block, (got, expected)) in blocks.enumerate() {
            let largest = expected.iter().fold(0f32, |largest, number| largest.max(number.abs()));
            let is_constant = expected.iter().all(|number| *number == expected[0]);
            let allowed = if format.has_zero_points && !is_constant { unit(largest) } else { 0.0 };
            for (got, expected) in got.iter().zip(expected) {
                let difference = (got - expected).abs();
                assert!(
                    difference <= allowed,
                    "{block_type:?} block {block}: {got:e}, not {expected:e}, of {largest:e}"
                );
            }
        }
    }

    #[test]
    fn the_fixtures_keep_their_numbers() {
        for (block_type, blocks) in BLOCK_TYPES {
            check(block_type, blocks);
        }
    }

    /// Random scales and offsets of all magnitudes, with all quants and with few different ones.
    #[test]
    fn blocks_with_offsets_keep_their_numbers_within_a_unit_of_the_largest() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for round in 0..20_000u32 {
            let mut block = [0u8; 20];
            for half in 0..2 {
                // Exponents below the one of infinity.
                let bits = (random() as u16 & 0x83ff) | ((random() % 31) as u16) << 10;
                block[2 * half..2 * half + 2].copy_from_slice(&bits.to_le_bytes());
            }
            // None, all or some bits differ between quants.
            let (fixed, mask) = (random() as u8, [0xff, 0x11, 0x33, 0x00][round as usize % 4]);
            block[4..].iter_mut().for_each(|byte| *byte = (random() as u8 & mask) | (fixed & !mask));
            check(BlockType::Q4_1, &block);
        }
    }

    #[test]
    fn a_block_without_scale_is_its_offset_and_one_without_both_is_zero() {
        for offset in [0.0f32, -1.5, 6e-8, 65504.0] {
            let mut block = [0xa7u8; 20];
            block[..2].fill(0);
            block[2..4].copy_from_slice(&half::f16::from_f32(offset).to_le_bytes());
            let format = Format::of(BlockType::Q4_1).unwrap();
            let packed = pack("t", BlockType::Q4_1, format, &block).unwrap();
            let expected = half::f16::from_f32(offset).to_f32();
            assert!(numbers(format, &packed).iter().all(|number| *number == expected), "{offset}");
        }
        for block_type in [BlockType::Q4_0, BlockType::Q8_0, BlockType::Q6K] {
            let mut block = vec![0xa7u8; block_type.bytes()];
            let at = if block_type == BlockType::Q6K { block.len() - 2 } else { 0 };
            block[at..at + 2].fill(0);
            let format = Format::of(block_type).unwrap();
            let packed = pack("t", block_type, format, &block).unwrap();
            assert!(numbers(format, &packed).iter().all(|number| *number == 0.0), "{block_type:?}");
        }
    }

    #[test]
    fn scales_that_are_no_numbers_are_refused() {
        for (block_type, at) in [
            (BlockType::Q4_0, 0),
            (BlockType::Q4_1, 0),
            (BlockType::Q4_1, 2),
            (BlockType::Q8_0, 0),
            (BlockType::Q4K, 0),
            (BlockType::Q4K, 2),
            (BlockType::Q6K, 208),
        ] {
            for bits in [half::f16::NAN, half::f16::INFINITY, half::f16::NEG_INFINITY] {
                let mut blocks = vec![1u8; 2 * block_type.bytes()];
                let second = block_type.bytes() + at;
                blocks[second..second + 2].copy_from_slice(&bits.to_le_bytes());
                let error = pack("t", block_type, Format::of(block_type).unwrap(), &blocks).unwrap_err();
                let first = block_type.elements() / block_type.group_elements().unwrap();
                assert!(matches!(error, GgufError::NotFinite { block, .. } if block == first), "{error}");
            }
        }
    }
}
