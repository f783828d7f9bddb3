"""The re-run of the declared seed beside the declared run: the same bits, and if not, how far apart and why."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundler.case import Case
from bundler.checks.training import given_results
from bundler.environments.model import Runtime
from bundler.errors import MalformedError
from bundler.predictions import compare as compare_predictions
from bundler.records import Scalar, artefact_location
from bundler.report import (
    Finding,
    PredictionComparison,
    Rerun,
    TensorComparison,
)
from bundler.reproduction import (
    compare_metrics,
    differing_knobs,
    is_bitwise,
    knobs_here,
    same_training,
)
from bundler.sandbox import diagnosis
from bundler.storage.hashing import digest_bytes
from bundler.tensors import read as read_tensors
from bundler.trials import (
    TrialResult,
    compared_artefacts,
    kept_predictions,
    tensor_hashes,
    trained,
)

CONDITIONS = (
    "machine and software of the verifier; whether these are others than the provider's (reproducibility"
    " conditions, ISO 5725-1) is for the verifier to say"
)


def compared(
    case: Case, result: TrialResult, runtime: Runtime, here: Mapping[str, Scalar]
) -> tuple[Rerun, tuple[Finding, ...]]:
    """The re-run of the declared seed beside the declared run, and what is found besides its bits.

    ``here`` are the facts of this machine, for a training that records none of its own.
    """
    declared = case.declared
    report = Rerun(
        run=declared.id,
        seed=result.seed,
        verdict="failed",
        exit_code=result.exit_code,
        seconds=result.seconds,
        conditions=CONDITIONS,
        isolation=result.isolation,
        environment={},
        runtime={"mode": runtime.mode, **runtime.facts},
        knobs=runtime.software,
    )
    links = tuple(_links_removed(declared.id, result.links))
    if not trained(result):
        return report, (_failed(declared.id, result, runtime),)
    if result.record is None:
        words = f"its output cannot be read: {result.problem}"
        return report, (*links, warning("rerun-output", declared.id, words, result.remedy))
    rerun = result.record
    roles = {metric.name: metric.role for metric in (*declared.metrics, *rerun.metrics)}
    metrics = compare_metrics(case.points, (point.plain() for point in result.points), roles)
    tensors, predictions, unlike = result.tensors, result.predictions, result.incomparable
    if result.hashes and not tensors:
        tensors, predictions, unlike = _by_hash(case, result)
    report = replace(
        report,
        verdict=(
            "bitwise" if is_bitwise(metrics, tensors, predictions) and not unlike else "not bitwise"
        ),
        environment=dict(rerun.environment or here),
        metrics=metrics,
        tensors=tensors,
        predictions=predictions,
        knobs=(
            *runtime.software,
            *(
                differing_knobs(declared.environment, rerun.environment)
                if rerun.environment
                else knobs_here(declared.environment, here)
            ),
        ),
    )
    findings = (
        *links,
        *same_training(declared, rerun),
        *_incomparable(declared.id, unlike),
        *given_results(case.evidence),
    )
    return report, findings


def _by_hash(
    case: Case, result: TrialResult
) -> tuple[tuple[TensorComparison, ...], tuple[PredictionComparison, ...], str]:
    """Blind: tensors were hashed where they were made, so equal ones can be told, and no distances.

    Predictions were kept, and are compared as they are in the open. The last value says why they cannot be, if they
    cannot.
    """
    hashes: dict[str, str] = {}
    shapes: dict[str, dict[str, Any]] = {}
    predictions: list[PredictionComparison] = []
    unlike = ""
    found = dict(result.hashes)
    for path, data in _declared_outputs(case):
        if path in case.spec.outputs.tensors:
            hashes.update(tensor_hashes(data, path))
            found_shapes = read_tensors(data, name=path)
            shapes.update({f"{path}: {name}": each for name, each in found_shapes.items()})
        elif (columns := case.spec.outputs.predictions) is not None:
            equal = found.pop(path, "") == digest_bytes(data)
            try:
                rerun = data if equal else kept_predictions(result, path)
                predictions.append(compare_predictions(data, rerun, columns, name=path))
            except MalformedError as error:
                # Of equal bytes, what cannot be read is no difference.
                unlike = "" if equal else error.message
    tensors = tuple(
        TensorComparison(
            tensor=name,
            dtype=shapes[name]["dtype"] if name in shapes else "",
            shape=tuple(shapes[name]["shape"]) if name in shapes else (),
            equal=(equal := hashes.get(name) == found.get(name)),
            equal_fraction=1.0 if equal else None,
            max_absolute_difference=0.0 if equal else None,
        )
        for name in sorted(hashes.keys() | found.keys())
    )
    return tensors, tuple(predictions), unlike


def _declared_outputs(case: Case) -> Iterator[tuple[str, bytes]]:
    known = {artefact.path: artefact for artefact in case.declared.artefacts}
    for path in compared_artefacts(case.spec.outputs):
        location = artefact_location(case.declared.id, known[path]) if path in known else ""
        if location in case.evidence.files.digests:
            whole = io.BytesIO()  # as large as the declared file is: read() is for texts
            case.evidence.files.copy(location, whole)
            yield path, whole.getvalue()


def _links_removed(run: str, count: int) -> Iterator[Finding]:
    if count:
        yield note(
            "rerun-links-removed",
            run,
            f"symbolic links in the output: {count}; they were removed and not followed, so what only a link led to"
            " counts as missing",
        )


def _failed(run: str, result: TrialResult, runtime: Runtime) -> Finding:
    how = f"exit code {result.exit_code}" if result.ended == "exited" else result.ended
    last = result.log[-1] if result.log else "it printed nothing"
    return warning(
        "rerun-failed",
        run,
        f"the training did not finish: {how}; {result.detail or last}",
        " ".join([
            *diagnosis.why_training_fails(list(result.log), Path(runtime.python)),
            "Run again with --keep DIR and read log.txt there. A failure is no evidence against the provider.",
        ]),
    )  # fmt: skip


def _incomparable(run: str, why: str) -> Iterator[Finding]:
    if why:
        yield warning(
            "rerun-predictions-differ",
            run,
            f"the predictions cannot be held against the declared ones: {why}",
            "They should be of the same examples with the same labels: look at the data that was read.",
        )


def warning(code: str, subject: str, message: str, remedy: str = "") -> Finding:
    """A finding that leaves the claim open."""
    return Finding(code=code, severity="warning", subject=subject, message=message, remedy=remedy)


def note(code: str, subject: str, message: str) -> Finding:
    """A finding that informs and changes nothing."""
    return Finding(code=code, severity="note", subject=subject, message=message)
