#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "pillow==13.0.0",
#     "safetensors==0.8.0",
#     "timm==1.0.31",
#     "torch==2.15.0",
#     "torchvision==0.29.2",
# ]
# ///
"""Trains one recipe with `mixer pretrain` and with timm under PyTorch, and compares the accuracies.

    scripts/parity_of_learning.py configs/pretrain/cifar10_mixer.toml --seeds 3
    scripts/parity_of_learning.py nano.toml --set data.train_fraction=0.1 --set train.epochs=30 --out runs/parity

For each seed both programs start from the same initial weights, which are those of `mixer pretrain`, see the
same training pictures (those of `data.train_fraction` are chosen here, by `data.train_fraction_seed`), as many
updates, the same learning rate in each of them, and are evaluated once, at the end, on the same pictures. Order
and augmentation are drawn by each program for itself, so that accuracies agree in distribution and not in digits.
What the configuration asks for and this script cannot do in PyTorch is refused. Where nothing is left to draw
(--set train.batch_size=ALL --set data.crop=none --set data.flip=false, no mixing), short runs agree to the picture.

The table has mean and standard deviation of top-1 over the seeds, and the difference of the means with its 95 %
interval by Student's t, of two samples of one variance. Times are those of whole processes: PyTorch decodes every
picture once and keeps it, and mixer decodes it again in each epoch. Runs that are done are not done again by the
same command with the same --out, also not with more --seeds.

Needs class folders of pictures, and a build of mixer (--mixer).
"""

import argparse
import csv
import json
import math
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
# Keys of a resolved configuration. The first are done in both programs; of the second only one value is; the
# third change no result, or only when it is measured. All others are refused.
TRANSLATED = """seed
    model.image_size model.patch_size model.hidden_dim model.num_blocks model.tokens_mlp_dim model.channels_mlp_dim
    model.gelu model.head_bias
    data.path data.train data.val data.train_fraction data.train_fraction_seed data.crop data.flip data.randaugment
    data.mix data.interpolation data.mean data.std
    optimizer.kind optimizer.learning_rate optimizer.weight_decay optimizer.momentum optimizer.beta1 optimizer.beta2
    optimizer.epsilon
    schedule.decay schedule.warmup_steps schedule.linear_end
    train.batch_size train.microbatch_size train.steps train.label_smoothing train.clip_norm""".split()
ONLY = {
    "data.source": "folder", "data.repeats": 1, "data.eval_resize": "squash", "data.shuffle": "none",
    "data.apply_exif_orientation": False, "data.jpeg_scaling": False, "model.token_mixing_groups": 1,
    "model.drop_path_rate": 0, "train.loss": "softmax", "train.precision": "f32", "train.layer_decay": 1,
}
WITHOUT_EFFECT = """data.max_pixels data.on_corrupt data.workers data.queue_mib model.drop_path_scaling
    train.eval_at_start train.eval_batch_size train.eval_every_steps train.checkpoint_every_steps
    train.keep_checkpoints train.keep_best_checkpoint train.keep_checkpoint_every_steps train.log_every_steps
    train.on_divergence train.outlier_z_score train.exchange_precision train.rank_timeout_secs
    train.recompute_blocks""".split()
FILTERS = {"bilinear": "BILINEAR", "bicubic": "BICUBIC", "area": "BOX"}
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; the normal distribution's after them.
T_QUANTILES = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
]


class Refused(Exception):
    """A configuration, a file or a program that cannot be used, shown as one line."""


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return number


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="configuration of `mixer pretrain`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `mixer pretrain --set`")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs of each program, from `seed` on")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of both programs")
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--out", type=Path, default=Path("runs/parity_of_learning"), help="folder for runs and results")
    parser.add_argument("--keep-going-until", metavar="HH:MM", help="start no run after this time of day")
    return parser.parse_args()


def command(args, what):
    """Runs a command, and gives its output; its last line of errors where it fails."""
    try:
        done = subprocess.run(args, capture_output=True, text=True)
    except OSError as error:
        raise Refused(f"{what} does not start: {error}; --mixer names the binary of mixer") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "nothing")
        raise Refused(f"{what} ended with exit code {done.returncode}: {said.removeprefix('error: ')}")
    return done.stdout


def flat(config):
    for section, value in config.items():
        if isinstance(value, dict):
            yield from ((f"{section}.{key}", inner) for key, inner in value.items())
        else:
            yield section, value


