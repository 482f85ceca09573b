//! Runs a graph node by node with the reference operators, nothing known before: sizes may depend on values, element types
//! may be any, and graphs may be nested. It serves graphs that can't be lowered to a program.

use crate::onnx::Graph;
use crate::reference::array::{Array, Result as Found};
use crate::reference::call::{Call, from_proto};
use crate::reference::{self, attention_products};
use crate::{ElementType, EngineError, Meter, NodeProfile, Step, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::Tensor as TractTensor;

/// Instructions around each node: names are looked up, values kept.
const NODE_INSTRUCTIONS: u64 = 50_000;

/// Instructions for each element that a node takes or gives.
const ELEMENT_INSTRUCTIONS: u64 = 300;

/// Instructions for each product that is added to a sum.
const PRODUCT_INSTRUCTIONS: u64 = 20;

/// A graph to be interpreted.
pub(crate) struct Interpreter {
    graph: GraphProto,
    weights: BTreeMap<String, Array>,
    inputs: Vec<String>,
    /// Version of the operator set of each domain.
    opsets: BTreeMap<String, i64>,
    /// Of each node the values that no later one takes.
    dead: Vec<Vec<String>>,
    pub weight_bytes: u64,
}

/// Values by name: those of a graph, and those of the graph around it.
struct Scope<'a> {
    values: BTreeMap<String, Array>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<&Array> {
        self.values.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

/// What nodes are run with.
struct Context<'a> {
    interpreter: &'a Interpreter,
    meter: &'a dyn Meter,
    /// A node with graphs in it ends with an error when so many instructions are spent.
    limit: u64,
}

/// Whether every node, those of nested graphs too, has a reference operator, and each comes after those it takes values of.
pub(crate) fn takes(graph: &Graph) -> bool {
    let mut takes = true;
    graph.visit_nodes(|node| takes &= reference::knows(&node.domain, &node.op_type));
    let mut later = std::collections::BTreeSet::new();
    for node in graph.proto.graph.iter().flat_map(|graph| &graph.node).rev() {
        later.extend(node.output.iter().filter(|output| !output.is_empty()).map(String::as_str));
        let mut used = std::collections::BTreeSet::new();
        crate::onnx::values_used(node, &mut used);
        takes &= used.is_disjoint(&later);
    }
    takes
}

impl Interpreter {
    /// `weights` are the graph's stored tensors by name.
    pub fn new(graph: &mut Graph, weights: Vec<(String, Arc<TractTensor>)>) -> Result<Interpreter, EngineError> {
        const PLACE: &str = "reading the weights";
        let invalid = |reason: String| EngineError::invalid(PLACE, reason);
        let inputs = graph.inputs.iter().map(|input| input.name.clone()).collect();
        let opsets = graph.proto.opset_import.iter();
        let opsets = opsets.map(|set| (domain(&set.domain).to_string(), set.version)).collect();
        let proto = graph.proto.graph.take().ok_or_else(|| invalid("there is no graph".into()))?;
        let mut arrays = BTreeMap::new();
        for (name, tensor) in weights {
            let element_type = ElementType::from_tract(tensor.datum_type());
            let element_type = element_type.ok_or_else(|| invalid(format!("{name:?} is not of numbers")))?;
            let array = Array::new(element_type, tensor.shape().to_vec(), tensor.as_bytes().to_vec());
            arrays.insert(name.clone(), array.map_err(|reason| invalid(format!("{name:?}: {reason}")))?);
        }
        for tensor in &proto.initializer {
            let array = from_proto(tensor).map_err(|reason| invalid(format!("{:?}: {reason}", tensor.name)))?;
            arrays.insert(tensor.name.clone(), array);
        }
        check_order(&proto, &arrays)?;
        let weight_bytes = arrays.values().map(|array| array.bytes().len() as u64).sum();
        let dead = last_uses(&proto);
        Ok(Interpreter { graph: proto, weights: arrays, inputs, opsets, dead, weight_bytes })
    }

    pub fn node_count(&self) -> usize {
        self.graph.node.len()
    }
}

/// Fails where a node takes what no node before it gives: the order of nodes is that in which they run.
fn check_order(graph: &GraphProto, weights: &BTreeMap<String, Array>) -> Result<(), EngineError> {
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let mut given: std::collections::BTreeSet<&str> = weights.keys().map(String::as_str).chain(inputs).collect();
    for node in &graph.node {
        let mut used = std::collections::BTreeSet::new();
        crate::onnx::values_used(node, &mut used);
        if let Some(missing) = used.into_iter().find(|name| !name.is_empty() && !given.contains(name)) {
            let place = format!("node {} ({})", node.name, node.op_type);
            return Err(EngineError::invalid(place, format!("no node before it gives its input {missing:?}")));
        }
        given.extend(node.output.iter().map(String::as_str));
    }
    Ok(())
}

/// The one name of ONNX's own domain.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// For each node the values that it is the last to take, outputs of the graph left out.
fn last_uses(graph: &GraphProto) -> Vec<Vec<String>> {
    let mut dead = vec![Vec::new(); graph.node.len()];
    let mut seen: std::collections::BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    for (index, node) in graph.node.iter().enumerate().rev() {
        let mut used = std::collections::BTreeSet::new();
        crate::onnx::values_used(node, &mut used);
        used.extend(node.output.iter().map(String::as_str));
        for name in used {
            if seen.insert(name.to_string()) {
                dead[index].push(name.to_string());
            }
        }
    }
    dead
}

/// A graph under way for one request.
pub(crate) struct Run {
    interpreter: Arc<Interpreter>,
    scope: Scope<'static>,
    done: usize,
    profile: Vec<NodeProfile>,
}

impl Run {
    /// `inputs` are in the graph's order.
    pub fn new(interpreter: Arc<Interpreter>, inputs: &[Tensor]) -> Result<Run, EngineError> {
        let mut values = BTreeMap::new();
        for (name, tensor) in interpreter.inputs.iter().zip(inputs) {
            let array = Array::from_tensor(tensor);
            let array = array.map_err(|reason| EngineError::Run { node: format!("input {name:?}"), reason })?;
            values.insert(name.clone(), array);
        }
        Ok(Run { interpreter, scope: Scope { values, outer: None }, done: 0, profile: Vec::new() })
    }

    pub fn nodes_done(&self) -> usize {
        self.done
    }

    pub fn nodes_total(&self) -> usize {
        self.interpreter.node_count()
    }

    /// What each node has taken so far.
    pub fn profile(&self) -> Vec<NodeProfile> {
        self.profile.clone()
    }

    /// Name and operator of the next node; empty when done.
    pub fn next_name(&self) -> String {
        let node = self.interpreter.graph.node.get(self.done);
        node.map_or_else(String::new, |node| format!("{} ({})", node.name, node.op_type))
    }

    /// Instructions that the next node may take; 0 when done.
    pub fn next_instructions(&self) -> u64 {
        self.interpreter.graph.node.get(self.done).map_or(0, |node| instructions(node, &self.inputs(node)))
    }

    /// The inputs of a node, as far as they are there.
    fn inputs(&self, node: &NodeProto) -> Vec<Option<Array>> {
        let value = |name: &String| self.scope.get(name).or_else(|| self.interpreter.weights.get(name)).cloned();
        node.input.iter().map(value).collect()
    }

    /// Runs nodes while `meter.spent()` plus the next one's estimate stays within `limit`, and at least one.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64, node_limit: u64) -> Result<Step, EngineError> {
        let interpreter = self.interpreter.clone();
        let mut is_first = true;
        while let Some(node) = interpreter.graph.node.get(self.done) {
            let before = meter.spent();
            let inputs = self.inputs(node);
            let estimate = instructions(node, &inputs);
            if !is_first && before.saturating_add(estimate) > limit {
                return Ok(Step::Paused { done: self.done as u64, total: self.nodes_total() as u64 });
            }
            if estimate > node_limit {
                return Err(EngineError::NodeTooExpensive { node: self.next_name(), estimate, limit: node_limit });
            }
            let context =
                Context { interpreter: &interpreter, meter, limit: before.saturating_add(node_limit).max(limit) };
            let outputs = context.node(node, &inputs, &self.scope);
            let outputs = outputs.map_err(|reason| EngineError::Run { node: self.next_name(), reason })?;
            self.profile.push(NodeProfile {
                node: node.name.clone(),
                operator: node.op_type.clone(),
                input_shapes: inputs.iter().flatten().map(|input| input.shape.clone()).collect(),
                output_shape: outputs.first().map(|(_, output)| output.shape.clone()).unwrap_or_default(),
                multiply_accumulates: products(node, &inputs),
                estimated_instructions: estimate,
                instructions: meter.spent().saturating_sub(before),
            });
            self.scope.values.extend(outputs);
            for name in &interpreter.dead[self.done] {
                self.scope.values.remove(name);
            }
            self.done += 1;
            is_first = false;
        }
        Ok(Step::Done)
    }

    /// The graph's output of that index.
    pub fn output(&self, index: usize) -> Result<Tensor, EngineError> {
        let output = self.interpreter.graph.output.get(index);
        let name = output.map_or("", |output| &*output.name);
        let value = self.scope.get(name).or_else(|| self.interpreter.weights.get(name));
        let missing = || EngineError::Run { node: format!("output {name:?}"), reason: "it is not computed".into() };
        value.ok_or_else(missing)?.to_tensor()
    }
}

