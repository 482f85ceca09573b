//! `ai.onnx.ml` but for trees: what prepares rows of numbers, and linear models on them.

use super::array::{Array, Result, elements, is_float};
use super::call::Call;
use super::reduce::softmax_of;
use super::unary::sigmoid;
use crate::ElementType;

/// Rows and columns of an input; a vector is one row.
pub(super) fn rows(x: &Array) -> Result<(usize, usize)> {
    match x.shape.as_slice() {
        &[columns] => Ok((1, columns)),
        &[rows, columns] => Ok((rows, columns)),
        shape => Err(format!("shape {shape:?} is no table")),
    }
}

/// The type of results that are floats whatever the input is.
fn float_type(x: &Array) -> ElementType {
    if is_float(x.element_type) { x.element_type } else { ElementType::Float32 }
}

/// Of a list that is for all columns or has one number for each of them.
fn of_column(list: &[f64], column: usize) -> Option<f64> {
    list.get(if list.len() == 1 { 0 } else { column }).copied()
}

pub(super) fn scaler(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (_, columns) = rows(x)?;
    let offsets = call.floats("offset").unwrap_or_else(|| vec![0.0]);
    let scales = call.floats("scale").unwrap_or_else(|| vec![1.0]);
    let scaled = |(index, x): (usize, f64)| {
        let (offset, scale) = (of_column(&offsets, index % columns)?, of_column(&scales, index % columns)?);
        Some((x - offset) * scale)
    };
    let values = x.f64s().into_iter().enumerate().map(scaled).collect::<Option<Vec<_>>>();
    let values = values.ok_or_else(|| format!("{} offsets for {columns} columns", offsets.len()))?;
    Ok(vec![Array::floats(float_type(x), x.shape.clone(), &values)?])
}

pub(super) fn normalizer(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (_, columns) = rows(x)?;
    let norm = call.text("norm", "MAX");
    let mut values = x.f64s();
    for row in values.chunks_mut(columns.max(1)) {
        let size = match norm {
            "L1" => row.iter().map(|x| x.abs()).sum(),
            "L2" => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
            _ => row.iter().copied().fold(0.0, |most: f64, x| most.max(x.abs())),
        };
        // A row of zeros stays one.
        row.iter_mut().filter(|_| size != 0.0).for_each(|x| *x /= size);
    }
    Ok(vec![Array::floats(float_type(x), x.shape.clone(), &values)?])
}

pub(super) fn imputer(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (_, columns) = rows(x)?;
    let ints = call.ints("imputed_value_int64s").map(|values| values.iter().map(|value| *value as f64).collect());
    let imputed: Vec<f64> = call.floats("imputed_value_floats").or(ints).ok_or("it has no values to impute")?;
    let replaced = match call.attribute("replaced_value_int64") {
        Some(attribute) if !x.is_float() => attribute.i as f64,
        _ => call.float("replaced_value_float", f32::NAN),
    };
    let value = |(index, x): (usize, f64)| match x == replaced || x.is_nan() && replaced.is_nan() {
        true => of_column(&imputed, index % columns),
        false => Some(x),
    };
    let values = x.f64s().into_iter().enumerate().map(value).collect::<Option<Vec<_>>>();
    let values = values.ok_or_else(|| format!("{} values for {columns} columns", imputed.len()))?;
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &values)?])
}

/// `LabelEncoder` of numbers to numbers.
pub(super) fn label_encoder(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    // Keys or values, from whichever attribute holds them.
    let list = |kind: &str| -> Result<(Vec<f64>, ElementType)> {
        if let Some(tensor) = call.tensor(&format!("{kind}_tensor")) {
            let tensor = tensor?;
            return Ok((tensor.f64s(), tensor.element_type));
        }
        if let Some(values) = call.ints(&format!("{kind}_int64s")) {
            return Ok((values.iter().map(|value| *value as f64).collect(), ElementType::Int64));
        }
        let floats = call.floats(&format!("{kind}_floats")).ok_or("it encodes text, which is not supported")?;
        Ok((floats, ElementType::Float32))
    };
    let ((keys, _), (values, element_type)) = (list("keys")?, list("values")?);
    let otherwise = match (call.tensor("default_tensor"), element_type) {
        (Some(tensor), _) => tensor?.scalar_f64()?,
        (None, ElementType::Int64) => call.int("default_int64", -1) as f64,
        (None, _) => call.float("default_float", -0.0),
    };
    let encoded = |x: f64| {
        let at = keys.iter().position(|key| *key == x || key.is_nan() && x.is_nan());
        at.and_then(|at| values.get(at).copied()).unwrap_or(otherwise)
    };
    let encoded: Vec<f64> = x.f64s().into_iter().map(encoded).collect();
    Ok(vec![Array::floats(element_type, x.shape.clone(), &encoded)?])
}

