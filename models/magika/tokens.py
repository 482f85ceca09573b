"""Makes Magika's input tensor from a file.

    python tokens.py FILE OUT.npy
    model-uploader classify magika OUT.npy

The tensor is int32 [1, 2048]: the first 1024 bytes after leading white space, padded at their end, and the last
1024 bytes before trailing white space, padded at their beginning. The padding token is 256. White space is looked for
in the first and last 4096 bytes only. A file with fewer than 8 bytes left is too short for the network.
"""

import struct
import sys
from pathlib import Path

BLOCK_BYTES = 4096
SIDE_TOKENS = 1024
PADDING_TOKEN = 256
BYTES_MIN = 8


def tokens(content):
    head = list(content[:BLOCK_BYTES].lstrip()[:SIDE_TOKENS])
    tail = list(content[-BLOCK_BYTES:].rstrip()[-SIDE_TOKENS:])
    if len(head) < BYTES_MIN:
        raise SystemExit(f"{len(head)} bytes besides white space; the network needs {BYTES_MIN}")
    padding = [PADDING_TOKEN]
    return head + padding * (SIDE_TOKENS - len(head)) + padding * (SIDE_TOKENS - len(tail)) + tail


def npy(values):
    """A version 1.0 .npy file: magic, header length, header padded to a multiple of 64, little-endian elements."""
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': (1, {len(values)}), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(values)}i", *values)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_bytes(npy(tokens(Path(source).read_bytes())))
