"""From what the verifier's own seeds gave to what is said of the declaration: the verdict and its findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bundler.case import Case
from bundler.comparing import note, warning
from bundler.engines.retries import infrastructure_failure
from bundler.equivalence import Sample, compare, finite_values, overall, scatter_more
from bundler.policy import effective_margin, rule
from bundler.records import Number, RunRecord, Scalar
from bundler.report import Finding, MetricVerdict, Rerun, Trial, Verdict
from bundler.reproduction import same_training
from bundler.trials import TrialResult, trained


def trial_of(result: TrialResult) -> Trial:
    """What the report says of a training with one of the verifier's seeds.

    Only what it ran on can be ``infrastructure``: a training that ends itself, or runs into a limit, has failed, or it
    could choose by that which seeds count. The figures of a training that did not come to its end are none.
    """
    record = result.record
    whole = trained(result) and record is not None and record.status not in {"failed", "killed"}
    lost = infrastructure_failure(result)
    return Trial(
        seed=result.seed,
        ended="trained" if whole else "infrastructure" if lost else "failed",
        exit_code=result.exit_code,
        seconds=result.seconds,
        attempts=result.attempts,
        where=result.where,
        resumed=result.resumed,
        detail="" if whole else _how(result),
        metrics={m.name: m.last for m in record.metrics} if whole and record is not None else {},
    )


def _how(result: TrialResult) -> str:
    """How a training ended that gave no result."""
    if trained(result):
        return result.problem or "its own record says that it failed"
    last = result.log[-1] if result.log else "it printed nothing"
    if result.ended == "exited":
        return f"exit code {result.exit_code}: {last}"
    return f"{result.ended}: {result.detail or last}"


def metric_verdicts(
    case: Case, results: Sequence[TrialResult], looks: int, *, blind: bool = False
) -> tuple[MetricVerdict, ...]:
    """The statistical rule over the trainings that ran; infrastructure that failed says nothing.

    A training that failed counts as one without a value.
    """
    trials = [trial_of(result) for result in results]
    ours = [trial.metrics for trial in trials if trial.ended != "infrastructure"]
    tolerances = {each.metric: each for each in case.tolerances}
    samples = []
    for metric, values in case.values.items():
        declared = tolerances.get(metric)
        samples.append(
            Sample(
                metric=metric,
                declared=values,
                rerun=tuple(_plain(each.get(metric)) for each in ours),
                declared_margin=None if declared is None else declared.margin,
                margin=None if declared is None else effective_margin(declared, case.policy),
                overstatement=None if declared is None else declared.overstatement,
            )
        )
    return compare(samples, rule(case.policy, looks, blind=blind))


def own_values(case: Case, results: Sequence[TrialResult]) -> Mapping[str, tuple[float, ...]]:
    """What the trainings with the verifier's seeds gave, for each metric that selection or gates rest on."""
    trials = [trial_of(result) for result in results]
    return {
        metric: finite_values(_plain(trial.metrics.get(metric)) for trial in trials)
        for metric in case.decisive
    }


def known_seeds(case: Case, results: Sequence[TrialResult]) -> tuple[Finding, ...]:
    """A warning for each seed that the provider has used: its result is no independent one, and does not count."""
    return tuple(
        warning(
            "rerun-seed-known",
            case.declared.id,
            f"seed {result.seed} is one of the provider's: its training shows nothing new and was left out",
            "Choose other seeds, or none for random ones.",
        )
        for result in results
        if result.seed in case.seeds
    )


def _plain(value: Number | None) -> float:
    return math.nan if value is None else float(value)


def own_findings(
    case: Case,
    results: Sequence[TrialResult],
    metrics: Sequence[MetricVerdict],
) -> Iterator[Finding]:
    """What the trainings with the verifier's seeds say about the declaration."""
    run = case.declared.id
    trials = [trial_of(result) for result in results]
    lost = [trial for trial in trials if trial.ended != "trained"]
    if lost:
        yield warning(
            "rerun-trials-lost",
            run,
            f"{len(lost)} of {len(trials)} trainings with the verifier's seeds gave no result; seed {lost[0].seed}:"
            f" {lost[0].detail}",
            "Raise the limit that was met (--time-limit, --memory-limit, --disk-limit), or run again with --keep DIR"
            " and read the logs there.",
        )
    yield from _other_training(case, results)
    yield from _scatter(metrics)
    for each in metrics:
        if each.verdict == "INCONSISTENT":
            yield Finding(
                code="rerun-inconsistent",
                severity="error",
                subject=each.metric,
                message=each.explanation,
            )
    open_ones = [each for each in metrics if each.verdict == "INCONCLUSIVE"]
    if open_ones:
        others = len(open_ones) - 1
        more = f" (and {others} more metric{'s' if others > 1 else ''})" if others else ""
        yield warning(
            "rerun-inconclusive",
            open_ones[0].metric,
            f"{open_ones[0].explanation}{more}",
            _what_settles(case, open_ones),
        )
    for each in metrics:
        if None not in {each.margin, each.declared_margin} and each.margin != each.declared_margin:
            yield note(
                "rerun-margin-capped",
                each.metric,
                f"the declared margin {each.declared_margin:g} is more than the verifier's policy allows;"
                f" {each.margin:g} was used",
            )


