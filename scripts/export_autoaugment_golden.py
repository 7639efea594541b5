# /// script
# requires-python = ">=3.11"
# dependencies = ["torchvision>=0.20", "pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Writes what every distortion of torchvision's AutoAugment makes of the two pictures of
export_augment_golden.py, at every magnitude and sign, and its sub-policies.

Run     uv run scripts/export_autoaugment_golden.py
Writes  crates/mixer-data/tests/fixtures/augment/
            autoaugment.txt             one case per line: OP MAGNITUDE SIGN FILL
            autoaugment-PICTURE.png     the results of all cases, one below the other
            autoaugment_policies.txt    POLICY OP PROBABILITY MAGNITUDE OP PROBABILITY MAGNITUDE

It is a script of its own because TensorFlow and PyTorch in one process bring one LLVM each, and abort.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, _apply_op

FIXTURES = Path(__file__).resolve().parent.parent / "crates/mixer-data/tests/fixtures/augment"
FILLS = {"black": None, "bright": [10, 128, 250]}
MAPS = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


def cases():
    for op, (levels, signed) in AutoAugment()._augmentation_space(10, (32, 32)).items():
        for magnitude in range(10 if levels.ndim else 1):
            for sign in [1, -1] if signed else [1]:
                for fill in FILLS if op in MAPS else ["black"]:
                    yield op, magnitude, sign, fill


def apply(pixels: np.ndarray, op: str, magnitude: int, sign: int, fill: str) -> np.ndarray:
    levels, _ = AutoAugment()._augmentation_space(10, pixels.shape[:2])[op]
    level = sign * float(levels[magnitude].item()) if levels.ndim else 0.0
    return np.asarray(_apply_op(Image.fromarray(pixels), op, level, InterpolationMode.NEAREST, FILLS[fill]))


if __name__ == "__main__":
    every = list(cases())
    (FIXTURES / "autoaugment.txt").write_text("".join(" ".join(map(str, case)) + "\n" for case in every))
    for picture in ["scene", "flat"]:
        pixels = np.asarray(Image.open(FIXTURES / f"{picture}.png").convert("RGB"))
        results = np.concatenate([apply(pixels, *case) for case in every])
        Image.fromarray(results).save(FIXTURES / f"autoaugment-{picture}.png", optimize=True)
    lines = []
    for policy in [AutoAugmentPolicy.CIFAR10, AutoAugmentPolicy.IMAGENET, AutoAugmentPolicy.SVHN]:
        for pair in AutoAugment(policy).policies:
            parts = " ".join(f"{op} {float(probability)} {magnitude or 0}" for op, probability, magnitude in pair)
            lines.append(f"{policy.name.lower()} {parts}\n")
    (FIXTURES / "autoaugment_policies.txt").write_text("".join(lines))
    print(f"autoaugment: {len(every)} cases")
