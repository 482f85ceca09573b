//! Requests to real models, made of the inputs that a model says it has.

use crate::onnx::weights;
use onnx_canister_interface::{
    ElementType, InferInput, InferRequest, InputSource, ModelInfo, ModelRef, Tensor, TensorInfo,
};
use serde_bytes::ByteBuf;

/// Tokens of a text in [`text_tokens`].
pub const TOKENS: u64 = 32;

/// Tokens before the one of [`next_token`].
pub const PAST_TOKENS: u64 = 16;

/// The version that `info` is of.
pub fn reference(info: &ModelInfo) -> ModelRef {
    ModelRef { name: info.name.clone(), version: Some(info.version) }
}

/// Whole numbers from 0 to 255 for every input, its free sizes being 1.
pub fn numbers(info: &ModelInfo) -> InferRequest {
    infer(info, |input| {
        let shape: Vec<u64> = input.shape.iter().map(|size| size.unwrap_or(1)).collect();
        let count = shape.iter().product::<u64>() as usize;
        let values = weights(count, 7).into_iter().map(|value| ((value + 0.5) * 255.0).floor());
        match input.element_type {
            ElementType::Int32 => {
                tensor(ElementType::Int32, shape, values.flat_map(|value| (value as i32).to_le_bytes()).collect())
            }
            ElementType::Int64 => {
                tensor(ElementType::Int64, shape, values.flat_map(|value| (value as i64).to_le_bytes()).collect())
            }
            ElementType::Float16 => {
                let bytes = values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect();
                tensor(ElementType::Float16, shape, bytes)
            }
            _ => tensor(ElementType::Float32, shape, values.flat_map(f32::to_le_bytes).collect()),
        }
    })
}

/// A text of 32 tokens: any words, none left out, all of one kind.
pub fn text_tokens(info: &ModelInfo) -> InferRequest {
    infer(info, |input| {
        let value = |index: usize, word: f32| match &*input.name {
            "input_ids" => 1_000 + ((word + 0.5) * 28_000.0) as i64,
            "attention_mask" => 1,
            "position_ids" => index as i64,
            _ => 0,
        };
        let values = weights(TOKENS as usize, 3).into_iter().enumerate().map(|(index, word)| value(index, word));
        tensor(ElementType::Int64, vec![1, TOKENS], values.flat_map(i64::to_le_bytes).collect())
    })
}

/// Whether the model has inputs for keys and values of tokens before.
pub fn has_past(info: &ModelInfo) -> bool {
    info.inputs.iter().any(|input| input.name.starts_with("past"))
}

/// One token after [`PAST_TOKENS`] others, of which keys and values are given.
pub fn next_token(info: &ModelInfo) -> InferRequest {
    infer(info, |input| {
        let free = |sizes: &[u64]| -> Vec<u64> {
            let mut sizes = sizes.iter().copied();
            input.shape.iter().map(|size| size.or_else(|| sizes.next()).unwrap_or(1)).collect()
        };
        let integers = |shape: Vec<u64>, value: i64| {
            let count = shape.iter().product::<u64>() as usize;
            tensor(ElementType::Int64, shape, vec![value; count].into_iter().flat_map(i64::to_le_bytes).collect())
        };
        match &*input.name {
            "attention_mask" => integers(free(&[1, PAST_TOKENS + 1]), 1),
            "position_ids" => integers(free(&[1, 1]), PAST_TOKENS as i64),
            name if name.starts_with("past") => {
                let shape = free(&[1, PAST_TOKENS]);
                let values = weights(shape.iter().product::<u64>() as usize, 11);
                tensor(ElementType::Float32, shape, values.into_iter().flat_map(f32::to_le_bytes).collect())
            }
            _ => integers(free(&[1, 1]), 100),
        }
    })
}

fn tensor(element_type: ElementType, shape: Vec<u64>, data: Vec<u8>) -> Tensor {
    Tensor { element_type, shape, data: ByteBuf::from(data) }
}

fn infer(info: &ModelInfo, tensor: impl Fn(&TensorInfo) -> Tensor) -> InferRequest {
    let input =
        |input: &TensorInfo| InferInput { name: input.name.clone(), source: InputSource::Tensor(tensor(input)) };
    let inputs = info.inputs.iter().map(input).collect();
    InferRequest { model: reference(info), inputs, outputs: None, limits: None }
}
