#!/usr/bin/env python3
"""Compares `mixer bench data` with other ways from JPEG files to training batches, on the CPU.

Run     cargo build --release
        python3 scripts/bench_data.py FOLDER [--rounds 5]
            [--torch-python PYTHON] [--tf-python PYTHON] [--dali-python PYTHON]

FOLDER holds class folders of JPEGs. Everybody reads each file, takes a random crop of 5 to 100 % of the
area and an aspect of 3/4 to 4/3, resizes it bilinearly to 224 px, mirrors every other one, and stacks
batches of 32; files are in the system's cache. Each measurement is a process of its own on one thread, and
within a round all take turns, so that whatever else the machine does meets all of them. What counts is
pictures per second of CPU time (user and system, of all threads, start-up and a first pass left out), which
other processes lessen far less than pictures per second of the clock; both are printed. A ratio is that of
one round; the tables have its median, least and greatest over the rounds.

Needs torch, torchvision and timm; tensorflow-cpu; nvidia-dali-cuda120 (its CPU operators run without a
GPU), each in the Python that its option names. A peer whose Python is not given is left out.
"""

import argparse
import glob
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

SIDE, BATCH = 224, 32
AREA, ASPECT = (0.05, 1.0), (0.75, 4 / 3)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="class folders of JPEGs")
    parser.add_argument("--mixer", default="target/release/mixer", help="the binary")
    parser.add_argument("--torch-python", help="a Python with torch, torchvision and timm")
    parser.add_argument("--tf-python", help="a Python with tensorflow-cpu")
    parser.add_argument("--dali-python", help="a Python with nvidia-dali-cuda120")
    parser.add_argument("--examples", type=int, default=960, help="pictures per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write every measurement there too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# What a peer does: a function that takes files and delivers batches of them.


def stream(files, examples):
    """Paths in a shuffled order, again and again."""
    import random

    order = []
    for _ in range(-(-examples // len(files))):
        order += random.sample(files, len(files))
    return order[:examples]


def torch_batches(load, files):
    import torch

    for start in range(0, len(files), BATCH):
        yield torch.stack([load(path) for path in files[start : start + BATCH]])


def torchvision_pillow(to_tensor):
    """The usual recipe: ImageFolder's loader and transforms on Pillow pictures."""
    from torchvision import transforms as T
    from torchvision.datasets.folder import pil_loader

    crop = T.RandomResizedCrop(SIDE, scale=AREA, ratio=ASPECT)
    transform = T.Compose([crop, T.RandomHorizontalFlip(), to_tensor])
    return lambda files: torch_batches(lambda path: transform(pil_loader(path)), files)


def torchvision_tensors():
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(SIDE, scale=AREA, ratio=ASPECT, antialias=True)
    transform = v2.Compose([crop, v2.RandomHorizontalFlip()])
    return lambda files: torch_batches(
        lambda path: transform(decode_jpeg(read_file(path), mode=ImageReadMode.RGB)), files
    )


def timm_pillow():
    """What timm's loader does in its workers; it normalises on the device."""
    import numpy as np
    from timm.data import create_transform
    from torchvision.datasets.folder import pil_loader

    transform = create_transform(
        SIDE, is_training=True, use_prefetcher=True, scale=AREA, ratio=ASPECT, hflip=0.5,
        color_jitter=None, interpolation="bilinear",
    )

    def batches(files):
        for start in range(0, len(files), BATCH):
            pictures = [np.asarray(transform(pil_loader(path))) for path in files[start : start + BATCH]]
            yield np.stack(pictures)

    return batches


def tf_fused():
    """big_vision's `decode_jpeg_and_inception_crop`, as the paper's authors run it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def load(path):
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data), tf.zeros([0, 0, 4], tf.float32), area_range=AREA,
            aspect_ratio_range=ASPECT, min_object_covered=0, use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.cast(tf.image.resize(image, (SIDE, SIDE), "bilinear", antialias=False), tf.uint8)
        return tf.image.random_flip_left_right(image)

    def batches(files):
        dataset = tf.data.Dataset.from_tensor_slices(files).map(load, num_parallel_calls=1).batch(BATCH)
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        options.threading.max_intra_op_parallelism = 1
        return iter(dataset.with_options(options))

    return batches


def dali_fused():
    """DALI's CPU operators, with the decoder that decodes no more than the crop."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipe(files):
        data, _ = fn.readers.file(files=files, random_shuffle=False, prefetch_queue_depth=1)
        image = fn.decoders.image_random_crop(
            data, device="cpu", random_area=AREA, random_aspect_ratio=ASPECT, output_type=types.RGB
        )
        image = fn.resize(image, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(image, horizontal=fn.random.coin_flip())

    def batches(files):
        pipeline = pipe(files)
        pipeline.build()
        for _ in range(0, len(files), BATCH):
            (batch,) = pipeline.run()
            yield batch.as_array()

    return batches


def randaugment():
    """torchvision's RandAugment(2, 15) on Pillow pictures of 224 px in memory; timed alone."""
    from PIL import Image
    from torchvision import transforms as T

    augment = T.RandAugment(2, 15)
    crop = T.RandomResizedCrop(SIDE, scale=AREA, ratio=ASPECT)

    def measure(files):
        pictures = [crop(Image.open(path).convert("RGB")) for path in files]
        started, cpu = time.perf_counter(), time.process_time()
        for picture in pictures:
            augment(picture)
        return time.perf_counter() - started, time.process_time() - cpu

    return measure


def worker(args):
    """One measurement of a peer, printed as JSON."""
    files = sorted(glob.glob(os.path.join(args.folder, "**", "*.[jJ][pP]*[gG]"), recursive=True))
    if args.worker in ("torchvision Pillow", "torchvision Pillow u8", "torchvision tensors", "timm", "randaugment"):
        import torch

        torch.set_num_threads(1)
    if args.worker == "randaugment":
        seconds, cpu = randaugment()(stream(files, args.examples))
    else:
        if args.worker.startswith("torchvision Pillow"):
            from torchvision import transforms as T

            batches = torchvision_pillow(T.PILToTensor() if args.worker.endswith("u8") else T.ToTensor())
        else:
            batches = {"torchvision tensors": torchvision_tensors, "timm": timm_pillow}.get(args.worker)
            batches = batches or {"tf.data fused": tf_fused, "DALI fused": dali_fused}[args.worker]
            batches = batches()
        warm = len(files) // BATCH * BATCH or BATCH
        for _ in batches(stream(files, warm)):
            pass
        order = stream(files, args.examples)
        started, cpu, found = time.perf_counter(), time.process_time(), 0
        for batch in batches(order):
            found += len(batch)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert found == args.examples, (found, args.examples)
    print(json.dumps({
        "images_per_sec": args.examples / seconds,
        "images_per_cpu_sec": args.examples / cpu,
        "cpu_ms": 1e3 * cpu / args.examples,
    }))


def run(command):
    environment = dict(os.environ, OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


def mixer(args, *more, workers=1):
    command = [args.mixer, "bench", "data", "--workers", str(workers), "--batch-size", str(BATCH)]
    return json.loads(run(command + ["--examples", str(args.examples), "--format", "json", *more]))


def augment_cpu_ms(found):
    return next(stage["cpu_ms"] for stage in found["stages"] if stage["stage"] == "augment")


CONFIG = """
[model]
variant = "S/16"
[data]
path = {folder}
train = "."
val = ".[:50%]"
randaugment = {{ flavour = "big_vision", layers = 2, magnitude = 15 }}
[train]
epochs = 1
"""


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main():
    args = arguments()
    if args.worker:
        return worker(args)
    args.folder = os.path.abspath(args.folder)
    # Whole batches, so that all contestants time as many.
    args.examples = max(args.examples // BATCH, 1) * BATCH
    pythons = {}
    if args.torch_python:
        names = ["torchvision Pillow", "torchvision Pillow u8", "torchvision tensors", "timm", "randaugment"]
        pythons |= dict.fromkeys(names, args.torch_python)
    if args.tf_python:
        pythons["tf.data fused"] = args.tf_python
    if args.dali_python:
        pythons["DALI fused"] = args.dali_python
    rounds = []
    with tempfile.TemporaryDirectory() as work:
        config, shards = os.path.join(work, "randaugment.toml"), os.path.join(work, "shards")
        with open(config, "w") as file:
            file.write(CONFIG.format(folder=json.dumps(args.folder)))
        shard = [args.mixer, "data", "shard", args.folder, "--split", ".", "--name", "train", "--out", shards]
        run(shard + ["--max-short-side", "256", "--jpeg-quality", "90"])
        for turn in range(args.rounds):
            measured = {}
            for name, python in pythons.items():
                command = [python, os.path.abspath(__file__), args.folder, "--worker", name]
                out = run(command + ["--examples", str(args.examples)])
                measured[name] = json.loads(out.splitlines()[-1])
            plain = ["--data", args.folder, "--split", "."]
            measured["mixer"] = mixer(args, *plain)
            measured["mixer, 2 workers"] = mixer(args, *plain, workers=2)
            measured["mixer, shards"] = mixer(args, "--data", shards, "--split", "train-*.tar")
            measured["mixer, RandAugment"] = mixer(args, "--config", config)
            rounds.append(measured)
            shown = {name: round(found["images_per_cpu_sec"]) for name, found in measured.items()}
            print(f"round {turn}, load {os.getloadavg()[0]:.1f}: {shown}", file=sys.stderr)

    load = [round(value, 1) for value in os.getloadavg()]
    print(f"{cpu_model()}, {os.cpu_count()} cores, load at the end {load}; {args.rounds} rounds of {args.examples}\n")
    print("| one worker | images per CPU second | images per second | mixer is faster by, per CPU second | by the clock |")
    print("|---|---|---|---|---|")
    loaders = [name for name in pythons if name != "randaugment"] + ["mixer", "mixer, shards"]
    for name in loaders:
        rates = [
            statistics.median(r[name][key] for r in rounds) for key in ("images_per_cpu_sec", "images_per_sec")
        ]
        ratios = ["", ""]
        if not name.startswith("mixer"):
            ratios = [
                spread([r["mixer"][key] / r[name][key] for r in rounds])
                for key in ("images_per_cpu_sec", "images_per_sec")
            ]
        print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {ratios[0]} | {ratios[1]} |")

    print("\n| mixer | ratio |\n|---|---|")
    two, cpu_two = (
        [r["mixer, 2 workers"][key] / r["mixer"][key] for r in rounds]
        for key in ("images_per_sec", "images_per_cpu_sec")
    )
    print(f"| two workers to one, by the clock | {spread(two)} |")
    print(f"| twice the ratio per CPU second: what two free cores would give | {spread([2 * r for r in cpu_two])} |")
    prepared = [r["mixer, shards"]["images_per_cpu_sec"] / r["mixer"]["images_per_cpu_sec"] for r in rounds]
    print(f"| shards (256 px, quality 90) to original files, per CPU second | {spread(prepared)} |")
    # With mirroring, which is part of resizing where nothing else comes behind that.
    added = [augment_cpu_ms(r["mixer, RandAugment"]) - augment_cpu_ms(r["mixer"]) for r in rounds]
    print(f"| RandAugment(2, 15), CPU ms | {spread(added, 3)} |")
    if args.torch_python:
        theirs = [r["randaugment"]["cpu_ms"] for r in rounds]
        print(f"| the same of torchvision on Pillow, CPU ms | {spread(theirs, 3)} |")
        print(f"| RandAugment, mixer to torchvision | {spread([a / b for a, b in zip(added, theirs)])} |")

    print("\n| stage | CPU ms | share |\n|---|---|---|")
    for at, stage in enumerate(rounds[0]["mixer"]["stages"]):
        rows = [r["mixer"]["stages"][at] for r in rounds]
        cpu, share = (statistics.median(row[key] for row in rows) for key in ("cpu_ms", "share"))
        print(f"| {stage['stage']} | {cpu:.3f} | {share:.1%} |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rounds, file, indent=1)


def cpu_model():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
