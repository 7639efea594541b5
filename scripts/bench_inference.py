#!/usr/bin/env python3
"""Compares `mixer predict` and `mixer evaluate` of a folder with timm's way to do the same, on the CPU.

Run     cargo build --release
        python3 scripts/bench_inference.py FOLDER --json FILE        # in full, on a machine with nothing else to do
        python3 scripts/bench_inference.py FOLDER --models S/32 --pictures 21 --rounds 1 --workers 1  # does it run?

In full it is S/32, S/16 and B/16, both tasks, all pictures of FOLDER and five rounds, of one worker of timm's and
of one for each processor.

FOLDER holds class folders of JPEGs. timm's way is that of its `inference.py` and `validate.py`: a
`DataLoader` with workers over torchvision's `ImageFolder`, timm's transform for evaluation, its model in
`inference_mode`, top 5 or top 1 and top 5. Both have the same weights, drawn by timm and written as
safetensors, the same batch and preprocessing. Each measurement is a process from its start to its end, and
within a round all take turns, so that whatever else the machine does meets all of them; files are in the system's
cache. A ratio is that of one round, of seconds of the clock or of seconds of all processors (user and
system, with the workers'), beside the fastest of timm's numbers of workers; the table has its median, least
and greatest over the rounds. Before, both must agree on the pictures.

Needs torch, torchvision, timm and safetensors from PyPI, and a release build of mixer. Downloads nothing.
"""

import argparse
import glob
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# Pictures per batch, of both.
BATCH = {"predict": 16, "evaluate": 64}
MEAN = STD = (0.5, 0.5, 0.5)
# Greatest difference of two probabilities that are the same: Pillow and mixer decode and resize with equal
# pixels, sums are in another order.
TOLERANCE = 1e-3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="class folders of JPEGs")
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--models", nargs="+", default=["S/32", "S/16", "B/16"])
    parser.add_argument("--tasks", nargs="+", choices=list(BATCH), default=list(BATCH))
    parser.add_argument("--pictures", type=int, help="only so many, evenly from all")
    parser.add_argument("--workers", nargs="+", type=int, default=sorted({1, os.cpu_count()}), help="of timm's loader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write every measurement there too")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is None and args.folder is None:
        parser.error("FOLDER is missing")
    return args


def timm_name(model):
    return "mixer_{}_224".format(model.lower().replace("/", ""))


def worker(task, weights, folder, workers):
    """timm's way, the whole of it; prints JSON."""
    import timm
    import torch
    from safetensors.torch import load_file
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    name = os.path.basename(weights).removesuffix(".safetensors")
    dataset = ImageFolder(folder, create_transform(224, interpolation="bicubic", crop_pct=0.875, mean=MEAN, std=STD))
    model = timm.create_model(name, num_classes=len(dataset.classes))
    model.load_state_dict(load_file(weights))
    model.eval()
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH[task], num_workers=int(workers))
    loss = right = 0.0
    found = []
    with torch.inference_mode():
        for images, labels in loader:
            logits = model(images)
            if task == "predict":
                values, indices = logits.softmax(-1).topk(5)
                found += [list(zip(*row)) for row in zip(indices.tolist(), values.tolist())]
            else:
                loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                right += (logits.argmax(-1) == labels).sum().item()
    if task == "predict":
        print(json.dumps({path: row for (path, _), row in zip(dataset.samples, found)}))
    else:
        print(json.dumps({"loss": loss / len(dataset), "top1": right / len(dataset)}))


def command(args, contender, task, weights, folder):
    if contender != "mixer":
        workers = contender.split()[1]
        return [sys.executable, os.path.abspath(__file__), "--worker", task, weights, folder, workers]
    if task == "predict":
        images = [folder, "--top-k", "5"]
    else:
        images = ["--data", os.path.dirname(folder), "--split", os.path.basename(folder)]
        images += ["--batch-size", str(BATCH[task])]
    return [args.mixer, task, weights, *images, "--device", "flex", "--format", "json"]


