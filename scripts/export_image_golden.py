# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Writes the image fixtures of mixer-data with Pillow: small files of every kind, and what Pillow
makes of them.

Run     uv run scripts/export_image_golden.py
Writes  crates/mixer-data/tests/fixtures/
            decode/NAME.EXT   a file           decode/NAME.rgb  convert("RGB"), raw
            resize/NAME.png   a picture        resize/CASE.rgb  its resized versions, raw

A case is named SOURCE-SIZE-WHAT-FILTER. WHAT is `squash` or `resmall_FRACTION`, where the shorter
side becomes floor(SIZE / FRACTION) and the centre is cut, with the roundings of torchvision's
Resize and CenterCrop.
"""

import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).resolve().parent.parent / "crates/mixer-data/tests/fixtures"
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
}


def picture(width: int, height: int) -> Image.Image:
    """Smooth colours with a few hard edges, so that it shrinks well and tests antialiasing."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)], -1)
    pixels[(x // 3 + y // 5) % 4 == 0] //= 2
    pixels[(x - width // 2) ** 2 + (y - height // 3) ** 2 < (height // 5) ** 2] = (250, 240, 10)
    return Image.fromarray(pixels.astype(np.uint8))


def write_decode(folder: Path) -> None:
    rgb = picture(29, 18)
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    palette = rgb.quantize(16)
    grey = rgb.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned, rotate by 90 degrees to view
    jpeg = {"quality": 90, "subsampling": 0}
    files = {
        "baseline.jpg": (rgb, jpeg),
        "subsampled.jpg": (rgb, {"quality": 90, "subsampling": 2}),
        "restarts.jpg": (rgb, {**jpeg, "restart_marker_blocks": 2}),
        "progressive.jpg": (rgb, {**jpeg, "progressive": True}),
        "grey.jpg": (grey, {"quality": 90}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 90}),
        "orientation.jpg": (rgb, {**jpeg, "exif": exif}),
        "rgb.png": (rgb, {}),
        "rgba.png": (rgba, {}),
        "grey.png": (grey, {}),
        "grey_alpha.png": (rgba.convert("LA"), {}),
        "palette.png": (palette, {}),
        "palette_transparent.png": (palette, {"transparency": 3}),
        "one_bit.png": (grey.convert("1"), {}),
        "animated.gif": (rgb, {"save_all": True, "append_images": [rgb.rotate(180)]}),
        "rgb.bmp": (rgb, {}),
        "palette.bmp": (palette, {}),
        "lossless.webp": (rgb, {"lossless": True}),
        "lossy.webp": (rgb, {"quality": 90}),
        "alpha.webp": (rgba, {"lossless": True, "exact": True}),
    }
    for name, (image, options) in files.items():
        path = folder / name
        image.save(path, **options)
        with Image.open(path) as opened:
            path.with_name(f"{name}.rgb").write_bytes(opened.convert("RGB").tobytes())


def resmall_crop(image: Image.Image, size: int, fraction: float, resample: int) -> Image.Image:
    short = math.floor(size / fraction)
    width, height = image.size
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    image = image.resize(resized, resample)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def write_resize(folder: Path) -> None:
    for source, width, height in [("landscape", 97, 61), ("portrait", 53, 88), ("small", 17, 13)]:
        image = picture(width, height)
        image.save(folder / f"{source}.png", optimize=True)
        # 21 / 0.875 is 24, and the centre offset is a half that rounds to even.
        size = 21
        for name, resample in FILTERS.items():
            cases = {
                "squash": image.resize((size, size), resample),
                "resmall_0.875": resmall_crop(image, size, 0.875, resample),
                "resmall_1": resmall_crop(image, size, 1.0, resample),
            }
            for case, result in cases.items():
                (folder / f"{source}-{size}-{case}-{name}.rgb").write_bytes(result.tobytes())


if __name__ == "__main__":
    for kind, write in {"decode": write_decode, "resize": write_resize}.items():
        shutil.rmtree(FIXTURES / kind, ignore_errors=True)
        (FIXTURES / kind).mkdir(parents=True)
        write(FIXTURES / kind)
