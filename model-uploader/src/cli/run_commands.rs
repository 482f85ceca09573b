//! Commands that run models.

use super::arguments::{Global, How};
use super::commands::open;
use super::output::{Output, cycles_json, cycles_text};
use anyhow::{Context, Result};
use model_uploader::error::usage;
use model_uploader::prices::grouped;
use model_uploader::tensor_file::{encode_npy, parse_input, read_npy, shape_text, type_name};
use model_uploader::{Answer, ProfileInput, Subject, model_ref};
use onnx_canister_interface::{ElementType, NodeProfile, OutputPage, Profile, Tensor};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Elements of an output that are printed as text.
const SHOWN_ELEMENTS: usize = 8;

pub async fn classify(global: &Global, model: &str, input: &Path, top: u32, how: &How, output: &Output) -> Result<()> {
    let subject = read_subject(input)?;
    let connection = open(global, output).await?;
    let start = Instant::now();
    let spinner = output.spinner(format!("classifying {}", input.display()));
    let answer =
        model_uploader::classify(&connection.client, model_ref(model, how.version), subject, Some(top), how.query)
            .await?;
    drop(spinner);
    let seconds = start.elapsed().as_secs_f64();
    let labels = &answer.answer.labels;
    let mut text: String =
        labels.iter().map(|label| format!("{:8.5}  {:>5}  {}\n", label.score, label.index, label.label)).collect();
    text.push_str(&cost_text(&answer, seconds));
    let value = json!({
        "model": { "name": answer.answer.model.name, "version": answer.answer.model.version },
        "labels": labels
            .iter()
            .map(|label| json!({ "label": label.label, "index": label.index, "score": label.score }))
            .collect::<Vec<_>>(),
        "cost": cost_json(&answer, seconds),
    });
    output.result(&value, &text);
    Ok(())
}

pub async fn infer(
    global: &Global,
    model: &str,
    inputs: &[String],
    outputs: Vec<String>,
    output_dir: Option<&Path>,
    how: &How,
    output: &Output,
) -> Result<()> {
    let inputs = read_inputs(inputs)?;
    let outputs = (!outputs.is_empty()).then_some(outputs);
    let connection = open(global, output).await?;
    let start = Instant::now();
    let spinner = output.spinner(format!("running {model}"));
    let answer =
        model_uploader::infer(&connection.client, model_ref(model, how.version), inputs, outputs, how.query).await?;
    drop(spinner);
    let seconds = start.elapsed().as_secs_f64();
    let mut text = String::new();
    let mut values = Vec::new();
    for page in &answer.answer.outputs {
        let elements = elements(page);
        let head = elements.iter().take(SHOWN_ELEMENTS).map(Value::to_string).collect::<Vec<_>>().join(", ");
        let more = if elements.len() > SHOWN_ELEMENTS { ", ..." } else { "" };
        let type_and_shape = format!("{} {}", type_name(page.element_type), shape_text(&page.shape));
        text.push_str(&format!("{}  {type_and_shape}  [{head}{more}]\n", page.name));
        let mut value = json!({ "name": page.name, "type": type_name(page.element_type), "shape": page.shape });
        match output_dir {
            Some(folder) => {
                let path = write_output(folder, page)?;
                text.push_str(&format!("    in {}\n", path.display()));
                value["file"] = json!(path);
            }
            None => value["data"] = json!(elements),
        }
        values.push(value);
    }
    text.push_str(&cost_text(&answer, seconds));
    output.result(&json!({ "outputs": values, "cost": cost_json(&answer, seconds) }), &text);
    Ok(())
}

pub async fn profile(
    global: &Global,
    model: &str,
    subject: Option<&Path>,
    inputs: &[String],
    top: usize,
    version: Option<u32>,
    output: &Output,
) -> Result<()> {
    let input = match subject {
        Some(subject) => ProfileInput::Subject(read_subject(subject)?),
        None => ProfileInput::Tensors(read_inputs(inputs)?),
    };
    let connection = open(global, output).await?;
    let start = Instant::now();
    let spinner = output.spinner(format!("profiling {model}"));
    let answer = model_uploader::profile(&connection.client, model_ref(model, version), input).await?;
    drop(spinner);
    let seconds = start.elapsed().as_secs_f64();
    let mut text = profile_text(&answer.answer, top);
    text.push_str(&cost_text(&answer, seconds));
    let value = json!({
        "operators": answer.answer.operators,
        "nodes": answer.answer.nodes,
        "cost": cost_json(&answer, seconds),
    });
    output.result(&value, &text);
    Ok(())
}