/// Multiplications whose products a node adds up.
fn products(node: &NodeProto, inputs: &[Option<Array>]) -> u64 {
    let shape = |index: usize| inputs.get(index).and_then(Option::as_ref).map_or(&[][..], |input| &input.shape);
    let product = |shape: &[usize]| shape.iter().fold(1u64, |total, size| total.saturating_mul(*size as u64));
    let last = |shape: &[usize]| shape.last().map_or(1, |size| *size as u64);
    match &*node.op_type {
        "MatMul" | "MatMulInteger" | "Gemm" => {
            // Both orders of a matrix are the same to a sum of both of its sizes.
            let columns = last(shape(1)).max(product(shape(1)) / last(shape(0)).max(1));
            product(shape(0)).saturating_mul(columns)
        }
        "QLinearMatMul" => product(shape(0)).saturating_mul(last(shape(3))),
        "Conv" | "ConvInteger" | "DeformConv" | "ConvTranspose" => product(shape(0)).saturating_mul(product(shape(1))),
        "QLinearConv" => product(shape(0)).saturating_mul(product(shape(3))),
        "RNN" | "GRU" | "LSTM" => {
            let steps = product(shape(0)) / last(shape(0)).max(1);
            steps.saturating_mul(product(shape(1)).saturating_add(product(shape(2))))
        }
        "Attention" | "FlexAttention" => attention_products(shape(0), shape(1)),
        "Einsum" => inputs.iter().flatten().fold(1, |total, input| product(&input.shape).saturating_mul(total)),
        "DFT" | "STFT" => product(shape(0)).saturating_mul(64),
        "AveragePool" | "MaxPool" | "LpPool" => product(shape(0)).saturating_mul(16),
        _ => 0,
    }
}

