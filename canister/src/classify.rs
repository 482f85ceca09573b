//! Classification: an image or a tensor in, labels with scores out.

use crate::engine_error;
use crate::image_cost;
use crate::inputs::{self, Staged};
use crate::limits::{TOP_K_DEFAULT, TOP_K_MAX};
use crate::store::ModelKey;
use crate::store::manifest::{channels, invalid};
use crate::store::models;
use crate::tensors;
use candid::Principal;
use onnx_canister_interface::{
    ChannelOrder, ClassifyInput, ClassifyRequest, ElementType, Error, IMAGE_PIXELS_MAX, Label, Layout, Preprocessing,
    Resize, Task,
};
use onnx_engine::image;
use onnx_engine::{Tensor, TensorSpec, postprocess};

/// Checks what doesn't depend on the model.
pub fn check(request: &ClassifyRequest) -> Result<(), Error> {
    match request.top_k {
        Some(top_k) if top_k == 0 || top_k > TOP_K_MAX => Err(invalid("top_k", top_k, format!("1 to {TOP_K_MAX}"))),
        _ => Ok(()),
    }
}

/// The engine's inputs and the outputs to compute.
pub type Prepared = (Vec<(String, Tensor)>, Option<Vec<String>>);

/// Prepares the input of a model whose task is to classify. An image that may cost more than `image_instructions` is
/// refused.
pub fn inputs(
    owner: &Principal,
    key: &ModelKey,
    specs: &[TensorSpec],
    output_specs: &[TensorSpec],
    request: &ClassifyRequest,
    image_instructions: u64,
) -> Result<Prepared, Error> {
    let record = models::record(key)?;
    if !matches!(record.task, Task::Classify { .. }) {
        return Err(invalid("model", &key.name, "its task is not classify: call infer or generate"));
    }
    let (Some(spec), Some(output)) = (specs.first(), output_specs.first()) else {
        return Err(Error::ModelInvalid { place: "the model".into(), reason: "it lacks an input or an output".into() });
    };
    if specs.len() > 1 {
        return Err(Error::ModelInvalid {
            place: "the model".into(),
            reason: format!("it has {} inputs, classify needs one: call infer", specs.len()),
        });
    }
    let preprocessing = record.preprocessing.as_ref();
    let tensor = match &request.input {
        ClassifyInput::Image(bytes) => prepare_image(spec, preprocessing, bytes, image_instructions)?,
        ClassifyInput::Tensor(tensor) => tensors::to_engine(spec, tensor.element_type, &tensor.shape, &tensor.data)?,
        ClassifyInput::Staged(staged_key) => {
            let Staged { element_type, shape, data } = inputs::read(owner, staged_key)?;
            match (preprocessing, element_type, shape.len()) {
                (Some(_), ElementType::Uint8, 1) => prepare_image(spec, preprocessing, &data, image_instructions)?,
                _ => tensors::to_engine(spec, element_type, &shape, &data)?,
            }
        }
    };
    Ok((vec![(spec.name.clone(), tensor)], Some(vec![output.name.clone()])))
}

fn prepare_image(
    spec: &TensorSpec,
    preprocessing: Option<&Preprocessing>,
    bytes: &[u8],
    image_instructions: u64,
) -> Result<Tensor, Error> {
    let of_request = |error| engine_error::of_request("input.image", error);
    let Some(preprocessing) = preprocessing else {
        return Err(invalid("input.image", "an image", "the model's manifest has no preprocessing: give a tensor"));
    };
    let prepared_pixels = u64::from(preprocessing.height) * u64::from(preprocessing.width);
    let affordable = image_cost::pixels_max(bytes, prepared_pixels, image_instructions);
    let image = image::decode(bytes, affordable.min(IMAGE_PIXELS_MAX)).map_err(|error| match of_request(error) {
        Error::ImageTooLarge { pixels, .. } if pixels > IMAGE_PIXELS_MAX => {
            Error::ImageTooLarge { pixels, limit_pixels: IMAGE_PIXELS_MAX }
        }
        error => error,
    })?;
    let tensor = image::preprocess(&image, &engine_preprocessing(preprocessing)?).map_err(of_request)?;
    drop(image);
    tensors::to_engine(spec, tensors::element_type(tensor.element_type()), &tensor.shape(), tensor.bytes())
}

fn engine_preprocessing(preprocessing: &Preprocessing) -> Result<image::Preprocessing, Error> {
    Ok(image::Preprocessing {
        height: preprocessing.height,
        width: preprocessing.width,
        resize: match preprocessing.resize {
            Resize::None => image::Resize::None,
            Resize::ShorterSide(shorter_side) => image::Resize::ShorterSide(shorter_side),
            Resize::Stretch => image::Resize::Stretch,
        },
        channel_order: match preprocessing.channel_order {
            ChannelOrder::Rgb => image::ChannelOrder::Rgb,
            ChannelOrder::Bgr => image::ChannelOrder::Bgr,
        },
        layout: match preprocessing.layout {
            Layout::Nchw => image::Layout::Nchw,
            Layout::Nhwc => image::Layout::Nhwc,
        },
        mean: channels("mean", &preprocessing.mean, f32::is_finite)?,
        std: channels("std", &preprocessing.std, |value| value.is_finite() && value > 0.0)?,
    })
}

/// The best labels of the model's output, best first, ties by lower index.
pub fn labels(key: &ModelKey, request: &ClassifyRequest, outputs: Vec<(String, Tensor)>) -> Result<Vec<Label>, Error> {
    let Some((_, output)) = outputs.into_iter().next() else {
        return Err(Error::ModelInvalid { place: "the model".into(), reason: "it gave no output".into() });
    };
    let scores = output.to_f32().map_err(|error| engine_error::of_request("the model's output", error))?;
    let scores = match models::record(key)?.task {
        Task::Classify { softmax: true } => postprocess::softmax(&scores),
        _ => scores,
    };
    let top_k = request.top_k.unwrap_or(TOP_K_DEFAULT) as usize;
    let best = postprocess::top_k(&scores, top_k);
    models::with(key, |entry| {
        let labels = &entry.manifest.labels;
        Ok(best
            .into_iter()
            .map(|(index, score)| Label {
                label: labels.get(index).cloned().unwrap_or_default(),
                // An output of more than 2^32 elements doesn't fit the heap.
                index: index as u32,
                score,
            })
            .collect())
    })
}