/// `OneHotEncoder` of numbers.
pub(super) fn one_hot_encoder(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let categories = call.ints("cats_int64s").ok_or("its categories are text, which is not supported")?;
    let keeps_unknown = call.int("zeros", 1) != 0;
    let shape = [&*x.shape, &[categories.len()]].concat();
    let mut values = Vec::with_capacity(elements(&shape)?);
    for number in x.i64s() {
        if !keeps_unknown && !categories.contains(&number) {
            return Err(format!("{number} is not one of its categories"));
        }
        values.extend(categories.iter().map(|category| f64::from(u8::from(*category == number))));
    }
    Ok(vec![Array::floats(ElementType::Float32, shape, &values)?])
}

/// `FeatureVectorizer`: columns of all inputs side by side.
pub(super) fn feature_vectorizer(call: &Call<'_>) -> Result<Vec<Array>> {
    let part = |x: &Array| {
        let (rows, columns) = rows(x)?;
        Array::floats(ElementType::Float32, vec![rows, columns], &x.f64s())
    };
    let parts = call.all().into_iter().map(part).collect::<Result<Vec<_>>>()?;
    Ok(vec![Array::concat(&parts, 1)?])
}

/// Applies what an attribute asks for to the scores of a row.
pub(super) fn post_transform(name: &str, scores: &mut [f64]) -> Result<()> {
    match name {
        "NONE" | "" => {}
        "SOFTMAX" => softmax_of(scores, false),
        "SOFTMAX_ZERO" => {
            // Scores that are 0 stay so, and are not among those that are compared.
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let share = |x: f64| if x.abs() > 1e-7 { libm::exp(x - largest) } else { 0.0 };
            let total: f64 = scores.iter().map(|x| share(*x)).sum();
            scores.iter_mut().for_each(|x| *x = if total > 0.0 { share(*x) / total } else { 0.0 });
        }
        "LOGISTIC" => scores.iter_mut().for_each(|x| *x = sigmoid(*x)),
        other => return Err(format!("post_transform {other:?} is not supported")),
    }
    Ok(())
}

/// Labels of a classifier's classes.
pub(super) fn class_labels<'a>(call: &Call<'a>) -> Result<&'a [i64]> {
    let labels = call.ints("classlabels_int64s").or_else(|| call.ints("classlabels_ints"));
    labels.filter(|labels| !labels.is_empty()).ok_or_else(|| "its labels are text, which is not supported".into())
}

/// The outputs of a classifier: the label of each row, and the scores.
pub(super) fn classified(labels: &[i64], scores: &[Vec<f64>], chosen: &[usize]) -> Result<Vec<Array>> {
    let label = |class: &usize| labels.get(*class).copied().ok_or_else(|| format!("class {class} has no label"));
    let found = chosen.iter().map(label).collect::<Result<Vec<_>>>()?;
    let columns = scores.first().map_or(labels.len(), Vec::len);
    let shape = vec![scores.len(), columns];
    Ok(vec![Array::vector(&found)?, Array::floats(ElementType::Float32, shape, &scores.concat())?])
}

/// The first of the largest.
pub(super) fn largest(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, index| if scores[index] > scores[best] { index } else { best })
}

