# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Compares an exported ONNX model, run by onnxruntime, with the same weights in timm.

    uv run scripts/check_onnx.py WEIGHTS [--mixer target/release/mixer]

Ends with 1 where logits differ by more than 1e-6 of the largest.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch

parser = argparse.ArgumentParser()
parser.add_argument("weights")
parser.add_argument("--mixer", default="target/release/mixer")
args = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    export = [args.mixer, "weights", "export", args.weights]
    for arguments in (["model.onnx", "--to", "onnx"], ["pixels.onnx", "--to", "onnx", "--pixels"], ["timm", "--to", "timm"]):
        subprocess.run(export + [folder / arguments[0]] + arguments[1:], check=True, stderr=subprocess.DEVNULL)
    summary = json.loads(subprocess.check_output([args.mixer, "weights", "inspect", args.weights, "--format", "json"]))
    config = json.loads((folder / "timm/config.json").read_text())
    if (folder / "timm/mixer_timm.py").exists():
        sys.path.insert(0, str(folder / "timm"))
        import mixer_timm  # noqa: F401
        model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True)
    else:
        tanh = "tanh" in json.dumps(summary).lower()
        arguments = {"act_layer": functools.partial(torch.nn.GELU, approximate="tanh")} if tanh else {}
        model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True, **arguments)
    model.eval()
    for name in ("model.onnx", "pixels.onnx"):
        onnx.checker.check_model(folder / name, full_check=True)
    side = config["pretrained_cfg"]["input_size"][-1]
    mean, std = (np.array(config["pretrained_cfg"][key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    sessions = [onnxruntime.InferenceSession(folder / name) for name in ("model.onnx", "pixels.onnx")]
    worst = 0.0
    for batch in (1, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 3, side, side)).astype(np.float32)
        normalised = (pixels / 255 - mean) / std
        with torch.inference_mode():
            expected = model(torch.from_numpy(normalised)).numpy()
        for session, images in zip(sessions, (normalised, pixels)):
            found = session.run(None, {"images": images})[0]
            difference = np.abs(found - expected).max() / np.abs(expected).max()
            print(f"batch {batch}, {Path(session._model_path).name}: {difference:.1e} of the largest logit")
            worst = max(worst, difference)
    metadata = sessions[0].get_modelmeta().custom_metadata_map
    print("metadata:", {key: value[:60] for key, value in metadata.items()})
sys.exit(worst > 1e-6)
