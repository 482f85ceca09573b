//! The execution core, driven through its public interface: counts, rollback, limits, system API.

mod calls;
mod canister;
mod counts;
mod limits;
mod operators;
mod pages;
mod rollback;
mod system_api;
mod validation;
mod vectors;
