"""What is said of trainings with the verifier's own seeds, one finding at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bundler import judging
from bundler.bits import bit_findings, model_findings
from bundler.case import Case
from bundler.facts import CAPTURE_FORMAT
from bundler.policy import DEFAULT
from bundler.records import CodeVersion, DatasetVersion, MetricSummary, RunRecord, Source, number
from bundler.report import (
    Knob,
    MetricComparison,
    PredictionComparison,
    Rerun,
    TensorComparison,
)
from bundler.reproduction import differing_knobs, is_bitwise, same_training
from bundler.spec import Outputs, SelectionSpec, Tolerance
from bundler.trials import TrialResult

METRIC = "holdout_auc"


SAME_TENSOR = TensorComparison(
    tensor="w",
    dtype="F32",
    shape=(1,),
    equal=True,
    equal_fraction=1.0,
    max_absolute_difference=0.0,
)


def record(seed=42, value=0.8, **changes) -> RunRecord:
    metric = MetricSummary(
        name=METRIC, role="hold-out", points=1, last=number(value), last_step=1, minimum=None, maximum=None
    )  # fmt: skip
    facts = {
        "id": "run-c",
        "name": None,
        "source": Source(tracker="t", store="s", experiment_id="1", experiment="e", run_id="c"),
        "status": "finished",
        "deleted": False,
        "started_at": None,
        "ended_at": None,
        "code": CodeVersion(),
        "data": (DatasetVersion(name="d", role="training", sha256="a" * 64, rows=9),),
        "parameters": {"rate": "0.1", "seed": str(seed)},
        "seed": seed,
        "environment": {},
        "metrics": (metric,),
        "history": None,
        "artefacts": (),
        "tags": {},
    }
    return RunRecord(**{**facts, **changes})


def case(
    values=(0.80, 0.81, 0.79, 0.80, 0.80), *, margin: float | None = 0.03, level="bitwise", environment=None
) -> Case:  # fmt: skip
    tolerances = () if margin is None else (Tolerance(metric=METRIC, margin=margin),)
    index = SimpleNamespace(
        facts=SimpleNamespace(seed="parameters.seed", model=None),
        reproducibility=SimpleNamespace(level=level, tolerances=tolerances),
        selection=SelectionSpec(run="run-c", metric=METRIC, direction="maximise", rationale=""),
        gates=(),
    )
    return Case(
        evidence=SimpleNamespace(contents=SimpleNamespace(index=index, records=())),
        spec=SimpleNamespace(),
        declared=record(environment=environment or {}),
        points=(),
        values={METRIC: values},
        policy=DEFAULT,
    )


def result(seed: int, value: float = 0.8, **changes) -> TrialResult:
    whole = TrialResult(
        seed=seed, ended="exited", exit_code=0, seconds=1.0, cpu_seconds=None, peak_memory_bytes=None,
        detail="", log=(), isolation={}, record=record(seed, value),
    )  # fmt: skip
    return replace(whole, **changes)


def found(of: Case, results, looks=3):
    verdicts = judging.metric_verdicts(of, results, looks)
    return {each.code: each for each in judging.own_findings(of, results, verdicts)}, verdicts


def test_agreeing_trainings_leave_nothing_to_say():
    findings, verdicts = found(case(), [result(11, 0.80), result(12, 0.805), result(13, 0.795)])
    assert findings == {}
    assert [each.verdict for each in verdicts] == ["CONSISTENT"]


def test_contradicting_trainings_are_an_error_with_the_figures():
    findings, _ = found(case(), [result(seed, 0.70 + seed / 10_000) for seed in range(11, 19)])
    assert findings["rerun-inconsistent"].severity == "error"
    assert findings["rerun-inconsistent"].subject == METRIC


def test_what_cannot_be_settled_says_what_would_settle_it():
    findings, _ = found(case(margin=0.012), [result(11, 0.80), result(12, 0.82), result(13, 0.79)])
    open_one = findings["rerun-inconclusive"]
    assert open_one.severity == "warning"
    assert "--runs" in open_one.remedy or "repeated runs" in open_one.remedy


@pytest.mark.parametrize(
    "ending",
    [
        {"ended": "killed", "exit_code": 137, "detail": "signal 9 (SIGKILL)"},
        {"ended": "timed out", "exit_code": None, "detail": "still running after 1 s"},
        {"ended": "output limit", "exit_code": None},
        {"ended": "exited", "exit_code": 1},
    ],
    ids=lambda ending: ending["ended"],
)
def test_a_training_cannot_choose_which_seeds_count_by_how_it_ends(ending):
    """Half of the seeds are bad, and end before anybody sees it."""
    results = [
        result(11),
        result(12, 0.6, **ending),
        result(13, 0.805),
        result(14, 0.6, **ending),
        result(15, 0.795),
    ]
    findings, verdicts = found(case(), results)
    assert judging.trial_of(results[1]).ended == "failed"
    assert judging.trial_of(results[1]).metrics == {}
    assert verdicts[0].verdict == "INCONCLUSIVE"
    assert "2 of 5" in findings["rerun-trials-lost"].message


def test_noise_to_hide_behind_is_named():
    wide = (0.60, 1.00, 0.80, 0.70, 0.90)
    values = (0.800, 0.801, 0.799, 0.800, 0.801, 0.800, 0.799, 0.800)
    findings, verdicts = found(
        case(wide), [result(11 + i, value) for i, value in enumerate(values)]
    )
    assert verdicts[0].verdict == "INCONCLUSIVE"
    assert "times as much" in findings["rerun-declared-scatter"].message
    assert findings["rerun-declared-scatter"].severity == "warning"


def test_a_wide_scatter_that_hid_nothing_is_only_noted():
    """A metric on a coarse scale: three re-runs of an honest provider nearly repeat a value by chance."""
    wide = (0.80, 0.81, 0.79, 0.80, 0.80)
    values = (0.80000, 0.80001, 0.80002)
    findings, verdicts = found(
        case(wide, margin=0.03), [result(11 + i, value) for i, value in enumerate(values)]
    )
    assert verdicts[0].verdict == "CONSISTENT"
    noted = findings["rerun-declared-scatter"]
    assert (noted.severity, noted.remedy) == ("note", "")
    assert "times as much" in noted.message


def test_figures_of_trainings_that_crashed_contradict_nothing():
    """An honest provider logs the hold-out once before the training; the training then fails here."""
    crashed = [result(seed, 0.3 + seed / 1000, exit_code=1) for seed in (11, 12, 13)]
    findings, verdicts = found(case(), crashed)
    assert verdicts[0].verdict == "INCONCLUSIVE"
    assert "rerun-inconsistent" not in findings


def test_a_record_that_says_failed_is_no_result():
    failed = result(11, record=record(11, status="failed"))
    assert judging.trial_of(failed).ended == "failed"


def test_the_provider_s_own_seeds_do_not_count():
    of = case()
    of.evidence.contents.records = (record(1), record(2))
    (known,) = judging.known_seeds(of, [result(1), result(11)])
    assert (known.code, known.severity) == ("rerun-seed-known", "warning")
    assert "seed 1 is" in known.message


def test_a_metric_without_a_tolerance_asks_for_one():
    findings, _ = found(case(margin=None), [result(11), result(12), result(13)])
    assert "declare a tolerance" in findings["rerun-inconclusive"].remedy


def test_a_margin_beyond_the_policy_is_cut_and_a_note_says_so():
    findings, verdicts = found(
        case(margin=0.5), [result(11, 0.80), result(12, 0.81), result(13, 0.80)]
    )
    assert verdicts[0].margin == 0.05
    assert findings["rerun-margin-capped"].severity == "note"


def test_lost_trainings_are_counted_apart_from_failed_ones():
    lost = result(11, ended="could not start", exit_code=None, record=None, detail="no disk")
    failed = result(12, exit_code=1, record=None, log=("Traceback", "ValueError: x"))
    findings, verdicts = found(case(), [lost, failed, result(13), result(14), result(15, 0.81)])
    message = findings["rerun-trials-lost"].message
    assert "2 of 5 trainings" in message
    assert "seed 11: could not start: no disk" in message
    # What the machine lost says nothing; a training that failed by itself is one without a value.
    assert len(verdicts[0].rerun) == 3
    assert verdicts[0].verdict == "INCONCLUSIVE"
    assert judging.trial_of(failed).detail == "exit code 1: ValueError: x"


def test_nan_is_no_value():
    _, verdicts = found(case(), [result(11), result(12, math.nan), result(13)])
    assert verdicts[0].verdict == "INCONCLUSIVE"


def test_another_parameter_than_declared_is_an_error_once():
    other = {"rate": "0.7", "seed": "11"}
    results = [result(seed, record=record(seed, parameters=other)) for seed in (11, 12, 13)]
    findings, _ = found(case(), results)
    assert "rate" in findings["rerun-parameters-differ"].message


def test_the_parameter_that_holds_the_seed_may_differ():
    findings, _ = found(case(), [result(11), result(12, 0.81), result(13)])
    assert "rerun-parameters-differ" not in findings
    assert "rerun-seed-differs" not in findings


def test_other_data_than_declared_is_an_error():
    data = (DatasetVersion(name="d", role="training", sha256="b" * 64, rows=9),)
    findings, _ = found(case(), [result(11, record=record(11, data=data)), result(12), result(13)])
    assert findings["rerun-data-differs"].severity == "error"


def test_a_seed_that_is_ignored_is_noticed():
    findings, _ = found(case(), [result(seed, record=record(42)) for seed in (11, 12, 13)])
    assert findings["rerun-seed-ignored"].severity == "warning"


def test_the_same_results_whatever_the_seed_are_suspicious_where_declared_ones_vary():
    findings, _ = found(case(), [result(11), result(12), result(13)])
    assert findings["rerun-seed-without-effect"].severity == "warning"


def test_a_training_without_chance_gives_the_same_results_on_both_sides():
    findings, verdicts = found(case((0.8,) * 5), [result(11), result(12), result(13)])
    assert findings["rerun-seed-without-effect"].severity == "note"
    assert verdicts[0].verdict == "CONSISTENT"


# --- the word for the whole -------------------------------------------------------------------------------------------


def rerun(verdict="bitwise", knobs=()) -> Rerun:
    return Rerun(
        run="run-c", seed=42, verdict=verdict, exit_code=0, seconds=1.0, conditions="", isolation={},
        environment={}, knobs=knobs,
    )  # fmt: skip


CONSISTENT = [result(11, 0.80), result(12, 0.805), result(13, 0.795)]
INCONSISTENT = [result(seed, 0.70 + seed / 10_000) for seed in range(11, 19)]
OPEN = [result(11, 0.80), result(12, 0.85), result(13, 0.75)]


@pytest.mark.parametrize(
    ("bits", "results", "word", "says"),
    [
        ("bitwise", CONSISTENT, "BITWISE", "3 trainings with the verifier's own seeds agree"),
        ("bitwise", OPEN, "BITWISE", "do not settle"),
        ("bitwise", (), "BITWISE", "no other seed was tried"),
        ("bitwise", INCONSISTENT, "INCONSISTENT", "contradict holdout_auc, although seed 42 gave"),
        ("not bitwise", INCONSISTENT, "INCONSISTENT", "contradict holdout_auc"),
        ("not bitwise", CONSISTENT, "CONSISTENT", "agree with the declaration"),
        ("not bitwise", OPEN, "INCONCLUSIVE", "do not settle"),
        ("failed", (), "INCONCLUSIVE", "no other seed was tried"),
    ],
)
def test_the_verdict_is_one_word_with_a_sentence(bits, results, word, says):
    verdicts = judging.metric_verdicts(case(), results, 3) if results else ()
    found_word, sentence = judging.overall_verdict(rerun(bits), verdicts, results)
    assert found_word == word
    assert says in sentence


@pytest.mark.parametrize(
    ("level", "knobs", "severity"),
    [
        ("bitwise", (), "warning"),
        ("bitwise", (Knob(name="threads", declared=1, rerun=2),), "note"),
        ("bitwise", (Knob(name="build_id", declared="a", rerun="b"),), "warning"),
        ("statistical", (), "note"),
    ],
)
def test_other_bits_matter_where_bits_were_promised_and_nothing_explains_them(
    level, knobs, severity
):
    of = case(level=level)
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    findings = list(bit_findings(of, rerun("not bitwise", knobs), verdicts, {}, "cpu"))
    assert {each.severity for each in findings} == {severity}
    assert "rerun-not-bitwise" in {each.code for each in findings}


def test_other_bits_stay_open_where_other_seeds_settled_nothing():
    of = case(level="statistical")
    findings = bit_findings(
        of, rerun("not bitwise"), judging.metric_verdicts(of, OPEN, 3), {}, "cpu"
    )
    assert "warning" in {each.severity for each in findings}


def test_a_run_on_another_device_can_only_be_judged_statistically():
    of = case(environment={"device": "cuda:0"})
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    here = replace(rerun("not bitwise"), environment={"device": "cpu"})
    findings = {f.code: f for f in bit_findings(of, here, verdicts, {}, "cpu")}
    assert "did not train on cpu" in findings["rerun-other-device"].message
    assert {each.severity for each in findings.values()} == {"note"}


def test_the_scope_of_equal_bits_is_said_only_where_no_other_seed_was_settled():
    of = case()
    metric = MetricComparison(
        metric=METRIC, role="hold-out", declared=0.8, rerun=0.8, points_declared=1, points_rerun=1,
        points_differing=0, first_differing_step=None,
    )  # fmt: skip
    same = replace(rerun(), metrics=(metric,), tensors=(SAME_TENSOR,))
    alone = list(bit_findings(of, same, (), {}, "cpu"))
    assert [each.code for each in alone] == ["rerun-bitwise-scope"]
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    assert list(bit_findings(of, same, verdicts, {}, "cpu")) == []


def metric(rerun_value: float, **changes) -> MetricComparison:
    facts = {
        "metric": METRIC, "role": "hold-out", "declared": 0.8, "rerun": rerun_value, "points_declared": 1,
        "points_rerun": 1, "points_differing": int(rerun_value != 0.8), "first_differing_step": None,
    }  # fmt: skip
    return MetricComparison(**{**facts, **changes})


@pytest.mark.parametrize("level", ["bitwise", "statistical"])
def test_a_declared_figure_that_is_far_off_is_excused_by_nothing(level):
    of = case(level=level)
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    knobs = (Knob(name="cpu.model", declared="A", rerun="B"),)
    near = replace(rerun("not bitwise", knobs), metrics=(metric(0.7999),))
    far = replace(rerun("not bitwise", knobs), metrics=(metric(0.70),))
    verdicts = judging.metric_verdicts(of, OPEN, 3)
    assert "rerun-decisive-differs" not in {
        each.code for each in bit_findings(of, near, verdicts, {}, "cpu")
    }
    (found_one,) = [
        each
        for each in bit_findings(of, far, verdicts, {}, "cpu")
        if each.code == "rerun-decisive-differs"
    ]
    assert found_one.severity == "warning"


def test_without_a_tolerance_the_policy_says_how_far_is_far():
    of = case(margin=None)
    far = replace(rerun("not bitwise"), metrics=(metric(0.74),))
    assert "rerun-decisive-differs" in {each.code for each in bit_findings(of, far, (), {}, "cpu")}


def test_the_declared_weights_cannot_come_with_other_predictions():
    invented = PredictionComparison(
        artefact="predictions.csv", examples=200, agreement=0.76, max_absolute_difference=0.5,
        max_logit_difference=None, relative_difference=0.5,
    )  # fmt: skip
    report = replace(
        rerun("not bitwise"),
        tensors=(SAME_TENSOR,),
        metrics=(metric(0.8),),
        predictions=(invented,),
    )
    assert not is_bitwise(report.metrics, report.tensors, report.predictions)
    findings = {each.code: each for each in bit_findings(case(), report, (), {}, "cpu")}
    assert findings["rerun-predictions-contradict"].severity == "error"
    word, sentence = judging.overall_verdict(report, (), contradicted=True)
    assert word == "INCONSISTENT"
    assert "not the declared results" in sentence


def test_durations_do_not_decide_about_bits_where_metrics_have_roles():
    seconds = metric(3.4, metric="epoch_seconds", role="other", points_differing=4)
    assert is_bitwise((metric(0.8), seconds), (SAME_TENSOR,))
    assert not is_bitwise((seconds,), (SAME_TENSOR,))


def test_regression_predictions_are_the_same_but_for_rounding():
    """Scores of 1e5 in single precision: equal to the last digits, and no decision is exactly the same."""
    near = PredictionComparison(
        artefact="p.csv", examples=9, agreement=0.04, max_absolute_difference=0.01,
        max_logit_difference=None, relative_difference=1e-7,
    )  # fmt: skip
    report = replace(rerun(), tensors=(SAME_TENSOR,), metrics=(metric(0.8),), predictions=(near,))
    codes = {each.code for each in bit_findings(case(), report, (), {}, "cpu")}
    assert "rerun-predictions-contradict" not in codes
    assert is_bitwise(report.metrics, report.tensors, report.predictions)


def test_weights_that_are_nearly_the_same_cannot_come_with_far_other_predictions():
    tensor = TensorComparison(
        tensor="w", dtype="F32", shape=(9,), equal=False, equal_fraction=0.9, max_absolute_difference=1e-8,
        relative_l2=1e-8, ulp_median=0,
    )  # fmt: skip
    invented = PredictionComparison(
        artefact="p.csv", examples=9, agreement=0.76, max_absolute_difference=0.5,
        max_logit_difference=None, relative_difference=0.5,
    )  # fmt: skip
    report = replace(rerun("not bitwise"), tensors=(tensor,), predictions=(invented,))
    findings = {each.code: each for each in bit_findings(case(), report, (), {}, "cpu")}
    assert findings["rerun-predictions-far"].severity == "warning"


def test_what_a_stopped_training_had_not_recorded_is_no_difference():
    stopped = result(
        11, ended="timed out", exit_code=None, record=record(11, parameters={"seed": "11"})
    )
    findings, _ = found(case(), [stopped, result(12), result(13, 0.81)])
    assert "rerun-parameters-differ" not in findings
    assert "rerun-trials-lost" in findings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"relative_l2": 0.3}, True),
        ({"relative_l2": None}, True),
        ({"relative_l2": 1e-7, "ulp_median": 1}, False),
        # One large number makes any distance small: half of the numbers have to be the same but for the last digits.
        ({"relative_l2": 1e-7, "ulp_median": 1 << 30}, True),
        ({"equal": True}, False),
    ],
)
def test_a_model_that_is_neither_repeated_nor_scored_is_unproven(changes, says):
    of = case(level="statistical")
    of.evidence.contents.index.facts.model = "model.safetensors"
    of.spec.outputs = Outputs(tracker="metrics", location="runs", tensors=("model.safetensors",))
    facts = {
        "tensor": "w", "dtype": "F32", "shape": (9,), "equal": False, "equal_fraction": None,
        "max_absolute_difference": None,
    }  # fmt: skip
    report = replace(rerun("not bitwise"), tensors=(TensorComparison(**{**facts, **changes}),))
    unproven = {each.code: each for each in model_findings(of, report, scored=False)}
    assert (unproven.keys() == {"model-unproven"}) is says
    assert not [*model_findings(of, report, scored=True)]
    assert not [*model_findings(of, replace(report, verdict="failed"), scored=False)]
    assert [*model_findings(of, rerun("not bitwise"), scored=False)]
    # Tensors of another file say nothing of the model, equal or not.
    of.spec.outputs = replace(of.spec.outputs, tensors=("small.safetensors",))
    (unproven,) = model_findings(of, replace(report, verdict="bitwise"), scored=False)
    assert "not among the tensors" in unproven.message


OWN = (0.800, 0.805, 0.795, 0.801, 0.804, 0.799, 0.796, 0.800)


def test_with_other_numerics_the_declared_seed_is_one_more_draw_as_the_verifier_s_own_seeds_scatter():
    of = case(level="statistical")
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    assert verdicts[0].verdict == "CONSISTENT"
    report = replace(rerun("not bitwise"), metrics=(metric(0.76),))

    def off(own):
        found_ones = bit_findings(of, report, verdicts, {METRIC: own}, "cpu")
        return [each for each in found_ones if each.code == "rerun-decisive-differs"]

    # Three own runs know little of chance; eight know that 0.04 is none.
    assert off(OWN[:3]) == []
    (far,) = off(OWN)
    assert (far.subject, far.severity) == (METRIC, "warning")
    # Runs that are all alike say nothing of chance, so the margin alone is left.
    assert len(off((0.8,) * 8)) == len(off(())) == 1


def test_the_metric_that_decides_the_selection_may_be_off_by_chance_and_not_as_the_provider_s_runs_scatter():
    """One of five declared values raised without limit makes the declared scatter as wide as it is raised."""
    of = case((0.80, 0.81, 0.79, 0.80, 0.80), level="statistical")
    index = of.evidence.contents.index
    index.selection = SelectionSpec(run="a", metric="val_auc", direction="maximise", rationale="")
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)

    def codes(declared, rerun_value):
        chosen = metric(rerun_value, metric="val_auc", role="validation", declared=declared)
        report = replace(rerun("not bitwise"), metrics=(chosen,))
        return {each.code for each in bit_findings(of, report, verdicts, {"val_auc": OWN}, "cpu")}

    assert "rerun-decisive-differs" in codes(0.84, 0.80)
    assert "rerun-decisive-differs" not in codes(0.81, 0.80)
    # What understates is no cheat.
    assert "rerun-decisive-differs" not in codes(0.70, 0.80)


@pytest.mark.parametrize(
    ("declared", "ours", "explains"),
    [
        ({"cpu_model": "A"}, {"cpu_model": "B"}, True),
        ({"cpu_model": "A"}, {}, False),
        ({"determinism.seed": 7}, {"determinism.seed": 42}, False),
        ({"determinism.tf32": True}, {"determinism.tf32": False}, True),
        ({"cpu_model": "A"}, {"threads": 1}, False),
        ({"format": CAPTURE_FORMAT, "threads.OMP_NUM_THREADS": "2"}, {"format": CAPTURE_FORMAT}, True),
        ({"format": CAPTURE_FORMAT, "accelerator.driver": "550.1"}, {"format": CAPTURE_FORMAT}, False),
        ({"format": CAPTURE_FORMAT, "os": "A"}, {"format": CAPTURE_FORMAT, "not_recorded.os": "?"}, False),
    ],
)  # fmt: skip
def test_only_a_fact_that_is_known_to_differ_explains_other_bits(declared, ours, explains):
    of = case(environment=declared)
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    knobs = differing_knobs(declared, ours)
    report = replace(rerun("not bitwise", knobs), environment=ours)
    findings = {each.code: each for each in bit_findings(of, report, verdicts, {}, "cpu")}
    assert findings["rerun-not-bitwise"].severity == ("note" if explains else "warning")


def test_a_parameter_of_the_machine_is_worth_a_look_and_another_one_contradicts():
    def found_for(name):
        one = record(42, parameters={"seed": "42", name: "16"})
        other = record(42, parameters={"seed": "42", name: "2"})
        (finding,) = same_training(one, other)
        return finding.code, finding.severity

    assert found_for("n_jobs") == ("rerun-parameters-differ", "warning")
    assert found_for("model.num_workers") == ("rerun-parameters-differ", "warning")
    assert found_for("dropout") == ("rerun-parameters-differ", "error")
    assert found_for("n_jobs_of_it") == ("rerun-parameters-differ", "error")


def test_coarse_figures_that_are_alike_by_chance_do_not_say_that_nothing_was_trained():
    def one(seed, loss):
        whole = record(seed)
        (judged,) = whole.metrics
        trained = replace(judged, name="train_loss", role="training", last=loss)
        return result(seed, record=replace(whole, metrics=(judged, trained)))

    findings, _ = found(case(), [one(11, 0.31), one(12, 0.30), one(13, 0.29)])
    assert "rerun-seed-without-effect" not in findings
    findings, _ = found(case(), [one(11, 0.3), one(12, 0.3), one(13, 0.3)])
    assert "rerun-seed-without-effect" in findings
