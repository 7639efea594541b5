#!/usr/bin/env python3
"""What checkpoints cost: the same run with and without them, in turn.

    python3 scripts/bench_checkpoints.py [--model S/16] [--batch-size 32] [--steps 24] [--every 6] [--rounds 3]

Prints the seconds of each run and the ratio of each pair, then the median and the range of the ratios. Runs
write into a temporary directory on the disk that TMPDIR names. Nothing else should run meanwhile.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--mixer", default="target/release/mixer")
parser.add_argument("--device", default="cpu")
parser.add_argument("--model", default="S/16")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--steps", type=int, default=24)
parser.add_argument("--every", type=int, default=6, help="updates between checkpoints")
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()

CONFIG = f"""
[model]
variant = "{args.model}"
image_size = {args.image_size}
[data]
source = "builtin"
train_examples = 2000
val_examples = 8
crop = "none"
eval_resize = "squash"
[train]
batch_size = {args.batch_size}
eval_batch_size = 8
steps = {args.steps}
log_every_steps = 1
eval_every_steps = {args.steps}
"""


def train_seconds(directory, name, every):
    """Seconds from the first to the last update, and how many checkpoints were written between."""
    run = os.path.join(directory, name)
    config = os.path.join(directory, "bench.toml")
    with open(config, "w") as file:
        file.write(CONFIG)
    command = [args.mixer, "pretrain", config, "--run-dir", run, "--device", args.device]
    command += ["--set", f"train.checkpoint_every_steps={every}"]
    metrics, process = os.path.join(run, "metrics.jsonl"), subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = last = None
    while process.poll() is None:
        time.sleep(0.01)
        try:
            with open(metrics) as file:
                lines = sum('"kind":"train"' in line for line in file)
        except FileNotFoundError:
            continue
        if lines >= 1 and first is None:
            first = time.monotonic()
        if lines >= args.steps and last is None:
            last = time.monotonic()
    says = process.stderr.read()
    if process.returncode != 0:
        raise SystemExit(says)
    stood_still = re.search(r"(\d+) checkpoints? written; training stood still for ([\d.]+) s", says)
    return last - first, int(stood_still[1]), float(stood_still[2])


print(f"{args.model} at {args.image_size} px, batch {args.batch_size}, {args.steps} updates, a checkpoint every {args.every}")
ratios = []
with tempfile.TemporaryDirectory() as directory:
    for round in range(args.rounds + 1):
        without, _, _ = train_seconds(directory, f"without_{round}", args.steps)
        with_them, count, stood_still = train_seconds(directory, f"with_{round}", args.every)
        note = "warm-up" if round == 0 else f"ratio {with_them / without:.4f}"
        between = without / (args.steps - 1) * args.every
        print(
            f"without {without:.2f} s, with {with_them:.2f} s ({count} checkpoints, one in {between:.1f} s; "
            f"training stood still for {stood_still:.2f} s): {note}",
            flush=True,
        )
        if round > 0:
            ratios.append(with_them / without)
print(f"median {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})")
