//! The model store: what is uploaded, verified, activated and deleted, all of it in stable memory.

pub mod bitmap;
pub mod commit;
pub mod manifest;
pub mod models;
pub mod owned;
pub mod upload;
pub mod versions;

pub use models::ModelKey;
