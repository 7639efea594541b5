# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "tensorboard==2.21.0",
# ]
# ///
"""Compares the event files of a run, as TensorBoard's readers show them, with its metrics.

    uv run scripts/check_tensorboard.py [RUN] [--mixer target/release/mixer]

Without a run it trains a small network, kills it, and continues it, and looks before and after: with readers that
are opened anew, and with readers that were open all the time. The readers are the accumulator in Python, what
`tensorboard --load_fast=false` reads with, and the data server in Rust that TensorBoard takes by default.
Ends with 1 where a curve has other steps or values than `metrics.jsonl`, or a step twice.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tensorboard import context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.data import provider as providers
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util, tensor_util

ALL = 10**9

CONFIG = """
[model]
image_size = 16
patch_size = 4
hidden_dim = 32
num_blocks = 2
[data]
source = "builtin"
train_examples = 400
val_examples = 40
[train]
batch_size = 20
steps = 3000
log_every_steps = 1
eval_every_steps = 70
checkpoint_every_steps = 90
"""


def expected(run):
    """Curves by tag: value by step."""
    curves = {"train/loss": {}, "train/learning_rate": {}}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break  # Half a line of a process that was killed.
        if line["kind"] == "train":
            curves["train/loss"][line["step"]] = line["loss"]
            curves["train/learning_rate"][line["step"]] = line["lr"]
        elif line["kind"] == "eval":
            of = f"_{line['weights']}" if "weights" in line else ""
            curves.setdefault(f"{line['split']}{of}/top1", {})[line["step"]] = line["top1"]
    return curves


class Accumulator:
    name = "EventAccumulator"

    def __init__(self, folder):
        self.events = EventAccumulator(str(folder), size_guidance={"scalars": 0})

    def curve(self, tag):
        self.events.Reload()
        return [(event.step, event.value) for event in self.events.Scalars(tag)]

    def close(self):
        pass


class Multiplexer:
    name = "--load_fast=false"

    def __init__(self, folder):
        self.folder = folder
        self.events = EventMultiplexer(tensor_size_guidance={"scalars": 0})

    def curve(self, tag):
        self.events.AddRunsFromDirectory(str(self.folder))
        self.events.Reload()
        found = self.events.Tensors(".", tag)
        return [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in found]

    def close(self):
        pass


class DataServer:
    name = "data server"

    def __init__(self, folder):
        self.ingester = server_ingester.SubprocessServerDataIngester(
            server_binary=server_ingester.get_server_binary(),
            logdir=str(folder),
            reload_interval=1,
            channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
            samples_per_plugin={"scalars": 0},
        )
        self.ingester.start()

    def curve(self, tag):
        time.sleep(3)  # It reads again every second.
        found = self.ingester.data_provider.read_scalars(
            context.RequestContext(),
            experiment_id="",
            plugin_name="scalars",
            downsample=ALL,
            run_tag_filter=providers.RunTagFilter(tags=[tag]),
        )
        [curves] = found.values()
        return [(event.step, event.value) for event in curves[tag]]

    def close(self):
        self.ingester._stdin_handle.close()  # It ends with the process that it serves.


def compare(run, readers, when):
    """Whether all readers show every step once, as the metrics have it."""
    same_everywhere = True
    curves = expected(run)
    for reader in readers:
        for tag, curve in curves.items():
            found = reader.curve(tag)
            values = dict(found)
            # What was killed may have written a last line in one of the two files alone.
            last = {max(curve, default=0), max(values, default=0)} if when == "killed" else set()
            same = len(found) == len(values) and [step for step, _ in found] == sorted(values)
            same &= values.keys() ^ curve.keys() <= last
            same &= all(math.isclose(values[step], curve[step], rel_tol=1e-6, abs_tol=1e-7) for step in values.keys() & curve.keys())
            print(f"{when}, {reader.name}: {tag}: {len(found)} points, {'one curve, as in metrics.jsonl' if same else 'NOT as in metrics.jsonl'}")
            same_everywhere &= same
    return same_everywhere


def opened(run):
    return [kind(run / "tensorboard") for kind in (Accumulator, Multiplexer, DataServer)]


def looked_at(run, when):
    readers = opened(run)
    same = compare(run, readers, when)
    for reader in readers:
        reader.close()
    return same


def killed_and_continued(mixer, folder):
    (folder / "run.toml").write_text(CONFIG)
    run = folder / "run"
    command = [mixer, "pretrain", folder / "run.toml", "--run-dir", run]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 400:
        if process.poll() is not None:
            sys.exit("error: the run ended before it could be killed")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = max(expected(run)["train/loss"])
    same = looked_at(run, "killed")
    readers = opened(run)
    same &= compare(run, readers, "killed")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"killed at step {before}; {len(list((run / 'tensorboard').iterdir()))} event files now")
    same &= looked_at(run, "continued")
    same &= compare(run, readers, "continued, open all the time")
    for reader in readers:
        reader.close()
    return same


parser = argparse.ArgumentParser()
parser.add_argument("run", nargs="?", type=Path)
parser.add_argument("--mixer", default="target/release/mixer")
args = parser.parse_args()
if args.run:
    same = looked_at(args.run, "now")
    events = EventAccumulator(str(args.run / "tensorboard"))
    events.Reload()
    print("tags:", events.Tags()["scalars"], "pictures:", events.Tags()["images"], "texts:", events.Tags()["tensors"])
else:
    with tempfile.TemporaryDirectory() as folder:
        same = killed_and_continued(args.mixer, Path(folder))
sys.exit(int(not same))
