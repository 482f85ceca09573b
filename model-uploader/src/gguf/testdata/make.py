"""Makes the fixtures of dequantise.rs and pack.rs: blocks, and their numbers by the PyPI package `gguf`.

Run it in this folder with gguf and numpy installed: `python make.py`.
"""

import numpy as np
from gguf import GGMLQuantizationType as Type, quants

BLOCKS = 16
# Half-precision scales: none, the least, subnormal, small, negative, one, the largest.
SCALES = [0.0, 6e-8, 3e-6, -4e-5, 0.0123, -0.7, 1.0, 65504.0]
# Where a format multiplies the half by small integers, the largest product is far beyond anything but finite.
rng = np.random.default_rng(20240601)


def scales(shift):
    chosen = [SCALES[(index + shift) % len(SCALES)] for index in range(BLOCKS)]
    return np.array(chosen, np.float16).view(np.uint8).reshape(BLOCKS, 2)


def random(count):
    return rng.integers(0, 256, (BLOCKS, count), np.uint8)


# The second half of the blocks pairs each scale with another offset than the first.
offsets = np.concatenate([scales(3)[: BLOCKS // 2], scales(6)[BLOCKS // 2 :]])
LAYOUTS = {
    "q4_0": (Type.Q4_0, [scales(0), random(16)]),
    "q4_1": (Type.Q4_1, [scales(0), offsets, random(16)]),
    "q8_0": (Type.Q8_0, [scales(0), random(32)]),
    "q4_k": (Type.Q4_K, [scales(0), offsets, random(12), random(128)]),
    "q6_k": (Type.Q6_K, [random(128), random(64), random(16), scales(0)]),
}

for name, (kind, parts) in LAYOUTS.items():
    blocks = np.concatenate(parts, axis=1)
    numbers = quants.dequantize(blocks, kind)
    assert np.isfinite(numbers).all()
    blocks.tofile(f"{name}.blocks")
    numbers.astype("<f4").tofile(f"{name}.numbers")

floats = np.concatenate([np.array(SCALES, np.float32), rng.normal(size=56).astype(np.float32)])
half = floats.astype(np.float16)
half.tofile("f16.blocks")
half.astype("<f4").tofile("f16.numbers")
brain = quants.quantize(floats, Type.BF16)
brain.tofile("bf16.blocks")
quants.dequantize(brain, Type.BF16).astype("<f4").tofile("bf16.numbers")