def _scatter(metrics: Sequence[MetricVerdict]) -> Iterator[Finding]:
    """Declared runs that scatter far more than ours hide a difference: noise can be invented as well.

    Where the metric is consistent in spite of it, no difference of the means was hidden: that is worth a note.
    """
    for each in metrics:
        ratio = scatter_more(each.declared, each.rerun)
        if ratio is None:
            continue
        more = (
            f"the declared runs scatter {ratio:.1f} times as much as the verifier's, which chance"
            " hardly does"
        )
        if each.verdict == "CONSISTENT":
            yield note(
                "rerun-declared-scatter", each.metric, f"{more}; the margin holds all the same"
            )
        else:
            yield warning(
                "rerun-declared-scatter",
                each.metric,
                more,
                "Look at the single runs: a wide scatter makes every difference look like chance.",
            )


def _what_settles(case: Case, open_ones: Sequence[MetricVerdict]) -> str:
    """What would settle the metrics that are open; whatever stands in the way of all comes first."""
    if any(each.margin is None for each in open_ones):
        return "The provider can declare a tolerance for each metric of a gate."
    few = case.policy.minimum_runs
    if any(len(finite_values(each.declared)) < few for each in open_ones):
        return f"The provider has to repeat the training: {few} independent runs are the least (bundler rerun)."
    if any(len(finite_values(each.rerun)) < len(each.rerun) for each in open_ones):
        return "Trainings without a value may be the bad ones: find out why they gave none."
    if any(len(each.rerun) < case.policy.looks[0] for each in open_ones):
        return f"Train with more seeds: --runs {case.policy.looks[-1]}."
    if any(each.needed is None for each in open_ones):
        return (
            "More trainings than anybody would make: ask the provider for more repeated runs of the selected"
            " configuration."
        )
    needed = max(each.needed or 0 for each in open_ones)
    return (
        f"A new verification with --runs {needed} has a chance of 90 % to settle it; this one stands, and is to be"
        " shown beside it."
    )


def _other_training(case: Case, results: Sequence[TrialResult]) -> Iterator[Finding]:
    """Trainings that were not what was declared, or that the seed made no difference to."""
    declared = case.declared
    records = [
        (result.seed, result.record)
        for result in results
        # What a training that was stopped had not yet recorded is no difference.
        if result.record is not None and trial_of(result).ended == "trained"
    ]
    seen: set[str] = set()
    for seed, record in records:
        same_seed = replace(record, seed=declared.seed, parameters=_with_seed(case, record))
        for finding in same_training(declared, same_seed):
            if finding.code not in seen:
                seen.add(finding.code)
                yield finding
        if record.seed != seed and "rerun-seed-ignored" not in seen:
            seen.add("rerun-seed-ignored")
            yield warning(
                "rerun-seed-ignored",
                declared.id,
                f"the training was given seed {seed} and recorded {record.seed}",
                "Ask the provider where the seed goes; with one seed only, nothing can be said of others.",
            )
    finals = [
        tuple(
            _plain(record.value(each.name))
            for each in record.metrics
            if each.role != "other" or each.name in case.values
        )
        for _, record in records
    ]
    whole = [each for each in finals if all(map(math.isfinite, each))]
    if len(whole) > 1 and len({*whole}) == 1 and case.values:
        varied = any(len({*values}) > 1 for values in case.values.values())
        words = "all trainings with the verifier's seeds gave the same results, whatever the seed"
        if varied:
            yield warning(
                "rerun-seed-without-effect",
                declared.id,
                f"{words}, while the declared runs differ between seeds: is anything trained?",
                "Read the code: it may carry its result inside.",
            )
        else:
            yield note(
                "rerun-seed-without-effect", declared.id, f"{words}; so did the declared runs"
            )


def _with_seed(case: Case, record: RunRecord) -> dict[str, Scalar]:
    """The parameters of ``record``, with the declared value where the seed stands."""
    group, _, name = case.evidence.contents.index.facts.seed.partition(".")
    parameters = dict(record.parameters)
    if group == "parameters" and name in parameters and name in case.declared.parameters:
        parameters[name] = case.declared.parameters[name]
    return parameters


def overall_verdict(
    rerun: Rerun,
    metrics: Sequence[MetricVerdict],
    results: Sequence[TrialResult] = (),
    *,
    contradicted: bool = False,
) -> tuple[Verdict, str]:
    """The word for the whole re-execution, and the sentence that explains it.

    ``contradicted``: the declared weights came out, and with them other results than declared.
    """
    own = overall(metrics) if metrics else None
    runs = sum(trial_of(result).ended == "trained" for result in results)
    lost = f" ({len(results) - runs} more gave no result)" if len(results) > runs else ""
    by_us = f"{runs} training{'' if runs == 1 else 's'} with the verifier's own seeds{lost}"
    bits = f"seed {rerun.seed} gave the declared bits" if rerun.verdict == "bitwise" else ""
    if contradicted:
        return (
            "INCONSISTENT",
            f"seed {rerun.seed} gave the declared weights, but not the declared results",
        )
    if own == "INCONSISTENT":
        worst = next(each for each in metrics if each.verdict == "INCONSISTENT")
        words = f"{by_us} contradict {worst.metric}"
        return "INCONSISTENT", f"{words}, although {bits}" if bits else words
    rest = f"{by_us} do not settle whether other seeds agree"
    if own == "CONSISTENT":
        rest = f"{by_us} agree with the declaration"
    elif not results:
        rest = "no other seed was tried"
    elif not metrics:
        rest = f"{by_us} were made, but no metric is declared to be judged"
    if bits:
        return "BITWISE", f"{bits}; {rest}"
    return ("CONSISTENT" if own == "CONSISTENT" else "INCONCLUSIVE"), rest