/// Instructions that a node may take, going by its inputs. What an output's size depends on values is not in it.
fn instructions(node: &NodeProto, inputs: &[Option<Array>]) -> u64 {
    let elements: u64 = inputs.iter().flatten().map(|input| input.len() as u64).sum();
    let of_elements = elements.saturating_mul(ELEMENT_INSTRUCTIONS);
    let of_products = products(node, inputs).saturating_mul(PRODUCT_INSTRUCTIONS);
    NODE_INSTRUCTIONS.saturating_add(of_elements).saturating_add(of_products)
}

impl Context<'_> {
    /// The outputs of a node by name.
    fn node(&self, node: &NodeProto, inputs: &[Option<Array>], scope: &Scope<'_>) -> Found<Vec<(String, Array)>> {
        if self.meter.spent() > self.limit {
            return Err("it takes more instructions than a message has".into());
        }
        for (name, input) in node.input.iter().zip(inputs) {
            if !name.is_empty() && input.is_none() {
                return Err(format!("its input {name:?} has no value"));
            }
        }
        let name = domain(&node.domain);
        let opset = self.interpreter.opsets.get(name).copied().unwrap_or(1);
        let call = Call { node, opset, inputs };
        let outputs = match (name, &*node.op_type) {
            ("", "If") => {
                let holds = call.input(0)?.scalar_i64()? != 0;
                self.graph(call.graph(if holds { "then_branch" } else { "else_branch" })?, Vec::new(), scope)?
            }
            ("", "Loop") => self.repeat(&call, scope)?,
            ("", "Scan") => self.scan(&call, scope)?,
            ("ai.onnx.preview", "FlexAttention") => {
                let modify = |name: &str, value: Array| match call.graph(name) {
                    Ok(graph) => first(self.graph(graph, vec![value], scope)?),
                    Err(_) => Ok(value),
                };
                reference::flex_attention(&call, &modify)?
            }
            (domain, operator) => match reference::find(domain, operator) {
                Some(operator) => operator(&call)?,
                None => return Err("the operator is not supported".into()),
            },
        };
        let named = node.output.iter().cloned().zip(outputs).filter(|(name, _)| !name.is_empty());
        Ok(named.collect())
    }

    /// Runs a nested graph.
    fn graph(&self, graph: &GraphProto, inputs: Vec<Array>, outer: &Scope<'_>) -> Found<Vec<Array>> {
        let mut scope = Scope { values: BTreeMap::new(), outer: Some(outer) };
        for tensor in &graph.initializer {
            scope.values.insert(tensor.name.clone(), from_proto(tensor)?);
        }
        scope.values.extend(graph.input.iter().map(|input| input.name.clone()).zip(inputs));
        for node in &graph.node {
            let value = |name: &String| scope.get(name).or_else(|| self.interpreter.weights.get(name)).cloned();
            let inputs: Vec<Option<Array>> = node.input.iter().map(value).collect();
            let outputs = self.node(node, &inputs, &scope).map_err(|reason| format!("{}: {reason}", node.name))?;
            scope.values.extend(outputs);
        }
        let output = |output: &ValueInfoProto| {
            let value = scope.get(&output.name).or_else(|| self.interpreter.weights.get(&output.name)).cloned();
            value.ok_or_else(|| format!("the nested graph does not compute {:?}", output.name))
        };
        graph.output.iter().map(output).collect()
    }

    /// `Loop`.
    fn repeat(&self, call: &Call<'_>, scope: &Scope<'_>) -> Found<Vec<Array>> {
        let body = call.graph("body")?;
        let trips = call.optional(0).map_or(Ok(i64::MAX), Array::scalar_i64)?;
        let mut goes_on = call.optional(1).map_or(Ok(1), Array::scalar_i64)? != 0;
        let mut state: Vec<Array> = call.inputs.iter().skip(2).flatten().cloned().collect();
        let carried = state.len();
        if body.output.len() <= carried {
            return Err(format!("{} outputs of a body that carries {carried} values", body.output.len()));
        }
        let mut collected = vec![Vec::new(); body.output.len() - 1 - carried];
        let mut trip = 0;
        while goes_on && trip < trips {
            let number = Array::integers(ElementType::Int64, Vec::new(), &[trip])?;
            let condition = Array::bools(Vec::new(), [goes_on])?;
            let inputs = [vec![number, condition], state].concat();
            let mut outputs = self.graph(body, inputs, scope)?.into_iter();
            goes_on = outputs.next().ok_or("the body has no condition")?.scalar_i64()? != 0;
            state = outputs.by_ref().take(carried).collect();
            collected.iter_mut().zip(outputs).for_each(|(rows, row)| rows.push(row));
            trip += 1;
        }
        for (rows, declared) in collected.iter().zip(&body.output[1 + carried..]) {
            state.push(stacked(rows, 0, declared)?);
        }
        Ok(state)
    }

    /// `Scan`; before operator set 9 each element of a batch is scanned on its own.
    fn scan(&self, call: &Call<'_>, scope: &Scope<'_>) -> Found<Vec<Array>> {
        let body = call.graph("body")?;
        if call.opset >= 9 {
            return self.scan_one(call, body, call.all().into_iter().cloned().collect(), scope);
        }
        let inputs: Vec<&Array> = call.inputs.iter().skip(1).flatten().collect();
        let batch = inputs.first().and_then(|input| input.shape.first().copied()).ok_or("there is nothing to scan")?;
        let mut rows: Vec<Vec<Array>> = vec![Vec::new(); body.output.len()];
        for index in 0..batch {
            let row = |input: &&Array| {
                let row = input.part(0, index, 1)?;
                let shape = row.shape[1..].to_vec();
                row.reshaped(shape)
            };
            let outputs = self.scan_one(call, body, inputs.iter().map(row).collect::<Found<_>>()?, scope)?;
            rows.iter_mut().zip(outputs).for_each(|(rows, row)| rows.push(row));
        }
        rows.iter().zip(&body.output).map(|(rows, declared)| stacked(rows, 0, declared)).collect()
    }

    fn scan_one(&self, call: &Call<'_>, body: &GraphProto, inputs: Vec<Array>, scope: &Scope<'_>) -> Found<Vec<Array>> {
        let scanned = usize::try_from(call.int("num_scan_inputs", 0)).unwrap_or(0);
        let carried = inputs.len().checked_sub(scanned).filter(|_| scanned > 0).ok_or("there is nothing to scan")?;
        let (mut state, rows) = (inputs[..carried].to_vec(), &inputs[carried..]);
        if body.output.len() < carried {
            return Err(format!("{} outputs of a body that carries {carried} values", body.output.len()));
        }
        let number = |name: &str, index: usize| call.ints(name).and_then(|all| all.get(index).copied()).unwrap_or(0);
        let axis_of =
            |index: usize| crate::reference::array::axis(number("scan_input_axes", index), rows[index].rank());
        let axes = (0..scanned).map(axis_of).collect::<Found<Vec<_>>>()?;
        let length = rows[0].shape[axes[0]];
        let mut collected: Vec<Vec<Array>> = vec![Vec::new(); body.output.len() - carried];
        for step in 0..length {
            let mut values = state.clone();
            for (index, row) in rows.iter().enumerate() {
                let is_reversed = number("scan_input_directions", index) != 0;
                let part = row.part(axes[index], if is_reversed { length - 1 - step } else { step }, 1)?;
                let mut shape = part.shape.clone();
                shape.remove(axes[index]);
                values.push(part.reshaped(shape)?);
            }
            let mut outputs = self.graph(body, values, scope)?.into_iter();
            state = outputs.by_ref().take(carried).collect();
            collected.iter_mut().zip(outputs).for_each(|(rows, row)| rows.push(row));
        }
        for (index, (mut rows, declared)) in collected.into_iter().zip(&body.output[carried..]).enumerate() {
            if number("scan_output_directions", index) != 0 {
                rows.reverse();
            }
            state.push(stacked(&rows, number("scan_output_axes", index), declared)?);
        }
        Ok(state)
    }
}

fn first(values: Vec<Array>) -> Found<Array> {
    values.into_iter().next().ok_or_else(|| "a nested graph has no output".into())
}

/// Arrays of one shape along a new axis. Of none the shape is not known: it is an empty vector of the declared type.
fn stacked(rows: &[Array], along: i64, declared: &ValueInfoProto) -> Found<Array> {
    let Some(first) = rows.first() else {
        let value = declared.r#type.as_ref().and_then(|declared| declared.value.as_ref());
        let element_type =
            value.and_then(|type_proto::Value::TensorType(tensor)| ElementType::from_onnx(tensor.elem_type));
        return Array::new(element_type.ok_or("the type of a collected value is not declared")?, vec![0], Vec::new());
    };
    let along = crate::reference::array::axis(along, first.rank() + 1)?;
    let widened = rows.iter().map(|row| {
        let mut shape = row.shape.clone();
        shape.insert(along.min(shape.len()), 1);
        row.reshaped(shape)
    });
    Array::concat(&widened.collect::<Found<Vec<_>>>()?, along)
}
