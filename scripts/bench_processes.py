#!/usr/bin/env python3
"""How much faster several processes train: images per second, by number of processes and threads of each.

Every measurement is a run of its own from the same start on built-in data; they take turns, so that whatever
else the machine does meets all of them. The first of --on is what the others are divided by. The losses of all
runs are compared: on CPUs they have to be the same to the last digit, on GPUs nearly.

    scripts/bench_processes.py --on 1x2 2x1                      two cores: one process, or two
    scripts/bench_processes.py --on 1 2 8 --device cuda --weak   GPUs of a machine, a batch for each

Needs `mpirun`, and mixer built with `--features mpi` (and `cuda`).
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--on", nargs="+", default=["1x2", "2x1"], metavar="PROCESSES[xTHREADS]")
    parser.add_argument("--models", nargs="+", default=["S/16:8", "B/16:4"], metavar="MODEL:BATCH")
    parser.add_argument("--microbatch", type=int, default=2, help="examples per microbatch of a process")
    parser.add_argument("--weak", action="store_true", help="BATCH for each process, and not for all")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--device", default="flex")
    parser.add_argument("--steps", type=int, default=6, help="updates; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mpirun", default="mpirun --bind-to none --oversubscribe", help="how to start")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more of the configuration")
    return parser.parse_args()


CONFIG = """
[model]
variant = "{variant}"
[data]
source = "builtin"
train_examples = 64
val_examples = 2
crop = "none"
eval_resize = "squash"
[train]
batch_size = {batch}
microbatch_size = {microbatch}
steps = {steps}
log_every_steps = 1
precision = "{precision}"
"""


def measure(args, directory, on, model):
    """Images per second after the first update, the share of time with others, and the losses."""
    processes, _, threads = on.partition("x")
    variant, batch = model.split(":")
    batch = int(batch) * (int(processes) if args.weak else 1)
    run = tempfile.mkdtemp(dir=directory)
    config = os.path.join(run, "run.toml")
    with open(config, "w") as file:
        file.write(
            CONFIG.format(
                variant=variant,
                batch=batch,
                microbatch=args.microbatch,
                steps=args.steps,
                precision=args.precision,
            )
        )
    command = args.mpirun.split() + ["-n", processes, args.mixer, "pretrain", config, "--device", args.device]
    command += ["--run-dir", os.path.join(run, "run")] + (["--threads", threads] if threads else [])
    command += [word for setting in args.set for word in ("--set", setting)]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    with open(os.path.join(run, "run", "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    lines = [line for line in lines if line["kind"] == "train"]
    speed = statistics.median(line["images_per_sec"] for line in lines[1:])
    exchange = statistics.median(line.get("exchange", 0.0) for line in lines[1:])
    return speed, exchange, [line["loss"] for line in lines]


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as directory:
        for model in args.models:
            found = {on: [] for on in args.on}
            for _ in range(args.rounds):
                for on in args.on:
                    found[on].append(measure(args, directory, on, model))
            first = args.on[0]
            for on in args.on:
                speeds = [speed for speed, _, _ in found[on]]
                ratios = [own / other for own, (other, _, _) in zip(speeds, found[first])]
                exchange = statistics.median(exchange for _, exchange, _ in found[on])
                losses, expected = found[on][0][2], found[first][0][2]
                apart = max(abs(a - b) / abs(b) for a, b in zip(losses, expected))
                print(
                    f"{model:>8} {on:>6}: {statistics.median(speeds):9.2f} images/s, "
                    f"{statistics.median(ratios):.3f} of {first} ({min(ratios):.3f} to {max(ratios):.3f}), "
                    f"with the others {100 * exchange:.1f} %"
                    + ("" if args.weak else f", losses apart by {apart:.1e}"),
                    flush=True,
                )


if __name__ == "__main__":
    main()
