//! Losses.

use super::array::{Array, Result, elements};
use super::call::Call;
use super::reduce::softmax_of;

/// The loss of logarithms of probabilities, of shape `(batch, classes, ...)`.
fn loss(call: &Call<'_>, x: &Array, logarithms: &[f64]) -> Result<Array> {
    let target = call.input(1)?;
    let &[batch, classes, ref rest @ ..] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let inner = elements(rest)?;
    if target.len() != batch * inner {
        return Err(format!("targets of shape {:?} for {:?}", target.shape, x.shape));
    }
    let weights = match call.optional(2).map(Array::f64s) {
        Some(weights) if weights.len() != classes => return Err(format!("{} weights", weights.len())),
        weights => weights,
    };
    let ignored = call.attribute("ignore_index").map(|attribute| attribute.i);
    let (mut losses, mut total) = (Vec::with_capacity(target.len()), 0.0);
    for (index, class) in target.i64s().into_iter().enumerate() {
        if Some(class) == ignored {
            losses.push(0.0);
            continue;
        }
        let found = usize::try_from(class).ok().filter(|class| *class < classes);
        let found = found.ok_or_else(|| format!("class {class} of {classes}"))?;
        let weight = weights.as_ref().map_or(1.0, |weights| weights[found]);
        losses.push(-weight * logarithms[(index / inner * classes + found) * inner + index % inner]);
        total += weight;
    }
    let sum = losses.iter().sum::<f64>();
    match call.text("reduction", "mean") {
        "none" => Array::floats(x.element_type, target.shape.clone(), &losses),
        "sum" => Array::floats(x.element_type, Vec::new(), &[sum]),
        _ => Array::floats(x.element_type, Vec::new(), &[sum / total]),
    }
}

pub(super) fn negative_log_likelihood(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    Ok(vec![loss(call, x, &x.f64s())?])
}

pub(super) fn softmax_cross_entropy(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (starts, steps) = super::reduce::groups(&x.shape, &[super::array::axis(1, x.rank())?])?;
    let mut values = x.f64s();
    for start in starts {
        let mut row: Vec<f64> = steps.iter().map(|step| values[start + step]).collect();
        softmax_of(&mut row, true);
        steps.iter().zip(row).for_each(|(step, value)| values[start + step] = value);
    }
    let loss = loss(call, x, &values)?;
    Ok(vec![loss, Array::floats(x.element_type, x.shape.clone(), &values)?])
}
