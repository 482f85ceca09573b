//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`: trees in a flat table, each node with the places of the two that
//! follow it.

use super::array::{Array, Result, elements};
use super::call::Call;
use super::tabular::{class_labels, classified, largest, post_transform, rows, two_scores};
use crate::ElementType;
use std::collections::BTreeMap;
use std::ops::Range;

/// How a node compares an element with its number.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Different,
    Leaf,
}

struct Node {
    mode: Mode,
    missing_is_true: bool,
    feature: usize,
    value: f64,
    /// Index of the node that follows when it holds, and when it does not; of a leaf, its range of weights.
    truth: usize,
    otherwise: usize,
}

struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    /// What leaves add: a target and a weight, those of a leaf one after the other.
    weights: Vec<(usize, f64)>,
}

impl Forest {
    /// `kind` is what leaves are for: `class` or `target`.
    fn new(call: &Call<'_>, kind: &str, features: usize, targets: usize) -> Result<Forest> {
        let list = |name: &str| call.ints(name).ok_or_else(|| format!("{name} is missing"));
        let (trees, ids) = (list("nodes_treeids")?, list("nodes_nodeids")?);
        let (truths, falses) = (list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
        let (feature_ids, modes) = (list("nodes_featureids")?, call.texts("nodes_modes"));
        let values = call.tensor("nodes_values_as_tensor").transpose()?.map(|values| values.f64s());
        let values = values.or_else(|| call.floats("nodes_values")).ok_or("nodes_values is missing")?;
        let missing = call.ints("nodes_missing_value_tracks_true").unwrap_or(&[]);
        let count = ids.len();
        let lengths = [trees.len(), truths.len(), falses.len(), feature_ids.len(), modes.len(), values.len()];
        if lengths.iter().any(|length| *length != count) {
            return Err(format!("lists of its {count} nodes have lengths {lengths:?}"));
        }
        let places: BTreeMap<(i64, i64), usize> =
            trees.iter().copied().zip(ids.iter().copied()).enumerate().map(|(index, key)| (key, index)).collect();
        let place = |tree: i64, id: i64| {
            places.get(&(tree, id)).copied().ok_or_else(|| format!("tree {tree} has no node {id}"))
        };
        let mut leaves: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
        let weights = call.tensor(&format!("{kind}_weights_as_tensor")).transpose()?.map(|weights| weights.f64s());
        let weights =
            weights.or_else(|| call.floats(&format!("{kind}_weights"))).ok_or("its leaves have no weights")?;
        let (leaf_trees, leaf_ids) = (list(&format!("{kind}_treeids"))?, list(&format!("{kind}_nodeids"))?);
        let leaf_targets = list(&format!("{kind}_ids"))?;
        if [leaf_trees.len(), leaf_ids.len(), leaf_targets.len()].iter().any(|length| *length != weights.len()) {
            return Err(format!("lists of its {} weights have other lengths", weights.len()));
        }
        for (index, weight) in weights.iter().enumerate() {
            let target = usize::try_from(leaf_targets[index]).ok().filter(|target| *target < targets);
            let target = target.ok_or_else(|| format!("target {} of {targets}", leaf_targets[index]))?;
            leaves.entry(place(leaf_trees[index], leaf_ids[index])?).or_default().push((target, *weight));
        }
        let mut forest = Forest { nodes: Vec::with_capacity(count), roots: Vec::new(), weights: Vec::new() };
        let mut is_child = vec![false; count];
        for index in 0..count {
            let mode = match &*modes[index] {
                "BRANCH_LEQ" => Mode::AtMost,
                "BRANCH_LT" => Mode::Below,
                "BRANCH_GTE" => Mode::AtLeast,
                "BRANCH_GT" => Mode::Above,
                "BRANCH_EQ" => Mode::Equal,
                "BRANCH_NEQ" => Mode::Different,
                "LEAF" => Mode::Leaf,
                other => return Err(format!("mode {other:?} of a node")),
            };
            let (truth, otherwise, feature) = match mode {
                Mode::Leaf => {
                    let first = forest.weights.len();
                    forest.weights.extend(leaves.remove(&index).unwrap_or_default());
                    (first, forest.weights.len(), 0)
                }
                _ => {
                    let (truth, otherwise) = (place(trees[index], truths[index])?, place(trees[index], falses[index])?);
                    is_child[truth] = true;
                    is_child[otherwise] = true;
                    let feature = usize::try_from(feature_ids[index]).ok().filter(|feature| *feature < features);
                    (truth, otherwise, feature.ok_or_else(|| format!("feature {} of {features}", feature_ids[index]))?)
                }
            };
            let missing_is_true = missing.get(index).is_some_and(|tracks| *tracks != 0);
            forest.nodes.push(Node { mode, missing_is_true, feature, value: values[index], truth, otherwise });
        }
        forest.roots = (0..count).filter(|index| !is_child[*index]).collect();
        Ok(forest)
    }

    /// The weights of the leaf of one tree that a row comes to.
    fn leaf(&self, root: usize, row: &[f64]) -> Result<&[(usize, f64)]> {
        let mut node = &self.nodes[root];
        // No path is longer than there are nodes.
        for _ in 0..self.nodes.len() {
            if node.mode == Mode::Leaf {
                let range: Range<usize> = node.truth..node.otherwise;
                return Ok(&self.weights[range]);
            }
            let x = row[node.feature];
            let holds = match node.mode {
                Mode::AtMost => x <= node.value,
                Mode::Below => x < node.value,
                Mode::AtLeast => x >= node.value,
                Mode::Above => x > node.value,
                Mode::Equal => x == node.value,
                _ => x != node.value,
            };
            let holds = holds || node.missing_is_true && x.is_nan();
            node = &self.nodes[if holds { node.truth } else { node.otherwise }];
        }
        Err("a tree has a cycle".into())
    }

    /// For each target of a row what its leaves come to.
    fn scores(&self, row: &[f64], targets: usize, aggregate: &str) -> Result<Vec<f64>> {
        let mut scores: Vec<Option<f64>> = vec![None; targets];
        for root in &self.roots {
            for (target, weight) in self.leaf(*root, row)? {
                let score = &mut scores[*target];
                *score = Some(match (*score, aggregate) {
                    (None, _) => *weight,
                    (Some(score), "MIN") => score.min(*weight),
                    (Some(score), "MAX") => score.max(*weight),
                    (Some(score), _) => score + weight,
                });
            }
        }
        let divisor = if aggregate == "AVERAGE" { self.roots.len() as f64 } else { 1.0 };
        Ok(scores.into_iter().map(|score| score.unwrap_or(0.0) / divisor).collect())
    }
}

/// A list of numbers, as float32 or as a tensor; none if it is not there.
fn base_values(call: &Call<'_>) -> Result<Vec<f64>> {
    match call.tensor("base_values_as_tensor") {
        Some(tensor) => Ok(tensor?.f64s()),
        None => Ok(call.floats("base_values").unwrap_or_default()),
    }
}

pub(super) fn regressor(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (count, columns) = rows(x)?;
    let targets = usize::try_from(call.int("n_targets", 1)).map_err(|_| "n_targets is negative")?;
    elements(&[count, targets])?;
    let forest = Forest::new(call, "target", columns, targets)?;
    let (base, aggregate) = (base_values(call)?, call.text("aggregate_function", "SUM"));
    let mut values = Vec::new();
    for row in x.f64s().chunks(columns.max(1)) {
        let mut scores = forest.scores(row, targets, aggregate)?;
        scores.iter_mut().zip(&base).for_each(|(score, base)| *score += base);
        post_transform(call.text("post_transform", "NONE"), &mut scores)?;
        values.extend(scores);
    }
    Ok(vec![Array::floats(ElementType::Float32, vec![count, targets], &values)?])
}

pub(super) fn classifier(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (count, columns) = rows(x)?;
    let labels = class_labels(call)?;
    elements(&[count, labels.len()])?;
    let forest = Forest::new(call, "class", columns, labels.len())?;
    let (base, name) = (base_values(call)?, call.text("post_transform", "NONE"));
    let first = forest.weights.first().map(|(class, _)| *class);
    // Where all weights are of one of two classes they tell both apart: probabilities by a half, other scores by their sign.
    let tells_two = labels.len() == 2 && forest.weights.iter().all(|(class, _)| Some(*class) == first);
    let are_probabilities = forest.weights.iter().all(|(_, weight)| *weight >= 0.0);
    let (mut all, mut chosen) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for row in x.f64s().chunks(columns.max(1)) {
        let mut scores = forest.scores(row, labels.len(), "SUM")?;
        if tells_two {
            let score = scores[first.unwrap_or(0)] + base.last().copied().unwrap_or(0.0);
            chosen.push(usize::from(score > if are_probabilities { 0.5 } else { 0.0 }));
            all.push(if are_probabilities { vec![1.0 - score, score] } else { two_scores(score, name) });
            continue;
        }
        scores.iter_mut().zip(&base).for_each(|(score, base)| *score += base);
        chosen.push(largest(&scores));
        post_transform(name, &mut scores)?;
        all.push(scores);
    }
    classified(labels, &all, &chosen)
}
