//! The same inference off chain: the engine as a native library.

use anyhow::{Context, Result, bail, ensure};
use model_uploader::native;
use onnx_canister_interface::{InferRequest, InputSource};
use onnx_engine::LoadOptions;

/// The outputs' bytes by name. Fails where an operator of the graph is not the engine's own: of those natively other
/// bits are to be expected.
pub fn replay(file: Vec<u8>, request: &InferRequest) -> Result<Vec<(String, Vec<u8>)>> {
    let plan = native::load(native::OneFile(file), LoadOptions::default())?;
    ensure!(plan.is_native(), "not all operators are the engine's own");
    let inputs = request.inputs.iter().map(|input| {
        let InputSource::Tensor(tensor) = &input.source else { bail!("input {}: staged", input.name) };
        Ok((input.name.clone(), native::engine_tensor(tensor)?))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>().context("inputs")?;
    Ok(native::infer(&plan, inputs)?.into_iter().map(|(name, tensor)| (name, tensor.bytes().to_vec())).collect())
}
