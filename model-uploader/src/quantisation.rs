//! What int8 weights do to a model's answers: it is run both ways on samples, by the engine, here.

use crate::inspection::FilesOnDisk;
use crate::manifest::ModelSource;
use crate::native;
use anyhow::{Context, Result, ensure};
use onnx_canister_interface::Tensor;
use onnx_engine::{LoadOptions, Plan};
use std::sync::Arc;

/// How far an output is from that of the weights as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    pub output: String,
    /// The largest difference, as a share of the largest value.
    pub largest: f64,
    /// The root of the mean of squared differences, as a share of that of the values.
    pub root_mean_square: f64,
    /// Samples whose largest value is at the same place.
    pub same_best: usize,
    pub samples: usize,
}

/// Runs the model on `samples`, each a list of named inputs, with its weights as they are stored and in int8.
///
/// # Errors
/// When the model can't be loaded, or a sample is not what it takes.
pub fn quantisation_loss(source: &ModelSource, samples: &[Vec<(String, Tensor)>]) -> Result<Vec<Loss>> {
    let load = |quantize_int8| -> Result<Arc<Plan>> {
        native::load(FilesOnDisk::of_model(source)?, LoadOptions { quantize_int8, ..LoadOptions::default() })
    };
    // One after the other: two copies of a large model would not fit every machine.
    let stored = answers(load(false)?, samples)?;
    let int8 = answers(load(true)?, samples)?;
    ensure!(!stored.is_empty(), "there are no samples");
    let names: Vec<String> = stored[0].iter().map(|(name, _)| name.clone()).collect();
    let loss = |(index, output): (usize, String)| {
        let pairs = stored.iter().zip(&int8).map(|(stored, int8)| (&*stored[index].1, &*int8[index].1));
        compare(output, pairs)
    };
    Ok(names.into_iter().enumerate().map(loss).collect())
}

/// The outputs of a sample by name.
type Outputs = Vec<(String, Vec<f32>)>;

/// The outputs of each sample as numbers.
fn answers(plan: Arc<Plan>, samples: &[Vec<(String, Tensor)>]) -> Result<Vec<Outputs>> {
    let answer = |(index, sample): (usize, &Vec<(String, Tensor)>)| {
        let place = || format!("sample {index}");
        let inputs = sample.iter().map(|(name, tensor)| Ok((name.clone(), native::engine_tensor(tensor)?)));
        let inputs = inputs.collect::<Result<Vec<_>>>().with_context(place)?;
        let outputs = native::infer(&plan, inputs).with_context(place)?;
        outputs.into_iter().map(|(name, tensor)| Ok((name, tensor.to_f32()?))).collect()
    };
    samples.iter().enumerate().map(answer).collect()
}

fn compare<'a>(output: String, pairs: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Loss {
    let (mut difference, mut value, mut squares, mut value_squares) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    let (mut same_best, mut samples) = (0, 0);
    for (stored, int8) in pairs {
        samples += 1;
        same_best += usize::from(best(stored) == best(int8));
        for (stored, int8) in stored.iter().zip(int8) {
            let (stored, apart) = (f64::from(*stored), f64::from(*int8) - f64::from(*stored));
            difference = difference.max(apart.abs());
            value = value.max(stored.abs());
            squares += apart * apart;
            value_squares += stored * stored;
        }
    }
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { part };
    Loss {
        output,
        largest: share(difference, value),
        root_mean_square: share(squares, value_squares).sqrt(),
        same_best,
        samples,
    }
}

/// The place of the largest value; the first of equals.
fn best(values: &[f32]) -> Option<usize> {
    (0..values.len()).reduce(|best, index| if values[index] > values[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shares_of_what_they_are_of() {
        let stored: [&[f32]; 2] = [&[3.0, 4.0], &[0.0, 1.0]];
        let int8: [&[f32]; 2] = [&[3.0, 3.5], &[1.0, 0.5]];
        let loss = compare("y".to_string(), stored.into_iter().zip(int8));
        assert_eq!((loss.largest, loss.same_best, loss.samples), (0.25, 1, 2));
        assert!((loss.root_mean_square - (1.5_f64 / 26.0).sqrt()).abs() < 1e-12, "{loss:?}");
    }

    #[test]
    fn equal_answers_have_no_loss() {
        let values: [&[f32]; 1] = [&[0.0, 0.0]];
        let loss = compare("y".to_string(), values.into_iter().zip(values));
        assert_eq!((loss.largest, loss.root_mean_square, loss.same_best), (0.0, 0.0, 1));
    }
}
