"""EfficientNet-Lite0 in int8: the float32 conversion of the recipe beside this one, statically quantised.

    python convert.py OUT_DIR weights=PATH synsets=PATH lemmas=PATH

writes OUT_DIR/efficientnet-lite0-int8.onnx and OUT_DIR/labels.txt.

The form is ONNX's QDQ: weights int8 with a scale per output channel, activations uint8 with one scale and zero point per
tensor, biases int32. The ranges of the activations are in ranges.json, measured by calibrate.py. What is done here is
divisions and roundings, each of which IEEE 754 rounds one way, so the bytes are the same on every machine.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent


def load_float_recipe():
    """The float32 recipe's converter, as a module."""
    spec = importlib.util.spec_from_file_location("efficientnet_lite0", HERE.parent / "efficientnet-lite0" / "convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quantizer:
    """Copies a float32 graph, with QuantizeLinear and DequantizeLinear around what its convolutions read and write."""

    def __init__(self, model, ranges):
        self.graph = model.graph
        self.ranges = ranges
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.nodes, self.initializers = [], []
        # Of each activation that is quantised: its dequantised copy and its scale.
        self.quantized = {}

    def constant(self, name, array):
        array = np.asarray(array, order="C")
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.initializers.append(helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def activation(self, name, output=None):
        """The activation in uint8 and back; its range is widened to hold 0, which is padding."""
        if name in self.quantized:
            return self.quantized[name]
        low, high = (np.float32(value) for value in self.ranges[name])
        low, high = min(low, np.float32(0)), max(high, np.float32(0))
        scale = np.float32((high - low) / np.float32(255))
        zero_point = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        grid = [self.constant(name + ".scale", scale), self.constant(name + ".zero_point", zero_point)]
        bytes_of = self.node("QuantizeLinear", [name, *grid], name + ".quantized")
        back = self.node("DequantizeLinear", [bytes_of, *grid], output or name + ".dequantized")
        self.quantized[name] = back, scale
        return self.quantized[name]

    def product(self, node):
        """A convolution or matrix product: its weights by output channel, its bias in units of the sum."""
        x, scale = self.activation(node.input[0])
        name, weight = node.input[1], self.weights[node.input[1]]
        axes = tuple(range(1, weight.ndim))
        bias_name, bias = node.input[2], self.weights[node.input[2]]
        # Where all weights of a channel are next to nothing, the bias still has to fit into 32 bits.
        smallest = np.abs(bias) / (scale * np.float32(2**30))
        scales = np.maximum(np.abs(weight).max(axes) / np.float32(127), smallest).astype(np.float32)
        column = scales.reshape(-1, *[1] * len(axes))
        values = np.clip(np.rint(weight / column), -127, 127).astype(np.int8)
        zeros = np.zeros(len(scales), np.int8)
        w = self.node(
            "DequantizeLinear",
            [
                self.constant(name + ".quantized", values),
                self.constant(name + ".scale", scales),
                self.constant(name + ".zero_point", zeros),
            ],
            name + ".dequantized",
            axis=0,
        )
        units = (scale * scales).astype(np.float32)
        sums = np.rint(bias.astype(np.float64) / units.astype(np.float64)).astype(np.int32)
        b = self.node(
            "DequantizeLinear",
            [
                self.constant(bias_name + ".quantized", sums),
                self.constant(bias_name + ".scale", units),
                self.constant(bias_name + ".zero_point", np.zeros(len(units), np.int32)),
            ],
            bias_name + ".dequantized",
            axis=0,
        )
        return [x, w, b]

    def convert(self):
        clipped = {node.input[0]: node.output[0] for node in self.graph.node if node.op_type == "Clip"}
        outputs = {output.name for output in self.graph.output}
        for node in self.graph.node:
            name = node.output[0]
            if node.op_type == "Clip":
                # uint8 saturates where ReLU6 clips: the range of its output is 0 to 6.
                continue
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type in ("Conv", "Gemm"):
                inputs = self.product(node)
            else:
                inputs = [self.activation(value)[0] for value in node.input]
            target = clipped.get(name, name)
            if target in outputs:
                self.node(node.op_type, inputs, target + ".sum", **attributes)
                self.ranges[target + ".sum"] = self.ranges[target]
                self.activation(target + ".sum", output=target)
            else:
                self.node(node.op_type, inputs, target, **attributes)
                if node.op_type == "Flatten":
                    self.ranges[target] = self.ranges[node.input[0]]
        graph = helper.make_graph(
            self.nodes, "efficientnet-lite0-int8", self.graph.input, self.graph.output, self.initializers
        )
        opset = helper.make_opsetid("", 13)
        model = helper.make_model(graph, producer_name="onnx-canister", opset_imports=[opset])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def main(out_dir, *sources):
    paths = dict(source.split("=", 1) for source in sources)
    out = Path(out_dir)
    floats = load_float_recipe()
    model = floats.build(floats.read_state_dict(paths["weights"]))
    ranges = json.loads((HERE / "ranges.json").read_text("utf-8"))
    quantized = Quantizer(model, ranges).convert()
    (out / "efficientnet-lite0-int8.onnx").write_bytes(quantized.SerializeToString(deterministic=True))
    text = "".join(label + "\n" for label in floats.labels(paths["synsets"], paths["lemmas"]))
    (out / "labels.txt").write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
