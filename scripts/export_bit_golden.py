# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Makes the golden numbers that the BiT-ResNet is held against.

    uv run scripts/export_bit_golden.py [--out DIR]

The reference is `timm.models.resnetv2.ResNetV2` as `resnetv2_50x1_bit` has it, with
three narrow stages and four groups: its weights, inputs, features, logits and loss,
and the gradient of every parameter. Weights are rounded to float16, in which the file
has them, and everything is computed in float32 on the CPU. The weights file carries
the header of `mixer`, since groups and the size of pictures leave no trace in shapes.

The sides of its grids, 36, 18, 9, 5 and 3, are odd where a stride meets them. No
parameter is left at zero or one. Running the script again writes the same bytes.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors_file import write
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

BATCH, IMAGE_SIZE, PATCH_SIZE, CLASSES, GROUPS = 3, 36, 6, 7, 4
DEPTHS, WIDTHS, STEM = [2, 1, 1], (32, 64, 128), 8
SEED = 20191224


def network() -> ResNetV2:
    return ResNetV2(
        layers=DEPTHS,
        channels=WIDTHS,
        stem_chs=STEM,
        num_classes=CLASSES,
        stem_type="fixed",
        conv_layer=partial(StdConv2d, eps=1e-8),
        norm_layer=partial(GroupNormAct, num_groups=GROUPS),
    )


def fill(model: ResNetV2, rng: np.random.Generator) -> None:
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if len(shape) > 1:
            # Standardisation takes the mean away, and divides by the deviation.
            values = 0.05 + rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            values = 1.0 + 0.2 * rng.standard_normal(shape)
        else:
            values = 0.3 * rng.standard_normal(shape)
        parameter.data = torch.from_numpy(values.astype(np.float16).astype(np.float32))


def metadata() -> dict[str, str]:
    config = {
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "hidden_dim": WIDTHS[-1],
        "depths": DEPTHS,
        "num_groups": GROUPS,
        "channels_mlp_dim": WIDTHS[-1] // 4,
        "num_blocks": sum(DEPTHS),
        "num_classes": CLASSES,
    }
    return {"format": "pt", "mixer": json.dumps({"format_version": 1, "config": config})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent / "crates/mixer-model/tests/fixtures"
    parser.add_argument("--out", type=Path, default=default)
    out = parser.parse_args().out

    rng = np.random.default_rng(SEED)
    model = network().eval()
    fill(model, rng)
    images = rng.standard_normal((BATCH, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    x = torch.from_numpy(images)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    logits = model(x)
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()

    tensors = {n: p.detach().numpy().astype(np.float16) for n, p in model.named_parameters()}
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
    values = {
        "images": images,
        "labels": labels,
        "features": features.detach().numpy().reshape(BATCH, WIDTHS[-1]),
        "logits": logits.detach().numpy(),
        "loss": loss.detach().numpy().reshape(1),
    }
    write(out / "bit.safetensors", tensors, metadata())
    write(out / "bit_grads.safetensors", gradients, metadata())
    write(out / "bit_io.safetensors", values, {})


if __name__ == "__main__":
    main()
