# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "tensorboard==2.21.0",
# ]
# ///
"""Reads the event files of a run with TensorBoard's own accumulator and compares them with its metrics.

    uv run scripts/check_tensorboard.py RUN

Ends with 1 where a curve has other steps or values than `metrics.jsonl`.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
expected = {"train/loss": {}, "train/learning_rate": {}}
for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
    if line["kind"] == "train":
        expected["train/loss"][line["step"]] = line["loss"]
        expected["train/learning_rate"][line["step"]] = line["lr"]
    elif line["kind"] == "eval":
        of = f"_{line['weights']}" if "weights" in line else ""
        expected.setdefault(f"{line['split']}{of}/top1", {})[line["step"]] = line["top1"]
failed = False
for tag, curve in expected.items():
    found = {event.step: event.value for event in events.Scalars(tag)}
    count = len(events.Scalars(tag))
    same = count == len(curve) and found.keys() == curve.keys()
    same = same and all(math.isclose(found[step], curve[step], rel_tol=1e-6, abs_tol=1e-7) for step in curve)
    print(f"{tag}: {count} points, {'as in metrics.jsonl' if same else 'NOT as in metrics.jsonl'}")
    failed |= not same
print("other tags:", sorted(set(events.Tags()["scalars"]) - expected.keys()))
print("pictures:", events.Tags()["images"], "texts:", events.Tags()["tensors"])
sys.exit(failed)
