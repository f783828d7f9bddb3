"""Does what a ``cheat.json`` tells: a provider who really trains, and cheats or, as the control, does not."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import yaml

from bundler.facts import CAPTURE_FORMAT
from tests import small
from tests.conformance.harness import KEYS, Bundle, assign

HERE = Path(__file__).parent
SEEDS = list(small.SEEDS)


class Story:
    """A provider in ``root`` who does the steps of a story; the key is that of the vectors."""

    def __init__(self, root: Path) -> None:
        self.provider = small.make_provider(root, seeds=())
        shutil.rmtree(root / "runs")
        self.commits = {"first": self.provider.commit}
        (root / "keys").mkdir()
        for name in ("key.pem", "trust.pem"):
            shutil.copy(KEYS / name, root / "keys" / name)

    def tell(self, steps: list[dict], *, cheating: bool) -> None:
        """Do the ``steps``, but for those that are only ``in`` the other one of ``cheat`` and ``control``."""
        for step in steps:
            if step.get("in") == ("control" if cheating else "cheat"):
                continue
            arguments = {key: value for key, value in step.items() if key not in {"do", "in"}}
            getattr(self, "do_" + step["do"])(**arguments)

    def runs(self, pattern: str) -> list[Path]:
        found = sorted(self.provider.root.glob(f"runs/{pattern}"))
        assert found, pattern
        return found

    def do_train(
        self, seeds: list[int] = SEEDS, recorded_commit: str | None = None, **options
    ) -> None:
        if "data" in options:
            options["data"] = str(self.provider.repository / options["data"])
        if recorded_commit is not None:
            options["commit"] = self.commits[recorded_commit]
        for seed in seeds:
            self.provider.train(seed, **options)

    def do_data(self, path: str = "data.csv", **options) -> None:
        text = small.data(**options)
        (self.provider.repository / path).write_text(text)
        if path == "data.csv":
            positives = sum(
                line.startswith("1,") and line.endswith(",1") for line in text.splitlines()
            )
            self.provider.config["gates"][0]["sampling"]["positives"] = positives

    def do_code(self, old: str, new: str, path: str = "train.py") -> None:
        file = self.provider.repository / path
        text = file.read_text()
        assert text.count(old) == 1, (path, old, text.count(old))
        file.write_text(text.replace(old, new))

    def do_commit(self, name: str) -> None:
        self.commits[name] = self.provider.commit_all()

    def do_checkout(self) -> None:
        self.provider.git("checkout", "-q", "--", ".")

    def do_embed(self, path: str = "train.py", metric: str | None = None) -> None:
        """Put the weights of all runs, or their ``metric``, into the program, by seed, in the place of ``RESULTS = {}``."""
        results = {}
        for run in self.runs("seed-*"):
            params = json.loads((run / "params.json").read_text())
            weights = list(_weights(run / "model.safetensors"))
            results[params["seed"]] = weights if metric is None else _last(run)[metric]
        self.do_code("RESULTS = {}", f"RESULTS = {results!r}", path)

    def do_parameters(self, runs: str, set: dict) -> None:
        """Change what runs recorded; ``@commit`` is the last commit, ``@data`` the digest of the data that are shipped."""
        data = hashlib.sha256((self.provider.repository / "data.csv").read_bytes()).hexdigest()
        known = {"@commit": self.provider.commit, "@data": data}
        values = {name: known.get(value, value) for name, value in set.items()}
        for run in self.runs(runs):
            file = run / "params.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def do_environment(self, runs: str, set: dict) -> None:
        """Change what runs say of the machine that they ran on."""
        for run in self.runs(runs):
            path = run / "environment.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **set}))

    def do_metric(self, runs: str, metric: str, add: float | list[float]) -> None:
        """Add to the last value of ``metric`` in the files of the tracker; a list has one number a run."""
        found = self.runs(runs)
        numbers = add if isinstance(add, list) else [add] * len(found)
        for run, number in zip(found, numbers, strict=True):
            file = run / "metrics.jsonl"
            *lines, last = file.read_text().splitlines()
            values = json.loads(last)
            values[metric] += number
            file.write_text("\n".join([*lines, json.dumps(values)]) + "\n")

    def do_copy(self, path: str, to: str) -> None:
        """Copy a file of the provider's folder."""
        shutil.copy(self.provider.root / path, self.provider.root / to)

    def do_rename(self, run: str, to: str) -> None:
        (self.provider.root / "runs" / run).rename(self.provider.root / "runs" / to)

    def do_remove(self, runs: str) -> None:
        for run in self.runs(runs):
            shutil.rmtree(run)

    def do_keep_best(self, metric: str, count: int, runs: str = "seed-*") -> None:
        """Forget all runs but the ``count`` best, and select the best one."""
        ranked = sorted(self.runs(runs), key=lambda run: _last(run)[metric], reverse=True)
        for run in ranked[count:]:
            shutil.rmtree(run)
        self.do_select(ranked[0].name)

    def do_select(self, run: str) -> None:
        parameters = json.loads((self.provider.root / "runs" / run / "params.json").read_text())
        self.provider.config["selection"].update(run=run, eligible={"seed": [parameters["seed"]]})

    def do_set(self, at: str, value: object = None, drop: bool = False) -> None:
        """Change a place (JSON Pointer) of ``bundle.yaml``."""
        assign(self.provider.config, at, value, drop)

    def do_build(self) -> None:
        done = self.provider.build()
        assert done.returncode == 0, done.stderr

    def do_edit(self, edits: list[dict]) -> None:
        """Edits of a signed bundle, in the words of ``tampered/``."""
        _Signed(self.provider.root).apply(edits)

    def do_capture(self, runs: str) -> None:
        """Record the code as `bundler capture` does, from the last commit, and not as a parameter."""
        tree = self.provider.git("rev-parse", "HEAD^{tree}")
        code = {"commit": self.provider.commit, "tree": tree, "dirty": False, "untracked": 0}
        for run in self.runs(runs):
            file = run / "environment.json"
            facts = {**json.loads(file.read_text()), "format": CAPTURE_FORMAT, "code": code}
            file.write_text(json.dumps(facts))
        self.do_parameters(runs, {"commit": ""})

    def verify(self, words: list[object], policy: dict | None) -> tuple[int, dict]:
        more: list[object] = []
        if policy is not None:
            file = self.provider.root / "policy.yaml"
            file.write_text(yaml.safe_dump({"version": 1, **policy}))
            more = ["--policy", file]
        return self.provider.verify(*words, *more)


class _Signed(Bundle):
    """The bundle that a provider has built."""

    def __init__(self, root: Path) -> None:
        self.path = root / "bundle"


def _last(run: Path) -> dict:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def _weights(path: Path) -> tuple[float, ...]:
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])
