#!/usr/bin/env python3
"""Compares `mixer bench` with timm under PyTorch on one NVIDIA GPU.

Every measurement is a process of its own, so that none holds memory while another runs; PyTorch eager,
`torch.compile` and mixer take turns. Same model, precision and batch (unless each side looks for its own:
`--batch-size auto`). PyTorch has its images on the GPU; a training step is forward, cross-entropy,
backward, clipping of the global norm, fused AdamW. Ratios are those of one turn, against the faster of
eager and compiled: the table has their median, least and greatest. MFU is the architecture's operations
per second over those of an 8192^3 bf16 product that the same GPU did just before, whatever the precision.

Memory is compared like with like: what mixer says it took from the GPU with what PyTorch reserved, or,
where mixer says nothing, what nvidia-smi says of both processes (the CUDA context included).

Needs torch and timm from PyPI, and a release build of mixer with its feature `cuda`.
"""

import argparse
import functools
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time

IMAGE, CLASSES = 224, 1000
# Patch size, width, blocks. The hidden widths are a half and four times the width.
MODELS = {"S/32": (32, 512, 8), "S/16": (16, 512, 8), "B/32": (32, 768, 12), "B/16": (16, 768, 12)}
MODELS |= {"L/32": (32, 1024, 24), "L/16": (16, 1024, 24)}
BATCHES = {"S/16": "1024", "B/16": "512", "L/16": "256"}
AUTO = [4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 128, 64, 32]
# Device time is scarce, so what matters most is measured first, whatever the order on the command line.
PRIORITY = {"bf16": 0, "f32": 1, "train": 0, "infer": 1, "B/16": 0, "S/16": 1, "L/16": 2}
OUT_OF_MEMORY = re.compile(r"out.?of.?memory|buffer.?too.?big|(failed|unable|can.?not|can.?t) to allocate", re.I)
MIB = 1024 * 1024 / 1e6


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--mixer-args", type=shlex.split, default=[], help="as --mixer-args='--gelu tanh'")
    parser.add_argument("--no-mixer", action="store_true", help="measure PyTorch only")
    parser.add_argument("--peers", type=names("eager", "compile"), default="eager,compile")
    parser.add_argument("--models", type=names(*MODELS), default="S/16,B/16,L/16")
    parser.add_argument("--modes", type=names("train", "infer"), default="train,infer")
    parser.add_argument("--precision", type=names("bf16", "f32"), default="bf16", help="autocast in PyTorch")
    parser.add_argument("--tf32", action="store_true", help="let PyTorch multiply f32 as TF32")
    parser.add_argument("--batch-size", default="", help="N, `auto`, or as S/16=1024,B/16=auto")
    parser.add_argument("--auto-batches", default=",".join(map(str, AUTO)), help="what `auto` tries, large to small")
    parser.add_argument("--auto-try", type=int, default=2, help="how many that fit `auto` chooses the fastest of")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--products", action="store_true", help="time the matrix products by themselves too")
    parser.add_argument("--time-limit", type=float, default=1e9, metavar="S", help="start no measurement later")
    # Long enough for a kernel cache to fill; a hang must not eat the rest of the time.
    parser.add_argument("--process-limit", type=float, default=240, metavar="S", help="for one measurement")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this script only")
    parser.add_argument("--json", metavar="FILE", help="write every measurement there too")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def names(*allowed):
    """An argument's type: some of these, with commas."""

    def parse(text):
        chosen = text.split(",")
        if not set(chosen) <= set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}, found {text}")
        return chosen

    return parse


def dimensions(model):
    """Tokens S, width C, hidden widths D_S and D_C, values of a patch, blocks L."""
    patch, width, blocks = MODELS[model]
    return (IMAGE // patch) ** 2, width, width // 2, width * 4, patch * patch * 3, blocks


def flops(model, mode):
    """Per image; the backward pass has two products for each one of the forward pass."""
    s, c, d_s, d_c, patch, blocks = dimensions(model)
    macs = s * patch * c + blocks * (2 * s * d_s * c + 2 * s * c * d_c) + c * CLASSES
    return 2 * macs * (3 if mode == "train" else 1)


# ---- in the workers: everything that needs PyTorch ----


def step_times(device, step, warmup, steps):
    """Milliseconds of each step. Events, since waiting for every step would leave the GPU idle in between."""
    import torch

    for _ in range(warmup):
        step()
    if device == "cpu":
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            step()
            times.append((time.perf_counter() - started) * 1e3)
        return times
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in zip(events, events[1:])]


def median_seconds(device, step):
    warmup, steps = (10, 40) if device == "cuda" else (1, 3)
    return statistics.median(step_times(device, step, warmup, steps)) / 1e3


