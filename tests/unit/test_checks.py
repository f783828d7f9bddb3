"""What the conformance vectors do not reach: the checks on evidence made in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bundler import canonical, codec, resources
from bundler.attestation import Release, Statement
from bundler.checks import CHECKS, Evidence, run_check
from bundler.config import load
from bundler.errors import MalformedError, UsageError
from bundler.evidence import intact_files, latest, read_contents
from bundler.history import read_points, summarise, write_points
from bundler.importers.model import ArtefactFile
from bundler.records import MetricPoint
from bundler.spec import Condition, Exclusion, Input, Predictions, Tolerance
from bundler.storage import open_bag
from bundler.storage.hashing import digest_bytes
from bundler.verify import verify
from tests import tiny


class FakeFiles:
    """Files whose digests are right by construction."""

    def __init__(self, files, data: dict[str, bytes]):
        self.tag_manifest_sha256 = files.tag_manifest_sha256
        self.data = data

    @property
    def digests(self):
        return {path: digest_bytes(data) for path, data in self.data.items()}

    @property
    def sizes(self):
        return {path: len(data) for path, data in self.data.items()}

    def __contains__(self, path):
        return path in self.data

    def below(self, folder):
        return sorted(path for path in self.data if path.startswith(folder + "/"))

    def read(self, path):
        if path not in self.data:
            raise MalformedError("file-missing", path)
        return self.data[path]


def evidence_of(bundle: Path) -> Evidence:
    """The evidence of a bundle, whose files can be edited in memory."""
    files = intact_files(open_bag(bundle))
    contents = read_contents(files)
    index = contents.index
    return Evidence(
        files=FakeFiles(files, {path: files.read(path) for path in files.digests}),
        contents=contents,
        statement=Statement(
            tag_manifest_sha256=files.tag_manifest_sha256,
            release=Release(
                system=index.system.name,
                version=index.system.version,
                created=index.created,
                log=index.log,
                previous=None,
            ),
        ),
        schemas=resources.schemas(),
    )


@pytest.fixture
def evidence(provider: tiny.Provider, tmp_path) -> Evidence:
    provider.build(tmp_path / "b")
    return evidence_of(tmp_path / "b")


def with_index(evidence, **changes):
    return replace(
        evidence,
        contents=replace(evidence.contents, index=replace(evidence.contents.index, **changes)),
    )


def with_selection(evidence, **changes):
    return with_index(evidence, selection=replace(evidence.contents.index.selection, **changes))


def with_records(evidence, *added, **edits):
    """Edits by run id, - written as _; added ones come last in the log."""
    log = tuple(
        edits[record.id.replace("-", "_")](record)
        if record.id.replace("-", "_") in edits
        else record
        for record in evidence.contents.log
    )
    log += added
    return replace(evidence, contents=replace(evidence.contents, log=log, records=latest(log)))


def with_history(evidence, run_id, metric, value):
    """The run's history with another last value of ``metric``, everything consistent."""
    record = evidence.contents.record(run_id)
    points = [
        point._replace(value=value) if point.metric == metric else point
        for point in read_points(evidence.files.read(record.history.path), name="x")
    ]
    data = write_points(points)
    evidence.files.data[record.history.path] = data
    roles = {each.name: each.role for each in record.metrics}
    changed = replace(
        record,
        metrics=summarise(points, roles),
        history=replace(record.history, sha256=digest_bytes(data), size=len(data)),
    )
    return with_records(evidence, **{run_id.replace("-", "_"): lambda _: changed})


def found(evidence, check_id):
    check = next(each for each in CHECKS if each.id == check_id)
    seen = [(each.code, each.severity) for each in run_check(check, evidence)]
    return [each for each in seen if each[0] not in STANDING_NOTES]


STANDING_NOTES = {"selection-better-run-constrained", "training-code-commit"}
"""Notes that the tiny provider's honest bundle has: run-d is better and breaks the constraint."""


def test_the_standing_notes_are_given(evidence):
    codes = {finding.code for check in CHECKS for finding in run_check(check, evidence)}
    assert codes >= STANDING_NOTES


def test_the_hold_out_under_another_name_is_recognised(evidence):
    metric = replace(evidence.contents.index.selection, metric="score")
    index = replace(evidence.contents.index, selection=metric)
    records = tuple(
        replace(
            each,
            metrics=(
                *each.metrics,
                *(
                    replace(known, name="score", role="other")
                    for known in each.metrics
                    if known.name == "holdout_auc"
                ),
            ),
        )
        for each in evidence.contents.records
    )
    copied = replace(evidence, contents=replace(evidence.contents, index=index, records=records))
    assert found(copied, "selection.criteria") == [("selection-uses-hold-out", "error")]


