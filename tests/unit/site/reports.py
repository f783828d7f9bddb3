"""Reports about a re-execution, as a verifier would write them."""

from __future__ import annotations

from dataclasses import replace

from bundler.equivalence import Rule, Sample, compare
from bundler.report import (
    Canary,
    CheckResult,
    Commitment,
    Finding,
    Judgement,
    Knob,
    MetricComparison,
    Plan,
    PlannedMetric,
    PredictionComparison,
    Report,
    Rerun,
    ScoredMetric,
    ScoredModel,
    TensorComparison,
    Trial,
)

DECLARED_AUC = (0.7806, 0.7794, 0.7801, 0.7788, 0.7811)
DECLARED_GAP = (0.0830, 0.0790, 0.0815, 0.0802, 0.0793)
OWN_AUC = (0.7791, 0.7803, 0.7785)
OWN_GAP = (0.0806, 0.0851, 0.0822)


def samples(auc=OWN_AUC, gap=OWN_GAP) -> list[Sample]:
    """An AUC whose margin the policy cuts and of which only overstatement counts, and a gap with two sides."""
    return [
        Sample(
            metric="holdout_auc",
            declared=DECLARED_AUC,
            rerun=auc,
            declared_margin=0.01,
            margin=0.005,
            overstatement="higher is better",
        ),
        Sample(
            metric="holdout_disparity",
            declared=DECLARED_GAP,
            rerun=gap,
            declared_margin=0.01,
            margin=0.01,
        ),
    ]


def trial(seed: int, **changes) -> Trial:
    plain = Trial(
        seed=seed,
        ended="trained",
        exit_code=0,
        seconds=61.5,
        attempts=1,
        where="this machine",
        resumed=False,
        detail="",
        metrics={"holdout_auc": 0.78, "holdout_disparity": "NaN"},
    )
    return replace(plain, **changes)


def plan() -> Plan:
    return Plan(
        command=("{python}", "train.py", "{seed}", "{out}/store"),
        declared_seed=42,
        own_seeds=tuple(range(1_900_000_001, 1_900_000_009)),
        looks=(3, 5, 8),
        environment="locked: recreated from 31 wheels with their digests",
        device="cpu",
        engine="local",
        parallel=2,
        isolation="bubblewrap",
        run_seconds=61.5,
        least_seconds=184.5,
        most_seconds=369.0,
        metrics=(
            PlannedMetric(
                metric="holdout_auc",
                runs=5,
                deviation=0.0022,
                declared_margin=0.01,
                margin=0.005,
                needed=4,
            ),
            PlannedMetric(
                metric="holdout_recall",
                runs=1,
                deviation=None,
                declared_margin=None,
                margin=None,
                needed=None,
            ),
        ),
    )


def judgement(**changes) -> Judgement:
    """Five trainings with own seeds, of which the machine lost one."""
    plain = Judgement(
        verdict="CONSISTENT",
        explanation="3 trainings with the verifier's own seeds agree with the declaration",
        plan=plan(),
        policy={
            "default_margin": 0.005,
            "looks": ("3", "5", "8"),
            "margins": (),
            "false_consistent": 0.05,
        },
        canary=Canary(
            verdict="failed",
            seconds=8.2,
            points=12,
            explanation="train_loss at step 1 is 0.5000001, declared was 0.5; what differs here: threads",
            knobs=(Knob(name="threads", declared=1, rerun=2),),
        ),
        trials=(
            trial(1_900_000_001),
            trial(1_900_000_002, attempts=2, where="node-2"),
            trial(1_900_000_003, resumed=True),
            trial(
                1_900_000_004,
                ended="infrastructure",
                exit_code=137,
                attempts=3,
                detail="killed: out of memory",
                metrics={},
            ),
        ),
        metrics=compare(samples(), Rule()),
        commitment=None,
    )
    return replace(plain, **changes)


BLIND = Commitment(
    sha256="ab" * 32,
    committed_at="2026-01-01T00:10:00.000Z",
    opened=("data/spec/training.json", "data/environment/requirements.txt"),
)


def metric(name="holdout_auc", **changes) -> MetricComparison:
    plain = MetricComparison(
        metric=name,
        role="hold-out",
        declared=0.78,
        rerun=0.7804,
        points_declared=3,
        points_rerun=3,
        points_differing=2,
        first_differing_step=1,
    )
    return replace(plain, **changes)


def tensor(name="weight", **changes) -> TensorComparison:
    plain = TensorComparison(
        tensor=name,
        dtype="F32",
        shape=(2, 3),
        equal=False,
        equal_fraction=0.5,
        max_absolute_difference=1e-7,
        ulp_median=3,
        ulp_p99=1200,
        relative_l2=2.5e-6,
        cosine=0.999998,
    )
    return replace(plain, **changes)


SAME_TENSOR = tensor(
    "bias",
    shape=(3,),
    equal=True,
    equal_fraction=1.0,
    max_absolute_difference=0.0,
    ulp_median=0,
    ulp_p99=0,
    relative_l2=0.0,
    cosine=1.0,
)

PREDICTED = PredictionComparison(
    artefact="predictions.csv",
    examples=400,
    agreement=0.995,
    max_absolute_difference=0.001,
    max_logit_difference=0.02,
)


def rerun(**changes) -> Rerun:
    """The declared seed on a machine with other arithmetic."""
    plain = Rerun(
        run="run-c",
        seed=42,
        verdict="not bitwise",
        exit_code=0,
        seconds=62.0,
        conditions="another machine",
        isolation={"kind": "bubblewrap", "network": True, "probes": ("canary: blocked",), "x": ()},
        environment={},
        runtime={"mode": "locked", "wheels": 31, "wheels_sha256": "cd" * 32},
        metrics=(
            metric(),
            metric("train_loss", role="training", declared="NaN", rerun=None, points_differing=0),
        ),
        tensors=(tensor(), SAME_TENSOR),
        predictions=(PREDICTED,),
        knobs=(Knob(name="threads", declared=1, rerun=2),),
    )
    return replace(plain, **changes)


SCORED = ScoredModel(
    run="run-c",
    exit_code=0,
    seconds=1.5,
    isolation={"kind": "bubblewrap", "network": True},
    metrics=(
        ScoredMetric(metric="holdout_auc", declared=0.78, found=0.78),
        ScoredMetric(metric="holdout_disparity", declared=0.08, found=0.0800001),
        ScoredMetric(metric="holdout_recall", declared=0.5, found=0.4),
        ScoredMetric(metric="holdout_f1", declared="NaN", found=0.4),
    ),
)


def reexecuted(report: Report, **changes) -> Report:
    """``report`` with a re-run, a judgement and a scored model."""
    check = CheckResult(
        check="model.evaluation",
        claim="reproduction",
        title="Does the shipped model give the declared metrics?",
        outcome="failed",
        findings=(
            Finding(
                code="evaluation-differs",
                severity="error",
                subject="run-c",
                message="the shipped model gives another recall",
                remedy="Ask the provider.",
            ),
        ),
    )
    others = tuple(each for each in report.checks if each.check != check.check)
    whole = replace(
        report,
        checks=(*others, check),
        reruns=(rerun(),),
        judgement=judgement(),
        evaluation=SCORED,
    )
    return replace(whole, **changes)
