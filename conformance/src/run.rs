//! Running a case on the engine and comparing what comes out, as the package's own runner does.

use crate::package::Case;
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use model_uploader::native::{self, OneFile};
use onnx_engine::{ElementType, LoadOptions, Tensor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::Duration;

/// A case that takes longer has failed.
const CASE_TIME: Duration = Duration::from_secs(20);

/// Bytes of stack for a case.
const STACK_BYTES: usize = 64 << 20;

/// How the engine ran a case that passes: its program, or a fallback.
pub struct Passed {
    pub is_native: bool,
}

/// Runs a case in a thread of its own. The error says in a line why it failed; a panic or a hang is one.
pub fn run(case: Case) -> Result<Passed, String> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| check(&case)));
        let result = match result {
            Ok(result) => result.map_err(|error| format!("{error:#}")),
            Err(payload) => Err(format!("panic: {}", panic_message(&*payload))),
        };
        // The receiver is gone when the time is over.
        let _ = sender.send(result);
    });
    if let Err(error) = thread {
        return Err(format!("no thread: {error}"));
    }
    receiver.recv_timeout(CASE_TIME).unwrap_or_else(|_| Err("it does not end".into()))
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

fn check(case: &Case) -> Result<Passed> {
    let plan = native::load(OneFile(case.onnx.clone()), LoadOptions::default()).context("loading")?;
    ensure!(!case.data_sets.is_empty(), "the case has no data");
    let graph = case.model.graph()?;
    for (inputs, expected) in &case.data_sets {
        ensure!(inputs.len() <= graph.input.len(), "{} inputs for {}", inputs.len(), graph.input.len());
        ensure!(expected.len() == graph.output.len(), "{} outputs for {}", expected.len(), graph.output.len());
        let named = graph.input.iter().zip(inputs).map(|(input, tensor)| Ok((input.name.clone(), tensor.tensor()?)));
        let outputs = native::infer(&plan, named.collect::<Result<_>>()?).context("running")?;
        for ((name, got), expected) in outputs.iter().zip(expected) {
            compare(got, &expected.tensor()?, case.relative_tolerance, case.absolute_tolerance)
                .with_context(|| format!("output {name}"))?;
        }
    }
    Ok(Passed { is_native: plan.is_native() })
}

/// Fails with the first difference: element types and shapes are equal, and each element is within
/// `absolute + relative * |expected|`; NaN equals NaN.
fn compare(got: &Tensor, expected: &Tensor, relative: f64, absolute: f64) -> Result<()> {
    let types = (got.element_type(), expected.element_type());
    ensure!(types.0 == types.1, "elements are {}, expected is {}", types.0, types.1);
    ensure!(got.shape() == expected.shape(), "shape is {:?}, expected is {:?}", got.shape(), expected.shape());
    if let (Some(got), Some(expected)) = (integers(got), integers(expected)) {
        for (index, (got, expected)) in got.into_iter().zip(expected).enumerate() {
            if (got - expected).unsigned_abs() as f64 > absolute + relative * (expected as f64).abs() {
                bail!("element {index} is {got}, expected is {expected}");
            }
        }
        return Ok(());
    }
    for (index, (got, expected)) in floats(got).into_iter().zip(floats(expected)).enumerate() {
        let is_equal = got == expected || got.is_nan() && expected.is_nan();
        let is_near = expected.is_finite() && (got - expected).abs() <= absolute + relative * expected.abs();
        ensure!(is_equal || is_near, "element {index} is {got}, expected is {expected}");
    }
    Ok(())
}

/// The elements of a tensor of integers or bools.
fn integers(tensor: &Tensor) -> Option<Vec<i128>> {
    use ElementType::*;
    let element_type = tensor.element_type();
    if matches!(element_type, Float16 | Float32 | Float64) {
        return None;
    }
    let is_signed = matches!(element_type, Int8 | Int16 | Int32 | Int64);
    let number = |bytes: &[u8]| {
        let fill = if is_signed && bytes.last().is_some_and(|last| *last >= 128) { 0xff } else { 0 };
        let mut wide = [fill; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    };
    Some(tensor.bytes().chunks(element_type.size_bytes() as usize).map(number).collect())
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let bytes = tensor.bytes();
    match tensor.element_type() {
        ElementType::Float16 => bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f64()).collect(),
        ElementType::Float32 => bytes.as_chunks().0.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect(),
        _ => bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_seen() -> Result<()> {
        let tensor = |values: &[f32]| Tensor::from_f32(&[values.len() as u64], values);
        let one = tensor(&[1.0, f32::NAN, f32::INFINITY])?;
        compare(&tensor(&[1.0009, f32::NAN, f32::INFINITY])?, &one, 1e-3, 1e-7)?;
        for different in [[1.0012, f32::NAN, f32::INFINITY], [1.0, 0.0, f32::INFINITY], [1.0, f32::NAN, f32::MAX]] {
            assert!(compare(&tensor(&different)?, &one, 1e-3, 1e-7).is_err(), "{different:?}");
        }
        assert!(compare(&tensor(&[1.0])?, &one, 1e-3, 1e-7).is_err());
        let integer = |value: i64| Tensor::from_bytes(ElementType::Int64, &[], &value.to_le_bytes());
        compare(&integer(i64::MIN)?, &integer(i64::MIN)?, 1e-3, 1e-7)?;
        assert!(compare(&integer(-1)?, &integer(i64::MAX)?, 1e-3, 1e-7).is_err());
        let unsigned = Tensor::from_bytes(ElementType::Uint64, &[], &1u64.to_le_bytes())?;
        assert!(compare(&integer(1)?, &unsigned, 1e-3, 1e-7).is_err());
        Ok(())
    }
}
