# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "scikit-learn==1.9.1",
# ]
# ///
"""Writes crates/mixer-analysis/tests/golden: what NumPy and scikit-learn compute from formulas that stand here.

    uv run scripts/analysis_golden.py

Inputs come from a linear congruential generator, so that the tests make them
again: its top 24 bits are a number in [-1, 1).
"""

import json
from pathlib import Path

import numpy as np
from sklearn import metrics

GOLDEN = Path(__file__).resolve().parent.parent / "crates/mixer-analysis/tests/golden"


class Numbers:
    def __init__(self, seed):
        self.state = seed

    def __call__(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 40) / 2**23 - 1.0


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def cross_entropy(logits, labels):
    largest = logits.max(1)
    log_sum = np.log(np.exp(logits - largest[:, None]).sum(1)) + largest
    return (log_sum - logits[np.arange(len(labels)), labels]).mean()


def measures():
    number, n, classes = Numbers(77), 120, 6
    # Class 5 never occurs, class 0 often.
    labels = np.array([0 if i % 4 == 0 else (i * 5 + i // 7) % (classes - 1) for i in range(n)])
    logits = np.array(
        [[np.float32(2.5 * (number() + number()) + (2.2 if c == labels[i] else 0)) for c in range(classes)] for i in range(n)],
        dtype=np.float32,
    )
    logits[3] = logits[3, 0]  # all equal
    logits[7, 1] = logits[7, 4] = np.float32(9.0)  # two equal maxima
    logits[11], labels[11] = [60, -60, -60, -60, -60, -60], 0  # certain and right
    logits[12], labels[12] = [-60, -60, 60, -60, -60, -60], 1  # certain and wrong
    wide = logits.astype(np.float64)
    own = logits[np.arange(n), labels][:, None]
    rank = ((logits > own) | ((logits == own) & (np.arange(classes) < labels[:, None]))).sum(1)
    p = softmax(wide)
    confidence, prediction = p.max(1), p.argmax(1)
    right = rank == 0
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [((bins == b).mean(), abs(right[bins == b].mean() - confidence[bins == b].mean())) for b in sorted(set(bins))]
    confusion = metrics.confusion_matrix(labels, prediction, labels=range(classes))
    # Newton on the logarithm, from a grid: another way than the crate's.
    grid = np.exp(np.linspace(-3, 4, 7001))
    best = grid[np.argmin([cross_entropy(wide / t, labels) for t in grid])]
    for _ in range(60):
        h = 1e-4
        low, mid, high = (cross_entropy(wide / (best * np.exp(d)), labels) for d in (-h, 0, h))
        best *= np.exp(-(high - low) / 2 * h / (high - 2 * mid + low))
    return {
        "logits": [[float(v) for v in row] for row in logits],
        "labels": labels.tolist(),
        "top1": float(right.mean()),
        "top5": float((rank < 5).mean()),
        "loss": float(cross_entropy(wide, labels)),
        "brier": float(((p - np.eye(classes)[labels]) ** 2).sum(1).mean()),
        "ece": float(sum(share * gap for share, gap in gaps)),
        "mce": float(max(gap for _, gap in gaps)),
        "confusion": confusion.tolist(),
        "mean_per_class": float(metrics.balanced_accuracy_score(labels, prediction)),
        "temperature": float(best),
    }


def features(n, classes, dim, seed):
    number = Numbers(seed)
    noise = lambda: number() + number() + number() + number()
    centres = [[noise() for _ in range(dim)] for _ in range(classes)]
    scale = [0.05 + abs(number()) * 3 for _ in range(dim)]
    labels = [(i * 7 + i // 5) % classes for i in range(n)]
    rows = [[(0.45 * centres[c][j] + noise()) * scale[j] + 0.3 * scale[j] for j in range(dim)] for c in labels]
    return np.array(rows, dtype=np.float32), np.array(labels)


def probe():
    classes, dim, train = 7, 24, 140
    x, y = features(350, classes, dim, 20260)
    wide, cases = x.astype(np.float64), []
    for seed in (0, 1, 2):
        generator = np.random.default_rng(seed)
        order = [generator.permutation(np.flatnonzero(y[:train] == c)) for c in range(classes)]
        for shots in (1, 5, 10, 25):
            chosen = np.concatenate([o[:shots] for o in order])
            for l2 in (1.0, 1024.0) if seed == 0 else (1024.0,):
                support, labels = wide[chosen], y[chosen]
                mean, deviation = support.mean(0), support.std(0) + 1e-5
                bias = lambda v: np.concatenate([(v - mean) / deviation, np.full((len(v), 1), 100.0)], 1)
                a, targets = bias(support), 2.0 * (labels[:, None] == np.arange(classes)) - 1.0
                weights = np.linalg.solve(a.T @ a + l2 * np.eye(dim + 1), a.T @ targets)
                scores = bias(wide[train:]) @ weights
                case = {"seed": seed, "shots": shots, "l2": l2, "support": chosen.tolist()}
                case["correct"] = int((scores.argmax(1) == y[train:]).sum())
                if seed == 0 and shots in (1, 10):
                    case["weights"] = weights.tolist()
                cases.append(case)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    cosines, neighbours = unit[train:] @ unit[:train].T, []
    for k in (1, 5, 20):
        near = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        for temperature in (0.07, None):
            votes = np.zeros((len(near), classes))
            for i, row in enumerate(near):
                for j in row:
                    votes[i, y[j]] += np.exp(cosines[i, j] / temperature) if temperature else 1.0
            predictions = votes.argmax(1)
            neighbours.append({"k": k, "temperature": temperature, "predictions": predictions.tolist(), "correct": int((predictions == y[train:]).sum())})
    permutations = [{"seed": s, "n": n, "values": np.random.default_rng(s).permutation(n).tolist()} for s in (0, 1, 12345, 2**40 + 3) for n in (1, 7, 300)]
    return {"classes": classes, "dim": dim, "train": train, "seed": 20260, "cases": cases, "neighbours": neighbours, "permutations": permutations}


def filters():
    number, side, units = Numbers(4242), 7, []
    y, x = np.mgrid[0:side, 0:side] / side
    noise = lambda: np.array([[number() for _ in range(side)] for _ in range(side)])
    for i in range(12):
        wave = np.cos(2 * np.pi * ((i % 4) * x + (i // 4) * y) + 0.3 * i)
        for sign in (1, -1):
            units.append(sign * (0.5 + 0.1 * i) * wave + 0.05 * noise())
    units += [noise() for _ in range(3)] + [np.full((side, side), 0.25), np.zeros((side, side))]
    n = len(units)
    units = np.array([units[(i * 11) % n] for i in range(n)]).astype(np.float32).astype(np.float64)
    along = np.minimum(np.arange(side), side - np.arange(side)) / side
    frequency = []
    for unit in units:
        power = np.abs(np.fft.fft2(unit)) ** 2
        weighted = (np.sqrt(along[:, None] ** 2 + along[None] ** 2) * power).sum()
        frequency.append(round(float(weighted / power.sum()), 9) if power.sum() else 0.0)
    flat = units.reshape(n, -1)
    norm = np.linalg.norm(flat, axis=1)
    left, shown = sorted(range(n), key=lambda i: (frequency[i], i)), []
    while left:
        unit = left.pop(0)
        shown.append(unit)
        if left:
            cosine = {v: flat[unit] @ flat[v] / (norm[unit] * norm[v]) if norm[unit] * norm[v] else 0.0 for v in sorted(left)}
            inverse = min(cosine, key=lambda v: (cosine[v], v))
            left.remove(inverse)
            shown.append(inverse)
    return {"side": side, "units": [[float(v) for v in u] for u in flat.astype(np.float32)], "frequency": frequency, "shown": shown}


GOLDEN.mkdir(parents=True, exist_ok=True)
for name, values in (("measures", measures()), ("probe", probe()), ("filters", filters())):
    (GOLDEN / f"{name}.json").write_text(json.dumps(values) + "\n")
