"""What is said of trainings with the verifier's own seeds, one finding at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bundler import judging
from bundler.case import Case
from bundler.policy import DEFAULT
from bundler.records import CodeVersion, DatasetVersion, MetricSummary, RunRecord, Source, number
from bundler.report import Knob, MetricComparison, Rerun, TensorComparison
from bundler.spec import Tolerance
from bundler.trials import TrialResult

METRIC = "holdout_auc"


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
        selection=SimpleNamespace(metric=METRIC, constraints=()),
        gates=(),
    )
    return Case(
        evidence=SimpleNamespace(contents=SimpleNamespace(index=index)),
        spec=SimpleNamespace(),
        declared=record(environment=environment or {}),
        points=(),
        runs=(),
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
    assert "seed 11: infrastructure, no disk" in message
    # What the machine lost says nothing; a training that failed by itself is one without a value.
    assert len(verdicts[0].rerun) == 3
    assert verdicts[0].verdict == "INCONCLUSIVE"
    assert judging.trial_of(failed).detail == "ValueError: x"


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
    found_word, sentence = judging.overall_verdict(rerun(bits), verdicts)
    assert found_word == word
    assert says in sentence


@pytest.mark.parametrize(
    ("level", "knobs", "severity"),
    [
        ("bitwise", (), "warning"),
        ("bitwise", (Knob(name="threads", declared=1, rerun=2),), "note"),
        ("statistical", (), "note"),
    ],
)
def test_other_bits_matter_where_bits_were_promised_and_nothing_explains_them(
    level, knobs, severity
):
    of = case(level=level)
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    findings = list(judging.bit_findings(of, rerun("not bitwise", knobs), verdicts, "cpu"))
    assert {each.severity for each in findings} == {severity}
    assert "rerun-not-bitwise" in {each.code for each in findings}


def test_other_bits_stay_open_where_other_seeds_settled_nothing():
    of = case(level="statistical")
    findings = judging.bit_findings(
        of, rerun("not bitwise"), judging.metric_verdicts(of, OPEN, 3), "cpu"
    )
    assert "warning" in {each.severity for each in findings}


def test_a_run_on_another_device_can_only_be_judged_statistically():
    of = case(environment={"device": "cuda:0"})
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    findings = {f.code: f for f in judging.bit_findings(of, rerun("not bitwise"), verdicts, "cpu")}
    assert "did not train on cpu" in findings["rerun-other-device"].message
    assert {each.severity for each in findings.values()} == {"note"}


def test_the_scope_of_equal_bits_is_said_only_where_no_other_seed_was_settled():
    of = case()
    metric = MetricComparison(
        metric=METRIC, role="hold-out", declared=0.8, rerun=0.8, points_declared=1, points_rerun=1,
        points_differing=0, first_differing_step=None,
    )  # fmt: skip
    tensor = TensorComparison(
        tensor="w",
        dtype="F32",
        shape=(1,),
        equal=True,
        equal_fraction=1.0,
        max_absolute_difference=0.0,
    )
    same = replace(rerun(), metrics=(metric,), tensors=(tensor,))
    alone = list(judging.bit_findings(of, same, (), "cpu"))
    assert [each.code for each in alone] == ["rerun-bitwise-scope"]
    verdicts = judging.metric_verdicts(of, CONSISTENT, 3)
    assert list(judging.bit_findings(of, same, verdicts, "cpu")) == []