/// Sums of the rows' products with each row of the coefficients, and the intercepts.
fn linear(call: &Call<'_>, targets: usize) -> Result<Vec<Vec<f64>>> {
    let x = call.input(0)?;
    let (_, columns) = rows(x)?;
    let coefficients = call.floats("coefficients").ok_or("it has no coefficients")?;
    let intercepts = call.floats("intercepts").unwrap_or_default();
    if columns == 0 || targets.checked_mul(columns) != Some(coefficients.len()) {
        return Err(format!("{} coefficients for {columns} columns and {targets} results", coefficients.len()));
    }
    let scores = |row: &[f64]| {
        let sum = |(target, weights): (usize, &[f64])| {
            let sum: f64 = weights.iter().zip(row).map(|(weight, x)| weight * x).sum();
            sum + intercepts.get(target).copied().unwrap_or(0.0)
        };
        coefficients.chunks(columns).enumerate().map(sum).collect()
    };
    Ok(x.f64s().chunks(columns).map(scores).collect())
}

pub(super) fn linear_regressor(call: &Call<'_>) -> Result<Vec<Array>> {
    let targets = usize::try_from(call.int("targets", 1)).map_err(|_| "targets is negative")?;
    let mut scores = linear(call, targets)?;
    scores.iter_mut().try_for_each(|row| post_transform(call.text("post_transform", "NONE"), row))?;
    Ok(vec![Array::floats(ElementType::Float32, vec![scores.len(), targets], &scores.concat())?])
}

pub(super) fn linear_classifier(call: &Call<'_>) -> Result<Vec<Array>> {
    let labels = class_labels(call)?;
    let (_, columns) = rows(call.input(0)?)?;
    let classes = call.floats("coefficients").map_or(0, |all| all.len()).checked_div(columns).unwrap_or(0);
    let mut scores = linear(call, classes)?;
    let name = call.text("post_transform", "NONE");
    let mut chosen = Vec::with_capacity(scores.len());
    for row in &mut scores {
        if let (&[score], [_, _]) = (row.as_slice(), labels) {
            // One score tells two classes apart.
            chosen.push(usize::from(score > 0.0));
            *row = two_scores(score, name);
        } else {
            chosen.push(largest(row));
            post_transform(name, row)?;
        }
    }
    classified(labels, &scores, &chosen)
}

/// The scores of two classes from that of the second.
pub(super) fn two_scores(score: f64, post_transform: &str) -> Vec<f64> {
    match post_transform {
        "LOGISTIC" => vec![sigmoid(-score), sigmoid(score)],
        _ => vec![-score, score],
    }
}

/// `SVMRegressor`.
pub(super) fn svm_regressor(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (count, columns) = rows(x)?;
    let coefficients = call.floats("coefficients").ok_or("it has no coefficients")?;
    let rho = call.floats("rho").and_then(|rho| rho.first().copied()).unwrap_or(0.0);
    let vectors = call.floats("support_vectors").unwrap_or_default();
    let supports = usize::try_from(call.int("n_supports", 0)).map_err(|_| "n_supports is negative")?;
    // Without support vectors the coefficients are those of a linear model.
    let fits = match supports {
        0 => coefficients.len() == columns,
        supports => coefficients.len() == supports && supports.checked_mul(columns) == Some(vectors.len()),
    };
    if !fits || columns == 0 {
        return Err(format!("{supports} support vectors, {} coefficients, {columns} columns", coefficients.len()));
    }
    let parameters = call.floats("kernel_params").unwrap_or_default();
    let parameter = |index: usize| parameters.get(index).copied().unwrap_or(0.0);
    let (gamma, offset, degree, kind) = (parameter(0), parameter(1), parameter(2), call.text("kernel_type", "LINEAR"));
    let kernel = |a: &[f64], b: &[f64]| -> f64 {
        let product = || a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        match kind {
            "RBF" => libm::exp(-gamma * a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>()),
            "POLY" => libm::pow(gamma * product() + offset, degree),
            "SIGMOID" => libm::tanh(gamma * product() + offset),
            _ => product(),
        }
    };
    let is_one_class = call.flag("one_class");
    let result = |row: &[f64]| -> f64 {
        let sum: f64 = match supports {
            0 => kernel(row, &coefficients),
            _ => vectors.chunks(columns).zip(&coefficients).map(|(vector, weight)| weight * kernel(row, vector)).sum(),
        };
        if is_one_class { if sum + rho > 0.0 { 1.0 } else { -1.0 } } else { sum + rho }
    };
    let values: Vec<f64> = x.f64s().chunks(columns).map(result).collect();
    Ok(vec![Array::floats(ElementType::Float32, vec![count, 1], &values)?])
}
