# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "pillow==13.0.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Compares an exported ONNX model, run by onnxruntime, with `mixer predict` and with the same weights in timm.

    uv run scripts/check_onnx.py [WEIGHTS...] [--mixer target/release/mixer]

Without weights it trains small networks with either form of GELU, and changes the resolution of one: to twice as
much, and by interpolation. Ends with 1 where logits differ by more than 1e-6 of the largest.
"""

import argparse
import functools
import importlib
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
from PIL import Image

TOLERANCE = 1e-6

CONFIG = """
[model]
image_size = 16
patch_size = 4
hidden_dim = 24
num_blocks = 3
[data]
source = "builtin"
train_examples = 400
val_examples = 40
[optimizer]
learning_rate = 0.01
[train]
batch_size = 20
steps = 60
"""


def in_timm(weights_folder, tanh):
    """The network in timm, from a folder of `weights export --to timm`."""
    source = f"local-dir:{weights_folder}"
    if (weights_folder / "mixer_timm.py").exists():
        sys.path.insert(0, str(weights_folder))
        importlib.import_module("mixer_timm")
        sys.path.pop(0)
        return timm.create_model(source, pretrained=True)
    arguments = {"act_layer": functools.partial(torch.nn.GELU, approximate="tanh")} if tanh else {}
    return timm.create_model(source, pretrained=True, **arguments)


def check(mixer, weights, folder):
    """The largest difference, as part of the largest logit."""
    folder.mkdir()

    def run(*arguments):
        return subprocess.run([mixer, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    export = ("weights", "export", weights)
    run(*export, folder / "model.onnx", "--to", "onnx")
    run(*export, folder / "pixels.onnx", "--to", "onnx", "--pixels")
    run(*export, folder / "timm", "--to", "timm")
    architecture = json.loads(run("weights", "inspect", weights, "--format", "json"))["architecture"]
    config = json.loads((folder / "timm/config.json").read_text())
    model = in_timm(folder / "timm", architecture["gelu"] == "tanh").eval()
    for name in ("model.onnx", "pixels.onnx"):
        onnx.checker.check_model(folder / name, full_check=True)
    side = architecture["image_size"]
    mean, std = (np.array(config["pretrained_cfg"][key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    sessions = [onnxruntime.InferenceSession(folder / name) for name in ("model.onnx", "pixels.onnx")]
    worst = 0.0
    print(f"{weights}: {architecture['gelu']}, {side} px, tokens_mlp_dim {architecture['tokens_mlp_dim']}")
    for batch in (1, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, side, side, 3), np.uint8)
        paths = []
        for i, picture in enumerate(pixels):
            paths.append(folder / f"{batch}_{i}.png")
            Image.fromarray(picture).save(paths[-1])
        # A picture of the network's size is squashed to itself.
        answers = json.loads(run("predict", weights, *paths, "--preprocess", "squash", "--format", "json", "--logits"))
        pixels = pixels.transpose(0, 3, 1, 2).astype(np.float32)
        normalised = (pixels / 255 - mean) / std
        with torch.inference_mode():
            expected = {"timm": model(torch.from_numpy(normalised)).numpy()}
        expected["mixer"] = np.array([answer["logits"] for answer in answers], np.float32)
        for session, images in zip(sessions, (normalised, pixels)):
            found = session.run(None, {"images": images})[0]
            for name, logits in expected.items():
                difference = np.abs(found - logits).max() / np.abs(logits).max()
                print(f"  batch {batch}, {Path(session._model_path).name} against {name}: {difference:.1e} of the largest logit")
                worst = max(worst, difference)
    metadata = sessions[0].get_modelmeta().custom_metadata_map
    print("  metadata:", {key: value[:60] for key, value in metadata.items()})
    return worst


parser = argparse.ArgumentParser()
parser.add_argument("weights", nargs="*")
parser.add_argument("--mixer", default="target/release/mixer")
args = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    cases = [Path(weights) for weights in args.weights]
    if not cases:
        (folder / "config.toml").write_text(CONFIG)
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for gelu in ("tanh", "erf"):
            subprocess.run([args.mixer, "pretrain", folder / "config.toml", "--run-dir", folder / gelu, "--set", f"model.gelu={gelu}"], **quiet)
            cases.append(folder / gelu)
            for side in (32, 24):
                resized = folder / f"{gelu}_{side}.safetensors"
                subprocess.run([args.mixer, "weights", "resize", folder / gelu, "--image-size", str(side), "--out", resized], **quiet)
                cases.append(resized)
    worst = max(check(args.mixer, weights, folder / f"case_{i}") for i, weights in enumerate(cases))
print(f"largest difference: {worst:.1e}, at most {TOLERANCE}")
sys.exit(int(worst > TOLERANCE))
