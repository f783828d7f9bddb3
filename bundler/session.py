"""What one re-execution works with: software, sandbox, staged package, engine, and what it gave so far."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from bundler import canary, machine_facts, sandbox
from bundler.devices import cuda_environment
from bundler.engines import EngineOptions, open_engine
from bundler.engines.model import Engine, OnLog
from bundler.engines.store import Results, key
from bundler.engines.store import Session as Chosen
from bundler.environments import prepare
from bundler.environments.model import Mode, Runtime
from bundler.errors import SandboxUnavailableError, UsageError
from bundler.evidence import Files
from bundler.placeholders import expand, values_for
from bundler.planning import choose_seeds, make_plan
from bundler.policy import DEFAULT, Policy
from bundler.progress import Progress
from bundler.records import RunRecord, Scalar
from bundler.report import Plan, PlannedMetric
from bundler.sandbox.gpus import devices
from bundler.sandbox.workplace import make, sweep, workplace
from bundler.spec import Outputs, Resources, TrainingSpec
from bundler.staging import embedded, stage, stage_declared
from bundler.trials import OUT, PACKAGE, Trial, TrialResult, compared_artefacts

MOST_SEEDS = 1000
"""As many as anybody trains; a resumed verification may ask for more than the one that was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """How to re-run.

    ``python`` is the interpreter of mode ``current``; ``own_seeds`` are the verifier's, chosen at random if empty, and
    ``runs`` is the most of them that are trained (``None``: as many as the policy's last look; 0: only the declared
    seed). ``keep`` is where the output of every run stays, ``state`` where results lie until all is done. ``train`` and
    ``score`` say what is asked for: the training, the evaluation of the shipped model. ``plan_only`` stops after the
    plan.
    """

    python: Path
    confinement: Literal["auto", "bubblewrap", "sandlock", "none"] = "auto"
    trusted: bool = False
    keep: Path | None = None
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)
    mode: Mode = "current"
    wheelhouse: Path | None = None
    image: Path | None = None
    policy: Policy = DEFAULT
    own_seeds: tuple[int, ...] = ()
    runs: int | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    state: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    train: bool = True
    score: bool = True
    plan_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open re-execution. Everything that is submitted is a :class:`bundler.trials.Trial` of the same package."""

    files: Files
    spec: TrainingSpec
    options: RerunOptions
    runtime: Runtime
    box: sandbox.Sandbox
    place: Path
    engine: Engine
    results: Results
    outputs: Outputs
    sizes: Mapping[str, int]
    compares: bool

    def submit(self, seed: int) -> Future[TrialResult]:
        """Start a training with ``seed``, unless its result is there from an interrupted verification."""
        trial = self.trial(seed)
        name = self._name(trial)
        kept: Future[TrialResult] = Future()
        known = self.results.get(name)
        if known is not None:
            kept.set_result(known)
            return kept

        def keep(ended: Future[TrialResult]) -> None:
            # Whoever waits for a result gets it when it is on disk, and hears of it if that fails.
            try:
                result = ended.result()
                self.results.put(name, result)
            except BaseException as error:  # noqa: BLE001  # whoever waits for it raises it
                kept.set_exception(error)
            else:
                kept.set_result(result)

        self.engine.submit(trial).add_done_callback(keep)
        return kept

    def peek(self, seconds: float) -> TrialResult:
        """The declared training, stopped after ``seconds``."""
        return self.engine.submit(canary.shortened(self.trial(self.spec.seed), seconds)).result()

    def facts_here(self, declared: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
        """What `bundler capture` says here, where it wrote the ``declared`` facts and trainings run on this machine."""
        if self.engine.name != "local" or not machine_facts.worth_asking(declared):
            return {}
        place = self.place / "facts"
        make(place)
        trial = self.trial(self.spec.seed)
        return machine_facts.ask(self.box, trial, self.runtime, declared, place)

    def trial(self, seed: int) -> Trial:
        """The training with ``seed``; that of the declared one is compared point by point."""
        spec, runtime = self.spec, self.runtime
        values = self._values(runtime.python, seed)
        variables = dict(runtime.environment)
        if self.options.device == "cuda":
            variables.update(cuda_environment())
        variables.update({name: expand(text, values) for name, text in spec.environment.items()})
        is_declared = seed == spec.seed
        return Trial(
            seed=seed,
            command=tuple(expand(word, values) for word in spec.command),
            working_directory=values["code"],
            environment=variables,
            outputs=self.outputs,
            facts=spec.facts,
            run=spec.run,
            sizes=self.sizes,
            compare=is_declared and self.compares,
            histories=is_declared,
            limits=self.options.limits,
            # Not "auto": what another machine would choose is for the policy to allow, and part of a result's name.
            confinement=self.box.kind,  # type: ignore[arg-type]  # one of the three
            trusted=self.options.trusted,
            interpreter=None if runtime.interpreter is None else str(runtime.interpreter),
            root=None if runtime.root is None else str(runtime.root),
            resources=resources_of(spec, self.options),
        )

    def _values(self, python: str, seed: int) -> dict[str, str]:
        return values_for(self.spec, python=python, bundle=str(PACKAGE), out=str(OUT), seed=seed)

    def seeds(self, avoid: Collection[int]) -> tuple[int, ...]:
        """The verifier's seeds: those that were given, or random ones that no provider could prepare for."""
        options = self.options
        most = options.policy.looks[-1] if options.runs is None else options.runs
        if options.own_seeds:
            clash = {*avoid, self.spec.seed} & {*options.own_seeds}
            if clash:
                raise UsageError(
                    f"seed {min(clash)} is one of the provider's: a repetition of it shows nothing new",
                    remedy="Choose seeds that the bundle does not have, or none for random ones.",
                )
            return options.own_seeds[: None if options.runs is None else most]

        def choose() -> Chosen:
            nonce = secrets.token_bytes(32)
            return Chosen(
                nonce=nonce.hex(), seeds=choose_seeds(MOST_SEEDS, {*avoid, self.spec.seed}, nonce)
            )

        return self.results.session(choose).seeds[:most]

    def plan(
        self, seeds: Sequence[int], looks: Sequence[int], metrics: tuple[PlannedMetric, ...]
    ) -> Plan:
        """What will be executed, in words for a person."""
        return make_plan(
            # Reports are published: where this machine has its interpreter is nobody's business.
            command=tuple(
                expand(word, self._values("{python}", self.spec.seed)) for word in self.spec.command
            ),
            declared_seed=self.spec.seed,
            own_seeds=tuple(seeds),
            looks=tuple(looks),
            environment=self.runtime.mode,
            device=self.options.device,
            engine=self.engine.name,
            parallel=self.engine.parallel,
            isolation=self.box.kind,
            run_seconds=self.spec.expected_seconds,
            metrics=metrics,
        )

    def _name(self, trial: Trial) -> str:
        """What the result of ``trial`` is stored as: without the paths of this time's temporary folders."""
        spec = self.spec
        lasting = replace(
            trial,
            command=spec.command,
            environment=spec.environment,
            interpreter=None,
            root=None,
        )
        return key(self.files.tag_manifest_sha256, lasting, self.runtime.facts)