def measure(args, contender, task, weights, folder):
    """One process: `{"clock_s", "cpu_s"}`, and what it has printed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = command(args, contender, task, weights, folder)
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{contender} failed on {task}:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock_s": clock, "cpu_s": cpu}, json.loads(done.stdout)


def check(task, ours, theirs):
    """Ends the program where the two do not say the same."""
    if task == "evaluate":
        pairs = [("loss", ours["loss"], theirs["loss"]), ("top-1", ours["top1"], theirs["top1"])]
    else:
        # In the order of probability: classes may change places where they are equally probable.
        pairs = [
            (entry["path"], entry["predictions"][rank]["probability"], theirs[entry["path"]][rank][1])
            for entry in ours for rank in range(5)
        ]
        if len(ours) != len(theirs):
            sys.exit(f"mixer answers about {len(ours)} pictures, timm about {len(theirs)}")
    for what, found, expected in pairs:
        if abs(found - expected) > TOLERANCE * max(1.0, abs(expected)):
            sys.exit(f"{what}: mixer says {found}, timm {expected}")


def gather(folder, count, target):
    """Copies so many pictures of the folder, in their class folders, which also brings them into the cache."""
    files = sorted(glob.glob(os.path.join(folder, "*", "*")))
    files = [path for path in files if path.lower().endswith((".jpg", ".jpeg"))]
    if not files:
        sys.exit(f"no class folders of JPEGs: {folder}")
    count = min(count or len(files), len(files))
    for i in range(count):
        path = files[i * len(files) // count]
        place = os.path.join(target, os.path.basename(os.path.dirname(path)))
        os.makedirs(place, exist_ok=True)
        shutil.copy(path, place)
    return count


def draw_weights(model, classes, folder):
    """Random weights of timm's, in a process of its own so that this one stays small; gives their path."""
    path = os.path.join(folder, f"{timm_name(model)}.safetensors")
    code = (
        "import sys, timm, torch; from safetensors.torch import save_file; torch.manual_seed(0); "
        "model = timm.create_model(sys.argv[1], num_classes=int(sys.argv[2])); "
        "torch.nn.init.normal_(model.head.weight, std=0.05); save_file(model.state_dict(), sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", code, timm_name(model), str(classes), path], check=True)
    return path


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    args = arguments()
    if args.worker:
        return worker(*args.worker)
    peers = [f"timm {workers}" for workers in args.workers]
    everything = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "data", "val")
        os.makedirs(folder)
        pictures = gather(args.folder, args.pictures, folder)
        classes = len(os.listdir(folder))
        if classes < 5:
            sys.exit(f"{classes} class folders, expected at least 5")
        print(f"{pictures} pictures, {classes} classes, {os.cpu_count()} processors, {args.rounds} rounds\n")
        print("| model | task | " + " | ".join(f"{peer} workers, s" for peer in peers), end="")
        print(" | mixer, s | pictures/s | ratio of the clock | processors, s: timm / mixer | ratio of processors |")
        print("|---" * (len(peers) + 7) + "|")
        for model in args.models:
            weights = draw_weights(model, classes, scratch)
            for task in args.tasks:
                rounds = []
                for turn in range(args.rounds):
                    results = {c: measure(args, c, task, weights, folder) for c in [*peers, "mixer"]}
                    if turn == 0:
                        check(task, results["mixer"][1], results[peers[0]][1])
                    measured = {c: times for c, (times, _) in results.items()}
                    rounds.append(measured)
                    everything.append({"model": model, "task": task, "round": turn, **measured})
                    print(model, task, turn, {c: round(m["clock_s"], 2) for c, m in measured.items()}, file=sys.stderr)
                best = {key: [min(r[p][key] for p in peers) for r in rounds] for key in ("clock_s", "cpu_s")}
                ours = {key: [r["mixer"][key] for r in rounds] for key in best}
                median = statistics.median
                ratio = {key: [b / o for b, o in zip(best[key], ours[key])] for key in best}
                print(f"| {model} | {task} | ", end="")
                print(" | ".join(f"{median(r[p]['clock_s'] for r in rounds):.2f}" for p in peers), end="")
                print(f" | {median(ours['clock_s']):.2f} | {pictures / median(ours['clock_s']):.1f}", end="")
                print(f" | **{spread(ratio['clock_s'])}**", end="")
                print(f" | {median(best['cpu_s']):.2f} / {median(ours['cpu_s']):.2f} | {spread(ratio['cpu_s'])} |", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
