"""A safetensors file whose bytes depend on the tensors alone, for the fixtures of tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np


def write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """A safetensors file with a sorted header."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    body = b""
    for name, tensor in sorted(tensors.items()):
        kind = {"float16": "F16", "float32": "F32", "int64": "I64"}[str(tensor.dtype)]
        data = np.ascontiguousarray(tensor).tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
