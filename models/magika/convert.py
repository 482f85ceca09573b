"""The network is ready as it is; its labels are in the package's configuration.

    python convert.py OUT_DIR model=PATH config=PATH

writes OUT_DIR/magika.onnx, the same bytes, and OUT_DIR/labels.txt.
"""

import json
import sys
from pathlib import Path


def main(out_dir, *sources):
    paths = dict(source.split("=", 1) for source in sources)
    out = Path(out_dir)
    labels = json.loads(Path(paths["config"]).read_bytes())["target_labels_space"]
    (out / "magika.onnx").write_bytes(Path(paths["model"]).read_bytes())
    (out / "labels.txt").write_bytes("".join(label + "\n" for label in labels).encode("utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
