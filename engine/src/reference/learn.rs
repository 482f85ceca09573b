//! `ai.onnx.ml`, and the steps of training.

use super::array::{Array, Result, elements};
use super::call::Call;
use super::reduce::softmax_of;
use super::unary::sigmoid;

pub(super) fn binarizer(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let threshold = call.float("threshold", 0.0);
    let values: Vec<i64> = x.f64s().into_iter().map(|x| i64::from(x > threshold)).collect();
    Ok(vec![Array::integers(x.element_type, x.shape.clone(), &values)?])
}

/// What is true of an element at a node of a tree.
enum Test {
    Compare(i64, f64),
    Member(Vec<f64>),
}

/// `TreeEnsemble`.
pub(super) fn tree_ensemble(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let &[rows, features] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let numbers = |name: &str| call.tensor(name).ok_or_else(|| format!("{name} is missing"))?.map(|array| array.f64s());
    let integers = |name: &str| call.ints(name).ok_or_else(|| format!("{name} is missing"));
    let (splits, modes, weights) = (numbers("nodes_splits")?, numbers("nodes_modes")?, numbers("leaf_weights")?);
    let (feature_ids, targets) = (integers("nodes_featureids")?, integers("leaf_targetids")?);
    let (truths, falses) = (integers("nodes_truenodeids")?, integers("nodes_falsenodeids")?);
    let (true_leafs, false_leafs) = (integers("nodes_trueleafs")?, integers("nodes_falseleafs")?);
    let missing_is_true = call.ints("nodes_missing_value_tracks_true").unwrap_or(&[]);
    let members = call.tensor("membership_values").transpose()?.map(|array| array.f64s()).unwrap_or_default();
    // The sets of the nodes that test for one, in their order, each ended by NaN.
    let mut sets = members.split(|member| member.is_nan());
    let test = |(mode, split): (&f64, &f64)| match *mode as i64 {
        6 => sets.next().map(|set| Test::Member(set.to_vec())).ok_or("a set of members is missing"),
        mode => Ok(Test::Compare(mode, *split)),
    };
    let tests = modes.iter().zip(&splits).map(test).collect::<std::result::Result<Vec<_>, _>>()?;
    let outputs = usize::try_from(call.int("n_targets", 1)).map_err(|_| "n_targets is negative")?;
    let aggregate = call.int("aggregate_function", 1);
    let start = match aggregate {
        2 => f64::INFINITY,
        3 => f64::NEG_INFINITY,
        _ => 0.0,
    };
    let roots = integers("tree_roots")?;
    let mut values = vec![start; elements(&[rows, outputs])?];
    let xs = x.f64s();
    let at = |list: &[i64], index: usize| list.get(index).copied().ok_or("a node or leaf is missing");
    for row in 0..rows {
        for root in roots {
            let mut node = usize::try_from(*root).map_err(|_| "a root is negative")?;
            // A tree may be a leaf alone: both ways are that leaf. No path is longer than there are nodes.
            let mut leaf = None;
            for _ in 0..=tests.len() {
                let feature = usize::try_from(at(feature_ids, node)?).unwrap_or(usize::MAX);
                let value = (feature < features).then(|| xs[row * features + feature]);
                let value = value.ok_or_else(|| format!("feature {feature} of {features}"))?;
                let holds = match tests.get(node).ok_or("a node is missing")? {
                    Test::Member(members) => members.contains(&value),
                    Test::Compare(0, split) => value <= *split,
                    Test::Compare(1, split) => value < *split,
                    Test::Compare(2, split) => value >= *split,
                    Test::Compare(3, split) => value > *split,
                    Test::Compare(4, split) => value == *split,
                    Test::Compare(_, split) => value != *split,
                };
                let holds = holds || value.is_nan() && missing_is_true.get(node).is_some_and(|tracks| *tracks != 0);
                let (next, is_leaf) = match holds {
                    true => (at(truths, node)?, at(true_leafs, node)?),
                    false => (at(falses, node)?, at(false_leafs, node)?),
                };
                let next = usize::try_from(next).map_err(|_| "a node is negative")?;
                if is_leaf != 0 {
                    leaf = Some(next);
                    break;
                }
                node = next;
            }
            let leaf = leaf.ok_or("a tree has a cycle")?;
            let target = usize::try_from(at(targets, leaf)?).ok().filter(|target| *target < outputs);
            let value = &mut values[row * outputs + target.ok_or("a target is out of range")?];
            let weight = *weights.get(leaf).ok_or("a leaf has no weight")?;
            *value = match aggregate {
                0 => *value + weight / roots.len() as f64,
                2 => value.min(weight),
                3 => value.max(weight),
                _ => *value + weight,
            };
        }
    }
    for row in values.chunks_mut(outputs.max(1)) {
        match call.int("post_transform", 0) {
            0 => {}
            1 => softmax_of(row, false),
            2 => row.iter_mut().for_each(|x| *x = sigmoid(*x)),
            other => return Err(format!("post_transform {other}")),
        }
    }
    Ok(vec![Array::floats(x.element_type, vec![rows, outputs], &values)?])
}

