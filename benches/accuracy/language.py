#!/usr/bin/env python3
"""How far a language model's answers in the canister are from onnxruntime's in float32, token by token of a real text.

    pip install numpy onnxruntime tokenizers
    cargo xtask demo --keep --port 8123          # elsewhere; its last lines name the canister
    python benches/accuracy/language.py --canister ID --replica-url http://127.0.0.1:8123

The text is this repository's LICENSE, that of the Apache licence, fed in windows: every position sees the true tokens before it.
Prints the mean Kullback-Leibler divergence to onnxruntime's distribution (nats) and how often the most probable token is the
same. Weights are those of the file, dequantised; onnxruntime optimises nothing.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canister", required=True)
    parser.add_argument("--replica-url", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="name of the recipe, and in the canister")
    parser.add_argument("--uploader", default=str(ROOT / "target/debug/model-uploader"))
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "LICENSE")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of a window")
    options = parser.parse_args()

    fetched = subprocess.run(
        [options.uploader, "fetch", options.model, "--json"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    folder = pathlib.Path(json.loads(fetched.stdout)["files"][0]).parent
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(options.text.read_text()).ids
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(folder / "model.onnx"), settings)
    call = [options.uploader, "--quiet", "--replica-url", options.replica_url, "--anonymous", "--canister", options.canister]

    divergences, equal = [], []
    for window in range(options.windows):
        ids = tokens[window * options.tokens : (window + 1) * options.tokens]
        if len(ids) < options.tokens:
            break
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "position_ids": np.arange(len(ids), dtype=np.int64)[None],
        }
        for value in session.get_inputs():
            if value.name not in inputs:
                inputs[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        inputs = {value.name: inputs[value.name] for value in session.get_inputs()}
        [expected] = session.run(["logits"], inputs)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = []
            for index, (name, value) in enumerate(inputs.items()):
                np.save(f"{scratch}/{index}.npy", value)
                arguments += ["--input", f"{name}={scratch}/{index}.npy"]
            command = [*call, "infer", options.model, *arguments, "--output", "logits", "--output-dir", scratch]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            got = np.load(f"{scratch}/logits.npy")
        ours, theirs = log_softmax(got[0]), log_softmax(expected[0])
        divergences.append((np.exp(theirs) * (theirs - ours)).sum(-1))
        equal.append(got[0].argmax(-1) == expected[0].argmax(-1))
    divergences, equal = np.concatenate(divergences), np.concatenate(equal)
    print(f"{len(divergences)} positions of {options.text.name}: mean KL {divergences.mean():.5f}, ", end="")
    print(f"largest {divergences.max():.3f}; the most probable token is the same at {100 * equal.mean():.1f} %")


if __name__ == "__main__":
    main()
