# /// script
# requires-python = ">=3.11"
# dependencies = ["pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Writes the fixtures of mixer-jpeg with Pillow: small JPEGs, and the pixels that libjpeg-turbo makes
of them.

Run     uv run scripts/export_jpeg_golden.py
Writes  crates/mixer-jpeg/tests/fixtures/
            SAMPLING-WIDTHxHEIGHT.jpg   a file     SAMPLING-WIDTHxHEIGHT.rgb  convert("RGB"), raw
            SAMPLING-WIDTHxHEIGHT.scaled  the same at a half, a quarter and an eighth of the size
            whole/NAME-WIDTHxHEIGHT.*   the same for what is only decoded whole: any scans, sampling, colours

Sizes are those where something ends: a block, an MCU, a pair of pixels, the filter (libjpeg repeats
chroma instead of filtering it up to a width of 2 samples), a step of the vector loops.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, features

from jpeg_scans import PROGRESSIVE, Encoder, marker, separate

FIXTURES = Path(__file__).resolve().parent.parent / "crates/mixer-jpeg/tests/fixtures"
SAMPLINGS = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0", "grey": None}
SIZES = [(1, 1), (2, 3), (4, 9), (5, 4), (7, 5), (8, 8), (16, 16), (17, 33), (31, 2), (33, 18), (64, 48), (83, 35)]
WHOLE_SAMPLINGS = {
    "444": [(1, 1)] * 3,
    "422": [(2, 1), (1, 1), (1, 1)],
    "440": [(1, 2), (1, 1), (1, 1)],
    "420": [(2, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "mixed": [(2, 2), (2, 1), (1, 2)],
    "coarse_luma": [(1, 1), (2, 2), (2, 1)],
}
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
    write_pixels(file)


def write_pixels(file: Path) -> None:
    file.with_suffix(".rgb").write_bytes(Image.open(file).convert("RGB").tobytes())
    file.with_suffix(".scaled").write_bytes(b"".join(at_scale(Image.open(file), by).convert("RGB").tobytes() for by in (2, 4, 8)))


def at_scale(image: Image.Image, by: int) -> Image.Image:
    """What `Image.draft` does, at sizes too at which it would not."""
    image._size = tuple(-(-side // by) for side in image.size)
    image.tile = [tile._replace(extents=(0, 0, *image.size)) for tile in image.tile]
    image.decoderconfig = (by, 0)
    return image


def write_scans(name: str, encoder: Encoder, *options, **named) -> None:
    file = FIXTURES / f"whole/{name}-{encoder.width}x{encoder.height}.jpg"
    file.write_bytes(encoder.encode(*options, **named))
    write_pixels(file)


def write_whole() -> None:
    """Any split into scans of any sampling, at sizes where filters begin and blocks end."""
    for number, (name, factors) in enumerate(WHOLE_SAMPLINGS.items()):
        small, large = Encoder(3 + number % 3, 5 - number % 4, factors, number), Encoder(19, 9 + 2 * number, factors, 50 + number)
        write_scans(f"{name}_separate", small, [(0,), (1,), (2,)])
        write_scans(f"{name}_separate_restarts", large, [(2,), (0,), (1,)], restart=2)
        write_scans(f"{name}_progressive", small, separate(3), progressive=True)
        if sum(h * v for h, v in factors) <= 10:
            write_scans(f"{name}_progressive", large, PROGRESSIVE, progressive=True, restart=number % 3)
            write_scans(f"{name}_together", Encoder(7, 3, factors, 70 + number), [(0, 1, 2)])
        else:
            write_scans(f"{name}_progressive", large, separate(3), progressive=True, restart=number % 3)
    write_scans("420_luma_first", Encoder(21, 13, WHOLE_SAMPLINGS["420"], 90), [(0,), (1, 2)])
    write_scans("420_pairs", Encoder(21, 13, WHOLE_SAMPLINGS["420"], 91), [(0, 1), (2,)], restart=1)
    write_scans("420_dense", Encoder(18, 18, WHOLE_SAMPLINGS["420"], 92, 0.7), PROGRESSIVE, progressive=True)
    write_scans("grey_blocks", Encoder(9, 17, [(2, 2)], 93), [(0,)])
    write_scans("grey_progressive", Encoder(17, 9, [(1, 1)], 94), separate(1), progressive=True)
    adobe = {kind: marker(0xEE, b"Adobe\0d\0\0\0\0" + bytes([kind])) for kind in (0, 1, 2)}
    full, half = [(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)]
    write_scans("rgb", Encoder(6, 10, full[:3], 95), [(0, 1, 2)], markers=adobe[0])
    write_scans("cmyk", Encoder(10, 6, full, 96), [(0, 1, 2, 3)], markers=adobe[0])
    write_scans("cmyk_no_marker", Encoder(5, 5, full, 97), [(0,), (1,), (2,), (3,)])
    write_scans("ycck", Encoder(11, 7, half, 98), [(0, 1, 2, 3)], markers=adobe[2])
    write_scans("ycck_progressive", Encoder(18, 11, half, 99), separate(4), progressive=True, markers=adobe[2])


def main() -> None:
    assert features.check("libjpeg_turbo")
    shutil.rmtree(FIXTURES, ignore_errors=True)
    (FIXTURES / "whole").mkdir(parents=True)
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
    write("whole/pillow_progressive-19x10", small, progressive=True)
    write("whole/pillow_cmyk-19x10", small.convert("CMYK"))
    write("whole/pillow_rgb-19x10", small, keep_rgb=True)
    write_whole()


if __name__ == "__main__":
    main()
