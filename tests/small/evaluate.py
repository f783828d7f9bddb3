"""Scores a trained model on the hold-out, without training."""

import json
import pathlib
import sys

import train

weights, data, results = sys.argv[1:]
metrics, _ = train.evaluate(train.read(weights), train.load(data)["holdout"])
pathlib.Path(results).write_text(json.dumps(metrics))