/// Two tables: all operators, and the dearest nodes.
fn profile_text(profile: &Profile, top: usize) -> String {
    if profile.operators.is_empty() {
        return "tract runs this graph whole: there is nothing to tell of its nodes\n".to_string();
    }
    let per_product = |instructions: u64, products: u64| match products {
        0 => String::new(),
        products => format!("{:.2}", instructions as f64 / products as f64),
    };
    let mut text =
        format!("{:<28} {:>6} {:>16} {:>16} {:>8}\n", "operator", "nodes", "instructions", "MACs", "per MAC");
    for sum in &profile.operators {
        text.push_str(&format!(
            "{:<28} {:>6} {:>16} {:>16} {:>8}\n",
            sum.operator,
            sum.nodes,
            grouped(sum.instructions),
            grouped(sum.multiply_accumulates),
            per_product(sum.instructions, sum.multiply_accumulates)
        ));
    }
    let mut nodes: Vec<&NodeProfile> = profile.nodes.iter().collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.instructions));
    text.push_str(&format!(
        "\n{:<20} {:>14} {:>14} {:>8}  shapes and node\n",
        "operator", "instructions", "MACs", "per MAC"
    ));
    for node in nodes.into_iter().take(top) {
        let inputs: Vec<String> = node.input_shapes.iter().map(|shape| shape_text(shape)).collect();
        text.push_str(&format!(
            "{:<20} {:>14} {:>14} {:>8}  {} -> {}  {}\n",
            node.operator,
            grouped(node.instructions),
            grouped(node.multiply_accumulates),
            per_product(node.instructions, node.multiply_accumulates),
            inputs.join(" "),
            shape_text(&node.output_shape),
            node.node
        ));
    }
    text
}

/// An image, or a tensor if the file's name ends in .npy.
fn read_subject(path: &Path) -> Result<Subject> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
        return Ok(Subject::Tensor(read_npy(path)?));
    }
    Ok(Subject::Image(std::fs::read(path).with_context(|| path.display().to_string())?))
}

fn read_inputs(inputs: &[String]) -> Result<Vec<(String, Tensor)>> {
    inputs.iter().map(|text| parse_input(text).map_err(|error| usage(format!("--input {text}: {error:#}")))).collect()
}

fn write_output(folder: &Path, page: &OutputPage) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // A tensor's name may hold anything; a file's may not.
    let safe: String =
        page.name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let path = folder.join(format!("{safe}.npy"));
    let tensor = Tensor { element_type: page.element_type, shape: page.shape.clone(), data: page.data.clone() };
    std::fs::write(&path, encode_npy(&tensor)?).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The elements as JSON numbers; what JSON has no number for is text.
fn elements(page: &OutputPage) -> Vec<Value> {
    let size = page.element_type.size_bytes() as usize;
    page.data.chunks_exact(size).map(|bytes| element(page.element_type, bytes)).collect()
}

