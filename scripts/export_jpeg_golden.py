# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Writes the fixtures of mixer-jpeg with Pillow: small JPEGs, and the pixels that libjpeg-turbo makes
of them.

Run     uv run scripts/export_jpeg_golden.py
Writes  crates/mixer-jpeg/tests/fixtures/
            SAMPLING-WIDTHxHEIGHT.jpg   a file     SAMPLING-WIDTHxHEIGHT.rgb  convert("RGB"), raw
            refused/NAME.jpg            valid files that are left to another decoder

Sizes are those where something ends: a block, an MCU, a pair of pixels, the filter (libjpeg repeats
chroma instead of filtering it up to a width of 2 samples), a step of the vector loops.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, features

FIXTURES = Path(__file__).resolve().parent.parent / "crates/mixer-jpeg/tests/fixtures"
SAMPLINGS = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0", "grey": None}
SIZES = [(1, 1), (2, 3), (4, 9), (5, 4), (7, 5), (8, 8), (16, 16), (17, 33), (31, 2), (33, 18), (64, 48), (83, 35)]
QUALITIES = [92, 100, 60, 20, 75]


def picture(width: int, height: int) -> Image.Image:
    """Gradients, hard edges and noise, so that both flat and crowded blocks occur."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)], -1)
    pixels[(x // 5 + y // 7) % 3 == 0] = (230, 20, 60)
    noise = np.random.default_rng(width * 1000 + height).integers(-90, 90, pixels.shape)
    pixels[x > width * 2 // 3] += noise[x > width * 2 // 3]
    pixels[(x < width // 3) & (y > height // 2)] = (15, 40, 250)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(name: str, image: Image.Image, **options) -> None:
    file = FIXTURES / f"{name}.jpg"
    image.save(file, **options)
    if "/" not in name:
        (FIXTURES / f"{name}.rgb").write_bytes(Image.open(file).convert("RGB").tobytes())


def main() -> None:
    assert features.check("libjpeg_turbo")
    shutil.rmtree(FIXTURES, ignore_errors=True)
    (FIXTURES / "refused").mkdir(parents=True)
    for number, (sampling, subsampling) in enumerate(SAMPLINGS.items()):
        for at, (width, height) in enumerate(SIZES):
            options = {"quality": QUALITIES[(number + at) % len(QUALITIES)], "optimize": at % 2 == 1}
            image = picture(width, height)
            if subsampling is None:
                image = image.convert("L")
            else:
                options["subsampling"] = subsampling
            write(f"{sampling}-{width}x{height}", image, **options)

    image = picture(41, 22)
    write("420-41x22-restarts", image, quality=85, subsampling="4:2:0", restart_marker_blocks=2)
    write("444-41x22-restarts", image, quality=85, subsampling="4:4:4", restart_marker_rows=1)
    small = picture(19, 10)
    write("refused/progressive", small, progressive=True)
    write("refused/cmyk", small.convert("CMYK"))
    write("refused/rgb", small, keep_rgb=True)


if __name__ == "__main__":
    main()
