# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "flax==0.12.8",
#     "jax==0.10.2",
#     "jaxlib==0.10.2",
#     "numpy==2.4.6",
#     "optax==0.2.8",
#     "safetensors==0.8.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Makes the golden numbers that the parity tests are held against.

    uv run scripts/export_golden.py [--out DIR]

Two references see the same parameters and the same images:

- `flax_*`: the Mixer of the paper, as a Flax module written here from the
  published description, with the parameter names of the official checkpoints,
  the tanh form of GELU, and optax for the updates;
- `timm_*`: `timm.models.mlp_mixer.MlpMixer` with its default erf GELU, and
  PyTorch's own optimizers and clipping.

Everything is float32 on the CPU. All dimensions of the little model differ from
one another, so that a wrong transpose or reshape cannot pass unseen, and no
parameter is left at zero or one, so that a forgotten bias cannot either.

Running the script again writes the same bytes: seeds are fixed, zip entries carry
a fixed date, and safetensors headers are sorted (the library's own writer orders
the metadata by a hash that changes from run to run).
"""

import os

# XLA and PyTorch must not split sums over threads, or the last bit of a result
# could depend on the number of cores. To be set before either is imported.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import hashlib
import io
import json
import math
import struct
import sys
import zipfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
import timm.models.mlp_mixer
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict, unflatten_dict

jax.config.update("jax_enable_x64", False)
jax.config.update("jax_default_matmul_precision", "highest")
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

# B batch, S tokens, C channels, D_S and D_C widths of the token and the channel
# MLP, K classes, L blocks: the letters of the paper, all different.
BATCH = 5
IMAGE_SIZE = 24
PATCH_SIZE = 4
GRID = IMAGE_SIZE // PATCH_SIZE
NUM_TOKENS = GRID * GRID
HIDDEN_DIM = 10
TOKENS_MLP_DIM = 14
CHANNELS_MLP_DIM = 22
NUM_CLASSES = 7
NUM_BLOCKS = 2
PATCH_DIM = PATCH_SIZE * PATCH_SIZE * 3
LAYER_NORM_EPSILON = 1e-6

DISTINCT = [
    BATCH,
    IMAGE_SIZE,
    PATCH_SIZE,
    GRID,
    NUM_TOKENS,
    HIDDEN_DIM,
    TOKENS_MLP_DIM,
    CHANNELS_MLP_DIM,
    NUM_CLASSES,
    NUM_BLOCKS,
    PATCH_DIM,
    3,
]
assert len(set(DISTINCT)) == len(DISTINCT), "two dimensions are equal, so a transpose could hide"

TOTAL_STEPS = 12
WARMUP_STEPS = 3
CLIP_NORM = 1.0
# The rates are such that the loss falls several times over, and that clipping acts
# in the first updates and no longer in the last ones (`describe` checks both).
SGD_LEARNING_RATE = 0.3
SGD_MOMENTUM = 0.9
ADAMW_LEARNING_RATE = 2e-2
ADAMW_B1 = 0.9
ADAMW_B2 = 0.999
ADAMW_EPSILON = 1e-8
ADAMW_WEIGHT_DECAY = 0.1


# --- data and parameters -------------------------------------------------------


def make_parameters() -> dict[str, np.ndarray]:
    """Draws every parameter, under the keys of the official `.npz` files.

    First layers are wide enough for activations to reach the range where the two
    forms of GELU differ (about |x| = 2.7). The stem and the second layers are small,
    so that the residual stream has a small variance everywhere: beside a variance of
    1 nobody would notice a LayerNorm epsilon of 1e-5 in place of 1e-6.
    `check_mistakes_show` holds the numbers to both.
    """
    rng = np.random.default_rng(20210504)
    parameters: dict[str, np.ndarray] = {}

    def normal(shape: tuple[int, ...], scale: float, centre: float = 0.0) -> np.ndarray:
        return (centre + scale * rng.standard_normal(shape)).astype(np.float32)

    def dense(key: str, d_in: int, d_out: int, gain: float, bias: float) -> None:
        parameters[f"{key}/kernel"] = normal((d_in, d_out), gain / math.sqrt(d_in))
        parameters[f"{key}/bias"] = normal((d_out,), bias)

    def layer_norm(key: str) -> None:
        parameters[f"{key}/scale"] = normal((HIDDEN_DIM,), 0.25, centre=1.1)
        parameters[f"{key}/bias"] = normal((HIDDEN_DIM,), 0.2)

    parameters["stem/kernel"] = normal(
        (PATCH_SIZE, PATCH_SIZE, 3, HIDDEN_DIM), 0.3 / math.sqrt(PATCH_DIM)
    )
    parameters["stem/bias"] = normal((HIDDEN_DIM,), 0.1)
    for i in range(NUM_BLOCKS):
        layer_norm(f"MixerBlock_{i}/LayerNorm_0")
        dense(f"MixerBlock_{i}/token_mixing/Dense_0", NUM_TOKENS, TOKENS_MLP_DIM, 1.3, 0.3)
        dense(f"MixerBlock_{i}/token_mixing/Dense_1", TOKENS_MLP_DIM, NUM_TOKENS, 0.15, 0.05)
        layer_norm(f"MixerBlock_{i}/LayerNorm_1")
        dense(f"MixerBlock_{i}/channel_mixing/Dense_0", HIDDEN_DIM, CHANNELS_MLP_DIM, 1.3, 0.3)
        dense(f"MixerBlock_{i}/channel_mixing/Dense_1", CHANNELS_MLP_DIM, HIDDEN_DIM, 0.15, 0.05)
    layer_norm("pre_head_layer_norm")
    dense("head", HIDDEN_DIM, NUM_CLASSES, 0.9, 0.3)
    return parameters


def make_batch() -> dict[str, np.ndarray]:
    """Images with structure (a smooth wave plus noise), hard and soft labels.

    Pixels are whole grey levels 0..255 normalised with mean and deviation 0.5, so
    `round((images + 1) * 127.5)` gives back the bytes.
    """
    rng = np.random.default_rng(1601)
    position = np.arange(IMAGE_SIZE) / IMAGE_SIZE
    frequency = rng.uniform(0.5, 4.0, size=(BATCH, 2, 3))
    phase = rng.uniform(0.0, 2.0 * np.pi, size=(BATCH, 3))
    wave = np.sin(
        2.0 * np.pi * position[None, :, None, None] * frequency[:, None, None, 0, :]
        + 2.0 * np.pi * position[None, None, :, None] * frequency[:, None, None, 1, :]
        + phase[:, None, None, :]
    )
    noise = rng.uniform(-1.0, 1.0, size=wave.shape)
    grey = np.clip(np.rint(127.5 + 127.5 * (0.7 * wave + 0.45 * noise)), 0, 255)
    images = ((grey - 127.5) / 127.5).astype(np.float32)

    # [B, gy, py, gx, px, 3] -> raster tokens, each (py, px, colour).
    patches = images.reshape(BATCH, GRID, PATCH_SIZE, GRID, PATCH_SIZE, 3)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(BATCH, NUM_TOKENS, PATCH_DIM)

    # A class that appears twice and classes that never appear.
    labels = np.array([3, 0, 6, 3, 1], dtype=np.int64)
    soft_labels = rng.gamma(0.6, size=(BATCH, NUM_CLASSES))
    soft_labels = (soft_labels / soft_labels.sum(axis=1, keepdims=True)).astype(np.float32)
    return {
        "images": images,
        "patches": np.ascontiguousarray(patches),
        "labels": labels,
        "soft_labels": soft_labels,
    }


def learning_rate(step: int, base: float, schedule: str) -> float:
    """The rate that update number `step` (from 0) is made with."""
    progress = min(max((step - WARMUP_STEPS) / (TOTAL_STEPS - WARMUP_STEPS), 0.0), 1.0)
    decay = {"cosine": 0.5 * (1.0 + math.cos(math.pi * progress)), "linear": 1.0 - progress}
    return base * min(1.0, step / WARMUP_STEPS) * decay[schedule]


SGD = {
    "optimizer": "sgd",
    "lr": SGD_LEARNING_RATE,
    "schedule": "cosine",
    "momentum": SGD_MOMENTUM,
    "nesterov": "false",
    "dampening": 0.0,
    "weight_decay": 0.0,
}
ADAMW = {
    "optimizer": "adamw",
    "lr": ADAMW_LEARNING_RATE,
    "schedule": "linear",
    "linear_end": 0.0,
    "b1": ADAMW_B1,
    "b2": ADAMW_B2,
    "eps": ADAMW_EPSILON,
    "weight_decay": ADAMW_WEIGHT_DECAY,
    "weight_decay_on": "tensors with two or more dimensions",
}
for recipe in (SGD, ADAMW):
    recipe |= {"warmup_steps": WARMUP_STEPS, "total_steps": TOTAL_STEPS, "clip": CLIP_NORM}


# --- the Flax reference --------------------------------------------------------


class MlpBlock(nn.Module):
    mlp_dim: int

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.mlp_dim)(x)
        y = nn.gelu(y, approximate=True)
        return nn.Dense(x.shape[-1])(y)


class MixerBlock(nn.Module):
    tokens_mlp_dim: int
    channels_mlp_dim: int

    @nn.compact
    def __call__(self, x):
        """Returns the residual stream after token mixing and after channel mixing."""
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)(x)
        y = jnp.swapaxes(y, 1, 2)
        y = MlpBlock(self.tokens_mlp_dim, name="token_mixing")(y)
        y = jnp.swapaxes(y, 1, 2)
        after_tokens = x + y
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)(after_tokens)
        y = MlpBlock(self.channels_mlp_dim, name="channel_mixing")(y)
        return after_tokens, after_tokens + y


class MlpMixer(nn.Module):
    @nn.compact
    def __call__(self, images):
        """Maps images `[B, H, W, 3]` to logits `[B, K]` and the values on the way."""
        out = {}
        patch = (PATCH_SIZE, PATCH_SIZE)
        x = nn.Conv(HIDDEN_DIM, patch, strides=patch, padding="VALID", name="stem")(images)
        x = out["stem"] = x.reshape(x.shape[0], NUM_TOKENS, HIDDEN_DIM)
        for i in range(NUM_BLOCKS):
            after_tokens, x = MixerBlock(TOKENS_MLP_DIM, CHANNELS_MLP_DIM, name=f"MixerBlock_{i}")(
                x
            )
            out[f"block{i}.token_mixing"] = after_tokens
            out[f"block{i}.channel_mixing"] = x
        x = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, name="pre_head_layer_norm")(x)
        out["pre_head_layer_norm"] = x
        x = out["features"] = jnp.mean(x, axis=1)
        x = out["logits"] = nn.Dense(NUM_CLASSES, name="head")(x)
        return x, out


def flax_loss_hard(logits, labels):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def flax_loss_soft(logits, soft_labels):
    return jnp.mean(optax.softmax_cross_entropy(logits, soft_labels))


def flax_loss_sigmoid(logits, labels):
    """Sigmoid cross-entropy, summed over the classes and averaged over the batch."""
    one_hot = jax.nn.one_hot(labels, NUM_CLASSES)
    return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits, one_hot), axis=-1))


class FlaxReference:
    def __init__(self, parameters: dict[str, np.ndarray], batch: dict[str, np.ndarray]):
        self.model = MlpMixer()
        self.params = unflatten_dict({k: jnp.asarray(v) for k, v in parameters.items()}, sep="/")
        self.batch = {
            k: jnp.asarray(v, jnp.int32 if k == "labels" else None) for k, v in batch.items()
        }
        expected = jax.eval_shape(self.model.init, jax.random.key(0), self.batch["images"])[
            "params"
        ]
        expected = {k: v.shape for k, v in flatten_dict(expected, sep="/").items()}
        assert expected == {k: v.shape for k, v in parameters.items()}, "names or shapes differ"

    def loss(self, params):
        logits, _ = self.model.apply({"params": params}, self.batch["images"])
        return flax_loss_hard(logits, self.batch["labels"])

    def values(self) -> dict[str, np.ndarray]:
        logits, out = jax.jit(self.model.apply)({"params": self.params}, self.batch["images"])
        losses = {
            "loss": (flax_loss_hard, self.batch["labels"]),
            "loss_soft": (flax_loss_soft, self.batch["soft_labels"]),
            "loss_sigmoid": (flax_loss_sigmoid, self.batch["labels"]),
        }
        for name, (function, target) in losses.items():
            value, gradient = jax.value_and_grad(function)(logits, target)
            out[name] = value[None]
            out[f"{name}.logits_grad"] = gradient
        return {k: np.asarray(v) for k, v in out.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        return from_flax(jax.jit(jax.grad(self.loss))(self.params))

    def train(self, recipe: dict) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        # A table, so that the rate is the float64 formula rounded once.
        rates = [learning_rate(t, recipe["lr"], recipe["schedule"]) for t in range(TOTAL_STEPS)]
        table = jnp.asarray(rates, jnp.float32)
        if recipe["optimizer"] == "sgd":
            direction = [optax.trace(decay=SGD_MOMENTUM, nesterov=False)]
        else:
            kernels = partial(jax.tree.map, lambda p: p.ndim >= 2)
            direction = [
                optax.scale_by_adam(b1=ADAMW_B1, b2=ADAMW_B2, eps=ADAMW_EPSILON),
                optax.add_decayed_weights(ADAMW_WEIGHT_DECAY, mask=kernels),
            ]
        optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP_NORM),
            *direction,
            optax.scale_by_learning_rate(lambda count: table[count]),
        )

        @jax.jit
        def update(params, state):
            loss, gradients = jax.value_and_grad(self.loss)(params)
            norm = optax.tree.norm(gradients)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss, norm

        params, state = self.params, optimizer.init(self.params)
        losses, norms = [], []
        for _ in range(TOTAL_STEPS):
            params, state, loss, norm = update(params, state)
            losses.append(loss)
            norms.append(norm)
        losses.append(jax.jit(self.loss)(params))
        return trajectory(losses, norms, rates), from_flax(params)


def from_flax(tree) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in flatten_dict(tree, sep="/").items()}


def legacy_layout(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The older key layout that big_vision's Mixer loader also accepts.

    That loader squeezes the four tensors of an MLP, so here they carry an axis of
    length one. The two LayerNorms of a block keep their present names there.
    """
    renamed = {}
    for key, value in parameters.items():
        if key.startswith("stem/"):
            key = key.replace("stem/", "embedding/")
        elif key.startswith("pre_head_layer_norm/"):
            key = key.replace("pre_head_layer_norm/", "Mixer/encoder_norm/")
        elif key.startswith("MixerBlock_"):
            block, *rest = key.split("/")
            block = block.replace("MixerBlock_", "Mixer/encoderblock_")
            if rest[0].endswith("_mixing"):
                mlp, dense, name = rest
                number = int(dense.removeprefix("Dense_")) + 1
                rest = [f"{mlp}_phase_0", f"{name}{number}"]
                value = value[None]
            key = "/".join([block, *rest])
        renamed[key] = value
    return renamed


