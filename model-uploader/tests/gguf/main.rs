//! Import of GGUF files that the tests make themselves: what comes out is run by the engine and compared with the plain
//! computation, and what is malformed is refused by name.

mod decoding;
mod file;
mod malformed;
mod program;
mod tiny;
mod tokenizers;