fn element(element_type: ElementType, bytes: &[u8]) -> Value {
    // The caller cuts elements of their type's size; the rest of the eight bytes stays zero.
    let mut word = [0u8; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(word);
    let float = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
    match element_type {
        // By way of its shortest text: widened to a double, 0.1 would print as 0.10000000149011612.
        ElementType::Float32 => {
            let value = f32::from_bits(bits as u32);
            float(value.to_string().parse().unwrap_or(f64::from(value)))
        }
        ElementType::Float64 => float(f64::from_bits(bits)),
        ElementType::Float16 => float(f16_value(bits as u16)),
        ElementType::Uint8 | ElementType::Uint16 | ElementType::Uint32 | ElementType::Uint64 => json!(bits),
        ElementType::Int8 => json!(bits as u8 as i8),
        ElementType::Int16 => json!(bits as u16 as i16),
        ElementType::Int32 => json!(bits as u32 as i32),
        ElementType::Int64 => json!(bits as i64),
        ElementType::Bool => json!(bits != 0),
    }
}

/// IEEE 754 binary16.
fn f16_value(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

fn cost_text<A>(answer: &Answer<A>, seconds: f64) -> String {
    let cost = &answer.cost;
    let price = if answer.is_query && answer.cycles() == 0 {
        "a query is free".to_string()
    } else {
        cycles_text(answer.cycles())
    };
    format!(
        "cost         {} instructions ({} of them preparing the input) in {} messages, {seconds:.1} s; {price}\n",
        grouped(cost.instructions),
        grouped(cost.decode_instructions),
        cost.messages
    )
}

fn cost_json<A>(answer: &Answer<A>, seconds: f64) -> Value {
    let mut value = cycles_json(answer.cycles());
    value["instructions"] = json!(answer.cost.instructions);
    value["decode_instructions"] = json!(answer.cost.decode_instructions);
    value["messages"] = json!(answer.cost.messages);
    value["ingress_messages"] = json!(answer.ingress_messages);
    value["ingress_bytes"] = json!(answer.ingress_bytes);
    value["job"] = json!(answer.polled_job);
    value["seconds"] = json!(seconds);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;

    fn values(element_type: ElementType, bytes: &[u8]) -> Vec<Value> {
        elements(&OutputPage {
            name: "y".to_string(),
            element_type,
            shape: vec![],
            size_bytes: bytes.len() as u64,
            offset_bytes: 0,
            data: ByteBuf::from(bytes),
        })
    }

    #[test]
    fn elements_print_as_the_numbers_they_are() {
        assert_eq!(values(ElementType::Float32, &0.1f32.to_le_bytes()), [json!(0.1)]);
        assert_eq!(values(ElementType::Float32, &f32::NAN.to_le_bytes()), [json!("NaN")]);
        assert_eq!(values(ElementType::Int64, &i64::MIN.to_le_bytes()), [json!(i64::MIN)]);
        assert_eq!(values(ElementType::Uint64, &u64::MAX.to_le_bytes()), [json!(u64::MAX)]);
        assert_eq!(values(ElementType::Int8, &[0xff, 1]), [json!(-1), json!(1)]);
        assert_eq!(values(ElementType::Int16, &[0xfe, 0xff]), [json!(-2)]);
        assert_eq!(values(ElementType::Bool, &[1, 0]), [json!(true), json!(false)]);
        // Examples of the format: one, the largest, the smallest subnormal, minus two, infinity.
        let halves = [0x3c00u16, 0x7bff, 0x0001, 0xc000, 0x7c00].map(f16_value);
        assert_eq!(halves, [1.0, 65504.0, 2f64.powi(-24), -2.0, f64::INFINITY]);
    }

    #[test]
    fn a_profile_shows_all_operators_and_the_dearest_nodes() {
        let node = |name: &str, instructions| NodeProfile {
            node: name.to_string(),
            operator: "MatMul".to_string(),
            input_shapes: vec![vec![1, 64]],
            output_shape: vec![1, 8],
            multiply_accumulates: 512,
            estimated_instructions: 1_000,
            instructions,
        };
        let sum = onnx_canister_interface::OperatorProfile {
            operator: "MatMul".to_string(),
            nodes: 2,
            multiply_accumulates: 1_024,
            estimated_instructions: 2_000,
            instructions: 2_048,
        };
        let mut profile = Profile {
            model: model_ref("m", None),
            operators: vec![sum],
            nodes: vec![node("cheap", 512), node("dear", 1_536)],
            cost: onnx_canister_interface::Cost::default(),
        };
        let text = profile_text(&profile, 1);
        assert!(text.contains("2,048            1,024     2.00"), "{text}");
        assert!(text.contains("3.00  1x64 -> 1x8  dear") && !text.contains("cheap"), "{text}");
        profile.operators.clear();
        assert!(profile_text(&profile, 1).contains("whole"));
    }

    #[test]
    fn output_files_have_safe_names() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let page = OutputPage {
            name: "../a/b:0".to_string(),
            element_type: ElementType::Uint8,
            shape: vec![1],
            size_bytes: 1,
            offset_bytes: 0,
            data: ByteBuf::from(vec![7]),
        };
        let path = write_output(dir.path(), &page)?;
        assert_eq!(path, dir.path().join(".._a_b_0.npy"));
        assert_eq!(read_npy(&path)?.data.as_ref(), [7]);
        Ok(())
    }
}