# --- the timm reference --------------------------------------------------------


def timm_from_flax(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and transposes from the official layout to that of timm."""
    renamed = {}
    for key, value in tensors.items():
        key = key.replace("MixerBlock_", "blocks.").replace("/", ".")
        key = key.replace("LayerNorm_0", "norm1").replace("LayerNorm_1", "norm2")
        key = key.replace("token_mixing", "mlp_tokens").replace("channel_mixing", "mlp_channels")
        key = key.replace("Dense_0", "fc1").replace("Dense_1", "fc2")
        key = key.replace("pre_head_layer_norm", "norm").replace("stem.", "stem.proj.")
        if key.endswith(".kernel"):
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        key = key.replace(".kernel", ".weight").replace(".scale", ".weight")
        renamed[key] = np.ascontiguousarray(value)
    return renamed


class TimmReference:
    def __init__(
        self,
        parameters: dict[str, np.ndarray],
        batch: dict[str, np.ndarray],
        act_layer=torch.nn.GELU,
        dtype=torch.float32,
    ):
        self.model = timm.models.mlp_mixer.MlpMixer(
            img_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            num_blocks=NUM_BLOCKS,
            embed_dim=HIDDEN_DIM,
            mlp_ratio=(1.4, 2.2),  # of the channels: 14 and 22
            num_classes=NUM_CLASSES,
            act_layer=act_layer,
        )
        block = self.model.blocks[0]
        assert block.mlp_tokens.fc1.weight.shape == (TOKENS_MLP_DIM, NUM_TOKENS)
        assert block.mlp_channels.fc1.weight.shape == (CHANNELS_MLP_DIM, HIDDEN_DIM)
        assert block.norm1.eps == LAYER_NORM_EPSILON
        self.start = {k: torch.from_numpy(v) for k, v in timm_from_flax(parameters).items()}
        self.dtype = dtype
        self.labels = torch.from_numpy(batch["labels"])
        self.soft_labels = torch.from_numpy(batch["soft_labels"]).to(dtype)
        images = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2)
        self.images = images.contiguous().to(dtype)
        self.reset()

    def reset(self) -> None:
        self.model.load_state_dict(self.start, strict=True)
        self.model.to(self.dtype).eval()
        self.model.zero_grad(set_to_none=True)

    def loss(self) -> torch.Tensor:
        return F.cross_entropy(self.model(self.images), self.labels)

    def values(self) -> dict[str, np.ndarray]:
        self.reset()
        out: dict[str, torch.Tensor] = {}

        def keep_output(name):
            return lambda _module, _inputs, output: out.__setitem__(name, output.detach())

        def keep_input(name):
            return lambda _module, inputs: out.__setitem__(name, inputs[0].detach())

        model = self.model
        hooks = [model.stem.register_forward_hook(keep_output("stem"))]
        for i, block in enumerate(model.blocks):
            # What enters the second norm is the residual stream after token mixing.
            hooks.append(
                block.norm2.register_forward_pre_hook(keep_input(f"block{i}.token_mixing"))
            )
            hooks.append(block.register_forward_hook(keep_output(f"block{i}.channel_mixing")))
        hooks.append(model.norm.register_forward_hook(keep_output("pre_head_layer_norm")))
        hooks.append(model.head.register_forward_pre_hook(keep_input("features")))
        with torch.no_grad():
            out["logits"] = model(self.images)
        for hook in hooks:
            hook.remove()

        one_hot = F.one_hot(self.labels, NUM_CLASSES).to(self.dtype)
        losses = {
            "loss": lambda logits: F.cross_entropy(logits, self.labels),
            "loss_soft": lambda logits: F.cross_entropy(logits, self.soft_labels),
            "loss_sigmoid": lambda logits: (
                F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(1).mean()
            ),
        }
        for name, function in losses.items():
            logits = out["logits"].detach().requires_grad_()
            value = function(logits)
            (gradient,) = torch.autograd.grad(value, logits)
            out[name] = value.detach()[None]
            out[f"{name}.logits_grad"] = gradient
        return {k: v.contiguous().numpy() for k, v in out.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        self.reset()
        self.loss().backward()
        return {k: p.grad.numpy().copy() for k, p in self.model.named_parameters()}

    def train(self, recipe: dict) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        self.reset()
        parameters = list(self.model.parameters())
        if recipe["optimizer"] == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=SGD_MOMENTUM)
        else:
            groups = [
                {
                    "params": [p for p in parameters if p.ndim >= 2],
                    "weight_decay": ADAMW_WEIGHT_DECAY,
                },
                {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
            ]
            optimizer = torch.optim.AdamW(
                groups, lr=0.0, betas=(ADAMW_B1, ADAMW_B2), eps=ADAMW_EPSILON
            )
        rates = [learning_rate(t, recipe["lr"], recipe["schedule"]) for t in range(TOTAL_STEPS)]
        losses, norms = [], []
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM).item())
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            losses.append(self.loss().item())
        final = {k: v.numpy().copy() for k, v in self.model.state_dict().items()}
        return trajectory(losses, norms, rates), final


def trajectory(losses, norms, rates) -> dict[str, np.ndarray]:
    """Losses before each update and after the last, norms before clipping, rates."""
    return {
        "losses": np.asarray(losses, np.float32),
        "grad_norms": np.asarray(norms, np.float32),
        "learning_rates": np.asarray(rates, np.float32),
    }


# --- files ---------------------------------------------------------------------


class Writer:
    """Writes fixtures so that equal contents are equal bytes."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.sizes: dict[str, int] = {}
        packages = ["flax", "jax", "jaxlib", "numpy", "optax", "timm", "torch"]
        self.metadata = {
            "generator": "scripts/export_golden.py",
            "generator_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
            "dtype": "float32",
            "layer_norm_epsilon": repr(LAYER_NORM_EPSILON),
            "config": json.dumps(
                {
                    "image_size": IMAGE_SIZE,
                    "patch_size": PATCH_SIZE,
                    "hidden_dim": HIDDEN_DIM,
                    "tokens_mlp_dim": TOKENS_MLP_DIM,
                    "channels_mlp_dim": CHANNELS_MLP_DIM,
                    "num_blocks": NUM_BLOCKS,
                    "num_classes": NUM_CLASSES,
                }
            ),
            **{f"version.{name}": version(name) for name in packages},
        }

    def write(self, name: str, data: bytes) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_bytes(data)
        self.sizes[name] = len(data)

    def npz(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """As `np.savez` (stored, not deflated), with a fixed date in the zip."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for key in sorted(arrays):
                array = io.BytesIO()
                np.lib.format.write_array(array, np.ascontiguousarray(arrays[key]))
                entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, array.getvalue())
        self.write(name, buffer.getvalue())
        with np.load(io.BytesIO(buffer.getvalue())) as back:
            assert sorted(back.files) == sorted(arrays)

    def safetensors(
        self, name: str, arrays: dict[str, np.ndarray], metadata: dict | None = None
    ) -> None:
        codes = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
        header: dict = {
            "__metadata__": {
                k: str(v) for k, v in sorted((self.metadata | (metadata or {})).items())
            }
        }
        # Wide types first, so that every tensor starts at a multiple of its item size.
        keys = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
        body = b""
        for key in keys:
            array = np.ascontiguousarray(arrays[key])
            start, body = len(body), body + array.tobytes()
            header[key] = {
                "dtype": codes[array.dtype],
                "shape": list(array.shape),
                "data_offsets": [start, len(body)],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        data = struct.pack("<Q", len(text)) + text + body
        self.write(name, data)
        back = safetensors.numpy.load(data)
        assert all(np.array_equal(back[key], arrays[key]) for key in arrays) and len(back) == len(
            arrays
        )

    def pth(self, name: str, value) -> None:
        path = self.directory / name
        torch.save(value, path)
        self.sizes[name] = path.stat().st_size


# --- self-checks ---------------------------------------------------------------


def has_no_effect(key: str) -> bool:
    """Whether this is the bias of a second token-mixing layer.

    It adds the same number to all channels of a token, and every later use of the
    residual stream passes through a LayerNorm over the channels, which takes that
    number away again. So its true gradient is exactly zero, and what a reference
    reports for it is rounding noise. Adam scales noise up to steps of full size, so
    after AdamW updates these biases (and nothing else) differ between references.
    """
    return key.endswith(("token_mixing/Dense_1/bias", "mlp_tokens.fc2.bias"))


def largest_difference(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> tuple[float, str]:
    """The worst max|a - b| / max|b| over the tensors, and the name of that tensor."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    worst = (0.0, "")
    for key in ours:
        a, b = ours[key].astype(np.float64), theirs[key].astype(np.float64)
        assert a.shape == b.shape, f"{key}: {a.shape} and {b.shape}"
        if not has_no_effect(key):
            worst = max(worst, (float(np.abs(a - b).max() / np.abs(b).max()), key))
    return worst


def check_gradients(gradients: dict[str, np.ndarray]) -> None:
    for key, gradient in gradients.items():
        largest = np.abs(gradient).max()
        assert largest < 1e-6 if has_no_effect(key) else largest > 1e-3, f"{key}: {largest}"


def check_references_agree(parameters, batch, flax_reference, flax_values, flax_gradients) -> None:
    """timm with the tanh GELU must give what Flax gives, or one of the two is wired wrongly."""
    tanh = partial(torch.nn.GELU, approximate="tanh")
    values_limit, gradients_limit = 5e-6, 2e-5
    for label, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        twin = TimmReference(parameters, batch, act_layer=tanh, dtype=dtype)
        values = largest_difference(flax_values, twin.values())
        gradients = largest_difference(timm_from_flax(flax_gradients), twin.gradients())
        print(f"Flax against timm with tanh GELU in {label}:")
        print(f"  values    {values[0]:.1e} at {values[1]}")
        print(f"  gradients {gradients[0]:.1e} at {gradients[1]}")
        assert values[0] < values_limit and gradients[0] < gradients_limit
        if dtype == torch.float32:
            for recipe in (SGD, ADAMW):
                (flax_track, flax_final), (timm_track, timm_final) = (
                    flax_reference.train(recipe),
                    twin.train(recipe),
                )
                losses = np.abs(flax_track["losses"] - timm_track["losses"]).max()
                final = largest_difference(timm_from_flax(flax_final), timm_final)
                print(
                    f"  {recipe['optimizer']}: losses {losses:.1e}, parameters {final[0]:.1e} at {final[1]}"
                )
                assert losses < 1e-5, "optax and PyTorch do not follow the same rule"


def check_mistakes_show(parameters, batch) -> None:
    """Each likely mistake must move the logits well beyond the 1e-5 that tests allow."""
    make = partial(TimmReference, parameters, batch, dtype=torch.float64)
    right = make().values()["logits"]
    mistakes = {"tanh GELU": make(act_layer=partial(torch.nn.GELU, approximate="tanh"))}
    norms = [f"blocks.{i}.norm{j}" for i in range(NUM_BLOCKS) for j in (1, 2)]
    for norm in [*norms, "norm"]:
        reference = mistakes[f"epsilon 1e-5 in {norm}"] = make()
        reference.model.get_submodule(norm).eps = 1e-5
    print("timm's logits moved by mistakes made on purpose:")
    for mistake, reference in mistakes.items():
        difference = np.abs(reference.values()["logits"] - right).max() / np.abs(right).max()
        print(f"  {difference:.1e} {mistake}")
        assert difference > 3e-5, "the fixtures would not show this mistake"


def describe(name: str, track: dict[str, np.ndarray]) -> str:
    """Says where clipping acted, and makes sure that it acted in some updates only."""
    clipped = [t for t, norm in enumerate(track["grad_norms"]) if norm > CLIP_NORM]
    print(f"{name}: loss {track['losses'][0]:.4f} to {track['losses'][-1]:.4f}")
    print("  losses     " + " ".join(f"{x:.4f}" for x in track["losses"]))
    print("  grad norms " + " ".join(f"{x:.4f}" for x in track["grad_norms"]))
    print(f"  clipped in updates {clipped}")
    assert track["losses"][-1] < 0.8 * track["losses"][0], "the loss hardly falls"
    assert 2 <= len(clipped) <= TOTAL_STEPS - 2, "clipping acts always or (nearly) never"
    closest = np.abs(track["grad_norms"] - CLIP_NORM).min()
    assert closest > 1e-2, "a norm so near the threshold makes the branch a matter of rounding"
    return json.dumps(clipped)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the fixtures of the parity tests.")
    default = Path(__file__).resolve().parent.parent / "crates/mixer-model/tests/fixtures"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help="where to write")
    directory = parser.parse_args().out

    writer = Writer(directory)
    parameters, batch = make_parameters(), make_batch()

    reference = FlaxReference(parameters, batch)
    values, gradients = reference.values(), reference.gradients()
    check_gradients(gradients)
    check_references_agree(parameters, batch, reference, values, gradients)
    check_mistakes_show(parameters, batch)
    flax_metadata = {
        "reference": "flax",
        "gelu": "tanh",
        "source": "google-research/vision_transformer@c6de1e5 vit_jax/models_mixer.py (rewritten)",
        "clip_rule": "scale = clip / norm where norm >= clip (optax.clip_by_global_norm)",
    }
    writer.npz("flax_tiny.npz", parameters)
    writer.npz("flax_tiny_legacy.npz", legacy_layout(parameters))
    writer.npz("flax_tiny_grads.npz", gradients)
    writer.safetensors("flax_tiny_io.safetensors", batch | values, flax_metadata)
    for recipe in (SGD, ADAMW):
        track, final = reference.train(recipe)
        name = f"flax_tiny_{recipe['optimizer']}"
        clipped = {"clipped_updates": describe(name, track)}
        writer.safetensors(f"{name}.safetensors", track, flax_metadata | recipe | clipped)
        writer.npz(f"{name}_final.npz", final)

    reference = TimmReference(parameters, batch)
    values_erf = reference.values()
    timm_metadata = {
        "reference": "timm",
        "gelu": "erf",
        "source": "timm.models.mlp_mixer.MlpMixer",
        "clip_rule": "scale = min(1, clip / (norm + 1e-6)) (torch.nn.utils.clip_grad_norm_)",
    }
    writer.safetensors("timm_tiny.safetensors", timm_from_flax(parameters), timm_metadata)
    writer.pth("timm_tiny.pth", reference.model.state_dict())
    writer.pth("timm_tiny_wrapped.pth", {"state_dict": reference.model.state_dict(), "epoch": 3})
    gradients_erf = reference.gradients()
    check_gradients(gradients_erf)
    writer.safetensors("timm_tiny_grads.safetensors", gradients_erf, timm_metadata)
    writer.safetensors("timm_tiny_io.safetensors", batch | values_erf, timm_metadata)
    for recipe in (SGD, ADAMW):
        track, final = reference.train(recipe)
        name = f"timm_tiny_{recipe['optimizer']}"
        clipped = {"clipped_updates": describe(name, track)}
        writer.safetensors(f"{name}.safetensors", track, timm_metadata | recipe | clipped)
        writer.safetensors(f"{name}_final.safetensors", final, timm_metadata | recipe)

    difference = np.abs(values["logits"] - values_erf["logits"]).max()
    print(f"largest logit difference between tanh and erf GELU: {difference:.1e}")
    for name, size in writer.sizes.items():
        print(f"{size:>8}  {name}")
    print(f"{sum(writer.sizes.values()):>8}  together")


if __name__ == "__main__":
    sys.exit(main())