@pytest.mark.parametrize(
    ("declared", "late"),
    [
        ("2025-10-09", False),
        ("2025-10-09T00:00:00+00:00", False),
        ("2025-10-09T23:59:59-12:00", True),
        ("2025-10-09T23:59:59", True),
        ("2025-10-10", True),
    ],
)
def test_criteria_are_dated_to_the_moment_where_a_time_is_given(evidence, declared, late):
    spec = replace(evidence.contents.index.selection, declared_at=declared)
    index = replace(evidence.contents.index, selection=spec)
    changed = replace(evidence, contents=replace(evidence.contents, index=index))
    expected = [("selection-criteria-late", "warning")] if late else []
    assert found(changed, "selection.criteria") == expected


def test_an_honest_bundle_has_no_errors(evidence):
    severities = {finding.severity for check in CHECKS for finding in run_check(check, evidence)}
    assert severities == {"note"}


def test_ids_are_unique_and_claims_are_in_order():
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)


# --- selection --------------------------------------------------------------------------------------------------------


def test_a_tied_run_is_no_finding(evidence):
    assert found(with_history(evidence, "run-b", "val_auc", 0.78), "selection.winner") == []


def test_a_deleted_run_that_is_better(evidence):
    changed = with_history(evidence, "run-f", "val_auc", 0.9)
    assert found(changed, "selection.winner") == [("selection-better-run", "error")]


def test_a_better_run_that_is_said_to_have_failed(evidence):
    changed = with_history(evidence, "run-b", "val_auc", 0.9)
    changed = with_records(changed, run_b=lambda run: replace(run, status="killed"))
    assert found(changed, "selection.winner") == [("selection-better-run-left-out", "warning")]


