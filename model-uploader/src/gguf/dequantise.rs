//! The blocks of GGUF's tensor types and the numbers they stand for, by the definitions of ggml's `ggml-quants.c`.

use half::f16;

/// Types of tensors, by how their elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q6K,
}

/// A number of a type that has no blocks is a block of its own.
impl BlockType {
    /// From ggml's number of the type.
    pub fn from_ggml(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Elements of a block.
    pub const fn elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 4 + 12 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Of types with blocks: how many numbers have one scale.
    pub const fn group_elements(self) -> Option<usize> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => None,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 | Self::Q4K => Some(32),
            Self::Q6K => Some(16),
        }
    }
}

/// Numbers that have one scale, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group<'a> {
    pub quants: &'a [u8],
    pub scale: f32,
    pub zero: Zero,
}

/// What a quant of 0 stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Zero {
    /// A number is `(quant - centre) * scale`.
    Centre(u8),
    /// A number is `quant * scale + offset`.
    Offset(f32),
}

impl Group<'_> {
    /// The number that a quant stands for, in the order of operations of ggml.
    pub fn number(&self, quant: u8) -> f32 {
        match self.zero {
            Zero::Centre(centre) => self.scale * (f32::from(quant) - f32::from(centre)),
            Zero::Offset(offset) => self.scale * f32::from(quant) + offset,
        }
    }

    pub fn is_finite(&self) -> bool {
        let offset = match self.zero {
            Zero::Centre(_) => 0.0,
            Zero::Offset(offset) => offset,
        };
        self.scale.is_finite() && offset.is_finite() && [0, 255].iter().all(|quant| self.number(*quant).is_finite())
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Gives each group of a block of a type that has blocks.
pub(super) fn groups(block_type: BlockType, block: &[u8], mut each: impl FnMut(Group<'_>)) {
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 => {}
        BlockType::Q4_0 => {
            let quants = nibbles(&block[2..18]);
            each(Group { quants: &quants, scale: half(block), zero: Zero::Centre(8) });
        }
        BlockType::Q4_1 => {
            let quants = nibbles(&block[4..20]);
            each(Group { quants: &quants, scale: half(block), zero: Zero::Offset(half(&block[2..])) });
        }
        BlockType::Q8_0 => {
            // From -128..127 to 0..255.
            let mut quants = [0; 32];
            quants.iter_mut().zip(&block[2..34]).for_each(|(quant, byte)| *quant = byte ^ 0x80);
            each(Group { quants: &quants, scale: half(block), zero: Zero::Centre(128) });
        }
        BlockType::Q4K => {
            let (scale, offset, packed) = (half(block), half(&block[2..]), &block[4..16]);
            for (pair, bytes) in block[16..144].chunks_exact(32).enumerate() {
                let mut quants = [0; 64];
                for (at, byte) in bytes.iter().enumerate() {
                    (quants[at], quants[at + 32]) = (byte & 15, byte >> 4);
                }
                for (half, quants) in quants.chunks_exact(32).enumerate() {
                    let (by, less) = scale_and_min(packed, 2 * pair + half);
                    let zero = Zero::Offset(-(offset * f32::from(less)));
                    each(Group { quants, scale: scale * f32::from(by), zero });
                }
            }
        }
        BlockType::Q6K => {
            let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half(&block[208..]));
            for part in 0..2 {
                let (low, high) = (&low[64 * part..], &high[32 * part..]);
                let mut quants = [0; 128];
                for at in 0..32 {
                    quants[at] = low[at] & 15 | (high[at] & 3) << 4;
                    quants[at + 32] = low[at + 32] & 15 | (high[at] >> 2 & 3) << 4;
                    quants[at + 64] = low[at] >> 4 | (high[at] >> 4 & 3) << 4;
                    quants[at + 96] = low[at + 32] >> 4 | (high[at] >> 6) << 4;
                }
                for (quants, by) in quants.chunks_exact(16).zip(&scales[8 * part..]) {
                    each(Group { quants, scale: scale * f32::from(*by as i8), zero: Zero::Centre(32) });
                }
            }
        }
    }
}

/// The low halves of the bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut quants = [0; 32];
    for (at, byte) in bytes.iter().enumerate() {
        (quants[at], quants[at + 16]) = (byte & 15, byte >> 4);
    }
    quants
}

/// The scale and the minimum, of 6 bits each, of one of eight groups in 12 bytes.
fn scale_and_min(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            (packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4, packed[group + 4] >> 4 | (packed[group] >> 6) << 4)
        }
    }
}

/// The numbers of whole blocks of any type.
pub(super) fn dequantise(block_type: BlockType, bytes: &[u8]) -> Vec<f32> {
    let blocks = bytes.chunks_exact(block_type.bytes());
    match block_type {
        BlockType::F32 => blocks.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect(),
        BlockType::F16 => blocks.map(half).collect(),
        BlockType::Bf16 => {
            blocks.map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)).collect()
        }
        _ => {
            let mut numbers = Vec::with_capacity(blocks.len() * block_type.elements());
            for block in blocks {
                groups(block_type, block, |group| {
                    numbers.extend(group.quants.iter().map(|quant| group.number(*quant)));
                });
            }
            numbers
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of random bytes with chosen scales, among them 0, subnormal, negative and the largest ones; and their numbers
    /// as the package `gguf` computes them. `testdata/make.py` made them.
    const FIXTURES: [(BlockType, &[u8], &[u8]); 7] = [
        (BlockType::F16, include_bytes!("testdata/f16.blocks"), include_bytes!("testdata/f16.numbers")),
        (BlockType::Bf16, include_bytes!("testdata/bf16.blocks"), include_bytes!("testdata/bf16.numbers")),
        (BlockType::Q4_0, include_bytes!("testdata/q4_0.blocks"), include_bytes!("testdata/q4_0.numbers")),
        (BlockType::Q4_1, include_bytes!("testdata/q4_1.blocks"), include_bytes!("testdata/q4_1.numbers")),
        (BlockType::Q8_0, include_bytes!("testdata/q8_0.blocks"), include_bytes!("testdata/q8_0.numbers")),
        (BlockType::Q4K, include_bytes!("testdata/q4_k.blocks"), include_bytes!("testdata/q4_k.numbers")),
        (BlockType::Q6K, include_bytes!("testdata/q6_k.blocks"), include_bytes!("testdata/q6_k.numbers")),
    ];

    #[test]
    fn numbers_are_those_of_the_gguf_package_bit_for_bit() {
        for (block_type, blocks, numbers) in FIXTURES {
            let expected = dequantise(BlockType::F32, numbers);
            let got = dequantise(block_type, blocks);
            assert_eq!(got.len(), expected.len(), "{block_type:?}");
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // A zero has no sign that matters.
                assert!(got == expected, "{block_type:?} element {at}: {got:e}, not {expected:e}");
            }
        }
    }

    #[test]
    fn the_fixtures_have_blocks_without_scale_and_extreme_ones() {
        for (block_type, blocks, _) in FIXTURES {
            let numbers = dequantise(block_type, blocks);
            let largest = numbers.iter().fold(0f32, |largest, number| largest.max(number.abs()));
            assert!(largest > 60_000.0 && numbers.contains(&0.0), "{block_type:?}: {largest}");
        }
    }
}