def work_peaks(spec):
    """What the GPU can do at most: a large product and a large copy."""
    import timm
    import torch

    device, cuda = spec["device"], spec["device"] == "cuda"
    size, values = (8192, 2**30) if cuda else (512, 2**22)
    # Random: on zeros fewer bits flip, and the clock stays higher than it does in training.
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    product = median_seconds(device, lambda: a @ b)
    source = torch.randint(0, 256, (values,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = median_seconds(device, lambda: target.copy_(source))
    return {
        "product_tflops": 2 * size**3 / product / 1e12,
        # Read and written.
        "copy_tb_per_s": 2 * values / copy / 1e12,
        "gpu": torch.cuda.get_device_name() if cuda else "none",
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def work_network(spec):
    """One measurement of timm under PyTorch."""
    import timm
    import torch

    device, batch = spec["device"], spec["batch_size"]
    torch.backends.cuda.matmul.allow_tf32 = spec["tf32"]
    torch.backends.cudnn.allow_tf32 = spec["tf32"]
    torch.manual_seed(0)
    name = "mixer_{}_224".format(spec["model"].lower().replace("/", ""))
    model = timm.create_model(name, pretrained=False, num_classes=CLASSES).to(device)
    images = torch.rand(batch, 3, IMAGE, IMAGE, device=device)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    cast = torch.autocast(device, dtype=torch.bfloat16, enabled=spec["precision"] == "bf16")
    model.train(spec["mode"] == "train")
    run = torch.compile(model) if spec["kind"] == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def train():
        with cast:
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer():
        with torch.inference_mode(), cast:
            run(images)

    times = step_times(device, train if spec["mode"] == "train" else infer, spec["warmup"], spec["steps"])
    step = statistics.median(times)
    result = {"step_ms": step, "step_ms_min": min(times), "images_per_sec": batch / step * 1e3}
    if device == "cuda":
        result["allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
        result["reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
    return result


def work_products(spec):
    """Every product of a block's training step by itself, each as cuBLAS is given it by PyTorch."""
    import torch

    device, batch = spec["device"], spec["batch_size"]
    s, c, d_s, d_c, _, _ = dimensions(spec["model"])
    rows = []

    def random(*shape):
        return torch.randn(*shape, device=device).bfloat16()

    def add(name, shape, run):
        """`shape` is rows, columns, length of the sums, how many such products."""
        m, n, k, count = shape
        tflops = 2 * m * n * k * count / median_seconds(device, run) / 1e12
        rows.append({"product": name, "shape": shape, "tflops": tflops})

    # As timm has them: the tokens are transposed to be last, so token mixing is a plain product too.
    for mixing, tokens, width, hidden in [("channel", batch * s, c, d_c), ("token", batch * c, s, d_s)]:
        for layer, inputs, outputs in [("1", width, hidden), ("2", hidden, width)]:
            x, y, w = random(tokens, inputs), random(tokens, outputs), random(outputs, inputs)
            name = f"{mixing} {layer}"
            add(f"{name} forward", (tokens, outputs, inputs, 1), lambda: torch.matmul(x, w.T))
            add(f"{name} dX", (tokens, inputs, outputs, 1), lambda: torch.matmul(y, w))
            add(f"{name} dW", (outputs, inputs, tokens, 1), lambda: torch.matmul(y.T, x))
            del x, y, w
    # Without the transposition: one product per image. `expand` copies nothing, and keeps `matmul` from
    # folding the batch into the rows, which would transpose after all.
    for layer, inputs, outputs in [("1", s, d_s), ("2", d_s, s)]:
        x, y, w = random(batch, inputs, c), random(batch, outputs, c), random(outputs, inputs)
        every = w.expand(batch, outputs, inputs)
        name = f"token {layer} by image"
        add(f"{name} forward", (outputs, c, inputs, batch), lambda: torch.matmul(every, x))
        add(f"{name} dX", (inputs, c, outputs, batch), lambda: torch.matmul(every.mT, y))
        # The sum over the images belongs to it: a plain product has it in its own sums.
        add(f"{name} dW", (outputs, inputs, c, batch), lambda: torch.matmul(y, x.mT).sum(0))
        del x, y, w, every
    return {"model": spec["model"], "batch_size": batch, "rows": rows}


def work(spec):
    workers = {"peaks": work_peaks, "products": work_products}
    print(json.dumps(workers.get(spec["kind"], work_network)(spec)))


# ---- in the parent ----


def nvidia_smi(query):
    """Rows of fields; none where there is no nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [[field.strip() for field in line.split(",")] for line in lines if line.strip()]


def whole_memory():
    used = nvidia_smi("--query-gpu=memory.used")
    return int(used[0][0]) * MIB if used and used[0][0].isdigit() else 0.0


idle_memory = functools.cache(whole_memory)


def process_memory(pid):
    """MB of the GPU. In a container the driver may know the process by another number, or know none."""
    for fields in nvidia_smi("--query-compute-apps=pid,used_memory"):
        if fields[0] == str(pid) and fields[-1].isdigit():
            return int(fields[-1]) * MIB
    return max(whole_memory() - idle_memory(), 0.0)


def run_process(args, command, sample_memory=False):
    """What it printed as JSON, or `{"error"}`: a failure must not cost the measurements after it."""
    deadline = time.monotonic() + args.process_limit
    sampled = 0.0
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace")
    except OSError as error:
        return {"error": str(error)}
    while True:
        try:
            out, err = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                process.kill()
                _, err = process.communicate()
                return {"error": f"took longer than {args.process_limit:.0f} s: {err[-500:]}"}
            if sample_memory:
                sampled = max(sampled, process_memory(process.pid))
    if process.returncode != 0:
        return {"error": "out of memory" if OUT_OF_MEMORY.search(err) else (err or out)[-2000:]}
    try:
        # Workers may have libraries that print; mixer prints nothing but an array.
        result = json.loads(out if out.lstrip().startswith("[") else out.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": f"no JSON: {out[-500:]}{err[-500:]}"}
    result = result[0] if isinstance(result, list) else result
    return {**result, "nvidia_smi_mb": sampled} if sampled else result


def run_worker(args, kind, sample_memory=False, **spec):
    spec |= {"kind": kind, "device": args.device, "tf32": args.tf32, "steps": args.steps, "warmup": args.warmup}
    return run_process(args, [sys.executable, __file__, "--worker", json.dumps(spec)], sample_memory)


def measure(args, contender, model, mode, precision, batch):
    if contender != "mixer":
        case = {"model": model, "mode": mode, "precision": precision, "batch_size": batch}
        return run_worker(args, contender, sample_memory=args.device == "cuda", **case)
    command = [args.mixer, "bench", mode, "--model", model, "--batch-size", str(batch)]
    command += ["--precision", precision, "--device", args.device, "--steps", str(args.steps)]
    command += ["--warmup", str(args.warmup), "--format", "json"]
    return run_process(args, command + args.mixer_args, sample_memory=args.device == "cuda")


def batches(args, model):
    """Sizes to try."""
    given = dict(part.split("=") for part in args.batch_size.split(",") if "=" in part)
    everywhere = "" if given else args.batch_size
    chosen = given.get(model) or everywhere or BATCHES.get(model, "256")
    return list(map(int, args.auto_batches.split(","))) if chosen == "auto" else [int(chosen)]


def measure_case(args, case, contenders, in_time, record):
    """All turns of one model, mode and precision: a `{contender: measurement}` for each turn."""
    sizes = {contender: batches(args, case[0]) for contender in contenders}
    rounds = []
    for turn in range(args.rounds):
        measured = {}
        for contender in contenders:
            fitting = []
            for batch in sizes[contender]:
                if not in_time():
                    break
                result = {"batch_size": batch, **measure(args, contender, *case, batch)}
                record(case, turn, contender, result)
                error = result.get("error")
                if not error:
                    fitting.append(result)
                if len(fitting) == args.auto_try or error and error != "out of memory":
                    break
            best = max(fitting, key=lambda result: result["images_per_sec"], default=None)
            # Later turns take the size found. What failed is not tried again: it would fail again.
            sizes[contender] = [best["batch_size"]] if best else []
            if best:
                measured[contender] = best
        rounds.append(measured)
    return rounds


def compare_memory(peer, mixer):
    """MB of both, taken the same way, and what that way was."""
    if mixer.get("device_memory_mb") and peer.get("reserved_mb"):
        return peer["reserved_mb"], mixer["device_memory_mb"], "own count"
    if mixer.get("nvidia_smi_mb") and peer.get("nvidia_smi_mb"):
        return peer["nvidia_smi_mb"], mixer["nvidia_smi_mb"], "nvidia-smi"
    return None


def print_row(case, contenders, rounds, peak_tflops):
    model, mode, precision = case
    seen = {c: [r[c] for r in rounds if c in r] for c in contenders}
    speed = {c: statistics.median(m["images_per_sec"] for m in seen[c]) for c in contenders if seen[c]}
    sizes = [str(seen[c][0]["batch_size"]) if seen[c] else "-" for c in contenders]
    shares = [f"{speed[c] * flops(model, mode) / peak_tflops / 1e12:.0%}" if c in speed else "-" for c in contenders]
    ratios, memory, memory_ratio = [], "-", "-"
    for measured in rounds:
        peers = [m["images_per_sec"] for c, m in measured.items() if c != "mixer"]
        if peers and "mixer" in measured:
            ratios.append(measured["mixer"]["images_per_sec"] / max(peers))
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
    peers = [c for c in speed if c != "mixer"]
    if peers:
        peer = seen[max(peers, key=speed.get)][-1]
        memory = f"{peer['reserved_mb']:.0f} / -" if "reserved_mb" in peer else "-"
        both = compare_memory(peer, seen["mixer"][-1]) if "mixer" in speed else None
        if both:
            memory = f"{both[0]:.0f} / {both[1]:.0f} ({both[2]})"
            # Of batches of different sizes it would say nothing.
            if peer["batch_size"] == seen["mixer"][-1]["batch_size"]:
                memory_ratio = f"{both[1] / both[0]:.2f}"
    cells = [model, mode, precision, sizes[0] if len(set(sizes)) == 1 else " / ".join(sizes)]
    cells += [f"{speed[c]:.0f}" if c in speed else "-" for c in contenders]
    print("| " + " | ".join(cells + [ratio, " / ".join(shares), memory, memory_ratio]) + " |", flush=True)


def print_products(products, peak_tflops):
    print("\n| model | batch | product | rows x columns x sum x products | cuBLAS TFLOP/s | of the peak |")
    print("|---" * 6 + "|")
    for table in products:
        for row in table.get("rows", []):
            shape, share = " x ".join(map(str, row["shape"])), row["tflops"] / peak_tflops
            print(f"| {table['model']} | {table['batch_size']} | {row['product']} | {shape}", end="")
            print(f" | {row['tflops']:.4g} | {share:.0%} |", flush=True)


def main():
    args = arguments()
    if args.worker:
        return work(args.worker)
    if not args.no_mixer and not shutil.which(args.mixer):
        sys.exit(f"{args.mixer} is no program; --no-mixer measures PyTorch only")
    started = time.monotonic()
    idle_memory()  # Before anything uses the GPU.
    everything = {"peaks": run_worker(args, "peaks"), "measurements": [], "products": []}
    peaks = everything["peaks"]
    if "error" in peaks:
        sys.exit(f"the GPU's peaks could not be measured:\n{peaks['error']}")

    def in_time():
        return time.monotonic() - started < args.time_limit

    def write():
        # After every measurement: whoever lends the GPU may end this at any time.
        if args.json:
            with open(args.json, "w") as file:
                json.dump(everything, file, indent=1)

    def record(case, turn, contender, result):
        model, mode, precision = case
        where = {"model": model, "mode": mode, "precision": precision, "round": turn, "contender": contender}
        everything["measurements"].append({**where, **result})
        write()
        text = f"{result['images_per_sec']:.1f} img/s" if "error" not in result else result["error"]
        where = f"{time.monotonic() - started:.0f} s: {model} {mode} {precision}, round {turn}, {contender}"
        print(f"{where}, batch {result['batch_size']}: {text}", file=sys.stderr, flush=True)

    write()
    print(f"{peaks['gpu']}, torch {peaks['torch']}, timm {peaks['timm']}", end="")
    print(f"; product {peaks['product_tflops']:.4g} TFLOP/s, copy {peaks['copy_tb_per_s']:.3g} TB/s\n", flush=True)
    contenders = args.peers + ([] if args.no_mixer else ["mixer"])
    cases = [(m, mode, p) for p in args.precision for mode in args.modes for m in args.models]
    cases.sort(key=lambda case: (PRIORITY[case[2]], PRIORITY[case[1]], PRIORITY.get(case[0], 3)))
    print("| model | mode | precision | batch | " + " | ".join(f"{c} img/s" for c in contenders), end="")
    print(f" | ratio (least to greatest) | MFU {' / '.join(contenders)}", end="")
    print(" | memory MB, faster PyTorch / mixer | memory ratio |")
    print("|---" * (len(contenders) + 8) + "|", flush=True)
    for case in cases:
        if in_time():
            print_row(case, contenders, measure_case(args, case, contenders, in_time, record), peaks["product_tflops"])
    for model in args.models if args.products else []:
        if in_time():
            # Where the batch is `auto`, the usual one: products alone would fit at any size.
            given = batches(args, model)
            batch = given[0] if len(given) == 1 else int(BATCHES.get(model, "256"))
            products = {"model": model, **run_worker(args, "products", model=model, batch_size=batch)}
            everything["products"].append(products)
            write()
            if "error" in products:
                print(f"products of {model}: {products['error']}", file=sys.stderr)
    if everything["products"]:
        print_products(everything["products"], peaks["product_tflops"])


if __name__ == "__main__":
    main()
