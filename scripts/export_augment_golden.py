# /// script
# requires-python = ">=3.11"
# dependencies = ["tensorflow-cpu==2.21.0", "timm==1.0.31", "pillow==13.0.0", "numpy==2.4.6"]
# ///
"""Writes the augmentation fixtures of mixer-data: two small pictures, and what every distortion of the
two RandAugments makes of them.

Run     uv run scripts/export_augment_golden.py
Writes  crates/mixer-data/tests/fixtures/augment/
            PICTURE.png            a picture: `scene`, or `flat` with few values
            FLAVOUR.txt            one case per line
            FLAVOUR-PICTURE.png    the results of all cases, one below the other

A case of `big_vision` is OP MAGNITUDE SIGN ROW COLUMN; the last two are the middle of a cutout. A case
of `timm` is OP MAGNITUDE SIGN SET FILTER, where SET is `rand` or `inc`.

The distortions of big_vision are written here from their definitions, with TensorFlow operations, as
they run inside a traced function: its archived code needs TensorFlow Addons, which no longer exist for
this TensorFlow. Those of timm are timm's own; only its coin is replaced.
"""

import os

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its convolutions add up in another order
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import importlib.util
import math
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

# Without its package, which would load PyTorch: that and TensorFlow bring one LLVM each, and abort.
location = Path(importlib.util.find_spec("timm").submodule_search_locations[0]) / "data/auto_augment.py"
spec = importlib.util.spec_from_file_location("auto_augment", location)
auto_augment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(auto_augment)

FIXTURES = Path(__file__).resolve().parent.parent / "crates/mixer-data/tests/fixtures/augment"
GREY = 128
tf.get_logger().setLevel("ERROR")  # every case is traced on its own, and that is meant


