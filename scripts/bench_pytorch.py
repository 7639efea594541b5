#!/usr/bin/env python3
"""Compares `mixer bench` with timm under PyTorch on this machine's CPU.

Every measurement is a process of its own; PyTorch eager, `torch.compile` and mixer take turns, so that
whatever else the machine does meets all of them. Same model, batch, precision and number of threads, data
in memory: a training step is forward, cross-entropy, backward, clipping of the global norm, AdamW (fused
in PyTorch). Ratios are those of one turn, against the faster of eager and compiled; the table has their
median, least and greatest. Memory is a process' peak over what it was before the network was built.

Needs torch and timm from PyPI, and a release build of mixer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MIXER_SIMD": "avx2",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--models", nargs="+", default=["S/32:32", "S/16:32", "B/16:8"], help="model:batch, or configuration:batch")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of both; autocast in PyTorch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave `torch.compile` out")
    parser.add_argument("--avx2", action="store_true", help="hold both to AVX2")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def status(field):
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def worker(args):
    """One measurement of PyTorch, printed as JSON."""
    import torch
    import timm

    model_name, batch = args.models[0].split(":")
    batch = int(batch)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    before = status("VmRSS:")
    if model_name.endswith(".toml"):
        with open(model_name, "rb") as file:
            dims = tomllib.load(file)["model"]
        width = dims["hidden_dim"]
        ratio = (dims.get("tokens_mlp_dim", width // 2) / width, dims.get("channels_mlp_dim", 4 * width) / width)
        model = timm.models.MlpMixer(
            num_classes=10, img_size=dims["image_size"], patch_size=dims["patch_size"], embed_dim=width,
            num_blocks=dims["num_blocks"], mlp_ratio=ratio,
        )
        size, classes = dims["image_size"], 10
    else:
        name = "mixer_{}_224".format(model_name.lower().replace("/", ""))
        size, classes = 224, 1000
        model = timm.create_model(name, num_classes=classes)
    images = torch.rand(batch, 3, size, size)
    labels = torch.randint(0, classes, (batch,))
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
    if args.mode == "train":
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
        run = torch.compile(model) if args.worker == "compile" else model

        def step():
            with cast:
                loss = torch.nn.functional.cross_entropy(run(images), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()
    else:
        model.eval()
        run = torch.compile(model) if args.worker == "compile" else model

        def step():
            with torch.inference_mode(), cast:
                return run(images).float().sum().item()

    for _ in range(3):
        step()
    times = []
    for _ in range(args.steps):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    result = {"step_ms": statistics.median(times) * 1e3, "peak_memory_mb": status("VmHWM:") - before}
    print(json.dumps(result))


def measure(args, contender, model):
    """One process; `{"step_ms", "peak_memory_mb", …}`."""
    environment = dict(os.environ, **(AVX2 if args.avx2 else {}))
    environment["OMP_NUM_THREADS"] = str(args.threads)
    name, batch = model.split(":")
    if contender == "mixer":
        network = "--config" if name.endswith(".toml") else "--model"
        command = [args.mixer, "bench", args.mode, network, name, "--batch-size", batch]
        command += ["--steps", str(args.steps), "--threads", str(args.threads), "--device", "flex"]
        command += ["--precision", args.precision, "--format", "json"]
    else:
        command = [sys.executable, __file__, "--worker", contender, "--models", model, "--mode", args.mode]
        command += ["--precision", args.precision, "--threads", str(args.threads), "--steps", str(args.steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{contender} failed on {model}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout if contender == "mixer" else done.stdout.splitlines()[-1])
    return result[0] if contender == "mixer" else result


def main():
    args = arguments()
    if args.worker:
        return worker(args)
    contenders = ["eager"] + ([] if args.no_compile else ["compile"]) + ["mixer"]
    everything = []
    title = f"{args.mode}, {args.precision}, {args.threads} threads, {args.rounds} rounds"
    print(f"{title}{', held to AVX2' if args.avx2 else ''}\n")
    print("| model | batch | " + " | ".join(f"{c} ms" for c in contenders), end="")
    print(" | ratio (least to greatest) | share of FMA peak | memory MB, PyTorch / mixer | memory ratio |")
    print("|---" * (len(contenders) + 6) + "|")
    for model in args.models:
        rounds = []
        for turn in range(args.rounds):
            measured = {contender: measure(args, contender, model) for contender in contenders}
            rounds.append(measured)
            everything.append({"model": model, "round": turn, **measured})
            print(model, turn, {c: round(m["step_ms"], 1) for c, m in measured.items()}, file=sys.stderr)
        peers = contenders[:-1]
        ratios = [min(r[p]["step_ms"] for p in peers) / r["mixer"]["step_ms"] for r in rounds]
        median = {c: statistics.median(r[c]["step_ms"] for r in rounds) for c in contenders}
        memory = {c: statistics.median(r[c]["peak_memory_mb"] for r in rounds) for c in contenders}
        # Eager's memory: compiling needs more for the compiler itself.
        share = statistics.median(r["mixer"]["share_of_peak"] for r in rounds)
        name, batch = model.split(":")
        if name.endswith(".toml"):
            name = os.path.basename(name).removesuffix(".toml")
        print(f"| {name} | {batch} | " + " | ".join(f"{median[c]:.{0 if median[c] > 100 else 1}f}" for c in contenders), end="")
        print(f" | **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) | {share:.0%}", end="")
        print(f" | {memory['eager']:.0f} / {memory['mixer']:.0f} | {memory['mixer'] / memory['eager']:.2f} |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