def test_a_constraint_that_only_the_selected_run_can_meet(evidence):
    changed = with_history(evidence, "run-b", "val_auc", 0.9)

    def drop(run):
        return replace(
            run, metrics=tuple(each for each in run.metrics if each.name != "val_disparity")
        )

    assert found(with_records(changed, run_b=drop), "selection.winner") == [
        ("selection-better-run-left-out", "warning")
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_without_a_finite_value_is_not_better(evidence, value):
    assert found(with_history(evidence, "run-b", "val_auc", value), "selection.winner") == [
        ("selection-run-without-value", "warning")
    ]


def test_the_selected_run_without_a_finite_value(evidence):
    changed = with_history(evidence, "run-c", "val_auc", math.nan)
    assert found(changed, "selection.winner") == [("selection-run-ineligible", "error")]


def test_minimise(evidence):
    changed = with_selection(evidence, metric="train_loss", direction="minimise")
    assert found(changed, "selection.winner") == []
    changed = with_history(changed, "run-b", "train_loss", 0.01)
    assert found(changed, "selection.winner") == [("selection-better-run", "error")]


def test_a_better_repetition_with_another_seed_is_no_finding(evidence):
    changed = with_history(evidence, "run-c1", "val_auc", 0.99)
    assert found(changed, "selection.winner") == []


def test_a_better_run_behind_the_rule(evidence):
    def tagged(run):
        return replace(run, tags={**run.tags, "stage": "draft"})

    changed = with_history(evidence, "run-b", "val_auc", 0.9)
    changed = with_records(changed, run_b=tagged)
    changed = with_selection(changed, eligible={"seed": (42,), "tags.stage": (None,)})
    assert found(changed, "selection.winner") == [("selection-better-run-left-out", "warning")]


def test_an_excluded_better_run_is_a_warning(evidence):
    changed = with_history(evidence, "run-b", "val_auc", 0.9)
    changed = with_selection(changed, exclusions=(Exclusion(run="run-b", reason="leak"),))
    assert found(changed, "selection.winner") == [("selection-better-run-left-out", "warning")]
    assert found(changed, "selection.exclusions") == []


def test_a_constraint_over_a_gated_metric_looks_at_the_hold_out(evidence):
    condition = Condition(metric="holdout_auc", comparator=">=", threshold=0.1)
    changed = with_selection(evidence, constraints=(condition,))
    assert found(changed, "selection.criteria") == [("selection-uses-hold-out", "error")]
    unnamed = with_index(changed, facts=replace(evidence.contents.index.facts, metrics={}))
    assert ("selection-uses-hold-out", "error") in found(unnamed, "selection.criteria")


@pytest.mark.parametrize(
    ("declared", "codes"),
    [
        ("2025-10-01", []),
        ("2025-10-09", []),
        ("20251010", [("selection-criteria-late", "warning")]),
        ("2025-10-10T08:00:00+02:00", [("selection-criteria-late", "warning")]),
        ("yesterday", []),  # no date: the gap "criteria-dated" says so
        (None, []),
    ],
)
def test_when_the_criteria_were_declared(evidence, declared, codes):
    changed = with_selection(evidence, declared_at=declared)
    assert found(changed, "selection.criteria") == codes
    gaps = [code for code, _ in found(changed, "evidence.gaps")]
    assert ("gap-not-admitted" in gaps) is (declared in {"yesterday", None})


# --- gates --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_a_repetition_without_a_sensible_value(evidence, value):
    changed = with_history(evidence, "run-c2", "holdout_auc", value)
    assert found(changed, "gates.verdicts")[0][0] in {"gate-inconclusive", "gate-not-met"}
    for result in changed.gate_results:
        canonical.serialise(codec.to_json(result))


def test_a_senseless_confidence_in_a_signed_bundle(evidence):
    gates = tuple(replace(gate, confidence=95.0) for gate in evidence.contents.index.gates)
    changed = with_index(evidence, gates=gates)
    assert found(changed, "gates.verdicts") == [("gate-inconclusive", "warning")] * 2
    assert ("schema-violation", "error") in found(changed, "schema.conformance")
    assert ("gate-summary", "error") in found(changed, "gates.summary")


def test_gates_of_one_name_hide_each_other(evidence):
    gates = evidence.contents.index.gates
    changed = with_index(evidence, gates=(gates[0], gates[0]))
    assert ("gate-summary", "error") in found(changed, "gates.summary")


def test_a_run_without_a_history_has_no_value(evidence):
    changed = with_records(evidence, run_c2=lambda run: replace(run, history=None))
    assert ("gate-inconclusive", "warning") in found(changed, "gates.verdicts")
    assert found(changed, "records.histories")[0] == ("history-missing", "error")


def test_a_summary_without_numbers(evidence):
    results = tuple(replace(result, bound=None) for result in evidence.contents.index.gate_results)
    assert (
        found(with_index(evidence, gate_results=results), "gates.summary")
        == [("gate-summary", "error")] * 2
    )


@pytest.mark.parametrize("role", ["pool", "training"])
def test_a_gate_over_other_data_than_a_hold_out(evidence, role):
    first, *others = evidence.contents.index.gates
    first = replace(first, sampling=replace(first.sampling, dataset_role=role))
    changed = with_index(evidence, gates=(first, *others))
    assert found(changed, "gates.declarations") == [("gate-not-holdout-role", "warning")]
    assert found(changed, "gates.verdicts") == [("gate-inconclusive", "warning")]


def with_tolerances(evidence, *tolerances):
    reproducibility = replace(evidence.contents.index.reproducibility, tolerances=tolerances)
    return with_index(evidence, reproducibility=reproducibility)


@pytest.mark.parametrize(
    ("metric", "overstatement", "expected"),
    [
        ("holdout_auc", None, []),
        ("holdout_auc", "higher is better", []),
        ("holdout_auc", "lower is better", [("tolerance-direction", "error")]),
        ("holdout_disparity", "lower is better", []),
        ("holdout_disparity", "higher is better", [("tolerance-direction", "error")]),
        ("val_auc", "higher is better", []),
        ("val_auc", "lower is better", [("tolerance-direction", "error")]),
        ("val_disparity", "lower is better", []),
        ("train_loss", "lower is better", [("tolerance-direction-unknown", "warning")]),
        ("train_loss", None, []),
    ],
)
def test_a_tolerance_that_excuses_inflation(evidence, metric, overstatement, expected):
    tolerance = Tolerance(metric=metric, margin=0.01, overstatement=overstatement)
    assert found(with_tolerances(evidence, tolerance), "gates.declarations") == expected


@pytest.mark.parametrize(
    ("margin", "cap", "expected"),
    [
        (0.01, 0.05, True),
        (0.2, 0.05, True),
        (1e6, 0.05, True),
        (1e6, 0.2, False),
        (0.01, 0.2, True),
    ],
)
def test_one_seed_with_two_results_within_a_margin_that_the_policy_grants(
    evidence, margin, cap, expected
):
    again = replace(evidence.contents.record("run-c1"), id="run-c1-again")
    changed = with_records(evidence, again)
    changed = with_history(changed, "run-c1-again", "holdout_auc", 0.67)
    changed = with_tolerances(changed, Tolerance(metric="holdout_auc", margin=margin))
    changed = replace(changed, policy=replace(changed.policy, default_margin=cap))
    expected = [("gate-seed-repeated", "warning")] if expected else []
    assert found(changed, "gates.repetitions") == expected


def test_a_repetition_of_other_code_is_left_out_and_named(evidence):
    of_it = evidence.contents.record("run-c1")
    later = replace(of_it, id="run-later", code=replace(of_it.code, commit="b" * 40, tree="c" * 40))
    changed = with_records(evidence, later)
    assert found(changed, "gates.repetitions") == [("gate-repetition-other-code", "note")]


# --- gates from predictions -------------------------------------------------------------------------------------------


def predictions_of(auc: float, rows: int = tiny.ROWS) -> bytes:
    """A file whose AUC is ``auc`` to four digits: 100 positives, each above so many of the other rows."""
    negatives = rows - 100
    above = round(auc * negatives)
    scores = [(0, i / negatives) for i in range(negatives)] + [(1, (above - 0.5) / negatives)] * 100
    return (
        b"row,y,p\n"
        + "".join(f"{i},{label},{score!r}\n" for i, (label, score) in enumerate(scores)).encode()
    )


SAMPLING = {
    "kind": "predictions",
    "dataset_role": "holdout",
    "predictions": {"path": "p.csv", "label": "y", "score": "p", "key": "row"},
    "statistic": "auc",
}


@pytest.fixture
def predicted(provider: tiny.Provider, tmp_path):
    """A function that builds a bundle with a gate from the predictions ``data``, and gives its evidence."""

    def make(data: bytes | None, metric: float = 0.78, **changes) -> Evidence:
        def edit(run):
            run = tiny.with_value(run, "holdout_auc", metric)
            if data is None:
                return run
            file = tmp_path / "p.csv"
            file.write_bytes(data)
            return replace(run, artefacts=(*run.artefacts, ArtefactFile(path="p.csv", file=file)))

        provider.edit("run-c", edit)
        provider.config["gates"][0]["sampling"] = SAMPLING
        provider.config["gates"][0] |= changes
        provider.build(tmp_path / "b")
        return evidence_of(tmp_path / "b")

    return make


def test_a_gate_from_predictions_is_met_and_the_builder_says_the_same(predicted):
    evidence = predicted(predictions_of(0.78))
    result = evidence.gate_results[0]
    assert (result.verdict, result.runs) == ("met", 4)
    assert result.holdout_variance > 100 * result.seed_variance
    assert evidence.contents.index.gate_results == evidence.gate_results
    for check in ("gates.verdicts", "gates.summary", "gates.declarations"):
        assert found(evidence, check) == []


def test_the_builder_has_the_predictions_of_the_gate_compared_with_a_rerun(predicted):
    evidence = predicted(predictions_of(0.78))
    outputs = evidence.contents.training.outputs
    assert outputs.predictions == evidence.contents.index.gates[0].sampling.predictions


COMPARED = Predictions(path="p.csv", label="y", score="p", key="row")


@pytest.mark.parametrize(
    ("told", "compared"),
    [
        (COMPARED, True),
        (replace(COMPARED, key=None), True),
        (replace(COMPARED, threshold=0.3), True),
        (None, False),
        (replace(COMPARED, path="q.csv"), False),
        (replace(COMPARED, label="row"), False),
        (replace(COMPARED, score="row"), False),
    ],
)
def test_predictions_that_no_rerun_is_held_against_can_be_made_up(predicted, told, compared):
    evidence = predicted(predictions_of(0.78))
    outputs = replace(evidence.contents.training.outputs, predictions=told)
    codes = [] if compared else [("predictions-not-compared", "warning")]
    assert found(with_training(evidence, outputs=outputs), "gates.verdicts") == codes


def test_predictions_without_any_training_are_compared_with_nothing(predicted):
    evidence = predicted(predictions_of(0.78))
    alone = replace(evidence, contents=replace(evidence.contents, training=None))
    assert found(alone, "gates.verdicts") == [("predictions-not-compared", "warning")]


@pytest.mark.parametrize(("rows", "claimed"), [(tiny.ROWS, False), (300, True), (4000, True)])
def test_rows_that_the_runs_only_claim_are_given_away_by_the_predictions(predicted, rows, claimed):
    """The gate is one of a proportion; the predictions are those that a re-run compares."""
    evidence = predicted(predictions_of(0.78, rows))
    first, second = evidence.contents.index.gates
    sampling = replace(first.sampling, kind="auc", positives=100, predictions=None, statistic=None)
    changed = with_index(evidence, gates=(replace(first, sampling=sampling), second))
    expected = [("predictions-rows", "warning")] * 2 if claimed else []
    assert found(changed, "gates.verdicts") == expected


@pytest.mark.parametrize("path", ["unknown.csv", "environment.json"])
def test_predictions_that_are_none_say_nothing_of_rows(evidence, path):
    told = Predictions(path=path, label="y", score="p")
    outputs = replace(evidence.contents.training.outputs, predictions=told)
    assert found(with_training(evidence, outputs=outputs), "gates.verdicts") == []


def test_the_file_is_read_once_for_a_verdict_and_its_check(predicted):
    evidence = predicted(predictions_of(0.78))
    reads = []
    read = evidence.files.read
    evidence.files.read = lambda path: reads.append(path) or read(path)
    found(evidence, "gates.verdicts")
    found(evidence, "gates.summary")
    assert reads.count("data/artefacts/run-c/p.csv") == 1


@pytest.mark.parametrize("metric", [0.7801, 0.8, 0.5])
def test_an_edited_metric_is_contradicted_by_its_predictions(predicted, metric):
    evidence = predicted(predictions_of(0.78), metric)
    assert ("predictions-contradict", "error") in found(evidence, "gates.verdicts")


def test_a_metric_in_single_precision_is_none_that_was_edited(predicted):
    assert found(predicted(predictions_of(0.78), 0.78 * (1 + 6e-8)), "gates.verdicts") == []


def test_a_selected_run_without_the_metric_is_contradicted_too(predicted):
    evidence = predicted(predictions_of(0.78))
    silent = with_records(evidence, run_c=lambda run: replace(run, history=None))
    assert ("predictions-contradict", "error") in found(silent, "gates.verdicts")


@pytest.mark.parametrize("data", [None, b"row,y\n", b"row,y,p\n1,1,0.5\n", b"\xff"])
def test_predictions_that_show_nothing_are_a_warning(predicted, data):
    evidence = predicted(data)
    codes = [("gate-inconclusive", "warning"), ("predictions-unreadable", "warning")]
    assert found(evidence, "gates.verdicts") == codes
    assert evidence.gate_results[0].holdout_variance is None
    assert found(evidence, "gates.summary") == []


def test_a_file_that_left_the_bundle_is_a_warning(predicted):
    evidence = predicted(predictions_of(0.78))
    del evidence.files.data["data/artefacts/run-c/p.csv"]
    assert ("predictions-unreadable", "warning") in found(evidence, "gates.verdicts")
    assert ("gate-summary", "error") in found(evidence, "gates.summary")


@pytest.mark.parametrize("rows", [300, 4000])
def test_predictions_of_other_rows_than_recorded_are_a_warning(predicted, rows):
    """Ten times the rows would make the interval a third as wide."""
    evidence = predicted(predictions_of(0.78, rows))
    codes = [("gate-inconclusive", "warning"), ("predictions-rows", "warning")]
    assert found(evidence, "gates.verdicts") == codes


def test_a_bundle_without_artefacts_has_no_gate_from_predictions(provider, predicted):
    provider.config["embed"] = "none"
    evidence = predicted(predictions_of(0.78))
    assert ("predictions-unreadable", "warning") in found(evidence, "gates.verdicts")
    assert found(evidence, "gates.summary") == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("predictions", "label and score"),
        ("statistic", "which of auc, accuracy, balanced_accuracy"),
    ],
)
def test_a_gate_from_predictions_says_of_which_and_what(provider, missing, words):
    sampling = {name: value for name, value in SAMPLING.items() if name != missing}
    provider.config["gates"][0]["sampling"] = sampling
    with pytest.raises(UsageError, match=rf"gates\[0\]\.sampling\.{missing}: missing") as caught:
        load(provider.write_config())
    assert words in caught.value.message