def resolved(args):
    """The configuration with every value, as `mixer config show` gives it, if PyTorch can do the same."""
    show = [args.mixer, "config", "show", str(args.config), "--format", "json"]
    for pair in args.set:
        show += ["--set", pair]
    config = json.loads(command(show, "mixer config show"))
    for key, value in flat(config):
        if key in ONLY:
            if value != ONLY[key]:
                raise Refused(f"`{key}` is {json.dumps(value)}, which this script cannot do in PyTorch; expected {json.dumps(ONLY[key])}")
        elif key not in TRANSLATED and key not in WITHOUT_EFFECT:
            raise Refused(f"`{key}` is set, which this script cannot do in PyTorch; take it out")
    data, train, optimizer = config["data"], config["train"], config["optimizer"]
    if data["crop"] != "none" and set(data["crop"]) != {"pad"}:
        raise Refused("`data.crop` is none that this script can do in PyTorch; add --set 'data.crop={pad={pixels=4}}' or --set data.crop=none")
    policy = data.get("randaugment")
    if policy and policy["flavour"] != "autoaugment":
        raise Refused(f"`data.randaugment.flavour` is \"{policy['flavour']}\", which this script cannot do in PyTorch; expected \"autoaugment\"")
    partners = data.get("mix", {}).get("partners")
    if partners == "microbatch" and train["microbatch_size"] != train["batch_size"]:
        raise Refused("`data.mix` pairs examples of a microbatch, and PyTorch those of a batch; add --set train.microbatch_size=" + str(train["batch_size"]))
    if optimizer["kind"] == "sgd" and optimizer["weight_decay"] != 0:
        raise Refused("`optimizer.weight_decay` is decoupled, which PyTorch's SGD is not; add --set optimizer.weight_decay=0")
    return config