/// The learning rate, the number of updates before this one, and the numbers of each tensor's group of inputs.
fn training<'a>(call: &Call<'a>, group: usize) -> Result<(f64, f64, Vec<Vec<&'a Array>>)> {
    let (rate, count) = (call.input(0)?.scalar_f64()?, call.input(1)?.scalar_f64()?);
    let inputs = call.all();
    let tensors = (inputs.len() - 2) / group;
    if tensors * group + 2 != inputs.len() {
        return Err(format!("{} inputs are not groups of {group}", inputs.len()));
    }
    let groups: Vec<Vec<&Array>> =
        (0..tensors).map(|tensor| (0..group).map(|part| inputs[2 + part * tensors + tensor]).collect()).collect();
    let differs = |group: &Vec<&Array>| group.iter().any(|x| x.shape != group[0].shape);
    match groups.iter().any(differs) {
        true => Err("a tensor and its gradient differ in shape".into()),
        false => Ok((rate, count, groups)),
    }
}

/// The results of all tensors: first the tensors themselves, then each of what is kept of them.
fn updated(groups: &[Vec<&Array>], kept: usize, update: impl Fn(&mut [f64])) -> Result<Vec<Array>> {
    let mut outputs = vec![Vec::new(); 1 + kept];
    for group in groups {
        let numbers: Vec<Vec<f64>> = group.iter().map(|x| x.f64s()).collect();
        let mut results = vec![Vec::new(); 1 + kept];
        for index in 0..numbers[0].len() {
            // The element, its gradient, and what is kept of it.
            let mut state: Vec<f64> = numbers.iter().map(|numbers| numbers[index]).collect();
            update(&mut state);
            results[0].push(state[0]);
            (0..kept).for_each(|part| results[1 + part].push(state[2 + part]));
        }
        for (output, values) in outputs.iter_mut().zip(results) {
            output.push(Array::floats(group[0].element_type, group[0].shape.clone(), &values)?);
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}

pub(super) fn adagrad(call: &Call<'_>) -> Result<Vec<Array>> {
    let (rate, count, groups) = training(call, 3)?;
    let (norm, epsilon) = (call.float("norm_coefficient", 0.0), call.float("epsilon", 0.0));
    let rate = rate / (1.0 + count * call.float("decay_factor", 0.0));
    updated(&groups, 1, |state| {
        let gradient = norm * state[0] + state[1];
        state[2] += gradient * gradient;
        state[0] -= rate * gradient / (state[2].sqrt() + epsilon);
    })
}

pub(super) fn adam(call: &Call<'_>) -> Result<Vec<Array>> {
    let (rate, count, groups) = training(call, 4)?;
    let (alpha, beta, epsilon) = (call.float("alpha", 0.9), call.float("beta", 0.999), call.float("epsilon", 0.0));
    let (norm, norm_after) = (call.float("norm_coefficient", 0.0), call.float("norm_coefficient_post", 0.0));
    let corrected = (1.0 - libm::pow(beta, count)).sqrt() / (1.0 - libm::pow(alpha, count));
    let rate = if count > 0.0 { rate * corrected } else { rate };
    updated(&groups, 2, |state| {
        let gradient = norm * state[0] + state[1];
        state[2] = alpha * state[2] + (1.0 - alpha) * gradient;
        state[3] = beta * state[3] + (1.0 - beta) * gradient * gradient;
        state[0] = (1.0 - norm_after) * (state[0] - rate * state[2] / (state[3].sqrt() + epsilon));
    })
}

pub(super) fn momentum(call: &Call<'_>) -> Result<Vec<Array>> {
    let (rate, count, groups) = training(call, 3)?;
    let (alpha, beta, norm) = (call.float("alpha", 0.0), call.float("beta", 0.0), call.float("norm_coefficient", 0.0));
    let beta = if count > 0.0 { beta } else { 1.0 };
    let is_nesterov = call.text("mode", "standard") == "nesterov";
    updated(&groups, 1, |state| {
        let gradient = norm * state[0] + state[1];
        state[2] = alpha * state[2] + beta * gradient;
        state[0] -= rate * if is_nesterov { gradient + alpha * state[2] } else { state[2] };
    })
}