# --- records ------------------------------------------------------------------------------------------------------------


def test_amended_labels_are_a_note(evidence):
    record = evidence.contents.record("run-a")
    changed = with_records(evidence, replace(record, tags={"note": "x"}))
    assert found(changed, "records.amendments") == [("log-amended", "note")]


@pytest.mark.parametrize(
    "changes",
    [{"seed": 7}, {"parameters": {}}, {"data": ()}, {"status": "failed"}, {"metrics": ()}],
)
def test_an_amended_result_is_a_warning(evidence, changes):
    record = evidence.contents.record("run-a")
    changed = with_records(evidence, replace(record, **changes))
    assert found(changed, "records.amendments") == [
        ("log-amended", "note"),
        ("log-result-amended", "warning"),
    ]


def test_a_run_that_was_still_running_may_finish(evidence):
    changed = with_records(evidence, run_a=lambda run: replace(run, status="running", metrics=()))
    changed = with_records(changed, evidence.contents.record("run-a"))
    assert found(changed, "records.amendments") == [("log-amended", "note")]


# --- training -----------------------------------------------------------------------------------------------------------


def with_training(evidence, **changes):
    contents = replace(evidence.contents, training=replace(evidence.contents.training, **changes))
    return replace(evidence, contents=contents)


def test_without_a_specification_there_is_nothing_to_hold_against(evidence):
    changed = replace(evidence, contents=replace(evidence.contents, training=None))
    assert found(changed, "training.specification") == []
    assert ("gap-not-admitted", "error") in found(changed, "evidence.gaps")


