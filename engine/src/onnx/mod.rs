//! Reading an ONNX file without holding it: the graph is decoded, the weights stay where they are as byte ranges.

mod check;
mod entry;
mod external;
mod graph;
mod sizes;
mod tensor;
mod walk;
mod wire;

pub(crate) use entry::{Encoding, StoredTensor};
pub(crate) use graph::{Dim, Graph, Sizes, domain_is_known, operator_name, values_used};
pub(crate) use tensor::{PartialVarint, element_of_varint};
pub(crate) use walk::Walk;

/// Tensors of at most this many bytes are kept in the graph; larger ones are read straight into their own buffers.
pub(crate) const INLINE_TENSOR_BYTES_MAX: u64 = 4096;

/// Most bytes of the file that are decoded as graph: everything but the large weights. The largest graph seen,
/// SmolLM2-135M's with 2,259 nodes, has 0.27 MB.
pub(crate) const GRAPH_BYTES_MAX: u64 = 16 << 20;

/// Most length-delimited fields in the graph part; each becomes an object on the heap when decoded.
pub(crate) const GRAPH_FIELDS_MAX: u64 = 1 << 20;

/// Most levels of messages in messages; a graph nested in a node's attribute takes three.
pub(crate) const NESTING_MAX: u32 = 48;

/// How many times all tensors together may claim the bytes of an external-data file: a weight may have several names,
/// but a small file must not claim all of memory.
pub(crate) const EXTERNAL_CLAIMS_MAX: u64 = 4;

/// Most axes of a tensor.
pub(crate) const RANK_MAX: usize = 16;

/// Most tensors that are read from ranges.
pub(crate) const STORED_TENSORS_MAX: usize = 1 << 17;
