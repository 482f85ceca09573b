//! What inputs, outputs and attributes each operator has, and which of them are not supported.

use tract_onnx::pb::{AttributeProto, NodeProto};

/// The operators, by their names in ONNX; where two domains have one of the same name, ONNX's own has the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Attention,
    ContribRotaryEmbedding,
    GatherBlockQuantized,
    GroupQueryAttention,
    MultiHeadAttention,
    RMSNormalization,
    RotaryEmbedding,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
}

/// What an attribute may be.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Any,
    Integers(&'static [i64]),
    Float(f32),
    Text(&'static str),
}

/// An operator's inputs and outputs in order, those that are not supported with a minus sign, and its attributes.
#[derive(Debug)]
pub(super) struct Form {
    pub name: &'static str,
    domains: &'static [&'static str],
    pub operator: Operator,
    inputs: &'static [&'static str],
    /// How many of the inputs there have to be.
    needed: usize,
    outputs: &'static [&'static str],
    attributes: &'static [(&'static str, Allowed)],
}

use Allowed::{Any, Float, Integers, Text};

const STANDARD: [&str; 2] = ["", "ai.onnx"];
const CONTRIB: [&str; 1] = ["com.microsoft"];

const NORMALIZATION: Form = Form {
    name: "RMSNormalization",
    domains: &STANDARD,
    operator: Operator::RMSNormalization,
    inputs: &["X", "scale"],
    needed: 2,
    outputs: &["Y", "-inv_std_var"],
    attributes: &[("axis", Any), ("epsilon", Any), ("stash_type", Any)],
};

const SKIP: Form = Form {
    name: "SkipLayerNormalization",
    domains: &CONTRIB,
    operator: Operator::SkipLayerNormalization,
    inputs: &["input", "skip", "gamma", "beta", "bias"],
    needed: 3,
    outputs: &["output", "-mean", "-inv_std_var", "input_skip_bias_sum"],
    attributes: &[("epsilon", Any)],
};

pub(super) const FORMS: &[Form] = &[
    NORMALIZATION,
    // Of onnxruntime, but in files it is of ONNX's own domain.
    Form { name: "SimplifiedLayerNormalization", domains: &["", "ai.onnx", "com.microsoft"], ..NORMALIZATION },
    SKIP,
    Form {
        name: "SkipSimplifiedLayerNormalization",
        operator: Operator::SkipSimplifiedLayerNormalization,
        inputs: &["input", "skip", "gamma", "bias"],
        ..SKIP
    },
    Form {
        name: "RotaryEmbedding",
        domains: &STANDARD,
        operator: Operator::RotaryEmbedding,
        inputs: &["X", "cos_cache", "sin_cache", "position_ids"],
        needed: 3,
        outputs: &["Y"],
        attributes: &[("interleaved", Any), ("num_heads", Any), ("rotary_embedding_dim", Any)],
    },
    Form {
        name: "RotaryEmbedding",
        domains: &CONTRIB,
        operator: Operator::ContribRotaryEmbedding,
        inputs: &["input", "position_ids", "cos_cache", "sin_cache"],
        needed: 4,
        outputs: &["output"],
        attributes: &[
            ("interleaved", Any),
            ("is_packed_batching", Integers(&[0])),
            ("num_heads", Any),
            ("rotary_embedding_dim", Any),
            ("scale", Float(1.0)),
        ],
    },
    Form {
        name: "Attention",
        domains: &STANDARD,
        operator: Operator::Attention,
        inputs: &["Q", "K", "V", "attn_mask", "past_key", "past_value", "-nonpad_kv_seqlen"],
        needed: 3,
        outputs: &["Y", "present_key", "present_value", "-qk_matmul_output"],
        attributes: &[
            ("is_causal", Any),
            ("kv_num_heads", Any),
            ("q_num_heads", Any),
            ("qk_matmul_output_mode", Any),
            ("scale", Any),
            ("softcap", Any),
            ("softmax_precision", Integers(&[1])),
        ],
    },
    Form {
        name: "GroupQueryAttention",
        domains: &CONTRIB,
        operator: Operator::GroupQueryAttention,
        inputs: &[
            "query",
            "key",
            "value",
            "past_key",
            "past_value",
            "seqlens_k",
            "total_sequence_length",
            "cos_cache",
            "sin_cache",
            "position_ids",
            "attention_bias",
            "-head_sink",
            "-k_scale",
            "-v_scale",
            "-q_norm_weight",
            "-k_norm_weight",
            "-query_seqlens",
        ],
        needed: 1,
        outputs: &["output", "present_key", "present_value", "-output_qk"],
        attributes: &[
            ("causal", Integers(&[1])),
            ("do_rotary", Any),
            ("k_norm_epsilon", Any),
            ("k_quant_type", Text("NONE")),
            ("kv_cache_bit_width", Integers(&[0])),
            ("kv_num_heads", Any),
            ("local_window_size", Any),
            ("num_heads", Any),
            ("q_norm_epsilon", Any),
            ("qk_norm_epsilon", Any),
            ("qk_output", Integers(&[0])),
            ("rotary_interleaved", Any),
            ("scale", Any),
            ("sliding_window_cache", Integers(&[0])),
            ("smooth_softmax", Integers(&[-1, 0])),
            ("softcap", Any),
            ("v_quant_type", Text("NONE")),
        ],
    },
    Form {
        name: "MultiHeadAttention",
        domains: &CONTRIB,
        operator: Operator::MultiHeadAttention,
        inputs: &[
            "query",
            "key",
            "value",
            "bias",
            "key_padding_mask",
            "attention_bias",
            "past_key",
            "past_value",
            "-past_sequence_length",
            "-cache_indirection",
        ],
        needed: 1,
        outputs: &["output", "present_key", "present_value", "-qk"],
        attributes: &[("mask_filter_value", Any), ("num_heads", Any), ("scale", Any), ("unidirectional", Any)],
    },
    Form {
        name: "GatherBlockQuantized",
        domains: &CONTRIB,
        operator: Operator::GatherBlockQuantized,
        inputs: &["data", "indices", "scales", "zero_points"],
        needed: 3,
        outputs: &["output"],
        attributes: &[
            ("bits", Integers(&[4, 8])),
            ("block_size", Any),
            ("gather_axis", Integers(&[0])),
            ("quantize_axis", Any),
        ],
    },
];