def test_a_training_that_is_handed_its_result(evidence):
    model = "data/artefacts/run-c/model.safetensors"
    evidence.files.data["data/code/weights.bin"] = evidence.files.read(model)
    assert found(evidence, "training.specification") == [
        ("code-file", "error"),
        ("training-given-result", "warning"),
    ]
    inputs = (
        *evidence.contents.training.inputs,
        Input(name="m", path=model, sha256=evidence.files.digests[model]),
    )
    del evidence.files.data["data/code/weights.bin"]
    changed = with_training(evidence, inputs=inputs)
    assert found(changed, "training.specification") == [
        ("training-place", "error"),
        ("training-given-result", "warning"),
    ]


def test_code_that_is_the_whole_payload_holds_the_result(evidence):
    assert found(with_training(evidence, code="data"), "training.specification") == [
        ("training-place", "error"),
        ("training-given-result", "warning"),
    ]


def test_tensors_that_are_not_the_model(evidence):
    outputs = replace(evidence.contents.training.outputs, tensors=("environment.json",))
    assert found(with_training(evidence, outputs=outputs), "training.specification") == [
        ("training-tensors-not-model", "warning")
    ]
    outputs = replace(outputs, tensors=())
    assert found(with_training(evidence, outputs=outputs), "training.specification") == []


