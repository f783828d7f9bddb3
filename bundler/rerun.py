"""Re-executing the training of a bundle: planned, run in a sandbox, judged.

The declared seed is repeated for its bits, seeds of the verifier's own choice for the statistical verdict. More of the
latter are trained, look by look, until the verdict is settled or the last look is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundler import canary, canonical, codec, machine_facts
from bundler.bits import bit_findings, far_off, model_findings
from bundler.case import Case, case_of
from bundler.checks import Evidence
from bundler.comparing import compared, warning
from bundler.engines.model import OnLog
from bundler.engines.store import Results, default_folder
from bundler.equivalence import overall
from bundler.errors import MalformedError
from bundler.evaluation import evaluate
from bundler.evidence import Files
from bundler.judging import (
    known_seeds,
    metric_verdicts,
    overall_verdict,
    own_findings,
    own_values,
    trial_of,
)
from bundler.manifest import CODE, DATASETS
from bundler.placeholders import problems
from bundler.policy import facts as policy_facts
from bundler.progress import Progress
from bundler.records import RunRecord, Scalar
from bundler.report import (
    Canary,
    Commitment,
    Finding,
    Judgement,
    Plan,
    Rerun,
    ScoredModel,
)
from bundler.reproduction import knobs_here
from bundler.session import RerunOptions, Session, open_session, takes_seed
from bundler.spec import TrainingSpec
from bundler.storage.hashing import digest_bytes
from bundler.trials import TrialResult

SPEC = "data/spec/training.json"
BLIND_FORMAT = "urn:aisdp-bundler:blind-results:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOutcome:
    """What a re-execution came to. What was not done has a reason in ``untrained`` or ``unscored``, not findings."""

    rerun: Rerun | None = None
    judgement: Judgement | None = None
    scored: ScoredModel | None = None
    plan: Plan | None = None
    findings: tuple[Finding, ...] = ()
    score_findings: tuple[Finding, ...] = ()
    untrained: str = ""
    unscored: str = "not asked for; use --evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """Everything that was trained: the plan that it followed, and the results, the declared seed's first.

    ``here`` are facts of this machine, where the training recorded none.
    """

    plan: Plan
    session: Session
    canary: Canary
    declared: TrialResult
    own: tuple[TrialResult, ...]
    looks: int
    commitment: Commitment | None = None
    here: Mapping[str, Scalar] = field(default_factory=dict)


class Reexecution:
    """The re-execution of one verification; call it with the evidence once everything else was looked at.

    ``on_plan`` sees the plan before anything runs, ``on_log`` the logs of the trainings, and ``tell`` hears what is
    known meanwhile. With ``on_commit`` it is blind: that is given the verifier's own results before a declared value
    was opened. ``clock`` says when.
    """

    def __init__(  # noqa: PLR0913  # the seams of the world
        self,
        options: RerunOptions,
        progress: Progress,
        *,
        clock: Callable[[], str],
        on_plan: Callable[[Plan], None] = lambda plan: None,
        on_log: OnLog = lambda seed, chunk: None,
        tell: Callable[[str], None] = lambda words: None,
        on_commit: Callable[[bytes], None] | None = None,
    ) -> None:
        self._options = options
        self._progress = progress
        self._clock = clock
        self._on_plan = on_plan
        self._on_log = on_log
        self._tell = tell
        self._on_commit = on_commit
        self._done: _Trained | None = None
        self._folder: Path | None = None
        self._here: Mapping[str, Scalar] | None = None

    def before(self, files: Files) -> None:
        """Blind: train everything before a declared value is opened, and commit to what came out.

        Of the payload, the training specification is opened and what it needs: code, inputs, the list of packages.
        There is one look, because stopping early would need the declared values. Raises like :meth:`__call__`.
        """
        if self._on_commit is None or not self._options.train or self._options.plan_only:
            return
        spec = _specification(files)
        with self._open(files, spec, None) as session:
            seeds = session.seeds(()) if takes_seed(spec) else ()
            plan = session.plan(seeds, (len(seeds),) if seeds else (), ())
            self._on_plan(plan)
            with self._progress.step("Training", 1 + len(seeds)) as step:
                futures = [session.submit(seed) for seed in (spec.seed, *seeds)]
                results = []
                for future in futures:
                    results.append(future.result())
                    step.advance()
            data = canonical.serialise(
                {
                    "format": BLIND_FORMAT,
                    "bundle": files.tag_manifest_sha256,
                    "results": codec.to_json(results),
                }
            )
            commitment = Commitment(
                sha256=digest_bytes(data),
                committed_at=self._clock(),
                opened=tuple(sorted(files.opened)),
            )
            self._on_commit(data)
        self._done = _Trained(
            plan=plan,
            session=session,
            canary=canary.not_run("blind: nothing declared may be looked at"),
            declared=results[0],
            own=tuple(results[1:]),
            looks=1,
            commitment=commitment,
        )

    def __call__(self, evidence: Evidence) -> RerunOutcome:
        """Re-run and judge.

        Raises :class:`bundler.errors.SandboxUnavailableError` and
        :class:`bundler.errors.EnvironmentNotRecreatableError`; both before any code of the bundle runs.
        """
        spec = evidence.contents.training
        declared = evidence.contents.record(spec.run) if spec is not None else None
        if spec is None or declared is None:
            words = "the bundle does not say how to train"
            missing = warning("rerun-no-specification", "bundle", words)
            return RerunOutcome(findings=(missing,), unscored=words)
        unrunnable = next(problems(spec), None)
        if unrunnable is not None:
            raise MalformedError("training-unrunnable", unrunnable)
        case = case_of(evidence, spec, declared, self._options.policy)
        if self._done is not None and not self._options.score:
            return _judged(case, self._done, RerunOutcome())
        with self._open(evidence.files, spec, declared) as session:
            return self._in(session, case)

    def complete(self) -> None:
        """Forget the results that were kept to go on after a stop: call it once the report is written."""
        if self._folder is not None:
            with Results(self._folder) as results:
                results.finish()

    def _open(
        self, files: Files, spec: TrainingSpec, declared: RunRecord | None
    ) -> AbstractContextManager[Session]:
        options = self._options
        if self._done is not None and options.keep is not None:
            # Everything is trained and kept already; what is left is to score the model.
            options = replace(options, keep=options.keep / "scoring")
        self._folder = options.state or default_folder(files.tag_manifest_sha256)
        return open_session(
            files,
            spec,
            options,
            self._progress,
            self._on_log,
            state=self._folder,
            declared=declared,
        )

    def _in(self, session: Session, case: Case) -> RerunOutcome:
        options, done = self._options, self._done
        if not options.train:
            outcome = self._scored(session, case)
            return replace(outcome, untrained="not asked for; use --rerun")
        plan = self._planned(session, case) if done is None else done.plan
        if done is None:
            self._on_plan(plan)
        if options.plan_only:
            words = "only planned (--plan)"
            return RerunOutcome(plan=plan, untrained=words, unscored=words)
        outcome = self._scored(session, case)
        return _judged(case, done or self._train(session, case, plan), outcome)

    def _scored(self, session: Session, case: Case) -> RerunOutcome:
        if not self._options.score:
            return RerunOutcome()
        scored = evaluate(case.evidence, session.runtime, self._options, self._progress)
        return RerunOutcome(
            scored=scored.scored, score_findings=scored.findings, unscored=scored.reason
        )

    def _planned(self, session: Session, case: Case) -> Plan:
        """The plan: the looks of the policy, as far as runs are wanted; blind, the last one only."""
        seeds = session.seeds(case.seeds) if takes_seed(case.spec) else ()
        blind = self._on_commit is not None
        looks = [look for look in self._options.policy.looks if look < len(seeds) and not blind]
        if seeds:
            looks.append(len(seeds))
        return session.plan(seeds, looks, case.planned(blind=blind))

    def _train(self, session: Session, case: Case, plan: Plan) -> _Trained:
        bird = self._told(self._canary(session, case))
        looks = plan.looks or (0,)
        with self._progress.step("Training", 1 + len(plan.own_seeds)) as step:
            futures = [session.submit(case.spec.seed)]
            results: list[TrialResult] = []
            for look in looks:
                futures += [
                    session.submit(seed) for seed in plan.own_seeds[len(futures) - 1 : look]
                ]
                for future in futures[len(results) :]:
                    results.append(future.result())
                    step.advance()
                if look == looks[0] and (kept := sum(each.resumed for each in results)):
                    self._tell(
                        f"taken over from a verification that was stopped: {kept} of {len(results)}"
                    )
                verdicts = metric_verdicts(case, results[1:], len(plan.looks))
                if overall(verdicts) == "INCONSISTENT":
                    break  # more trainings could change nothing
                if overall(verdicts) == "CONSISTENT" and not _far_off(case, results, looks[-1]):
                    break
        return _Trained(
            plan=plan,
            session=session,
            canary=bird,
            declared=results[0],
            own=tuple(results[1:]),
            looks=len(plan.looks),
            here={} if _recorded(results[0]) else self._facts_here(session, case),
        )

    def _canary(self, session: Session, case: Case) -> Canary:
        seconds = canary.window(case.declared, case.points)
        if seconds is None:
            return canary.not_run(
                "a whole run is as quick, or the records do not say when points were logged"
            )
        with self._progress.step("Repeating the first steps", None):
            result = session.peek(seconds)
        bird = canary.examine(case.points, result, ())
        if bird.verdict != "failed":
            return bird
        known = _recorded(result) or self._facts_here(session, case)
        knobs = knobs_here(case.declared.environment, known)
        return canary.examine(case.points, result, (*session.runtime.software, *knobs))

    def _facts_here(self, session: Session, case: Case) -> Mapping[str, Scalar]:
        """What this machine says of itself; asked once, and only where the training does not say it."""
        if self._here is None:
            facts = session.facts_here(case.declared.environment)
            self._here = machine_facts.comparable(facts)
        return self._here

    def _told(self, bird: Canary) -> Canary:
        if bird.verdict != "not run":
            self._tell(f"canary {bird.verdict}: {bird.explanation}")
        return bird


def _recorded(result: TrialResult) -> Mapping[str, Scalar]:
    return {} if result.record is None else result.record.environment


def _judged(case: Case, done: _Trained, outcome: RerunOutcome) -> RerunOutcome:
    known = known_seeds(case, done.own)
    own = [result for result in done.own if result.seed not in case.seeds]
    rerun, findings = compared(case, done.declared, done.session.runtime, done.here)
    blind = done.commitment is not None
    verdicts = metric_verdicts(case, own, done.looks, blind=blind) if own else ()
    bits = tuple(
        bit_findings(case, rerun, verdicts, own_values(case, own), done.session.options.device)
    )
    verdict, explanation = overall_verdict(
        rerun,
        verdicts,
        own,
        contradicted=any(each.severity == "error" for each in bits),
    )
    judgement = Judgement(
        verdict=verdict,
        explanation=explanation,
        plan=done.plan,
        policy=policy_facts(case.policy),
        canary=done.canary,
        trials=tuple(map(trial_of, own)),
        metrics=verdicts,
        commitment=done.commitment,
    )
    return replace(
        outcome,
        rerun=rerun,
        judgement=judgement,
        # Another parameter or other data show in each training: once is enough.
        findings=tuple(
            dict.fromkeys(
                (
                    *findings,
                    *bits,
                    *model_findings(case, rerun, scored=outcome.scored is not None),
                    *known,
                    *own_findings(case, own, verdicts),
                    *_seed_fixed(case.spec),
                )
            )
        ),
    )


def _far_off(case: Case, results: Sequence[TrialResult], runs: int) -> bool:
    """Whether the declared seed's result is off by more than ``runs`` own trainings would put down to chance."""
    record = results[0].record
    if record is None:
        return False
    finals = [(name, case.declared.value(name), record.value(name)) for name in case.decisive]
    return any(far_off(case, finals, own_values(case, results[1:]), explained=True, runs=runs))


def _seed_fixed(spec: TrainingSpec) -> Iterator[Finding]:
    if not takes_seed(spec):
        yield warning(
            "rerun-seed-fixed",
            spec.run,
            "the command takes no {seed}, so no other seed can be tried",
            "The provider can write {seed} into training.command or training.environment.",
        )


def _specification(files: Files) -> TrainingSpec:
    """The training specification, before anything else is opened. Raises :class:`MalformedError`.

    What it names has to lie where code and inputs lie, or the training would be shown what nobody may have opened yet.
    """
    spec = codec.from_json(
        TrainingSpec, canonical.parse_canonical(files.read(SPEC), name=SPEC), place=SPEC
    )
    unrunnable = next(problems(spec), None)
    if unrunnable is not None:
        raise MalformedError("training-unrunnable", unrunnable)
    if spec.code != CODE or any(not item.path.startswith(DATASETS) for item in spec.inputs):
        raise MalformedError(
            "training-place", f"code and inputs must lie in {CODE} and {DATASETS}, and nowhere else"
        )
    return spec
