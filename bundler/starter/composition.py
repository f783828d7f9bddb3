"""The text of ``bundle.yaml``: every detected value with its origin, every open question marked."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bundler import importers
from bundler.gates import is_hold_out
from bundler.importers.model import ImportedRun
from bundler.starter.detection import (
    ENVIRONMENTS,
    ROLES,
    SHOWN,
    Detected,
    keys_of,
    names_with,
    paths_of,
    share,
    shortened,
)


def compose(found: Detected) -> str:
    """The text of ``bundle.yaml``."""
    lines = [
        "# What goes into the evidence bundle. Written by `bundler init`; every key is in docs/bundle-yaml.md.",
        "# Values that were detected say where they came from. TODO marks what only a human can know.",
        *(f"# {_comment(note)}" for note in found.notes),
        "",
        "version: 1",
        "",
        *_system(),
        *_sources(found),
        *_facts(found),
        *_selection(found),
        *_reproducibility(),
        *_gates(found),
        *_training(found),
    ]
    return "\n".join(lines) + "\n"


def _system() -> Iterator[str]:
    yield "system:"
    yield "  name: TODO                # one log of runs belongs to one system: keep the name over releases"
    yield "  version: TODO"
    yield "  provider: TODO            # legal name (Annex IV 1(a))"
    yield "  intended_purpose: TODO    # Annex IV 1(a)"
    yield '  annex_iii: null           # such as "5(b)" for credit scoring'
    yield "  responsible: TODO         # who signs for the tests (Annex IV 2(g))"
    yield ""


def _sources(found: Detected) -> Iterator[str]:
    yield "sources:"
    if not found.origins:
        yield "  - tracker: TODO           # known: " + ", ".join(importers.names())
        yield "    store: TODO             # no store was found here"
    for origin in found.origins:
        yield _entry("  - tracker", origin.tracker, f"{origin.store} is a store of this tracker")
        yield _entry("    store", origin.store, origin.why)
        if origin.columns:
            yield "    # TODO: say what each column holds (docs/experiment-log.md)"
            yield from (f"    {line}" for line in origin.columns)
        else:
            runs = (
                f"{_count(origin.runs)}, {'all are' if origin.runs != 1 else 'which is'} imported"
            )
            yield _entry("    experiment", origin.experiment, f"has {runs}")
        if origin.artefacts:
            yield _entry(
                "    artefacts", origin.artefacts, "folder of the artefact server, found here"
            )
    yield ""


def _facts(found: Detected) -> Iterator[str]:
    yield "facts:                      # where the runs keep what the record needs"
    yield _named(
        found,
        "  seed",
        "parameters",
        keys_of(found.runs, "parameters"),
        ("seed",),
        "parameters.seed",
    )
    tags = keys_of(found.runs, "tags")
    paths = paths_of(found.runs)
    own = _own_facts(found)
    unknown = sum(run.status == "unknown" for run in found.runs)
    if unknown:
        yield (
            "  finished_with: null       # TODO: a metric that is logged at the very end;"
            f" how {share(unknown, found)} ended is not recorded, and such runs do not compete"
        )
    parameters = keys_of(found.runs, "parameters")
    for key, words in (
        ("code_dirty", ("dirty",)),
        ("data_sha256", ("sha256",)),
        ("data_version", ("data.version", "data_version")),
        ("environment", ENVIRONMENTS),
    ):
        group, present = ("artefacts", paths) if key == "environment" else ("tags", tags)
        if group == "tags" and not names_with(tags, words) and names_with(parameters, words):
            group, present = "parameters", parameters
        if own[key] and not names_with(present, words):
            yield _entry(
                f"  {key}", None, f"the tracker itself says it of {share(own[key], found)}"
            )
        else:
            yield _named(found, f"  {key}", group, present, words)
    yield _rows(found)
    models = [path for path in paths if path.endswith(_MODELS)]
    models = models or [path for path in paths if "model." in path.rpartition("/")[2]]
    if models:
        more = f"; also: {shortened(models[1:])}" if models[1:] else ""
        yield _entry("  model", models[0], f"an artefact of {share(paths[models[0]], found)}{more}")
    else:
        yield "  model: null               # TODO: path of the model artefact; none was recognised"
    yield "  metrics:                  # roles by name; * and ? match; check them"
    names = sorted({point.metric for run in found.runs for point in run.points})
    for role, prefixes in ROLES.items():
        matching = [name for name in names if name.startswith(prefixes)]
        yield _entry(f"    {role}", matching, "from the names in the store")
    yield ""


_MODELS = (".safetensors", ".pt", ".pth", ".onnx", ".pkl", ".joblib", ".ckpt", ".keras", ".h5")

_SMALLER_IS_BETTER = ("loss", "error", "brier", "mse", "mae", "mape", "perplexity", "disparity")


def _minimised(metric: str) -> bool:
    """Whether smaller is better, by the name."""
    return any(word in metric.lower() for word in _SMALLER_IS_BETTER)


def _rows(found: Detected) -> str:
    """Where the runs keep the number of rows of the hold-out, which the interval of a gate needs."""
    wanted = ROLES["hold-out"]
    known = sum(any(d.rows and is_hold_out(d.role or "") for d in run.data) for run in found.runs)
    if known:
        return _entry("  data_rows", {}, f"the tracker itself says it of {share(known, found)}")
    for group in ("parameters", "tags"):
        present = keys_of(found.runs, group)
        for name in names_with(present, ("rows", "size", "n_")):
            if any(word in name for word in wanted):
                where = {"holdout": f"{group}.{name}"}
                return _entry("  data_rows", where, f"in {share(present[name], found)}; check it")
    return (
        "  data_rows: {}             # TODO: rows of the hold-out, which gates need: log them, such as"
        " {holdout: parameters.holdout_rows}"
    )


def _own_facts(found: Detected) -> Counter[str]:
    """In how many runs the tracker itself records what ``facts`` could name."""
    own: Counter[str] = Counter()
    for run in found.runs:
        own["code_dirty"] += run.code.dirty is not None
        own["data_sha256"] += any(each.sha256 for each in run.data)
        own["data_version"] += any(each.version for each in run.data)
        own["environment"] += bool(run.environment)
    return own


def _selection(found: Detected) -> Iterator[str]:
    metric = next(iter(_selection_metrics(found)), None)
    minimise = _minimised(metric or "")
    yield "selection:"
    yield "  run: TODO                 # the tracker's id of the selected run"
    if metric is not None:
        order = "lowest" if minimise else "highest"
        yield _comment(f"  #   best by {metric}, {order} first; look at the direction:")
        best = _best(found.runs, metric, minimise=minimise)
        for run, value in best[:SHOWN]:
            yield _comment(f"  #   {run.source.run_id}  {value:.6g}  {run.name or ''}".rstrip())
        if len(best) > SHOWN:
            yield f"  #   … and {len(best) - SHOWN} more"
    others = shortened(_selection_metrics(found))
    yield _entry(
        "  metric", metric or "TODO", f"TODO: choose; validation metrics are: {others or 'none'}"
    )
    direction = "minimise" if minimise else "maximise"
    other = "maximise" if minimise else "minimise"
    yield f"  direction: {direction}       # TODO: or {other}"
    yield "  rationale: TODO           # why this model (Annex IV 2(b))"
    yield "  declared_at: null         # TODO: date on which these criteria were fixed (Art. 9(8))"
    yield '  constraints: []           # such as {metric: val_disparity, comparator: "<=", threshold: 0.2}'
    seeds = Counter(
        str(run.parameters.get("seed")) for run in found.runs if "seed" in run.parameters
    )
    if seeds:
        listed = shortened(f"{seed} in {_count(count)}" for seed, count in seeds.most_common())
        yield _comment(f"  # seeds found in the parameters: {listed}")
    yield "  eligible: {}              # such as {seed: [42]}: the competition is held at one seed"
    yield ""


def _reproducibility() -> Iterator[str]:
    yield "reproducibility:"
    yield "  level: bitwise            # TODO: or statistical"
    yield "  mechanisms: []            # TODO: seeds, deterministic algorithms, thread counts, pinned versions"
    yield "  factors_of_variation: []  # TODO: what changes the result although the specification is the same"
    yield "  tolerances: []            # TODO: one a gated metric, such as {metric: holdout_auc, margin: 0.03}"
    yield "  # a margin is absolute; about three standard deviations between seeds can be settled (docs/verdict.md)"
    yield "  limitations: []           # TODO"
    yield ""


def _gates(found: Detected) -> Iterator[str]:
    names = sorted({point.metric for run in found.runs for point in run.points})
    holdout = [name for name in names if name.startswith(ROLES["hold-out"])]
    yield "gates: []                   # TODO: such as the one below; see docs/statistics.md"
    usual = [name for name in holdout if "auc" in name.lower() or "acc" in name.lower()]
    metric = next(iter(usual or holdout), "holdout_auc")
    yield _comment(f"#  hold-out metrics in the store: {shortened(holdout) or 'none'}")
    yield "#  - name: performance"
    yield "#    category: performance"
    yield f"#    metric: {_quoted(metric)}"
    yield f'#    comparator: "{"<=" if _minimised(metric) else ">="}"'
    yield "#    threshold: TODO         # what the system needs, fixed before the results were seen"
    yield f"#    sampling: {{{_sampling(metric)}}}"
    yield ""


_MEANS = ("acc", "brier", "error_rate")
"""In names of metrics that are a mean of values between 0 and 1 over all rows."""

_COMPUTED = ("balanced_accuracy", "rmse", "mse", "mae", "log_loss", "f1", "r2")
"""Statistics that are computed anew from predictions; a name that holds another one comes first."""


def _sampling(metric: str) -> str:
    """How the hold-out adds to the variance: another kind would give one that is not that of the metric."""
    name = metric.lower()
    if "auc" in name:
        return "kind: auc, dataset_role: holdout, positives: 60"
    if "balanced" not in name and any(word in name for word in _MEANS):
        return "kind: proportion, dataset_role: holdout"
    if "disparity" in name or "difference" in name:
        return "kind: difference, dataset_role: holdout, groups: [40, 160]"
    statistic = next((word for word in _COMPUTED if word in name), "TODO")
    columns = "path: predictions.csv, label: label, score: score"
    return f"kind: predictions, dataset_role: holdout, statistic: {statistic}, predictions: {{{columns}}}"


def _training(found: Detected) -> Iterator[str]:
    script = next((run.code.entry_point for run in found.runs if run.code.entry_point), None)
    parameters = keys_of(found.runs, "parameters")
    words = ["{python}", script or "TODO"]
    for name in sorted(parameters):
        words += [
            f"--{name.replace('_', '-')}",
            "{seed}" if name == "seed" else f"{{parameter.{name}}}",
        ]
    yield "training:                   # how a verifier repeats the training of the selected run"
    yield _entry("  code", ".", "this folder, as committed")
    yield "  # TODO: check the options: they are the names of the parameters, the script may call them otherwise"
    yield _entry("  command", words, "entry point and parameters recorded by the runs")
    note = "TODO: files that it reads, {data: data/file.csv}, used as {input.data}"
    yield _entry("  inputs", found.inputs, found.inputs_note or note)
    yield from _outputs(found)
    if found.lock:
        yield _entry("  lock", found.lock, f"found: {', '.join(found.locks)}")
    else:
        yield "  lock: null                # TODO: requirements with pinned versions and hashes"
    yield "  wheels: null              # such as wheels/wheels.json, from bundler capture-wheels (docs/environments.md)"
    yield "  evaluation: null          # such as {command: [...]}: scores the shipped model (docs/bundle-yaml.md)"


_OFFLINE = {
    "mlflow": (
        "MLflow writes into the output folder, without a server",
        {"MLFLOW_TRACKING_URI": "file://{out}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"},
        "mlruns",
    ),
    "wandb": (
        "W&B writes into the output folder, without a server",
        {"WANDB_MODE": "offline", "WANDB_DIR": "{out}", "WANDB_SILENT": "true"},
        "wandb",
    ),
}
"""How a tracker is told to write into a folder: why, environment, and where its store then is."""


def _outputs(found: Detected) -> Iterator[str]:
    """Where a verifier's re-run leaves its record."""
    if found.tracker not in _OFFLINE:
        yield f"  outputs: {{tracker: {found.tracker or 'TODO'}, location: TODO}}  # a path below {{out}}"
        return
    why, environment, location = _OFFLINE[found.tracker]
    yield f"  environment:              # {why}"
    for name, value in environment.items():
        yield f'    {name}: "{value}"'
    tensors = sorted(
        {a.path for run in found.runs for a in run.artefacts if a.path.endswith(".safetensors")}
    )
    yield "  outputs:"
    yield f"    tracker: {found.tracker}"
    yield f"    location: {location}"
    yield _entry("    tensors", tensors, "safetensors artefacts of the runs")


