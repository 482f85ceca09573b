//! Tensors between the Candid interface and the engine.

use crate::engine_error;
use crate::limits::TENSOR_RANK_MAX;
use crate::store::manifest::invalid;
use onnx_canister_interface::{ElementType, Error, TensorInfo};
use onnx_engine::TensorSpec;

/// The interface's element type for the engine's.
pub fn element_type(element_type: onnx_engine::ElementType) -> ElementType {
    use onnx_engine::ElementType as Engine;
    match element_type {
        Engine::Float32 => ElementType::Float32,
        Engine::Float64 => ElementType::Float64,
        Engine::Float16 => ElementType::Float16,
        Engine::Uint8 => ElementType::Uint8,
        Engine::Int8 => ElementType::Int8,
        Engine::Uint16 => ElementType::Uint16,
        Engine::Int16 => ElementType::Int16,
        Engine::Uint32 => ElementType::Uint32,
        Engine::Int32 => ElementType::Int32,
        Engine::Uint64 => ElementType::Uint64,
        Engine::Int64 => ElementType::Int64,
        Engine::Bool => ElementType::Bool,
    }
}

/// The engine's element type for the interface's.
pub fn engine_element_type(element_type: ElementType) -> onnx_engine::ElementType {
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

/// What anyone may know of a model's input or output.
pub fn info(spec: &TensorSpec) -> TensorInfo {
    TensorInfo { name: spec.name.clone(), element_type: element_type(spec.element_type), shape: spec.shape.clone() }
}

/// Bytes of a tensor, or an error when its shape is out of range; `place` is the shape's path in the request.
pub fn size_bytes(place: &str, element_type: ElementType, shape: &[u64]) -> Result<u64, Error> {
    let shown = || format!("{:?}", &shape[..shape.len().min(TENSOR_RANK_MAX)]);
    if shape.len() > TENSOR_RANK_MAX {
        return Err(invalid(place, shown(), format!("a tensor has at most {TENSOR_RANK_MAX} dimensions")));
    }
    shape
        .iter()
        .try_fold(element_type.size_bytes(), |bytes, dimension| bytes.checked_mul(*dimension))
        .filter(|bytes| usize::try_from(*bytes).is_ok())
        .ok_or_else(|| invalid(place, shown(), "more elements than memory has bytes"))
}

/// The engine's tensor of a request's bytes, in the type that the model's input `spec` has: `uint8` and `float16` are
/// taken for `float32`, exactly.
pub fn to_engine(
    spec: &TensorSpec,
    given: ElementType,
    shape: &[u64],
    bytes: &[u8],
) -> Result<onnx_engine::Tensor, Error> {
    let name = &spec.name;
    let expected_bytes = size_bytes(&format!("input '{name}'.shape"), given, shape)?;
    if expected_bytes != bytes.len() as u64 {
        return Err(Error::TensorLength { name: name.clone(), expected_bytes, got_bytes: bytes.len() as u64 });
    }
    let widened = spec.element_type == onnx_engine::ElementType::Float32
        && matches!(given, ElementType::Uint8 | ElementType::Float16);
    if engine_element_type(given) != spec.element_type && !widened {
        return Err(Error::TensorType { name: name.clone(), expected: element_type(spec.element_type), got: given });
    }
    let fits = spec.shape.len() == shape.len()
        && spec.shape.iter().zip(shape).all(|(expected, got)| expected.is_none_or(|expected| expected == *got));
    if !fits {
        return Err(Error::TensorShape { name: name.clone(), expected: spec.shape.clone(), got: shape.to_vec() });
    }
    onnx_engine::Tensor::from_bytes(engine_element_type(given), shape, bytes)
        .and_then(|tensor| tensor.cast_to(spec.element_type))
        .map_err(|error| engine_error::of_request(&format!("input '{name}'"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: Vec<Option<u64>>) -> TensorSpec {
        TensorSpec { name: "x".into(), element_type: onnx_engine::ElementType::Float32, shape }
    }

    #[test]
    fn every_element_type_goes_there_and_back() {
        use ElementType::*;
        let all = [Float32, Float64, Float16, Uint8, Int8, Uint16, Int16, Uint32, Int32, Uint64, Int64, Bool];
        for each in all {
            assert_eq!(element_type(engine_element_type(each)), each);
            assert_eq!(engine_element_type(each).size_bytes(), each.size_bytes());
        }
    }

    #[test]
    fn what_does_not_fit_the_input_is_named() {
        let spec = spec(vec![Some(1), None]);
        let f32s = |count: usize| vec![0_u8; 4 * count];
        assert!(matches!(
            to_engine(&spec, ElementType::Float32, &[1, 3], &f32s(2)),
            Err(Error::TensorLength { expected_bytes: 12, got_bytes: 8, .. })
        ));
        assert!(matches!(
            to_engine(&spec, ElementType::Int32, &[1, 3], &f32s(3)),
            Err(Error::TensorType { got: ElementType::Int32, expected: ElementType::Float32, .. })
        ));
        assert!(matches!(
            to_engine(&spec, ElementType::Float32, &[2, 3], &f32s(6)),
            Err(Error::TensorShape { got, .. }) if got == [2, 3]
        ));
        assert!(matches!(to_engine(&spec, ElementType::Float32, &[3], &f32s(3)), Err(Error::TensorShape { .. })));
        assert!(matches!(
            to_engine(&spec, ElementType::Float32, &[u64::MAX, 2], &[]),
            Err(Error::InvalidArgument { place, .. }) if place == "input 'x'.shape"
        ));
        assert!(matches!(
            to_engine(&spec, ElementType::Float32, &[1; 17], &f32s(1)),
            Err(Error::InvalidArgument { .. })
        ));
    }
}
