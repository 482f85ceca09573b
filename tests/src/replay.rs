//! The same inference off chain: the engine as a native library.

use anyhow::{Context, Result, ensure};
use onnx_canister_interface::{ElementType, InferRequest, InputSource};
use onnx_engine::{ByteSource, LoadOptions, Loader, Meter, ModelFiles, Session, Step, Tensor};

/// One file in memory.
struct OneFile(Vec<u8>);

impl ModelFiles for OneFile {
    fn onnx(&self) -> &dyn ByteSource {
        &self.0
    }

    fn external(&self, _location: &str) -> Option<&dyn ByteSource> {
        None
    }
}

/// There is no limit here.
struct Free;

impl Meter for Free {
    fn spent(&self) -> u64 {
        0
    }
}

/// The outputs' bytes by name. Fails where an operator of the graph is not the engine's own: of those natively other
/// bits are to be expected.
pub fn replay(file: Vec<u8>, request: &InferRequest) -> Result<Vec<(String, Vec<u8>)>> {
    let mut loader = Loader::new(Box::new(OneFile(file)), LoadOptions::default())?;
    while loader.step(&Free, u64::MAX)? != Step::Done {}
    let plan = loader.finish()?;
    ensure!(plan.is_native(), "not all operators are the engine's own");
    let inputs = request.inputs.iter().map(|input| {
        let InputSource::Tensor(tensor) = &input.source else { anyhow::bail!("input {}: staged", input.name) };
        let element_type = match tensor.element_type {
            ElementType::Float32 => onnx_engine::ElementType::Float32,
            ElementType::Int32 => onnx_engine::ElementType::Int32,
            ElementType::Int64 => onnx_engine::ElementType::Int64,
            other => anyhow::bail!("input {}: {other:?}", input.name),
        };
        Ok((input.name.clone(), Tensor::from_bytes(element_type, &tensor.shape, &tensor.data)?))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>().context("inputs")?;
    let mut session = Session::new(plan, inputs, None)?;
    while session.step(&Free, u64::MAX)? != Step::Done {}
    Ok(session.into_outputs()?.into_iter().map(|(name, tensor)| (name, tensor.bytes().to_vec())).collect())
}