def folder(config, key):
    path = Path(config["data"]["path"]) / config["data"][key]
    if not path.is_dir():
        raise Refused(f"`data.{key}` is {path}, expected a folder of class folders without a range; `mixer data shard` and lists are not for this script")
    found = [
        (str(file.resolve()), label.name)
        for label in sorted(path.iterdir()) if label.is_dir()
        for file in sorted(label.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if len({label for _, label in found}) < 2:
        raise Refused(f"{path} has pictures of fewer than two classes in class folders")
    return found


def prepare(config, out):
    """Lists of the pictures that both programs see, and the configuration that names them."""
    data = config["data"]
    train, val = folder(config, "train"), folder(config, "val")
    count = max(1, round(data.get("train_fraction", 1) * len(train)))
    train = sorted(random.Random(data.get("train_fraction_seed", 0)).sample(train, count))
    missing = {label for _, label in val} - {label for _, label in train}
    if missing:
        raise Refused(f"no training picture is of the class {min(missing)}; a larger `data.train_fraction` has one")
    for name, rows in (("train", train), ("val", val), ("start", val[:1])):
        with open(out / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
    data = {key: value for key, value in data.items() if key not in ("train_fraction", "train_fraction_seed")}
    data |= {"source": "list", "path": str(out), "train": "train.csv", "val": "val.csv"}
    steps = config["train"]["steps"]
    train = config["train"] | {"eval_every_steps": steps, "checkpoint_every_steps": steps, "eval_at_start": False}
    return config | {"data": data, "train": train}


def toml(value):
    """A value as TOML writes it, tables on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def write_toml(config, path):
    lines = []
    for section, value in sorted(config.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += ["", f"[{section}]"] + [f"{key} = {toml(inner)}" for key, inner in value.items()]
        else:
            lines.append(f"{section} = {toml(value)}")
    path.write_text("\n".join(lines) + "\n")


def timed(args, what):
    """What a command prints, its time on the clock, and that of the processors."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    output = command(args, what)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return output, {"seconds": time.monotonic() - started, "processor_seconds": processor}


def last_evaluation(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line["top1"] for line in reversed(lines) if line["kind"] == "eval")


def train_mixer(args, config, out):
    write_toml(config, out / "recipe.toml")
    shutil.rmtree(out / "mixer", ignore_errors=True)  # of a run that was cut off: its time is lost
    pretrain = [args.mixer, "pretrain", str(out / "recipe.toml"), "--run-dir", str(out / "mixer")]
    pretrain += ["--device", "cpu", "--threads", str(args.threads)]
    _, measured = timed(pretrain, "mixer pretrain")
    return measured | {"top1": last_evaluation(out / "mixer")}


def train_torch(args, config, out):
    # A run of one update at a rate that changes no number leaves the weights that every run of the seed starts from.
    start, weights = out / "start", out / "start" / "final.safetensors"
    shutil.rmtree(start, ignore_errors=True)
    one = config | {
        "data": {key: value for key, value in config["data"].items() if key != "mix"} | {"val": "start.csv"},
        "optimizer": config["optimizer"] | {"learning_rate": 1e-30},
        "schedule": {"decay": "constant", "warmup_steps": 0},
        "train": config["train"] | {"steps": 1, "eval_every_steps": 1, "checkpoint_every_steps": 1, "batch_size": 1, "microbatch_size": 1},
    }
    write_toml(one, out / "start.toml")
    command([args.mixer, "pretrain", str(out / "start.toml"), "--run-dir", str(start), "--device", "cpu"], "mixer pretrain")
    recipe = {"config": config, "weights": str(weights), "threads": args.threads}
    (out / "recipe.json").write_text(json.dumps(recipe))
    output, measured = timed([sys.executable, __file__, "--worker", str(out / "recipe.json")], "PyTorch")
    return measured | json.loads(output.splitlines()[-1])


def worker(path):
    """One run of PyTorch; prints its top-1 as JSON."""
    from functools import partial

    import numpy as np
    import safetensors.torch
    import timm
    import torch
    from PIL import Image

    recipe = json.loads(Path(path).read_text())
    config = recipe["config"]
    dims, data, optim, schedule, train = (config[key] for key in ("model", "data", "optimizer", "schedule", "train"))
    torch.set_num_threads(recipe["threads"])
    torch.manual_seed(config["seed"])
    rng = np.random.default_rng(config["seed"])
    size = dims["image_size"]

    def pictures(name):
        with open(Path(data["path"]) / name, newline="") as file:
            rows = [(row["path"], row["label"]) for row in csv.DictReader(file)]
        images = np.empty((len(rows), size, size, 3), np.uint8)
        for place, (file, _) in zip(images, rows):
            with Image.open(file) as image:
                image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), getattr(Image.Resampling, FILTERS[data["interpolation"]]))
            place[:] = np.asarray(image)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), [label for _, label in rows]

    images, names = pictures("train.csv")
    val_images, val_names = pictures("val.csv")
    classes = {name: number for number, name in enumerate(sorted(set(names)))}
    labels = torch.tensor([classes[name] for name in names])
    val_labels = torch.tensor([classes[name] for name in val_names])
    mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    activation = {"erf": torch.nn.GELU, "tanh": partial(torch.nn.GELU, approximate="tanh")}[dims["gelu"]]
    width = dims["hidden_dim"]
    # timm multiplies the ratios by the width and truncates; the half keeps 21.999999 from being cut to 21.
    ratios = ((dims["tokens_mlp_dim"] + 0.5) / width, (dims["channels_mlp_dim"] + 0.5) / width)
    model = timm.models.mlp_mixer.MlpMixer(
        num_classes=len(classes), img_size=size, patch_size=dims["patch_size"], num_blocks=dims["num_blocks"],
        embed_dim=width, mlp_ratio=ratios, act_layer=activation,
    )
    model.load_state_dict(safetensors.torch.load_file(recipe["weights"]), strict=True)
    # What the update of the start has added to zeros.
    for parameter in model.parameters():
        parameter.data[parameter.data.abs() < 1e-20] = 0

    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": optim["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    if optim["kind"] == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=optim["momentum"])
    else:
        betas = (optim["beta1"], optim["beta2"])
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=optim["epsilon"], fused=True)

    steps, warmup = train["steps"], schedule["warmup_steps"]

    def rate(step):
        passed, end = max(0, step - warmup) / (steps - warmup), schedule.get("linear_end", 0.0)
        decay = {
            "cosine": (1 + math.cos(math.pi * passed)) / 2, "linear": end + (1 - end) * (1 - passed), "constant": 1.0,
        }[schedule["decay"]]
        return optim["learning_rate"] * (min(1.0, step / warmup) if warmup else 1.0) * decay

    policy = None
    if data.get("randaugment"):
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy

        auto = data["randaugment"]
        policy = AutoAugment(AutoAugmentPolicy[auto["policy"].upper()], fill=auto.get("fill", [0, 0, 0]))
    pad = 0 if data["crop"] == "none" else data["crop"]["pad"]["pixels"]

    def augmented(batch):
        batch = torch.nn.functional.pad(batch, (pad,) * 4)
        result = torch.empty(len(batch), 3, size, size, dtype=torch.uint8)
        for place, image in zip(result, batch):
            y, x = rng.integers(0, 2 * pad + 1, 2)
            image = image[:, y : y + size, x : x + size]
            image = image.flip(-1) if data["flip"] and rng.random() < 0.5 else image
            place.copy_(policy(image) if policy else image)
        return normalised(result)

    def normalised(batch):
        return (batch.float() / 255 - mean) / std

    def mixed(batch, targets):
        mix = data.get("mix")
        if not mix or not (mix["mixup_alpha"] or mix["cutmix_alpha"]) or rng.random() >= mix["prob"]:
            return batch, targets
        pair = (lambda values: values.flip(0)) if mix["flavour"] == "timm" else (lambda values: values.roll(1, 0))
        both = mix["mixup_alpha"] and mix["cutmix_alpha"]
        if rng.random() < mix["switch_prob"] if both else mix["cutmix_alpha"]:
            half = int(size * math.sqrt(1 - rng.beta(mix["cutmix_alpha"], mix["cutmix_alpha"]))) // 2
            (top, bottom), (left, right) = ((max(0, c - half), min(size, c + half)) for c in rng.integers(0, size, 2))
            partner = pair(batch)
            batch = batch.clone()
            batch[:, :, top:bottom, left:right] = partner[:, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / size**2
        else:
            share = rng.beta(mix["mixup_alpha"], mix["mixup_alpha"])
            share = max(share, 1 - share) if mix["flavour"] == "big_vision" else share
            batch = share * batch + (1 - share) * pair(batch)
        return batch, share * targets + (1 - share) * pair(targets)

    def batches():
        """Passes over the pictures, one after another, cut into batches."""
        waiting = np.empty(0, np.int64)
        while True:
            while len(waiting) < train["batch_size"]:
                waiting = np.concatenate([waiting, rng.permutation(len(labels))])
            yield torch.from_numpy(waiting[: train["batch_size"]])
            waiting = waiting[train["batch_size"] :]

    model.train()
    for step, chosen in zip(range(steps), batches()):
        batch, targets = mixed(augmented(images[chosen]), torch.nn.functional.one_hot(labels[chosen], len(classes)).float())
        loss = torch.nn.functional.cross_entropy(model(batch), targets, label_smoothing=train["label_smoothing"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if train.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), train["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        if not math.isfinite(loss.item()):
            sys.exit(f"error: the loss of update {step + 1} is {loss.item()} in PyTorch")
    model.eval()
    right = 0
    with torch.inference_mode():
        for part in torch.arange(len(val_labels)).split(256):
            right += (model(normalised(val_images[part])).argmax(1) == val_labels[part]).sum().item()
    print(json.dumps({"top1": right / len(val_labels)}))


def spread(values):
    return f"{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "-"


def table(config, results):
    """Means, deviations, difference and its interval, as Markdown."""
    mixer, torch = ([result[name] for result in results] for name in ("mixer", "torch"))
    train = config["train"]
    print(f"{train['steps']} updates of {train['batch_size']}, {len(results)} seed(s)\n")
    print("| | top-1, mean | standard deviation | time of a run | processor time of a run |\n|---|---|---|---|---|")
    for name, runs in (("mixer", mixer), ("timm, PyTorch", torch)):
        top1 = [run["top1"] for run in runs]
        clock, processor = (statistics.mean(run[key] for run in runs) for key in ("seconds", "processor_seconds"))
        print(f"| {name} | {100 * statistics.mean(top1):.2f} % | {spread(top1)} | {clock:.0f} s | {processor:.0f} s |")
    ours, theirs = ([run["top1"] for run in runs] for runs in (mixer, torch))
    difference = 100 * (statistics.mean(ours) - statistics.mean(theirs))
    count, interval = len(results), "no interval from one seed"
    if count > 1:
        freedom = 2 * count - 2
        quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96
        error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / count)
        half = 100 * quantile * error
        interval = f"95 % interval {difference - half:+.2f} to {difference + half:+.2f}"
    print(f"\nmixer - PyTorch: {difference:+.2f} points, {interval}")


def run(args):
    config = resolved(args)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    settings = {"threads": args.threads, "config": config}
    kept = out / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings:
        raise Refused(f"{args.out} holds the results of another configuration or number of threads; --out names another folder")
    config = prepare(config, out)
    kept.write_text(json.dumps(settings))
    results = []
    for seed in range(config["seed"], config["seed"] + args.seeds):
        place = out / f"seed={seed}"
        place.mkdir(exist_ok=True)
        result = {}
        for name, train in (("mixer", train_mixer), ("torch", train_torch)):
            done = place / f"{name}.json"
            if not done.exists():
                if args.keep_going_until and time.strftime("%H:%M") >= args.keep_going_until:
                    break
                measured = train(args, config | {"seed": seed}, place)
                done.write_text(json.dumps(measured))
            result[name] = json.loads(done.read_text())
            print(f"seed {seed}, {name}: top-1 {100 * result[name]['top1']:.2f} %, {result[name]['seconds']:.0f} s", file=sys.stderr)
        if len(result) == 2:
            results.append(result)
    if not results:
        raise Refused("no seed was trained by both programs before --keep-going-until")
    table(config, results)


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2])
    try:
        run(arguments())
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
