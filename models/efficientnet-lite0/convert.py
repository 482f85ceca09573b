"""Turns the published PyTorch weights of EfficientNet-Lite0 into ONNX, without PyTorch.

    python convert.py OUT_DIR weights=PATH synsets=PATH lemmas=PATH

writes OUT_DIR/efficientnet-lite0.onnx and OUT_DIR/labels.txt.

The weights are a torch.save file of the format before 1.6: four pickles (magic number, protocol, machine,
state dictionary), one more with the keys of the storages, then each storage as an element count and raw elements.
The unpickler here knows four names and refuses every other, so the file cannot run code.

The bytes written are the same on every machine: batch normalisation is folded in float64 with additions,
multiplications, divisions and square roots only, each of which IEEE 754 rounds one way, and one at a time.
"""

import collections
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001

# The table of the EfficientNet paper (arXiv:1905.11946, table 1) without squeeze-and-excitation, as in Lite:
# repeats, kernel, stride of the first, expansion, output channels.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
IMAGE_SIDE = 224
STEM_CHANNELS = 32
CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3

OPSET = 13
IR_VERSION = 8


class Storage:
    """A run of elements that tensors are views of; filled after the pickles are read."""

    def __init__(self, dtype, count):
        self.dtype = np.dtype(dtype)
        self.count = count
        self.data = None


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self):
        item = self.storage.dtype.itemsize
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if min(self.shape, default=1) < 1 or min(self.strides, default=0) < 0 or not 0 <= last < self.storage.count:
            raise ValueError(f"tensor {self.shape} strides {self.strides} does not fit {self.storage.count} elements")
        view = np.lib.stride_tricks.as_strided(
            self.storage.data[self.offset :], self.shape, [s * item for s in self.strides], writeable=False
        )
        return np.ascontiguousarray(view)


class StateDictUnpickler(pickle.Unpickler):
    """Reads a state dictionary of float32 and int64 tensors and nothing else."""

    DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Tensor(storage, offset, shape, strides)
        if module == "torch" and name in self.DTYPES:
            return self.DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")

    def persistent_load(self, pid):
        kind, dtype, key, _location, count, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown persistent object {pid!r}")
        return self.storages.setdefault(key, Storage(dtype, count))


def read_state_dict(path):
    """Name to float32 or int64 array, in the file's order."""
    storages = {}
    with open(path, "rb") as file:
        load = lambda: StateDictUnpickler(file, storages).load()
        magic, protocol, machine, state, keys = load(), load(), load(), load(), load()
        if magic != TORCH_MAGIC or protocol != TORCH_PROTOCOL or not machine["little_endian"]:
            raise ValueError(f"{path}: not a little-endian torch.save file of protocol {TORCH_PROTOCOL}")
        for key in keys:
            storage = storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            raw = file.read(storage.count * storage.dtype.itemsize)
            if count != storage.count or len(raw) != storage.count * storage.dtype.itemsize:
                raise ValueError(f"{path}: storage {key} has {count} elements, its tensors expect {storage.count}")
            storage.data = np.frombuffer(raw, storage.dtype)
        if file.read(1):
            raise ValueError(f"{path}: bytes after the last storage")
    return {name: tensor.array() for name, tensor in state.items()}


