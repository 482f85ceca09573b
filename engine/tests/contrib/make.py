"""Writes cases.bin: small models of operators that transformers are exported with, and what onnxruntime makes of them.

Run with numpy, onnx and onnxruntime: `python make.py`. All numbers are little-endian. The file is a list of cases: name,
model, tolerance (float32, of the largest output), inputs, outputs. A list is its length (uint32) and its items; a text or
a model is its length in bytes (uint32) and its bytes. A tensor is its name, ONNX data type and rank (uint8 each), sizes (uint32
each) and bytes, whose number the sizes tell.
"""

import pathlib
import struct

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(20260101)
cases = []
MS = "com.microsoft"


def floats(*shape, scale=1.0):
    return (random.standard_normal(shape) * scale).astype(np.float32)


def text(data):
    return struct.pack("<I", len(data)) + data


def tensor(name, array):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    sizes = b"".join(struct.pack("<I", size) for size in array.shape)
    return text(name.encode()) + struct.pack("<BB", kind, array.ndim) + sizes + array.tobytes()


def store(name, model, tolerance, inputs, outputs):
    tensors = lambda named: struct.pack("<I", len(named)) + b"".join(tensor(*item) for item in named.items())
    head = text(name.encode()) + text(model.SerializeToString()) + struct.pack("<f", tolerance)
    cases.append(head + tensors(inputs) + tensors(outputs))


