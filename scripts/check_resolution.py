# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0"]
# ///
"""Checks the exact resolution change on real weights and real pictures, through the command line.

    python scripts/check_resolution.py target/release/mixer WEIGHTS IMAGE [IMAGE ...]

Expands WEIGHTS to K = 2 times their resolution, puts four pictures into the tiles of a large one, and
compares the logits of the large picture with the mean of the logits of the four. Needs at least four
pictures of at least the network's size; exits 1 when the largest difference is above 1e-5 of the largest
logit.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

TOLERANCE = 1e-5


def image_size(weights: Path) -> int:
    """The side of the input, from the metadata of a file that mixer wrote."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return json.loads(header["__metadata__"]["mixer"])["config"]["image_size"]


def logits(mixer: str, weights: Path, images: list[Path]) -> np.ndarray:
    command = [mixer, "predict", weights, *images, "--preprocess", "squash", "--logits", "--format", "json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return np.array([entry["logits"] for entry in json.loads(answer)], dtype=np.float64)


def main() -> int:
    if len(sys.argv) < 7:
        print(__doc__, file=sys.stderr)
        return 2
    mixer, weights, pictures = sys.argv[1], Path(sys.argv[2]), [Path(p) for p in sys.argv[3:]]
    size = image_size(weights)
    with tempfile.TemporaryDirectory() as folder:
        resized = Path(folder) / "resized.safetensors"
        resize = [mixer, "weights", "resize", weights, "--image-size", str(2 * size), "--out", resized]
        subprocess.run(resize, check=True, capture_output=True)
        worst, scale, count = 0.0, 0.0, 0
        for first in range(0, len(pictures) - 3, 4):
            large = Image.new("RGB", (2 * size, 2 * size))
            tiles = []
            for i, picture in enumerate(pictures[first : first + 4]):
                # The same pixels both times, so that only the networks differ.
                tile = Image.open(picture).convert("RGB").resize((size, size))
                tiles.append(Path(folder) / f"tile{i}.png")
                tile.save(tiles[-1])
                large.paste(tile, (i % 2 * size, i // 2 * size))
            path = Path(folder) / "large.png"
            large.save(path)
            expected = logits(mixer, weights, tiles).mean(axis=0)
            found = logits(mixer, resized, [path])[0]
            worst = max(worst, float(np.abs(found - expected).max()))
            scale = max(scale, float(np.abs(expected).max()))
            count += 1
    print(f"{count} large pictures: largest logit difference {worst:.2e}, relative {worst / scale:.2e}")
    return 0 if worst <= TOLERANCE * scale else 1


if __name__ == "__main__":
    sys.exit(main())
