//! Inference with named tensors.

use crate::classify::Prepared;
use crate::inputs;
use crate::store::manifest::invalid;
use crate::tensors;
use candid::Principal;
use onnx_canister_interface::{Error, InferRequest, InputSource};
use onnx_engine::TensorSpec;

/// Takes the request's tensors by name, from the message or from what the caller staged.
pub fn inputs(owner: &Principal, specs: &[TensorSpec], request: &InferRequest) -> Result<Prepared, Error> {
    let mut tensors = Vec::with_capacity(request.inputs.len());
    for (index, input) in request.inputs.iter().enumerate() {
        let Some(spec) = specs.iter().find(|spec| spec.name == input.name) else {
            let available = specs.iter().map(|spec| spec.name.clone()).collect();
            return Err(Error::UnknownTensor { name: input.name.clone(), available });
        };
        if request.inputs[..index].iter().any(|before| before.name == input.name) {
            return Err(invalid(format!("inputs[{index}].name"), &input.name, "given twice"));
        }
        let tensor = match &input.source {
            InputSource::Tensor(tensor) => tensors::to_engine(spec, tensor.element_type, &tensor.shape, &tensor.data)?,
            InputSource::Staged(key) => {
                let staged = inputs::read(owner, key)?;
                tensors::to_engine(spec, staged.element_type, &staged.shape, &staged.data)?
            }
        };
        tensors.push((input.name.clone(), tensor));
    }
    Ok((tensors, request.outputs.clone()))
}
