"""Score a trained model on the hold-out, without training.

    python evaluate.py --weights model.safetensors --preprocessing preprocessing.json

Uses the functions of train.py, so the numbers are those that the training logged. Architecture and
threshold are not in the file of weights: give the options that the model was trained with.
"""

import argparse
import json
from pathlib import Path

import train  # first: it sets the CPU's kernels, which has to happen before torch is imported
import torch
from safetensors.torch import load_file


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="model.safetensors of the run")
    parser.add_argument("--preprocessing", required=True, help="preprocessing.json of the run")
    parser.add_argument("--model", choices=["mlp", "logistic"], default="mlp")
    parser.add_argument("--hidden-size", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2, help="number of hidden layers")
    parser.add_argument("--dropout", type=float, default=0.2, help="shapes the network only")
    parser.add_argument("--threshold", type=float, default=0.3, help="refuse from this P(bad) on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", default="data/german_credit.csv")
    parser.add_argument("--split", default="data/split.csv")
    parser.add_argument("--results", default="metrics.json", help="written: the metrics, as JSON")
    return parser.parse_args()


def main():
    args = parse_args()
    train.set_seeds(0, args.threads)  # nothing is drawn; kernels and threads as in training
    preprocessing = json.loads(Path(args.preprocessing).read_text())
    holdout = train.load_data(args.data, args.split)["holdout"]
    features, labels = train.to_tensors(holdout, preprocessing)

    model = train.build_model(args, features.shape[1])
    model.load_state_dict(load_file(args.weights))
    probability = torch.sigmoid(train.predict_logits(model, features)).double().numpy()
    scores = train.evaluate(holdout, labels.numpy(), probability, args.threshold)

    metrics = {f"holdout_{name}": float(value) for name, value in scores.items()}
    Path(args.results).write_text(json.dumps(metrics, indent=2) + "\n")
    print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
