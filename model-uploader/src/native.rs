//! The engine here, off chain: no budget, no pauses.

use anyhow::Result;
use onnx_canister_interface::{ElementType, Tensor};
use onnx_engine::{ByteSource, LoadOptions, Loader, Meter, ModelFiles, Plan, Session, Step};
use std::sync::Arc;

/// A model in one file in memory.
pub struct OneFile(pub Vec<u8>);

impl ModelFiles for OneFile {
    fn onnx(&self) -> &dyn ByteSource {
        &self.0
    }

    fn external(&self, _location: &str) -> Option<&dyn ByteSource> {
        None
    }
}

/// Nothing is limited here.
struct Unlimited;

impl Meter for Unlimited {
    fn spent(&self) -> u64 {
        0
    }
}

/// Loads a model to the end.
///
/// # Errors
/// When it can't be read or run.
pub fn load(files: impl ModelFiles + 'static, options: LoadOptions) -> Result<Arc<Plan>> {
    let mut loader = Loader::new(Box::new(files), options)?;
    while loader.step(&Unlimited, u64::MAX)? != Step::Done {}
    Ok(loader.finish()?)
}

/// All outputs by name, in the model's order.
///
/// # Errors
/// When the inputs are not what the model takes, or a node fails.
pub fn infer(
    plan: &Arc<Plan>,
    inputs: Vec<(String, onnx_engine::Tensor)>,
) -> Result<Vec<(String, onnx_engine::Tensor)>> {
    let mut session = Session::new(plan.clone(), inputs, None)?;
    while session.step(&Unlimited, u64::MAX)? != Step::Done {}
    Ok(session.into_outputs()?)
}

/// A tensor of a request as the engine takes it.
///
/// # Errors
/// When its bytes are not those of its shape.
pub fn engine_tensor(tensor: &Tensor) -> Result<onnx_engine::Tensor> {
    Ok(onnx_engine::Tensor::from_bytes(element_type(tensor.element_type), &tensor.shape, &tensor.data)?)
}

fn element_type(element_type: ElementType) -> onnx_engine::ElementType {
    use onnx_engine::ElementType as Engine;
    match element_type {
        ElementType::Float32 => Engine::Float32,
        ElementType::Float64 => Engine::Float64,
        ElementType::Float16 => Engine::Float16,
        ElementType::Uint8 => Engine::Uint8,
        ElementType::Int8 => Engine::Int8,
        ElementType::Uint16 => Engine::Uint16,
        ElementType::Int16 => Engine::Int16,
        ElementType::Uint32 => Engine::Uint32,
        ElementType::Int32 => Engine::Int32,
        ElementType::Uint64 => Engine::Uint64,
        ElementType::Int64 => Engine::Int64,
        ElementType::Bool => Engine::Bool,
    }
}
