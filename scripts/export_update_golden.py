# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "safetensors==0.8.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
# ]
# ///
"""Makes the golden numbers of sharpness-aware updates and of distillation.

    uv run scripts/export_update_golden.py [--out DIR]

Both start from the fixtures of `scripts/export_golden.py`: the little Mixer of
`timm_tiny.safetensors` and its batch.

- `sam.json`: SAM, ASAM and GSAM written here from their papers around PyTorch's own
  optimizers and clipping, update by update;
- `distillation.json`: the loss of Hinton et al. 2015 and its gradient, by PyTorch's
  `kl_div` and `cross_entropy`.

Everything is float64 on the CPU, so that the numbers are those of the formulas.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
import timm.models.mlp_mixer
import torch
import torch.nn.functional as F

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/mixer-model/tests/fixtures"

STEPS = 8
WARMUP_STEPS = 2
CLIP_NORM = 2.0
ADAMW = {"kind": "adamw", "learning_rate": 0.02, "weight_decay": 0.1}
SGD = {"kind": "sgd", "learning_rate": 0.2, "weight_decay": 0.0, "momentum": 0.9}

# The radii are large, so that a mistake in the second gradient shows.
RUNS = {
    "sam_adamw": ADAMW | {"sam": {"rho": 0.3}},
    "sam_sgd": SGD | {"sam": {"rho": 0.2}},
    "asam_adamw": ADAMW | {"sam": {"rho": 1.5, "adaptive": True}},
    "gsam_adamw": ADAMW | {"sam": {"rho": 0.5, "rho_min": 0.1, "alpha": 0.4}},
    "adaptive_gsam_sgd": SGD | {"sam": {"rho": 1.0, "adaptive": True, "alpha": 0.2}},
    "every_third_adamw": ADAMW | {"sam": {"rho": 0.4, "every": 3, "alpha": 0.1}},
}


def learning_rate(step: int, base: float) -> float:
    progress = min(max((step - WARMUP_STEPS) / (STEPS - WARMUP_STEPS), 0.0), 1.0)
    return base * min(1.0, step / WARMUP_STEPS) * (1.0 - progress)


def make_model() -> timm.models.mlp_mixer.MlpMixer:
    header = json.loads(safetensors_metadata(FIXTURES / "timm_tiny.safetensors")["config"])
    model = timm.models.mlp_mixer.MlpMixer(
        num_classes=header["num_classes"],
        img_size=header["image_size"],
        patch_size=header["patch_size"],
        num_blocks=header["num_blocks"],
        embed_dim=header["hidden_dim"],
        mlp_ratio=(
            header["tokens_mlp_dim"] / header["hidden_dim"],
            header["channels_mlp_dim"] / header["hidden_dim"],
        ),
    )
    weights = safetensors.numpy.load_file(FIXTURES / "timm_tiny.safetensors")
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return model.double()


def safetensors_metadata(path: Path) -> dict:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length))["__metadata__"]


def norm_of(tensors) -> float:
    return math.sqrt(sum((t * t).sum().item() for t in tensors))


def train(name: str, run: dict, images, labels) -> dict:
    model = make_model()
    model.train()
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]
    if run["kind"] == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=run["momentum"])
    else:
        kernels = [p for p in parameters if p.ndim >= 2]
        others = [p for p in parameters if p.ndim < 2]
        groups = [
            {"params": kernels, "weight_decay": run["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    sam = run["sam"]
    rho, alpha, every = sam["rho"], sam.get("alpha", 0.0), sam.get("every", 1)
    is_adaptive, least = sam.get("adaptive", False), sam.get("rho_min")

    def gradient():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss.item(), [p.grad.detach().clone() for p in parameters]

    losses, norms, clipped = [], [], 0
    for step in range(STEPS):
        rate = learning_rate(step, run["learning_rate"])
        loss, applied = gradient()
        if step % every == 0:
            # The last rate of this decay is 0.
            radius = rho if least is None else least + (rho - least) * rate / run["learning_rate"]
            weights = [p.detach().clone() for p in parameters]
            sizes = [w.abs() if is_adaptive else torch.ones_like(w) for w in weights]
            norm = norm_of([s * g for s, g in zip(sizes, applied)])
            with torch.no_grad():
                for p, s, g in zip(parameters, sizes, applied):
                    p.add_(radius * s * s * g / norm)
            _, perturbed = gradient()
            with torch.no_grad():
                for p, w in zip(parameters, weights):
                    p.copy_(w)
            length = norm_of(perturbed)
            unit = [g / length for g in perturbed]
            along = sum((g * u).sum().item() for g, u in zip(applied, unit))
            applied = [
                p - alpha * (g - along * u) for p, g, u in zip(perturbed, applied, unit)
            ]
        for p, g in zip(parameters, applied):
            p.grad = g
        norm = norm_of(applied)
        norms.append(norm)
        clipped += norm > CLIP_NORM
        # optax's rule, without PyTorch's 1e-6.
        if norm > CLIP_NORM:
            for p in parameters:
                p.grad.mul_(CLIP_NORM / norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss)
    assert 0 < clipped < STEPS, f"{name}: clipping acts in {clipped} of {STEPS} updates"
    final = {}
    for (name, value), before in zip(model.named_parameters(), start):
        flat = value.detach().flatten()
        # The norm of the way that it went, and some of its values.
        final[name] = [(value - before).norm().item(), flat[0].item(), flat[-1].item()]
    return {"losses": losses, "grad_norms": norms, "final": final}


def distillation(io: dict) -> list[dict]:
    rng = np.random.default_rng(2015)
    logits = io["logits"].astype(np.float64)
    teacher = rng.normal(size=logits.shape) * 3.0
    targets = io["soft_labels"].astype(np.float64)
    cases = []
    for temperature, weight in [(1.0, 0.5), (4.0, 0.9), (0.5, 1.0)]:
        student = torch.from_numpy(logits).requires_grad_()
        hard = F.cross_entropy(student, torch.from_numpy(targets), reduction="none")
        soft = F.kl_div(
            F.log_softmax(student / temperature, 1),
            F.log_softmax(torch.from_numpy(teacher) / temperature, 1),
            reduction="none",
            log_target=True,
        ).sum(1)
        losses = (1.0 - weight) * hard + weight * temperature**2 * soft
        (gradient,) = torch.autograd.grad(losses.mean(), student)
        cases.append(
            {
                "temperature": temperature,
                "weight": weight,
                "losses": losses.tolist(),
                "gradient": gradient.flatten().tolist(),
            }
        )
    return {
        "logits": logits.flatten().tolist(),
        "teacher": teacher.flatten().tolist(),
        "targets": targets.flatten().tolist(),
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes golden numbers of updates.")
    default = ROOT / "crates/mixer-train/tests/golden"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help="where to write")
    directory = parser.parse_args().out
    io = safetensors.numpy.load_file(FIXTURES / "timm_tiny_io.safetensors")
    images = torch.from_numpy(io["images"]).permute(0, 3, 1, 2).double()
    labels = torch.from_numpy(io["labels"])
    runs = {name: run | train(name, run, images, labels) for name, run in RUNS.items()}
    shared = {"steps": STEPS, "warmup_steps": WARMUP_STEPS, "clip_norm": CLIP_NORM}
    directory.mkdir(parents=True, exist_ok=True)

    def write(name: str, value: dict) -> None:
        rounded = json.loads(json.dumps(value), parse_float=lambda x: float(f"{float(x):.9g}"))
        text = json.dumps(rounded, separators=(",", ":")) + "\n"
        (directory / name).write_text(text)
        print(f"{len(text):>8}  {name}")

    for name, run in runs.items():
        print(name, " ".join(f"{x:.4f}" for x in run["losses"]))
    write("sam.json", shared | {"runs": runs})
    write("distillation.json", distillation(io))


if __name__ == "__main__":
    sys.exit(main())