def scene(side: int = 28) -> np.ndarray:
    """Smooth colours, hard edges and some noise, so that every distortion has something to show."""
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([30 + x * 190 // side, 240 - y * 180 // side, 20 + (x + 2 * y) * 70 // side], -1)
    pixels[(x - side // 2) ** 2 + (y - side // 3) ** 2 < (side // 5) ** 2] = (250, 235, 12)
    pixels[(x > 3) & (x < 10) & (y > side - 9)] = (5, 60, 130)
    noise = np.random.default_rng(0).integers(-9, 10, pixels.shape)
    return np.clip(pixels + noise * (x > side // 2)[..., None], 0, 255).astype(np.uint8)


def flat(side: int = 12) -> np.ndarray:
    """One value in one channel, two in another, few in the third."""
    y, x = np.mgrid[0:side, 0:side]
    return np.stack([np.full_like(x, 200), np.where(x < 5, 90, 143), 120 + x // 2 + y // 3], -1).astype(np.uint8)


PICTURES = {"scene": scene(), "flat": flat()}

# --- big_vision ---------------------------------------------------------------------------------------


def blend(start, end, factor):
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    return tf.cast(tf.clip_by_value(start + factor * (end - start), 0.0, 255.0), tf.uint8)


def grey(image):
    return tf.image.rgb_to_grayscale(image)


def mean_grey(image):
    counts = tf.histogram_fixed_width(tf.cast(grey(image), tf.int32), [0, 255], nbins=256)
    total = tf.reduce_sum(tf.cast(counts, tf.float32) * tf.linspace(0.0, 255.0, 256))
    mean = total / float(image.shape[0] * image.shape[1])
    return tf.fill(image.shape, tf.cast(tf.clip_by_value(mean, 0.0, 255.0), tf.uint8))


def smooth(image):
    kernel = tf.constant([1, 1, 1, 1, 5, 1, 1, 1, 1], tf.float32, [3, 3, 1, 1]) / 13.0
    padded = tf.cast(image, tf.float32)[None]
    inner = tf.nn.depthwise_conv2d(padded, tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID")[0]
    inner = tf.cast(tf.clip_by_value(inner, 0.0, 255.0), tf.uint8)
    inside = tf.pad(tf.ones_like(inner), [[1, 1], [1, 1], [0, 0]])
    return tf.where(inside == 1, tf.pad(inner, [[1, 1], [1, 1], [0, 0]]), image)


def stretch(channel):
    low, high = tf.cast(tf.reduce_min(channel), tf.float32), tf.cast(tf.reduce_max(channel), tf.float32)
    scale = 255.0 / (high - low)
    stretched = tf.cast(channel, tf.float32) * scale + (-low * scale)
    return tf.cond(high > low, lambda: tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8), lambda: channel)


def equalize(channel):
    values = tf.cast(channel, tf.int32)
    counts = tf.histogram_fixed_width(values, [0, 255], nbins=256)
    present = tf.boolean_mask(counts, counts > 0)
    step = (tf.reduce_sum(present) - present[-1]) // 255
    sums = tf.cumsum(counts, exclusive=True)

    def mapped():
        # The first entry is 0 whatever half a step is.
        table = tf.concat([[0], (sums[1:] + step // 2) // step], 0)
        return tf.cast(tf.gather(tf.clip_by_value(table, 0, 255), values), tf.uint8)

    return tf.cond(step == 0, lambda: channel, mapped)


def channels(function, image):
    return tf.stack([function(image[..., channel]) for channel in range(3)], -1)


def moved(image, transform):
    """TensorFlow Addons' `transform`: from places of the result to places of the picture."""
    side = image.shape[0]
    arguments = {"transforms": tf.cast(tf.stack(transform), tf.float32)[None], "output_shape": [side, side]}
    arguments |= {"fill_value": 0.0, "interpolation": "NEAREST", "fill_mode": "CONSTANT"}
    result = tf.raw_ops.ImageProjectiveTransformV3(images=image[None], **arguments)[0]
    inside = tf.raw_ops.ImageProjectiveTransformV3(images=tf.ones_like(image)[None], **arguments)[0]
    return tf.where(inside == 0, tf.cast(GREY, tf.uint8), result)


def rotate(image, degrees):
    """TensorFlow Addons' `rotate`, in float32."""
    radians = tf.constant(degrees, tf.float32) * (math.pi / 180.0)
    last = tf.constant(image.shape[0], tf.float32) - 1
    cos, sin = tf.cos(radians), tf.sin(radians)
    x_offset = (last - (cos * last - sin * last)) / 2.0
    y_offset = (last - (sin * last + cos * last)) / 2.0
    return moved(image, [cos, -sin, x_offset, sin, cos, y_offset, 0.0, 0.0])


def cutout(image, half, row, column):
    y, x = tf.range(image.shape[0])[:, None, None], tf.range(image.shape[1])[None, :, None]
    inside = (y >= row - half) & (y < row + half) & (x >= column - half) & (x < column + half)
    return tf.where(inside, tf.cast(GREY, tf.uint8), image)


def solarize_add(image, addition):
    added = tf.cast(tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255), tf.uint8)
    return tf.where(image < 128, added, image)


def posterize(image, bits):
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, 8 - bits), 8 - bits)


def big_vision(image, op, magnitude, sign, row, column):
    level = magnitude / 10.0
    factor = level * 1.8 + 0.1
    apply = {
        "AutoContrast": lambda x: channels(stretch, x),
        "Equalize": lambda x: channels(equalize, x),
        "Invert": lambda x: 255 - x,
        "Rotate": lambda x: rotate(x, sign * level * 30.0),
        "Posterize": lambda x: posterize(x, int(level * 4)),
        # In a traced function the threshold becomes a uint8, modulo 256.
        "Solarize": lambda x: tf.where(x < int(level * 256), x, 255 - x),
        "Color": lambda x: blend(tf.image.grayscale_to_rgb(grey(x)), x, factor),
        "Contrast": lambda x: blend(mean_grey(x), x, factor),
        "Brightness": lambda x: blend(tf.zeros_like(x), x, factor),
        "Sharpness": lambda x: blend(smooth(x), x, factor),
        "ShearX": lambda x: moved(x, [1.0, sign * level * 0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        "ShearY": lambda x: moved(x, [1.0, 0.0, 0.0, sign * level * 0.3, 1.0, 0.0, 0.0, 0.0]),
        "TranslateX": lambda x: moved(x, [1.0, 0.0, sign * level * 100.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        "TranslateY": lambda x: moved(x, [1.0, 0.0, 0.0, 0.0, 1.0, sign * level * 100.0, 0.0, 0.0]),
        "Cutout": lambda x: cutout(x, int(level * 40), row, column),
        "SolarizeAdd": lambda x: solarize_add(x, int(level * 110)),
    }[op]
    return tf.function(apply)(tf.constant(image)).numpy()


def big_vision_cases():
    for op in ["AutoContrast", "Equalize", "Invert"]:
        yield op, 10, 1, 0, 0
    for op in ["Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"]:
        for magnitude in [3, 10, 15, 20]:
            yield op, magnitude, 1, 0, 0
    for op, magnitudes in {
        "Rotate": [3, 10, 15],
        "ShearX": [3, 10, 15],
        "ShearY": [3, 10, 15],
        "TranslateX": [0.7, 1, 15],
        "TranslateY": [0.7, 1],
    }.items():
        for magnitude in magnitudes:
            for sign in [1, -1]:
                yield op, magnitude, sign, 0, 0
    for magnitude, row, column in [(1, 5, 9), (2, 0, 11), (1, 11, 11), (15, 3, 3)]:
        yield "Cutout", magnitude, 1, row, column


# --- timm -----------------------------------------------------------------------------------------------

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
INCREASING = {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"}
MAPS = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]


def timm(image, op, magnitude, sign, which, sampling):
    name = f"{op}Increasing" if which == "inc" and op in INCREASING else op
    # timm turns the direction round where its coin is above one half.
    auto_augment.random.random = lambda: 0.25 if sign > 0 else 0.75
    hparams = {"img_mean": (GREY,) * 3, "interpolation": FILTERS[sampling], "magnitude_max": 30}
    apply = auto_augment.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=hparams)
    return np.asarray(apply(Image.fromarray(image)))


def timm_cases():
    for op in ["AutoContrast", "Equalize", "Invert"]:
        yield op, 10, 1, "rand", "bilinear"
    for op in ["Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"]:
        for magnitude in [3, 9, 15]:
            yield op, magnitude, 1, "rand", "bilinear"
    # From a magnitude of 10 on no bit would be kept, which this Pillow refuses.
    for op, magnitudes in {"Posterize": [3, 6, 9], "Solarize": [3, 9, 15]}.items():
        for magnitude in magnitudes:
            yield op, magnitude, 1, "inc", "bilinear"
    for op in ["Color", "Contrast", "Brightness", "Sharpness"]:
        for magnitude in [3, 9]:
            for sign in [1, -1]:
                yield op, magnitude, sign, "inc", "bilinear"
    for op in MAPS:
        for magnitude in [3, 9]:
            for sign in [1, -1]:
                for sampling in FILTERS:
                    yield op, magnitude, sign, "rand", sampling


if __name__ == "__main__":
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir(parents=True)
    for picture, pixels in PICTURES.items():
        Image.fromarray(pixels).save(FIXTURES / f"{picture}.png", optimize=True)
    for flavour, apply, cases in [("big_vision", big_vision, big_vision_cases()), ("timm", timm, timm_cases())]:
        cases = list(cases)
        (FIXTURES / f"{flavour}.txt").write_text("".join(" ".join(map(str, case)) + "\n" for case in cases))
        for picture, pixels in PICTURES.items():
            results = np.concatenate([apply(pixels, *case) for case in cases])
            Image.fromarray(results).save(FIXTURES / f"{flavour}-{picture}.png", optimize=True)
        print(f"{flavour}: {len(cases)} cases")
