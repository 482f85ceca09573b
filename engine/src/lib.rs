//! ONNX inference that can pause: a model file becomes a [`Plan`], a request becomes a [`Session`], and both the
//! [`Loader`] that makes the one and the session itself do their work in steps with a budget between them.
//!
//! The engine knows nothing of where it runs. Bytes come through [`ByteSource`], a budget is whatever [`Meter`] counts.
//! Results do not depend on where a step ended, bit for bit.

#[cfg(target_endian = "big")]
compile_error!("tensor bytes are little-endian and are used in place: a big-endian target is not supported");

mod cost;
mod decoder;
mod element_type;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod graph;
pub mod image;
mod inspect;
mod interpreter;
mod loader;
mod onnx;
mod ops;
mod plan;
pub mod postprocess;
mod profile;
mod program;
mod reference;
mod session;
mod source;
mod tensor;
mod weights;
mod whole;

pub use decoder::{BLOCK_TOKENS_MAX, Decoder, DecoderSpec};
pub use element_type::ElementType;
pub use error::{EngineError, ReadError};
pub use inspect::{Inspection, UnsupportedOperator, inspect};
pub use loader::{FreeDimensions, LoadOptions, Loader};
pub use plan::{Plan, TensorSpec};
pub use profile::NodeProfile;
pub use session::Session;
pub use source::{ByteSource, Meter, ModelFiles, READ_BYTES_MAX};
pub use tensor::{TENSOR_BYTES_MAX, Tensor};

/// What a step of a [`Loader`] or a [`Session`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The budget is used up, or the next unit of work wants a call of its own. Call again to go on.
    Paused {
        /// Units of work done; never falls.
        done: u64,
        /// Units of work in all.
        total: u64,
    },
    /// All done.
    Done,
}