def make(nodes, inputs, weights, outputs):
    """inputs: name to (array or type, dimensions); outputs: name to type."""
    kind = lambda given: given if isinstance(given, int) else helper.np_dtype_to_tensor_dtype(given.dtype)
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info(name, kind(array), dims) for name, (array, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, of, None) for name, of in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11, producer_name="cases")


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def case(name, nodes, inputs, weights, outputs=("y",), tolerance=1e-4, instead=None):
    """Where onnxruntime lacks a form, `instead` is what is stored: nodes and inputs."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    model = make(nodes, inputs, weights, {output: TensorProto.FLOAT for output in outputs})
    results = session(model).run(list(outputs), {key: array for key, (array, _) in inputs.items()})
    if instead is not None:
        operator, inputs = instead
        model = make([operator], inputs, weights, {output: TensorProto.FLOAT for output in outputs})
    store(name, model, tolerance, {key: array for key, (array, _) in inputs.items()}, dict(zip(outputs, results)))


def node(operator, inputs, outputs=("y",), domain=MS, **attributes):
    return helper.make_node(operator, list(inputs), list(outputs), name=f"a {operator}", domain=domain, **attributes)


ROWS = ["batch", "sequence", 20]
x, skip = floats(2, 3, 20), floats(2, 3, 20)
row = lambda: floats(20)


def normalisations():
    given = {"x": (x, ROWS)}
    case("rms", node("SimplifiedLayerNormalization", ["x", "w"], domain="", axis=-1, epsilon=1e-3, stash_type=1), given, {"w": row()})
    case("rms standard", node("RMSNormalization", ["x", "w"], domain="", epsilon=1e-3), given, {"w": row()})
    case("rms computed weight", node("SimplifiedLayerNormalization", ["x", "w"], domain="", epsilon=1e-3), {**given, "w": (row(), [20])}, {})
    both = {**given, "s": (skip, ROWS)}
    case("skip rms", node("SkipSimplifiedLayerNormalization", ["x", "s", "w"], epsilon=1e-3), both, {"w": row()})
    case("skip rms sum", node("SkipSimplifiedLayerNormalization", ["x", "s", "w", "b"], ["y", "", "", "sum"], epsilon=1e-3), both, {"w": row(), "b": row()}, ["y", "sum"])
    case("skip layer", node("SkipLayerNormalization", ["x", "s", "w"], epsilon=1e-3), both, {"w": row()})
    case("skip layer all", node("SkipLayerNormalization", ["x", "s", "w", "beta", "b"], ["y", "", "", "sum"], epsilon=1e-3), both, {"w": row(), "beta": row(), "b": row()}, ["y", "sum"])
    shared = {**given, "s": (floats(1, 3, 20), [1, "sequence", 20])}
    case("skip layer of one batch", node("SkipLayerNormalization", ["x", "s", "w", "", "b"], epsilon=1e-3), shared, {"w": row(), "b": row()})


def activations():
    given = {"x": (x * 2, ROWS)}
    case("quick gelu", node("QuickGelu", ["x"]), given, {})
    case("quick gelu alpha", node("QuickGelu", ["x"], alpha=1.0), given, {})
    case("fast gelu", node("FastGelu", ["x"]), given, {})
    case("fast gelu bias", node("FastGelu", ["x", "b"]), given, {"b": row()})
    case("bias gelu", node("BiasGelu", ["x", "b"]), given, {"b": row()})


def caches(length, half):
    angles = np.arange(length)[:, None] / 10.0 ** (np.arange(half)[None] / half)
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def rotary():
    heads = {"x": (floats(2, 3, 32), ["batch", "sequence", 32])}
    by_head = {"x": (floats(2, 4, 3, 8), ["batch", 4, "sequence", 8])}
    positions = np.array([[3, 4, 5], [0, 11, 2]], np.int64)
    each = {"p": (positions, ["batch", "sequence"])}
    first = {"p": (np.array([4], np.int64), [1])}
    contrib = lambda **more: node("RotaryEmbedding", ["x", "p", "cos", "sin"], **more)
    case("rotary", contrib(), {**heads, **each}, caches(12, 4))
    case("rotary offset", contrib(), {**heads, **first}, caches(12, 4))
    case("rotary by head", contrib(), {**by_head, **each}, caches(12, 4))
    case("rotary interleaved", contrib(interleaved=1), {**heads, **each}, caches(12, 4))
    case("rotary partial", contrib(num_heads=4, rotary_embedding_dim=6), {**heads, **each}, caches(12, 3))
    standard = lambda inputs, **more: node("RotaryEmbedding", inputs, domain="", **more)
    picked = ["x", "cos", "sin", "p"]
    case("rotary standard", standard(picked), {**by_head, **each}, caches(12, 4))
    case("rotary standard rows", standard(picked, num_heads=4, interleaved=1), {**heads, **each}, caches(12, 4))
    case("rotary standard partial", standard(picked, rotary_embedding_dim=4), {**by_head, **each}, caches(12, 2))
    tables = {name: (cache[positions], ["batch", "sequence", 4]) for name, cache in caches(12, 4).items()}
    case("rotary standard tables", standard(picked[:3], num_heads=4), {**heads, **tables}, {})


GQA_INPUTS = ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length", "cos", "sin"]


def group_query():
    heads, kv_heads, longest = 4, 2, 16

    def one(name, columns=16, batch=1, past=0, new=4, packed=False, rotary=True, half=8, lengths=None, bias=False, positions=False, has_past=True, presents=False, **attributes):
        wide = lambda count: (floats(batch, new, count * columns), ["batch", "sequence", count * columns])
        given = {"query": wide(heads + 2 * kv_heads)} if packed else {"query": wide(heads), "key": wide(kv_heads), "value": wide(kv_heads)}
        if has_past:
            for part in ["past_key", "past_value"]:
                given[part] = (floats(batch, kv_heads, past, columns), ["batch", kv_heads, "past", columns])
        # Rows of padding are no matter.
        rows = None if lengths is None else (np.arange(new) <= np.array(lengths)[:, None]).astype(np.float32)[..., None]
        lengths = np.full(batch, past + new - 1, np.int32) if lengths is None else np.array(lengths, np.int32)
        given["seqlens_k"] = (lengths, ["batch"])
        given["total_sequence_length"] = (np.array(past + new, np.int32), [])
        weights = caches(longest, half) if rotary else {}
        inputs = [key if key in given or key in weights else "" for key in GQA_INPUTS]
        if positions or bias:
            inputs += ["position_ids" if positions else ""] + (["bias"] if bias else [])
        if positions:
            places = np.tile(np.arange(past, past + new, dtype=np.int64), (batch, 1))
            given["position_ids"] = (places, ["batch", "sequence"])
        if bias:
            given["bias"] = (floats(1, heads, new, past + new), [1, heads, "sequence", "total"])
        outputs = ["y", "present_key", "present_value"]
        names = outputs if rows is None else ["all", *outputs[1:]]
        operator = node("GroupQueryAttention", inputs, names, num_heads=heads, kv_num_heads=kv_heads, do_rotary=int(rotary), **attributes)
        if rows is not None:
            operator = [operator, helper.make_node("Mul", ["all", "rows"], ["y"])]
            weights["rows"] = rows
        case("group query " + name, operator, given, weights, outputs if presents else ["y"])

    one("prompt", presents=True)
    one("prompt of a batch", batch=2, presents=True)
    one("prompt of a batch padded", batch=2, lengths=[3, 1])
    one("without a past", has_past=False, presents=True)
    one("next token", past=6, new=1, presents=True)
    one("next token of a batch", batch=2, past=4, new=1)
    one("more tokens", past=4, new=3, presents=True)
    one("packed", past=4, new=3, packed=True, presents=True)
    one("packed prompt", packed=True, batch=2)
    one("without rotary", past=4, new=3, rotary=False)
    one("interleaved", past=4, new=3, rotary_interleaved=1)
    one("partial rotary", columns=32, past=4, new=3, half=8)
    one("partial rotary prompt interleaved", columns=32, new=3, half=8, rotary_interleaved=1)
    one("scale", past=4, new=3, scale=0.7)
    one("softcap", past=4, new=3, softcap=1.5)
    one("softcap scale packed", packed=True, softcap=2.0, scale=1.5, presents=True)
    one("window", past=4, new=3, local_window_size=3)
    one("window prompt", new=7, local_window_size=3)
    one("window next token", past=6, new=1, local_window_size=4)
    one("window softcap", past=6, new=4, local_window_size=2, softcap=3.0)
    one("bias", past=4, new=3, bias=True)
    one("positions", past=4, new=3, positions=True)


def multi_head():
    heads, columns, batch = 3, 4, 2
    hidden = heads * columns

    def one(name, inputs, given, weights={}, presents=False, **attributes):
        outputs = ["y", "present_key", "present_value"] if presents else ["y"]
        case("multi head " + name, node("MultiHeadAttention", inputs, outputs, num_heads=heads, **attributes), given, weights, outputs)

    rows = lambda length, symbol, size=hidden: (floats(batch, length, size), ["batch", symbol, size])
    plain = lambda: {"q": rows(3, "queries"), "k": rows(5, "keys"), "v": rows(5, "keys")}
    one("plain", ["q", "k", "v"], plain())
    one("scale", ["q", "k", "v"], plain(), scale=0.9)
    one("presents", ["q", "k", "v"], plain(), presents=True)
    one("wide values", ["q", "k", "v"], {**plain(), "v": rows(5, "keys", 2 * hidden)})
    one("bias", ["q", "k", "v", "b"], plain(), {"b": floats(3 * hidden)})
    padding = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)
    one("padding", ["q", "k", "v", "", "m"], {**plain(), "m": (padding, ["batch", "keys"])}, mask_filter_value=-5000.0)
    own = {"q": rows(5, "sequence"), "k": rows(5, "sequence"), "v": rows(5, "sequence")}
    one("causal", ["q", "k", "v"], own, unidirectional=1)
    bias = (floats(1, heads, 3, 5), [1, heads, "queries", "keys"])
    one("attention bias", ["q", "k", "v", "", "", "a"], {**plain(), "a": bias})
    # onnxruntime has packed ones on other devices only: it is given them apart.
    many = lambda name, count: (np.stack([own[part][0].reshape(batch, 5, heads, columns) for part in name], 3), ["batch", "keys", heads, count, columns])
    operator = lambda inputs: node("MultiHeadAttention", inputs, num_heads=heads)
    case("multi head packed", operator(["q", "k", "v"]), own, {}, instead=(operator(["qkv"]), {"qkv": many("qkv", 3)}))
    halves = {"q": own["q"], "kv": many("kv", 2)}
    case("multi head packed keys and values", operator(["q", "k", "v"]), own, {}, instead=(operator(["q", "kv"]), halves))
    split = lambda: (floats(batch, heads, 5, columns), ["batch", heads, "keys", columns])
    one("heads first", ["q", "k", "v"], {"q": rows(3, "queries"), "k": split(), "v": split()})
    past = lambda: (floats(batch, heads, 4, columns), ["batch", heads, "past", columns])
    own = {name: rows(3, "sequence") for name in "qkv"}
    one("past", ["q", "k", "v", "b", "", "", "pk", "pv"], {**own, "pk": past(), "pv": past()}, {"b": floats(3 * hidden)}, presents=True)


def standard_attention():
    def one(name, given, inputs=("q", "k", "v"), presents=False, **attributes):
        outputs = ["y", "present_key", "present_value"] if presents else ["y"]
        case("attention " + name, node("Attention", inputs, outputs, domain="", **attributes), given, {}, outputs)

    split = lambda heads, length, symbol, columns=8: (floats(2, heads, length, columns), ["batch", heads, symbol, columns])
    plain = lambda: {"q": split(4, 3, "queries"), "k": split(2, 5, "keys"), "v": split(2, 5, "keys", 6)}
    one("plain", plain())
    one("scale", plain(), scale=0.3)
    one("softcap", plain(), softcap=1.0)
    one("causal", {"q": split(4, 5, "sequence"), "k": split(4, 5, "sequence"), "v": split(4, 5, "sequence")}, is_causal=1)
    rows = lambda heads, length, symbol: (floats(2, length, heads * 8), ["batch", symbol, heads * 8])
    one("rows", {"q": rows(4, 3, "queries"), "k": rows(2, 5, "keys"), "v": rows(2, 5, "keys")}, q_num_heads=4, kv_num_heads=2)
    masked = ["q", "k", "v", "m"]
    one("mask", {**plain(), "m": (floats(3, 5), ["queries", "keys"])}, masked)
    seen = np.tril(np.ones((3, 5), bool), 1)
    one("mask of bools", {**plain(), "m": (seen, ["queries", "keys"])}, masked)
    one("mask of heads", {**plain(), "m": (floats(2, 4, 3, 5), ["batch", 4, "queries", "keys"])}, masked, softcap=2.0)
    own = {"q": split(4, 3, "sequence"), "k": split(2, 3, "sequence"), "v": split(2, 3, "sequence")}
    past = {"pk": split(2, 4, "past"), "pv": split(2, 4, "past")}
    one("past", {**own, **past}, ["q", "k", "v", "", "pk", "pv"], presents=True, is_causal=1)


def packed(numbers, bits):
    """Numbers below 2^bits along the last axis, the first in the lowest bits of a byte."""
    per_byte = 8 // bits
    rows = numbers.reshape(-1, numbers.shape[-1])
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per_byte)))
    shifts = (np.arange(per_byte) * bits).astype(np.uint16)
    joined = (rows.reshape(rows.shape[0], -1, per_byte).astype(np.uint16) << shifts).sum(-1)
    return joined.astype(np.uint8).reshape(*numbers.shape[:-1], -1)


def gather():
    indices = {"i": (np.array([[0, 6, 3], [5, 5, 1]], np.int64), ["batch", "sequence"])}
    for bits in [4, 8]:
        numbers, zero_points = random.integers(0, 1 << bits, (7, 48)), random.integers(0, 1 << bits, (7, 3))
        weights = {"d": packed(numbers, bits), "s": floats(7, 3)}
        attributes = dict(bits=bits, block_size=16, gather_axis=0, quantize_axis=1)
        case(f"gather {bits}", node("GatherBlockQuantized", ["d", "i", "s"], **attributes), indices, weights)
        weights["z"] = packed(zero_points, bits)
        case(f"gather {bits} zero points", node("GatherBlockQuantized", ["d", "i", "s", "z"], **attributes), indices, weights)


def quantised(rows, columns, bits, block):
    numbers = random.integers(0, 1 << bits, (columns, -(-rows // block), block))
    scales = np.abs(floats(columns, numbers.shape[1])) / (1 << bits) + np.float32(0.01)
    return {"w": packed(numbers, bits), "s": scales}


def products():
    given = {"x": (floats(2, 3, 64), ["batch", "sequence", 64])}
    for bits in [2, 4, 8]:
        attributes = dict(K=64, N=10, bits=bits, block_size=32)
        weights = quantised(64, 10, bits, 32)
        case(f"product {bits}", node("MatMulNBits", ["x", "w", "s"], **attributes), given, weights)
        zero_points = packed(random.integers(0, 1 << bits, (10, 2)), bits)
        case(f"product {bits} zero points", node("MatMulNBits", ["x", "w", "s", "z"], **attributes), given, {**weights, "z": zero_points})
    weights = quantised(64, 10, 4, 16)
    more = {**weights, "z": np.abs(floats(10, 4)) * 4 + 6, "b": floats(10)}
    case("product float zero points", node("MatMulNBits", ["x", "w", "s", "z"], K=64, N=10, bits=4, block_size=16), given, {key: more[key] for key in "wsz"})
    case("product bias", node("MatMulNBits", ["x", "w", "s", "", "", "b"], K=64, N=10, bits=4, block_size=16), given, {key: more[key] for key in "wsb"})
    half = {**weights, "s": weights["s"].astype(np.float16)}
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        node("MatMulNBits", ["x16", "w", "s"], ["y16"], K=64, N=10, bits=4, block_size=16),
        helper.make_node("Cast", ["y16"], ["y"], to=TensorProto.FLOAT),
    ]
    # onnxruntime rounds to half precision on the way.
    case("product half scales", nodes, given, half, tolerance=2e-3)


def decoder():
    """Two layers as onnxruntime-genai's model builder writes them, one with queries, keys and values packed."""
    hidden, heads, kv_heads, columns, inner, vocabulary = 32, 4, 2, 16, 32, 40
    weights = caches(64, columns // 2)
    weights["embedding"] = floats(vocabulary, hidden)
    nodes = []

    def add(operator, inputs, outputs, domain=MS, **attributes):
        label = f"/model/{outputs[0]}/{operator}"
        nodes.append(helper.make_node(operator, inputs, outputs, name=label, domain=domain, **attributes))

    def product(x, y, rows, size):
        for key, weight in quantised(rows, size, 4, 16).items():
            weights[f"{y}.{key}"] = weight
        add("MatMulNBits", [x, f"{y}.w", f"{y}.s"], [y], K=rows, N=size, bits=4, block_size=16, accuracy_level=0)

    def weight(name):
        weights[name] = 1 + floats(hidden, scale=0.2)
        return name

    weights.update(one=np.array([1], np.int64), index=np.array(1, np.int64))
    add("ReduceSum", ["attention_mask", "one"], ["lengths"], "", keepdims=0)
    add("Sub", ["lengths", "one"], ["last"], "")
    add("Cast", ["last"], ["seqlens_k"], "", to=TensorProto.INT32)
    add("Shape", ["attention_mask"], ["mask_shape"], "")
    add("Gather", ["mask_shape", "index"], ["total"], "", axis=0)
    add("Cast", ["total"], ["total_seq_len"], "", to=TensorProto.INT32)
    add("Gather", ["embedding", "input_ids"], ["x"], "")
    residual = "x"
    add("SimplifiedLayerNormalization", ["x", weight("norm0.weight")], ["norm0"], "", axis=-1, epsilon=1e-5, stash_type=1)
    normed = "norm0"
    past = lambda layer, kind: f"past_key_values.{layer}.{kind}"
    for layer in range(2):
        name = lambda part: f"layers.{layer}.{part}"
        if layer == 0:
            product(normed, name("q"), hidden, heads * columns)
            product(normed, name("k"), hidden, kv_heads * columns)
            product(normed, name("v"), hidden, kv_heads * columns)
            given = [name("q"), name("k"), name("v")]
        else:
            product(normed, name("qkv"), hidden, (heads + 2 * kv_heads) * columns)
            given = [name("qkv"), "", ""]
        given += [past(layer, "key"), past(layer, "value"), "seqlens_k", "total_seq_len", "cos", "sin"]
        outputs = [name("attention"), f"present.{layer}.key", f"present.{layer}.value"]
        add("GroupQueryAttention", given, outputs, num_heads=heads, kv_num_heads=kv_heads, do_rotary=1, rotary_interleaved=0, scale=columns**-0.5, local_window_size=-1, softcap=0.0)
        product(name("attention"), name("o"), heads * columns, hidden)
        skip = lambda x, norm: add("SkipSimplifiedLayerNormalization", [residual, x, weight(norm + ".weight")], [norm, "", "", norm + ".sum"], epsilon=1e-5)
        skip(name("o"), name("norm"))
        residual = name("norm.sum")
        product(name("norm"), name("gate"), hidden, inner)
        product(name("norm"), name("up"), hidden, inner)
        add("Sigmoid", [name("gate")], [name("sigmoid")], "")
        add("Mul", [name("gate"), name("sigmoid")], [name("silu")], "")
        add("Mul", [name("silu"), name("up")], [name("product")], "")
        product(name("product"), name("down"), inner, hidden)
        skip(name("down"), name("final"))
        residual, normed = name("final.sum"), name("final")
    product(normed, "logits", hidden, vocabulary)
    tokens = lambda symbol: (TensorProto.INT64, ["batch_size", symbol])
    inputs = {"input_ids": tokens("sequence_length"), "attention_mask": tokens("total_sequence_length")}
    results = {"logits": TensorProto.FLOAT}
    for layer in range(2):
        for kind in ["key", "value"]:
            inputs[past(layer, kind)] = (TensorProto.FLOAT, ["batch_size", kv_heads, "past_sequence_length", columns])
            results[f"present.{layer}.{kind}"] = TensorProto.FLOAT
    model = make(nodes, inputs, weights, results)
    run = session(model)
    results = list(results)
    # A prompt whose tokens are no matter of roundings.
    for _ in range(100):
        prompt = random.integers(0, vocabulary, 12).astype(np.int64)
        tokens, logits, margin = greedy(run, prompt, list(inputs)[2:], results, (1, kv_heads, 0, columns))
        if margin > 0.03 and len(set(tokens)) > 8:
            store("decoder", model, 1e-3, {"prompt": prompt}, {"tokens": tokens, "logits": logits})
            return
    raise AssertionError("there is no such prompt")


def greedy(run, prompt, past, results, empty):
    """Twenty tokens, the logits of the last, and the smallest distance of two candidates."""
    cache = {name: np.zeros(empty, np.float32) for name in past}
    new, tokens, length, margin = prompt, [], 0, np.inf
    for _ in range(20):
        length += len(new)
        given = {"input_ids": new[None], "attention_mask": np.ones((1, length), np.int64), **cache}
        logits, *presents = run.run(results, given)
        cache = dict(zip(cache, presents))
        first, second = np.sort(logits[0, -1])[::-1][:2]
        margin = min(margin, first - second)
        new = np.array([logits[0, -1].argmax()], np.int64)
        tokens.append(new[0])
    return np.array(tokens, np.int64), logits[0, -1], margin


normalisations()
activations()
rotary()
group_query()
multi_head()
standard_attention()
gather()
products()
decoder()
path = pathlib.Path(__file__).with_name("cases.bin")
path.write_bytes(struct.pack("<I", len(cases)) + b"".join(cases))
print(f"{len(cases)} cases, {path.stat().st_size} bytes")
