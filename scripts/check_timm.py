# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "pillow==13.0.0",
#     "safetensors==0.8.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Loads a weights file written by mixer into timm, and runs it there.

    uv run scripts/check_timm.py model.safetensors cat.jpg pictures/
    uv run scripts/check_timm.py model.safetensors --input images.safetensors
    mixer predict model.safetensors pictures/ --logits --format json --preprocess squash > p.json
    uv run scripts/check_timm.py model.safetensors --mixer-json p.json

The first form prints the logits that timm gives for images. The second takes
normalised images `[B, H, W, 3]` from a safetensors file (tensor `images`) and, where
that file also has `logits`, compares with them. The third prepares the images named
in mixer's own answer with Pillow and compares the logits of both programs.

Nothing is renamed or converted on the way: the file must load with `strict=True`.
The exit status is 1 where the largest difference exceeds 1e-4 of the largest logit
of the image, and 2 where the files cannot be used.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import timm
import timm.models.mlp_mixer
import torch
from PIL import Image

LARGEST_RELATIVE_DIFFERENCE = 1e-4
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# (patch, C, L) of the variants that timm knows by name. It has no H/14.
NAMED_VARIANTS = {
    (32, 512, 8): "mixer_s32_224",
    (16, 512, 8): "mixer_s16_224",
    (32, 768, 12): "mixer_b32_224",
    (16, 768, 12): "mixer_b16_224",
    (32, 1024, 24): "mixer_l32_224",
    (16, 1024, 24): "mixer_l16_224",
}


class UnusableFile(Exception):
    """An error of the user's files, shown as one line."""


def read_metadata(path: Path) -> dict:
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("mixer")
    if text is None:
        raise UnusableFile(f"{path} has no `mixer` entry in its header, so mixer did not write it")
    return json.loads(text)


def timm_model(config: dict) -> tuple[torch.nn.Module, str]:
    """The timm model with these dimensions, by its registered name where it has one."""
    hidden_dim = config["hidden_dim"]
    tokens_mlp_dim, channels_mlp_dim = config["tokens_mlp_dim"], config["channels_mlp_dim"]
    activations = {"erf": torch.nn.GELU, "tanh": partial(torch.nn.GELU, approximate="tanh")}
    if config["gelu"] not in activations:
        raise UnusableFile(f"`config.gelu` is `{config['gelu']}`, expected `erf` or `tanh`")
    common = {
        "num_classes": config["num_classes"] or 0,  # without a head: the features
        "img_size": config["image_size"],
        "act_layer": activations[config["gelu"]],
    }
    name = NAMED_VARIANTS.get((config["patch_size"], hidden_dim, config["num_blocks"]))
    # Every named variant has D_S = C / 2 and D_C = 4 C. A model whose resolution was
    # raised has more token-mixing units and is built from its dimensions instead.
    if name and (2 * tokens_mlp_dim, channels_mlp_dim) == (hidden_dim, 4 * hidden_dim):
        return timm.create_model(name, pretrained=False, **common), name
    # timm multiplies the ratios by C and truncates. The half keeps a product such as
    # 21.999999 from being cut to 21.
    ratios = ((tokens_mlp_dim + 0.5) / hidden_dim, (channels_mlp_dim + 0.5) / hidden_dim)
    model = timm.models.mlp_mixer.MlpMixer(
        patch_size=config["patch_size"],
        num_blocks=config["num_blocks"],
        embed_dim=hidden_dim,
        mlp_ratio=ratios,
        **common,
    )
    return model, "MlpMixer"