impl Form {
    /// The form of a node's operator, if it is one of these.
    pub fn of(node: &NodeProto) -> Option<&'static Form> {
        FORMS.iter().find(|form| form.name == node.op_type && form.domains.contains(&&*node.domain))
    }

    /// What of a node is not supported.
    pub fn unsupported(&self, node: &NodeProto) -> Option<String> {
        for (what, names, known) in [("input", &node.input, self.inputs), ("output", &node.output, self.outputs)] {
            for (index, _) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                match known.get(index) {
                    None => return Some(format!("{what} {index} is not known")),
                    Some(name) if name.starts_with('-') => {
                        return Some(format!("{what} {} is not supported", &name[1..]));
                    }
                    Some(_) => {}
                }
            }
        }
        let is_given = |index: &usize| node.input.get(*index).is_some_and(|name| !name.is_empty());
        if let Some(missing) = (0..self.needed).find(|index| !is_given(index)) {
            return Some(format!("input {} is missing", self.inputs[missing]));
        }
        if node.output.first().is_none_or(String::is_empty) {
            return Some(format!("output {} is missing", self.outputs[0]));
        }
        node.attribute.iter().find_map(|attribute| {
            let Some((_, allowed)) = self.attributes.iter().find(|(name, _)| *name == attribute.name) else {
                return Some(format!("attribute {} is not known", attribute.name));
            };
            let value = not_allowed(attribute, *allowed)?;
            Some(format!("attribute {} is {value}, which is not supported", attribute.name))
        })
    }
}

/// The value of an attribute that may not have it.
fn not_allowed(attribute: &AttributeProto, allowed: Allowed) -> Option<String> {
    match allowed {
        Any => None,
        Integers(numbers) => (!numbers.contains(&attribute.i)).then(|| attribute.i.to_string()),
        Float(number) => (attribute.f != number).then(|| attribute.f.to_string()),
        Text(text) => (attribute.s != text.as_bytes()).then(|| String::from_utf8_lossy(&attribute.s).into_owned()),
    }
}

/// Whether there is an operator of that name.
pub(crate) fn knows(name: &str) -> bool {
    FORMS.iter().any(|form| form.name == name)
}

/// What of a node of one of these operators is not supported, if there is no other way to run it.
pub(crate) fn unsupported(node: &NodeProto) -> Option<String> {
    if !knows(&node.op_type) || crate::reference::knows(&node.domain, &node.op_type) {
        return None;
    }
    match Form::of(node) {
        None => Some("the operator is not supported".into()),
        Some(form) => form.unsupported(node),
    }
}
