"""Measures the ranges of EfficientNet-Lite0's activations, for convert.py.

    python calibrate.py efficientnet-lite0.onnx ranges.json PHOTO...

needs numpy, onnx, onnxruntime and pillow. From every photo it cuts squares of several sizes and places, mirrored too, and
runs the float32 network on them. A range is where all but one in a million of a tensor's values lie, on either side.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image

SIDE = 224
SCALES = (1.0, 0.75, 0.5)
PLACES = (0.0, 0.5, 1.0)
OUTSIDE = 1e-6


def crops(path):
    image = Image.open(path).convert("RGB")
    shorter = min(image.size)
    for scale in SCALES:
        side = int(shorter * scale)
        for x in PLACES:
            for y in PLACES:
                left, top = int((image.width - side) * x), int((image.height - side) * y)
                crop = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.BILINEAR)
                for view in (crop, crop.transpose(Image.FLIP_LEFT_RIGHT)):
                    pixels = (np.asarray(view, np.float32) - 127) / 128
                    yield np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def main(model_path, ranges_path, *photos):
    model = onnx.load(model_path)
    clipped = {node.input[0] for node in model.graph.node if node.op_type == "Clip"}
    names = [node.output[0] for node in model.graph.node if node.output[0] not in clipped and node.op_type != "Flatten"]
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    lows, highs = {name: [] for name in names}, {name: [] for name in names}
    for photo in photos:
        for crop in crops(photo):
            for name, value in zip(names, session.run(names, {"image": crop})):
                low, high = np.quantile(value, [OUTSIDE, 1 - OUTSIDE])
                lows[name].append(low)
                highs[name].append(high)
    ranges = {"image": [-127 / 128, 1.0]}
    for name in names:
        ranges[name] = [round(float(min(lows[name])), 4), round(float(max(highs[name])), 4)]
    with open(ranges_path, "w", encoding="utf-8") as file:
        json.dump(ranges, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