@contextmanager
def open_session(  # noqa: PLR0913  # what is known of the bundle, and how to re-run it
    files: Files,
    spec: TrainingSpec,
    options: RerunOptions,
    progress: Progress,
    on_log: OnLog,
    *,
    state: Path,
    declared: RunRecord | None,
) -> Iterator[Session]:
    """Prepare everything that a re-execution needs; ``declared`` is ``None`` while its values may not be opened.

    Results are kept in ``state``, and stay there for whoever completes the verification.

    Raises :class:`SandboxUnavailableError` and :class:`bundler.errors.EnvironmentNotRecreatableError` before any code
    of the bundle runs.
    """
    if options.engine.kind != "local" and options.mode != "current":
        raise UsageError(
            f"--environment {options.mode} is made on this machine, and {options.engine.kind} trains on others",
            remedy="Install the locked packages at one path on all of them, and give --python there.",
        )
    if options.device == "cuda" and not devices():
        raise SandboxUnavailableError(
            "this machine shows no NVIDIA device, so nothing was executed",
            remedy="Leave out --device cuda: on a CPU the verdict is a statistical one (docs/gpu.md).",
        )
    box = sandbox.find(options.confinement, trusted=options.trusted)
    _allow(options, box.kind)
    sweep()
    with workplace(options.keep) as place:
        for name in ("runtime", "package", "runs"):
            (place / name).mkdir()
        with progress.step("Preparing the software", None):
            runtime = prepare(
                options.mode,
                python=options.python,
                files=files,
                spec=spec,
                images=spec.images,
                wheelhouse=options.wheelhouse,
                image=options.image,
                place=place / "runtime",
            )
        package = place / "package"
        with progress.step("Copying code and data", None):
            stage(files, spec, package)
            outputs = spec.outputs
            if declared is not None:
                outputs = embedded(outputs, files, declared)
                stage_declared(files, declared, compared_artefacts(outputs), package)
        how = replace(
            options.engine, limits=options.limits, keep=place / "runs" if options.keep else None
        )
        with (
            Results(state) as results,
            open_engine(how, package, resources_of(spec, options), on_log=on_log) as engine,
        ):
            yield Session(
                files=files,
                spec=spec,
                options=options,
                runtime=runtime,
                box=box,
                place=place,
                engine=engine,
                results=results,
                outputs=outputs,
                sizes=_sizes(files, spec),
                compares=declared is not None,
            )


def _sizes(files: Files, spec: TrainingSpec) -> dict[str, int]:
    """The bytes of the artefacts that are compared, where the bag has them under their own names."""
    places = {
        path: f"data/artefacts/{spec.run}/{path}" for path in compared_artefacts(spec.outputs)
    }
    return {path: files.sizes.get(place, MOST_UNKNOWN) for path, place in places.items()}


MOST_UNKNOWN = 1 << 28
"""Bytes of an output that are read where the size of the declared one is not known."""


def resources_of(spec: TrainingSpec, options: RerunOptions) -> Resources:
    """What one training gets: GPUs only if the verifier wants them used."""
    wanted = max(1, spec.resources.gpus) if options.device == "cuda" else 0
    return replace(spec.resources, gpus=wanted)


def takes_seed(spec: TrainingSpec) -> bool:
    """Whether the training can be given another seed."""
    return any("{seed}" in text for text in (*spec.command, *spec.environment.values()))


def _allow(options: RerunOptions, kind: str) -> None:
    policy: Policy = options.policy
    if kind not in policy.isolation:
        raise SandboxUnavailableError(
            f"the policy does not allow isolation by {kind}",
            remedy=f"Allowed are: {', '.join(policy.isolation)}. Choose one with --sandbox, or change the policy.",
        )
    if options.mode not in policy.environments:
        raise UsageError(
            f"the policy does not allow the environment {options.mode!r}",
            remedy=f"Allowed are: {', '.join(policy.environments)}.",
        )
