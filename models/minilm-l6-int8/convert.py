"""The network is ready as it is.

    python convert.py OUT_DIR model=PATH

writes OUT_DIR/minilm-l6-int8.onnx, the same bytes.
"""

import sys
from pathlib import Path


def main(out_dir, *sources):
    paths = dict(source.split("=", 1) for source in sources)
    (Path(out_dir) / "minilm-l6-int8.onnx").write_bytes(Path(paths["model"]).read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