def _entry(key: str, value: Any, why: str) -> str:
    """A line of YAML; JSON is YAML, so JSON spells the value."""
    return f"{key}: {_quoted(value)}  # {_comment(why)}"


def _quoted(value: Any) -> str:
    """``value`` as JSON that YAML reads as the same: without pairs of surrogates and bare control characters."""
    return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))


def _comment(text: str) -> str:
    """``text`` on one line: names of experiments and runs may hold anything, a line of YAML included."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _named(  # noqa: PLR0913  # a line of the file: key, where to look, what for
    found: Detected,
    key: str,
    group: str,
    present: Counter[str],
    words: tuple[str, ...],
    default: str | None = None,
) -> str:
    """The fact whose name holds one of ``words``, most frequent first."""
    names = names_with(present, words)
    if not names:
        return f"{key}: {json.dumps(default)}  # TODO: not found among the {group}"
    more = f"; also: {shortened(names[1:])}" if names[1:] else ""
    return _entry(key, f"{group}.{names[0]}", f"in {share(present[names[0]], found)}{more}")


def _count(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def _selection_metrics(found: Detected) -> list[str]:
    names = sorted({point.metric for run in found.runs for point in run.points})
    validation = [name for name in names if name.startswith(ROLES["validation"])]
    return sorted(
        validation, key=lambda name: (not name.startswith("best"), "auc" not in name, name)
    )


def _best(
    runs: Sequence[ImportedRun], metric: str, *, minimise: bool
) -> list[tuple[ImportedRun, float]]:
    values = []
    for run in runs:
        points = [point.value for point in run.points if point.metric == metric]
        if points and run.status in {"finished", "unknown"} and not math.isnan(points[-1]):
            values.append((run, points[-1]))
    return sorted(values, key=lambda pair: pair[1] if minimise else -pair[1])
