# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.0", "torchvision==0.29.2", "timm==1.0.31", "pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Times RandAugment of torchvision, timm and mixer-data, in turn, on one core.

Run     cargo build --release -p mixer-data --example augment_speed
        uv run scripts/bench_augment.py target/release/examples/augment_speed [ROUNDS]

Every picture is 224 × 224 in memory; torchvision and timm work on Pillow images, as their training
scripts do. Without noise on timm's magnitude: it would ask Pillow for 0 bits. A round measures everybody once, and the least mean over the rounds counts.
"""

import random
import re
import subprocess
import sys
import time

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import RandAugment

SIDE, PICTURES, KEYS = 224, 64, 16


def pictures() -> list[Image.Image]:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    noise = np.random.default_rng(0)
    result = []
    for picture in range(PICTURES):
        edge = np.where((x // 40 + y // 56 + picture) % 3 == 0, 60, 0)
        base = edge + noise.integers(0, 16, (SIDE, SIDE)) + picture // 3
        pixels = np.stack([c * 150 // SIDE + base for c in (x, y, (x + y) // 2)], -1)
        result.append(Image.fromarray(pixels.astype(np.uint8)))
    return result


def micros(apply, images) -> float:
    start = time.perf_counter()
    for _ in range(KEYS):
        for image in images:
            apply(image)
    return (time.perf_counter() - start) * 1e6 / (KEYS * len(images))


def main() -> None:
    binary, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    images = pictures()
    grey = {"img_mean": (128, 128, 128)}
    python = {
        "torchvision(2, 15)": RandAugment(2, 15),
        "timm rand-m15-n2": rand_augment_transform("rand-m15-n2", dict(grey)),
        "timm rand-m9-n2-inc1": rand_augment_transform("rand-m9-n2-inc1", dict(grey)),
    }
    least: dict[str, float] = {}
    for _ in range(rounds):
        for name, apply in python.items():
            key = f"python {name}"
            least[key] = min(least.get(key, 1e9), micros(apply, images))
        output = subprocess.run([binary, "recipes", "1"], capture_output=True, text=True, check=True).stdout
        for name, value in re.findall(r"recipe (.*): ([\d.]+) us", output):
            key = f"mixer {name}"
            least[key] = min(least.get(key, 1e9), float(value))
    for name, value in least.items():
        print(f"{name}: {value:.0f} us")
    ratios = {
        "mixer big_vision(2, 15)": "python torchvision(2, 15)",
        "mixer timm rand-m15-n2": "python timm rand-m15-n2",
        "mixer timm rand-m9-n2-mstd0.5-inc1": "python timm rand-m9-n2-inc1",
    }
    for ours, theirs in ratios.items():
        print(f"{ours} / {theirs}: {least[ours] / least[theirs]:.2f}")


if __name__ == "__main__":
    main()