class Graph:
    """Collects nodes and initialisers; takes each weight from the state dictionary exactly once."""

    def __init__(self, state):
        self.state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
        self.nodes, self.initializers = [], []

    def take(self, name, shape):
        array = self.state.pop(name)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, expected float32 {shape}")
        return array

    def constant(self, name, array):
        array = np.ascontiguousarray(array, dtype="<f4")
        self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, name, x, side, weight, norm, shape, stride=1, relu6=True):
        """Convolution with its batch normalisation folded in and TensorFlow's SAME padding; `shape` is OIHW.

        Returns the output's name and its side in pixels.
        """
        scale = self.take(norm + ".weight", shape[:1]).astype(np.float64)
        scale = scale / np.sqrt(self.take(norm + ".running_var", shape[:1]).astype(np.float64) + BATCH_NORM_EPSILON)
        mean = self.take(norm + ".running_mean", shape[:1]).astype(np.float64)
        bias = self.take(norm + ".bias", shape[:1]).astype(np.float64) - mean * scale
        kernel = self.take(weight + ".weight", shape).astype(np.float64) * scale[:, None, None, None]

        out_side = -(-side // stride)
        padding = max((out_side - 1) * stride + shape[2] - side, 0)
        before, after = padding // 2, padding - padding // 2
        x = self.node(
            "Conv",
            name,
            [x, self.constant(name + ".weight", kernel), self.constant(name + ".bias", bias)],
            dilations=[1, 1],
            group=shape[0] if shape[1] == 1 else 1,
            kernel_shape=list(shape[2:]),
            pads=[before, before, after, after],
            strides=[stride, stride],
        )
        if relu6:
            x = self.node("Clip", name + ".relu6", [x, "relu6.min", "relu6.max"])
        return x, out_side


def build(state):
    g = Graph(state)
    g.constant("relu6.min", np.float32(0))
    g.constant("relu6.max", np.float32(6))
    channels = STEM_CHANNELS
    x, side = g.conv("stem", "image", IMAGE_SIDE, "_conv_stem", "_bn0", (channels, 3, 3, 3), stride=2)
    index = 0
    for repeats, kernel, first_stride, expansion, out_channels in STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            block, name = f"_blocks.{index}", f"block{index}"
            shortcut, width = x, channels * expansion
            if expansion != 1:
                x, _ = g.conv(
                    name + ".expand", x, side, block + "._expand_conv", block + "._bn0", (width, channels, 1, 1)
                )
            x, side = g.conv(
                name + ".depthwise",
                x,
                side,
                block + "._depthwise_conv",
                block + "._bn1",
                (width, 1, kernel, kernel),
                stride=stride,
            )
            x, _ = g.conv(
                name + ".project",
                x,
                side,
                block + "._project_conv",
                block + "._bn2",
                (out_channels, width, 1, 1),
                relu6=False,
            )
            if stride == 1 and channels == out_channels:
                x = g.node("Add", name + ".add", [x, shortcut])
            channels, index = out_channels, index + 1
    x, _ = g.conv("head", x, side, "_conv_head", "_bn1", (1280, channels, 1, 1))
    x = g.node("GlobalAveragePool", "pool", [x])
    x = g.node("Flatten", "features", [x], axis=1)
    weight = g.constant("classifier.weight", g.take("_fc.weight", (CLASSES, 1280)))
    bias = g.constant("classifier.bias", g.take("_fc.bias", (CLASSES,)))
    g.node("Gemm", "logits", [x, weight, bias], transB=1)
    if g.state:
        raise ValueError(f"weights without a place in the network: {sorted(g.state)}")

    graph = helper.make_graph(
        g.nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, IMAGE_SIDE, IMAGE_SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        g.initializers,
    )
    model = helper.make_model(graph, producer_name="onnx-canister", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def labels(synsets, lemmas):
    """The words of each class in the order of ImageNet's 1000 classes."""
    words = dict(line.split("\t", 1) for line in Path(lemmas).read_text("utf-8").splitlines())
    names = [words[synset] for synset in Path(synsets).read_text("utf-8").split()]
    if len(names) != CLASSES:
        raise ValueError(f"{len(names)} labels, expected {CLASSES}")
    return names


def main(out_dir, *sources):
    paths = dict(source.split("=", 1) for source in sources)
    out = Path(out_dir)
    model = build(read_state_dict(paths["weights"]))
    (out / "efficientnet-lite0.onnx").write_bytes(model.SerializeToString(deterministic=True))
    text = "".join(label + "\n" for label in labels(paths["synsets"], paths["lemmas"]))
    (out / "labels.txt").write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
