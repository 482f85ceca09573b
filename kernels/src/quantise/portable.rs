//! Bodies for any target: the definitions are already what a compiler makes good loops of.

pub use super::naive::{
    block_sums, centre, column_magnitudes, dequantize_centred, dequantize_linear, dynamic_parameters, quantize_centred,
    quantize_linear, row, uncentre,
};
