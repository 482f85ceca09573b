//! The operators of the standard, plainly: each computes its outputs from whole tensors of any element type, with float64
//! in place of all floats and int64 in place of all integers, rounded or wrapped around at the end.
//!
//! They take any shapes and may give any: nothing has to be known before. They are slower than the kernels, and serve
//! what these and tract have not, see [`crate::interpreter`]. Transcendental functions are `libm`'s, so results are the
//! same bits everywhere. Each file is a family of operators.

pub(crate) mod array;
mod attention;
mod binary;
pub(crate) mod call;
mod conv;
mod gather;
mod learn;
mod loss;
mod matmul;
mod movement;
mod normalize;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod signal;
mod tabular;
mod text;
mod trees;
mod unary;
mod vision;
mod window;

use array::{Array, Result};
pub(crate) use attention::{attention_products, flex_attention};
use call::Call;

/// Computes a node's outputs from its inputs. Outputs at the end that nothing wants may be missing.
pub(crate) type Operator = fn(&Call<'_>) -> Result<Vec<Array>>;

/// Operators that take graphs, which [`crate::interpreter`] runs.
const WITH_GRAPHS: [&str; 3] = ["If", "Loop", "Scan"];

/// Operators of ONNX's own domain, by name.
const STANDARD: &[(&str, Operator)] = &[
    ("Abs", unary::unary),
    ("Acos", unary::unary),
    ("Acosh", unary::unary),
    ("Add", binary::binary),
    ("AffineGrid", vision::affine_grid),
    ("And", binary::binary),
    ("ArgMax", reduce::arg),
    ("ArgMin", reduce::arg),
    ("Asin", unary::unary),
    ("Asinh", unary::unary),
    ("Atan", unary::unary),
    ("Atanh", unary::unary),
    ("Attention", attention::attention),
    ("AveragePool", pool::pool),
    ("BatchNormalization", normalize::batch),
    ("BitCast", unary::bit_cast),
    ("BitShift", binary::binary),
    ("BitwiseAnd", binary::binary),
    ("BitwiseNot", unary::unary),
    ("BitwiseOr", binary::binary),
    ("BitwiseXor", binary::binary),
    ("BlackmanWindow", signal::window),
    ("Cast", unary::cast),
    ("CastLike", unary::cast),
    ("CausalConvWithState", conv::causal_conv),
    ("Ceil", unary::unary),
    ("Celu", unary::unary),
    ("CenterCropPad", movement::center_crop_pad),
    ("Clip", unary::clip),
    ("Col2Im", conv::col2im),
    ("Compress", gather::compress),
    ("Concat", movement::concat),
    ("Constant", movement::constant),
    ("ConstantOfShape", movement::constant_of_shape),
    ("Conv", conv::conv),
    ("ConvInteger", conv::conv_integer),
    ("ConvTranspose", conv::conv_transpose),
    ("Cos", unary::unary),
    ("Cosh", unary::unary),
    ("CumProd", reduce::cumulate),
    ("CumSum", reduce::cumulate),
    ("DFT", signal::dft),
    ("DeformConv", conv::deform_conv),
    ("DepthToSpace", movement::depth_to_space),
    ("DequantizeLinear", quantize::dequantize_linear),
    ("Det", reduce::determinant),
    ("Div", binary::binary),
    ("Dropout", movement::dropout),
    ("DynamicQuantizeLinear", quantize::dynamic_quantize_linear),
    ("Einsum", matmul::einsum),
    ("Elu", unary::unary),
    ("Equal", binary::compare),
    ("Erf", unary::unary),
    ("Exp", unary::unary),
    ("Expand", movement::expand),
    ("EyeLike", movement::eye_like),
    ("Flatten", movement::flatten),
    ("Floor", unary::unary),
    ("GRU", recurrent::recurrent),
    ("Gather", gather::gather),
    ("GatherElements", gather::gather_elements),
    ("GatherND", gather::gather_nd),
    ("Gelu", unary::unary),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", pool::pool),
    ("GlobalLpPool", pool::pool),
    ("GlobalMaxPool", pool::pool),
    ("Greater", binary::compare),
    ("GreaterOrEqual", binary::compare),
    ("GridSample", vision::grid_sample),
    ("GroupNormalization", normalize::group),
    ("HammingWindow", signal::window),
    ("HannWindow", signal::window),
    ("HardSigmoid", unary::unary),
    ("HardSwish", unary::unary),
    ("Hardmax", reduce::softmax),
    ("Identity", movement::identity),
    ("ImageDecoder", vision::image_decoder),
    ("InstanceNormalization", normalize::group),
    ("IsInf", unary::is),
    ("IsNaN", unary::is),
    ("LRN", normalize::local_response),
    ("LSTM", recurrent::recurrent),
    ("LayerNormalization", normalize::layer),
    ("LeakyRelu", unary::unary),
    ("Less", binary::compare),
    ("LessOrEqual", binary::compare),
    ("LinearAttention", attention::linear_attention),
    ("Log", unary::unary),
    ("LogSoftmax", reduce::softmax),
    ("LpNormalization", reduce::softmax),
    ("LpPool", pool::pool),
    ("MatMul", matmul::matmul),
    ("MatMulInteger", matmul::matmul_integer),
    ("Max", binary::binary),
    ("MaxPool", pool::pool),
    ("MaxUnpool", pool::max_unpool),
    ("Mean", binary::binary),
    ("MeanVarianceNormalization", normalize::mean_variance),
    ("MelWeightMatrix", signal::mel_weight_matrix),
    ("Min", binary::binary),
    ("Mish", unary::unary),
    ("Mod", binary::binary),
    ("Mul", binary::binary),
    ("Neg", unary::unary),
    ("NegativeLogLikelihoodLoss", loss::negative_log_likelihood),
    ("NonMaxSuppression", vision::non_max_suppression),
    ("NonZero", gather::non_zero),
    ("Not", unary::unary),
    ("OneHot", gather::one_hot),
    ("OptionalGetElement", movement::identity),
    ("OptionalHasElement", movement::has_element),
    ("Or", binary::binary),
    ("PRelu", binary::binary),
    ("Pad", movement::pad),
    ("Pow", binary::binary),
    ("QLinearConv", conv::qlinear_conv),
    ("QLinearMatMul", matmul::qlinear_matmul),
    ("QuantizeLinear", quantize::quantize_linear),
    ("RMSNormalization", normalize::layer),
    ("RNN", recurrent::recurrent),
    ("Range", movement::range),
    ("Reciprocal", unary::unary),
    ("ReduceL1", reduce::reduce),
    ("ReduceL2", reduce::reduce),
    ("ReduceLogSum", reduce::reduce),
    ("ReduceLogSumExp", reduce::reduce),
    ("ReduceMax", reduce::reduce),
    ("ReduceMean", reduce::reduce),
    ("ReduceMin", reduce::reduce),
    ("ReduceProd", reduce::reduce),
    ("ReduceSum", reduce::reduce),
    ("ReduceSumSquare", reduce::reduce),
    ("Relu", unary::unary),
    ("Reshape", movement::reshape),
    ("Resize", resize::resize),
    ("ReverseSequence", movement::reverse_sequence),
    ("RoiAlign", pool::roi_align),
    ("RotaryEmbedding", attention::rotary_embedding),
    ("Round", unary::unary),
    ("STFT", signal::stft),
    ("Scatter", gather::scatter_elements),
    ("ScatterElements", gather::scatter_elements),
    ("ScatterND", gather::scatter_nd),
    ("Selu", unary::unary),
    ("Shape", movement::shape),
    ("Shrink", unary::unary),
    ("Sigmoid", unary::unary),
    ("Sign", unary::unary),
    ("Sin", unary::unary),
    ("Sinh", unary::unary),
    ("Size", movement::size),
    ("Slice", movement::slice),
    ("Softmax", reduce::softmax),
    ("SoftmaxCrossEntropyLoss", loss::softmax_cross_entropy),
    ("Softplus", unary::unary),
    ("Softsign", unary::unary),
    ("SpaceToDepth", movement::depth_to_space),
    ("Split", movement::split),
    ("Sqrt", unary::unary),
    ("Squeeze", movement::squeeze),
    ("Sub", binary::binary),
    ("Sum", binary::binary),
    ("Swish", unary::unary),
    ("Tan", unary::unary),
    ("Tanh", unary::unary),
    ("TensorScatter", gather::tensor_scatter),
    ("TfIdfVectorizer", text::tf_idf_vectorizer),
    ("ThresholdedRelu", unary::unary),
    ("Tile", movement::tile),
    ("TopK", reduce::top_k),
    ("Transpose", movement::transpose),
    ("Trilu", movement::trilu),
    ("Unique", reduce::unique),
    ("Unsqueeze", movement::unsqueeze),
    ("Upsample", resize::resize),
    ("Where", binary::choose),
    ("Xor", binary::binary),
];

/// Operators of `ai.onnx.ml`, by name. A `ZipMap` only puts names to columns: here they stay a table.
const MACHINE_LEARNING: &[(&str, Operator)] = &[
    ("ArrayFeatureExtractor", gather::array_feature_extractor),
    ("Binarizer", learn::binarizer),
    ("FeatureVectorizer", tabular::feature_vectorizer),
    ("Imputer", tabular::imputer),
    ("LabelEncoder", tabular::label_encoder),
    ("LinearClassifier", tabular::linear_classifier),
    ("LinearRegressor", tabular::linear_regressor),
    ("Normalizer", tabular::normalizer),
    ("OneHotEncoder", tabular::one_hot_encoder),
    ("SVMRegressor", tabular::svm_regressor),
    ("Scaler", tabular::scaler),
    ("TreeEnsemble", learn::tree_ensemble),
    ("TreeEnsembleClassifier", trees::classifier),
    ("TreeEnsembleRegressor", trees::regressor),
    ("ZipMap", movement::identity),
];

/// Operators of `ai.onnx.preview.training`, by name.
const TRAINING: &[(&str, Operator)] =
    &[("Adagrad", learn::adagrad), ("Adam", learn::adam), ("Momentum", learn::momentum)];

/// Whether a node of that domain and operator can be run.
pub(crate) fn knows(domain: &str, name: &str) -> bool {
    let takes_graphs = matches!((domain, name), ("ai.onnx.preview", "FlexAttention"))
        || matches!(domain, "" | "ai.onnx") && WITH_GRAPHS.contains(&name);
    takes_graphs || find(domain, name).is_some()
}

/// The operator of that domain and name.
pub(crate) fn find(domain: &str, name: &str) -> Option<Operator> {
    let table = match domain {
        "" | "ai.onnx" => STANDARD,
        "ai.onnx.ml" => MACHINE_LEARNING,
        "ai.onnx.preview.training" => TRAINING,
        _ => return None,
    };
    table.binary_search_by_key(&name, |(known, _)| known).ok().map(|index| table[index].1)
}

#[cfg(test)]
mod tests;
