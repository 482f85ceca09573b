"""Turns the published safetensors of all-MiniLM-L6-v2 into ONNX, without PyTorch.

    python convert.py OUT_DIR weights=PATH

writes OUT_DIR/minilm-l6.onnx: BERT (arXiv:1810.04805) with 6 layers, 12 heads and 384 features, from tokens to the last
hidden state, in operators of ONNX's operator set 17. Weights are transposed and otherwise copied, so the bytes written
are the same on every machine.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS, HEADS, FEATURES, INNER = 6, 12, 384, 1536
VOCABULARY, POSITIONS, KINDS = 30522, 512, 2
HEAD = FEATURES // HEADS
LAYER_NORM_EPSILON = 1e-12
# What is added to the score of a token that the mask leaves out: the lowest float32, as in the original.
MASKED = np.finfo(np.float32).min

OPSET = 17
IR_VERSION = 8


def read_safetensors(path):
    """Name to float32 or int64 array."""
    data = Path(path).read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + header_bytes]), data[8 + header_bytes :]
    header.pop("__metadata__", None)
    types = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(body[start:end], types[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


class Graph:
    """Collects nodes and initialisers; takes each weight exactly once."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes, self.initializers = [], []

    def take(self, name, *shape):
        array = self.weights.pop(name)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, expected float32 {shape}")
        return array

    def constant(self, name, array):
        array = np.asarray(array, order="C")
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.initializers.append(helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def dense(self, name, x, inputs, outputs):
        """x W + b; the file has W transposed."""
        weight = self.constant(name + ".weight", self.take(name + ".weight", outputs, inputs).T)
        bias = self.constant(name + ".bias", self.take(name + ".bias", outputs))
        return self.node("Add", name, [self.node("MatMul", name + ".product", [x, weight]), bias])

    def norm(self, name, x):
        weight = self.constant(name + ".weight", self.take(name + ".weight", FEATURES))
        bias = self.constant(name + ".bias", self.take(name + ".bias", FEATURES))
        return self.node("LayerNormalization", name, [x, weight, bias], axis=-1, epsilon=LAYER_NORM_EPSILON)

    def heads(self, name, x, permutation):
        """[batch, tokens, features] to heads first, as `permutation` says."""
        split = self.node("Reshape", name + ".split", [x, "shape.heads"])
        return self.node("Transpose", name + ".heads", [split], perm=permutation)

    def attention(self, name, x):
        query = self.heads(name + ".query", self.dense(name + ".self.query", x, FEATURES, FEATURES), [0, 2, 1, 3])
        key = self.heads(name + ".key", self.dense(name + ".self.key", x, FEATURES, FEATURES), [0, 2, 3, 1])
        value = self.heads(name + ".value", self.dense(name + ".self.value", x, FEATURES, FEATURES), [0, 2, 1, 3])
        scores = self.node("MatMul", name + ".products", [query, key])
        scores = self.node("Div", name + ".scaled", [scores, "root of head"])
        scores = self.node("Add", name + ".masked", [scores, "mask"])
        weights = self.node("Softmax", name + ".weights", [scores], axis=-1)
        mixed = self.node("MatMul", name + ".mixed", [weights, value])
        mixed = self.node("Transpose", name + ".joined", [mixed], perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", name + ".features", [mixed, "shape.features"])
        out = self.dense(name + ".output.dense", mixed, FEATURES, FEATURES)
        return self.norm(name + ".output.LayerNorm", self.node("Add", name + ".residual", [out, x]))

    def gelu(self, name, x):
        """x (1 + erf(x / sqrt 2)) / 2."""
        inner = self.node("Div", name + ".scaled", [x, "root of 2"])
        inner = self.node("Add", name + ".shifted", [self.node("Erf", name + ".erf", [inner]), "one"])
        return self.node("Mul", name, [self.node("Mul", name + ".product", [x, inner]), "half"])


def build(weights):
    g = Graph(weights)
    positions = g.weights.pop("embeddings.position_ids")
    if not np.array_equal(positions, np.arange(POSITIONS)[None]):
        raise ValueError("the positions are not 0, 1, 2 ...")
    for name in [name for name in g.weights if name.startswith("pooler.")]:
        # Part of the file and of no use here: sentences are pooled from the last hidden state.
        g.weights.pop(name)
    for name, value in [("one", 1), ("half", 0.5), ("root of 2", np.sqrt(2)), ("root of head", np.sqrt(HEAD))]:
        g.constant(name, np.array(value, np.float32))
    g.constant("lowest", np.array(MASKED, np.float32))
    g.constant("shape.heads", np.array([0, 0, HEADS, HEAD], np.int64))
    g.constant("shape.features", np.array([0, 0, FEATURES], np.int64))
    g.constant("axes.heads", np.array([1, 2], np.int64))
    g.constant("axis.batch", np.array([0], np.int64))
    g.constant("zero", np.array(0, np.int64))
    g.constant("step", np.array(1, np.int64))

    present = g.node("Cast", "present", ["attention_mask"], to=TensorProto.FLOAT)
    absent = g.node("Mul", "absent", [g.node("Sub", "left out", ["one", present]), "lowest"])
    g.node("Unsqueeze", "mask", [absent, "axes.heads"])

    embeddings = "embeddings."
    table = lambda name, rows: g.constant(name, g.take(embeddings + name + "_embeddings.weight", rows, FEATURES))
    words = g.node("Gather", "words", [table("word", VOCABULARY), "input_ids"])
    kinds = g.node("Gather", "kinds", [table("token_type", KINDS), "token_type_ids"])
    count = g.node("Gather", "count", [g.node("Shape", "shape", ["input_ids"]), "step"], axis=0)
    indices = g.node("Range", "indices", ["zero", count, "step"])
    places = g.node("Gather", "places", [table("position", POSITIONS), indices])
    places = g.node("Unsqueeze", "places of a text", [places, "axis.batch"])
    x = g.node("Add", "words and kinds", [words, kinds])
    x = g.norm("embeddings.LayerNorm", g.node("Add", "embedded", [x, places]))
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        x = g.attention(name + ".attention", x)
        inner = g.gelu(name + ".gelu", g.dense(name + ".intermediate.dense", x, FEATURES, INNER))
        out = g.dense(name + ".output.dense", inner, INNER, FEATURES)
        x = g.norm(name + ".output.LayerNorm", g.node("Add", name + ".residual", [out, x]))
    g.node("Identity", "last_hidden_state", [x])
    if g.weights:
        raise ValueError(f"weights without a place in the network: {sorted(g.weights)}")

    tokens = ["batch", "sequence"]
    graph = helper.make_graph(
        g.nodes,
        "minilm-l6",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, FEATURES])],
        g.initializers,
    )
    model = helper.make_model(graph, producer_name="onnx-canister", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def main(out_dir, *sources):
    paths = dict(source.split("=", 1) for source in sources)
    model = build(read_safetensors(paths["weights"]))
    (Path(out_dir) / "minilm-l6.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
