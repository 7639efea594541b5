# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "torch==2.15.0", "safetensors==0.8.0"]
# ///
"""Writes `crates/mixer-model/fuzz/seeds`: one small Mixer in every form that its weights come in, as NumPy,
PyTorch and safetensors write them. A fuzzer starts from them, and the test `fuzz` damages them.

    uv run scripts/export_fuzz_seeds.py
"""

import argparse
import collections
import pathlib

import numpy as np
import safetensors.torch
import torch

SEEDS = pathlib.Path(__file__).parent.parent / "crates/mixer-model/fuzz/seeds"
P, S, C, DS, DC, K = 2, 4, 2, 3, 5, 2


def shapes():
    yield "stem.proj.weight", (C, 3, P, P)
    yield "stem.proj.bias", (C,)
    for norm in ("norm1", "norm2"):
        yield f"blocks.0.{norm}.weight", (C,)
        yield f"blocks.0.{norm}.bias", (C,)
    for mlp, width, hidden in (("mlp_tokens", S, DS), ("mlp_channels", C, DC)):
        yield f"blocks.0.{mlp}.fc1.weight", (hidden, width)
        yield f"blocks.0.{mlp}.fc1.bias", (hidden,)
        yield f"blocks.0.{mlp}.fc2.weight", (width, hidden)
        yield f"blocks.0.{mlp}.fc2.bias", (width,)
    yield "norm.weight", (C,)
    yield "norm.bias", (C,)
    yield "head.weight", (K, C)
    yield "head.bias", (K,)


def official(name, tensor):
    """Name and layout of Google's code."""
    parts = (
        name.replace("stem.proj", "stem").replace("blocks.0", "MixerBlock_0")
        .replace("mlp_tokens", "token_mixing").replace("mlp_channels", "channel_mixing")
        .replace("fc1", "Dense_0").replace("fc2", "Dense_1")
        .replace("norm1", "LayerNorm_0").replace("norm2", "LayerNorm_1")
    ).split(".")
    if parts[0] == "norm":
        parts[0] = "pre_head_layer_norm"
    if parts[-1] == "weight":
        parts[-1] = "scale" if "orm" in parts[-2] else "kernel"
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, (0,))
    return "/".join(parts), np.transpose(tensor, axes)


def main():
    torch.manual_seed(0)
    state = collections.OrderedDict((name, torch.randn(shape)) for name, shape in shapes())
    for folder in ("npz", "pth", "safetensors"):
        (SEEDS / folder).mkdir(parents=True, exist_ok=True)

    arrays = dict(official(name, tensor.numpy()) for name, tensor in state.items())
    np.savez(SEEDS / "npz/plain.npz", **{k: np.ascontiguousarray(v) for k, v in arrays.items()})
    np.savez_compressed(SEEDS / "npz/packed.npz", **arrays)
    halves = {f"params/{k}": v.astype(np.float16) for k, v in arrays.items()}
    np.savez_compressed(SEEDS / "npz/halves.npz", **halves, **{"opt/count": np.array(3)})

    torch.save(state, SEEDS / "pth/plain.pth")
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save(state, SEEDS / "pth/legacy.pth", **legacy)
    torch.save(state, SEEDS / "pth/protocol4.pth", pickle_protocol=4)
    views = {k: torch.nn.Parameter(v.t().contiguous().t() if v.ndim == 2 else v) for k, v in state.items()}
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, name="x"),
        "state_dict": {f"module.{k}": v for k, v in views.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "momentum": None}}, "groups": [{"lr": 0.1}]},
        "metric": np.float64(0.5),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "shape": torch.Size([2]),
    }
    torch.save(checkpoint, SEEDS / "pth/checkpoint.pth")
    torch.save(checkpoint, SEEDS / "pth/checkpoint_legacy.pth", **legacy)
    torch.save({k: v.bfloat16() for k, v in state.items()}, SEEDS / "pth/bf16.pth")

    safetensors.torch.save_file(state, SEEDS / "safetensors/plain.safetensors", {"format": "pt"})
    bf16 = {f"model.{k}": v.bfloat16() for k, v in state.items()}
    safetensors.torch.save_file(bf16, SEEDS / "safetensors/bf16.safetensors")
    header = (
        '{"format_version":1,"config":{"image_size":4,"patch_size":2,"hidden_dim":2,"tokens_mlp_dim":3,'
        '"channels_mlp_dim":5,"num_blocks":1,"num_classes":2,"gelu":"erf"},"classes":["cat","dog"],'
        '"provenance":{"run":"x"}}'
    )
    safetensors.torch.save_file(state, SEEDS / "safetensors/ours.safetensors", {"format": "pt", "mixer": header})


if __name__ == "__main__":
    main()
