# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "safetensors==0.8.0",
#     "scipy==1.17.1",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Makes the golden numbers that the Vision Transformer is held against.

    uv run scripts/export_vit_golden.py [--out DIR]

The reference is `timm.models.vision_transformer.VisionTransformer` with a class
token (`vit_token_*`, erf GELU) and with an average token and the tanh form of GELU
(`vit_average_*`). Each has its weights, inputs, features, logits and loss, and the
gradient of every parameter. The weights files carry the header of `mixer`, since the
number of heads leaves no trace in shapes. `vit_token_official.npz` are the same
weights under the names and in the layouts of the official code, and
`zoomed` among its values are its positions on another grid by
`scipy.ndimage.zoom`, as `vit_jax/checkpoint.py` resizes them.

Everything is float32 on the CPU, all dimensions differ, and no parameter is left at
zero or one. Running the script again writes the same bytes.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from safetensors_file import write
from timm.models.vision_transformer import VisionTransformer

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

BATCH, IMAGE_SIZE, PATCH_SIZE, WIDTH, HEADS, BLOCKS, HIDDEN, CLASSES = 5, 16, 4, 12, 3, 2, 26, 7
GRID = IMAGE_SIZE // PATCH_SIZE
OTHER_GRID = 6


def network(pool: str) -> VisionTransformer:
    average = pool == "average"
    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=WIDTH,
        depth=BLOCKS,
        num_heads=HEADS,
        mlp_ratio=HIDDEN / WIDTH,
        num_classes=CLASSES,
        class_token=not average,
        global_pool="avg" if average else "token",
        fc_norm=False,
        act_layer="gelu_tanh" if average else "gelu",
    )


def fill(model: VisionTransformer, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name.endswith("weight") and len(shape) > 1:
            gain = 2.0 if "fc1" in name or "qkv" in name else 0.7
            values = gain / math.sqrt(math.prod(shape[1:])) * rng.standard_normal(shape)
        elif name.endswith("weight"):
            values = 1.0 + 0.2 * rng.standard_normal(shape)
        else:
            values = 0.3 * rng.standard_normal(shape)
        parameter.data = torch.from_numpy(values.astype(np.float32))


def metadata(pool: str) -> dict[str, str]:
    config = {
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "hidden_dim": WIDTH,
        "num_heads": HEADS,
        "pool": pool,
        "channels_mlp_dim": HIDDEN,
        "num_blocks": BLOCKS,
        "num_classes": CLASSES,
        "gelu": "tanh" if pool == "average" else "erf",
    }
    return {"format": "pt", "mixer": json.dumps({"format_version": 1, "config": config})}


def official(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same parameters as the official code has them."""
    size = WIDTH // HEADS
    stem = tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    out = {
        "embedding/kernel": stem,
        "embedding/bias": tensors["patch_embed.proj.bias"],
        "cls": tensors["cls_token"],
        "Transformer/posembed_input/pos_embedding": tensors["pos_embed"],
        "Transformer/encoder_norm/scale": tensors["norm.weight"],
        "Transformer/encoder_norm/bias": tensors["norm.bias"],
        "head/kernel": tensors["head.weight"].T,
        "head/bias": tensors["head.bias"],
    }
    for i in range(BLOCKS):
        timm, flax = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for theirs, ours in [("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")]:
            out[f"{flax}/{ours}/scale"] = tensors[f"{timm}.{theirs}.weight"]
            out[f"{flax}/{ours}/bias"] = tensors[f"{timm}.{theirs}.bias"]
        for theirs, ours in [("fc1", "Dense_0"), ("fc2", "Dense_1")]:
            out[f"{flax}/MlpBlock_3/{ours}/kernel"] = tensors[f"{timm}.mlp.{theirs}.weight"].T
            out[f"{flax}/MlpBlock_3/{ours}/bias"] = tensors[f"{timm}.mlp.{theirs}.bias"]
        attention = f"{flax}/MultiHeadDotProductAttention_1"
        weights = np.split(tensors[f"{timm}.attn.qkv.weight"], 3)
        biases = np.split(tensors[f"{timm}.attn.qkv.bias"], 3)
        for part, weight, bias in zip(["query", "key", "value"], weights, biases):
            out[f"{attention}/{part}/kernel"] = weight.T.reshape(WIDTH, HEADS, size)
            out[f"{attention}/{part}/bias"] = bias.reshape(HEADS, size)
        projection = tensors[f"{timm}.attn.proj.weight"].T
        out[f"{attention}/out/kernel"] = projection.reshape(HEADS, size, WIDTH)
        out[f"{attention}/out/bias"] = tensors[f"{timm}.attn.proj.bias"]
    return out


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.ascontiguousarray(array))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())


def zoomed(positions: np.ndarray) -> np.ndarray:
    token, grid = positions[:, :1], positions[0, 1:].reshape(GRID, GRID, -1)
    zoom = (OTHER_GRID / GRID, OTHER_GRID / GRID, 1)
    grid = scipy.ndimage.zoom(grid, zoom, order=1)
    return np.concatenate([token, grid.reshape(1, OTHER_GRID * OTHER_GRID, -1)], axis=1)


def export(out: Path, pool: str, name: str, seed: int) -> None:
    model = network(pool).eval()
    fill(model, seed)
    rng = np.random.default_rng(seed + 1)
    images = rng.standard_normal((BATCH, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    x = torch.from_numpy(images)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    logits = model(x)
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()

    tensors = {n: p.detach().numpy() for n, p in model.named_parameters()}
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
    values = {
        "images": images,
        "labels": labels,
        "features": features.detach().numpy(),
        "logits": logits.detach().numpy(),
        "loss": loss.detach().numpy().reshape(1),
    }
    if pool == "class_token":
        values["zoomed"] = zoomed(tensors["pos_embed"])
        write_npz(out / f"{name}_official.npz", official(tensors))
    write(out / f"{name}.safetensors", tensors, metadata(pool))
    write(out / f"{name}_grads.safetensors", gradients, metadata(pool))
    write(out / f"{name}_io.safetensors", values, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent / "crates/mixer-model/tests/fixtures"
    parser.add_argument("--out", type=Path, default=default)
    out = parser.parse_args().out
    export(out, "class_token", "vit_token", 20201022)
    export(out, "average", "vit_average", 20220503)


if __name__ == "__main__":
    main()