def find_images(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UnusableFile(f"no images under {path}")
            found += inside
        else:
            found.append(path)
    return found


def prepare(path: Path, image_size: int, preprocessing: dict) -> np.ndarray:
    """One image as normalised `[H, W, 3]` float32, squashed to the size of the model.

    An image that has this size already keeps its pixels. The EXIF orientation is left
    alone, as mixer does.
    """
    with Image.open(path) as file:
        image = file.convert("RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    mean = np.asarray(preprocessing.get("mean", [0.5, 0.5, 0.5]), np.float32)
    std = np.asarray(preprocessing.get("std", [0.5, 0.5, 0.5]), np.float32)
    return (np.asarray(image, np.float32) / np.float32(255.0) - mean) / std


def logits_of(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Runs `[B, H, W, 3]`, sixteen images at a time."""
    answers = []
    with torch.inference_mode():
        for chunk in torch.from_numpy(images).split(16):
            answers.append(model(chunk.permute(0, 3, 1, 2).contiguous()).numpy())
    return np.concatenate(answers)


def compare(ours: np.ndarray, theirs: np.ndarray, names: list[str]) -> bool:
    """Prints the largest difference between mixer (`ours`) and timm; says whether it is small.

    Relative means: over the largest logit of the same image.
    """
    if ours.shape != theirs.shape:
        raise UnusableFile(f"mixer gave logits {list(ours.shape)}, timm {list(theirs.shape)}")
    difference = np.abs(ours - theirs).max(axis=1)
    # A head of zeros gives logits of zero, where equal is equal and 0 / 0 is no answer.
    # Any other NaN must not pass as "not larger".
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(difference == 0, 0.0, difference / np.abs(theirs).max(axis=1))
    relative = np.nan_to_num(relative, nan=np.inf)
    worst = int(relative.argmax())
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    print(f"images: {len(names)}, same first class: {same}, worst image: {names[worst]}")
    print(
        f"largest logit difference: {difference.max():.3e} absolute, {relative[worst]:.3e} relative"
    )
    return bool(relative[worst] <= LARGEST_RELATIVE_DIFFERENCE)


def show(names: list[str], logits: np.ndarray) -> None:
    for name, row in zip(names, logits, strict=True):
        print(f"{name}: " + " ".join(f"{value:.6f}" for value in row))


def run(arguments: argparse.Namespace) -> bool:
    metadata = read_metadata(arguments.weights)
    config, preprocessing = metadata["config"], metadata.get("preprocessing") or {}
    model, name = timm_model(config)
    try:
        model.load_state_dict(safetensors.torch.load_file(arguments.weights), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UnusableFile(f"timm refuses {arguments.weights}: {reason}") from error
    model.float().eval()
    count = sum(p.numel() for p in model.parameters())
    print(
        f"loaded into timm {timm.__version__} `{name}` with strict=True: {count:,} parameters",
        file=sys.stderr,
    )

    image_size = config["image_size"]
    if arguments.input:
        tensors = safetensors.torch.load_file(arguments.input)
        if "images" not in tensors:
            raise UnusableFile(f"{arguments.input} has no tensor `images`")
        theirs = logits_of(model, tensors["images"].float().numpy())
        names = [str(i) for i in range(len(theirs))]
        if "logits" in tensors:
            return compare(tensors["logits"].float().numpy(), theirs, names)
        show(names, theirs)
        return True

    if arguments.mixer_json:
        entries = json.loads(arguments.mixer_json.read_text())
        if not entries or any("logits" not in entry for entry in entries):
            raise UnusableFile(
                f"{arguments.mixer_json} lacks logits (run mixer predict with --logits)"
            )
        paths = [Path(entry["path"]) for entry in entries]
    else:
        paths = find_images(arguments.images)
    theirs = logits_of(
        model, np.stack([prepare(path, image_size, preprocessing) for path in paths])
    )
    names = [str(path) for path in paths]
    if arguments.mixer_json:
        return compare(
            np.asarray([entry["logits"] for entry in entries], np.float64), theirs, names
        )
    show(names, theirs)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs a weights file of mixer in timm.")
    parser.add_argument("weights", type=Path, help="safetensors file written by mixer")
    parser.add_argument("images", type=Path, nargs="*", help="image files, or folders of them")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="safetensors with normalised `images` [B,H,W,3]"
    )
    parser.add_argument(
        "--mixer-json",
        type=Path,
        metavar="FILE",
        help="answer of `mixer predict --logits --format json`",
    )
    arguments = parser.parse_args()
    if sum(map(bool, (arguments.images, arguments.input, arguments.mixer_json))) != 1:
        parser.error("give images, or --input, or --mixer-json: exactly one of the three")
    try:
        return 0 if run(arguments) else 1
    except (UnusableFile, OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else error
        print(f"error: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