def test_a_lock_that_lists_nothing_is_no_lock(evidence):
    evidence.files.data["data/environment/requirements.txt"] = b"# empty\n"
    assert ("gap-not-admitted", "error") in found(evidence, "evidence.gaps")
    assert ("gap-not-admitted", "error") in found(
        with_training(evidence, lock=None), "evidence.gaps"
    )


def test_a_data_version_of_any_words_is_none(evidence):
    def spoil(run):
        return replace(run, data=tuple(replace(each, sha256="yes") for each in run.data))

    assert ("gap-not-admitted", "error") in found(
        with_records(evidence, run_a=spoil), "evidence.gaps"
    )


# --- the report is always written ---------------------------------------------------------------------------------------


def test_bytes_that_cannot_be_read_are_a_finding(evidence):
    del evidence.files.data["data/runs/run-c/metrics.csv"]
    assert ("file-missing", "error") in found(evidence, "gates.verdicts")


def test_a_metric_that_is_nan_leaves_a_report_that_can_be_written(provider, tmp_path):
    nan = MetricPoint("holdout_auc", 9, tiny.T0 * 2, math.nan)
    provider.edit("run-c1", lambda run: replace(run, points=(*run.points, nan)))
    provider.build(tmp_path / "b")
    report = verify(
        lambda: open_bag(tmp_path / "b"), "b", tiny.TRUST, clock=lambda: "2026-11-25T00:00:00.000Z"
    )
    canonical.serialise(codec.to_json(report))
    assert report.claim("gates").status == "inconclusive"
    assert report.claim("completeness").status == "met"


def test_a_time_without_a_zone_is_taken_as_utc_and_breaks_nothing(evidence):
    """The schema refuses it; the checks beside must still get to say what they see."""
    changed = with_records(
        evidence, run_a=lambda record: replace(record, ended_at="2020-01-01T00:00:00")
    )
    assert ("record-times", "error") in found(changed, "records.consistency")
    found(changed, "selection.criteria")
