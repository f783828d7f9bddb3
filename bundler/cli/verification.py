"""What ``verify-bundle`` does, once its arguments are read."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler import canonical, codec, vsa
from bundler.cli.commands import load_trust, refuse_inside_a_bundle
from bundler.errors import MalformedError, OutputError, UsageError
from bundler.report import Report
from bundler.signers import Signer, load_signer, sign_payload
from bundler.spec import Predecessor
from bundler.storage.hashing import digest_bytes
from bundler.trust import Key

if TYPE_CHECKING:
    from bundler.cli.progress import Bars
    from bundler.policy import Policy
    from bundler.rerun import Reexecution


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """The options of ``verify-bundle``, named as on the command line."""

    bundle: Path
    trust: tuple[Path, ...]
    report: Path | None
    key: Path | None
    previous: Path | None
    rerun: bool
    plan: bool
    evaluate: bool | None
    blind: bool
    runs: int | None
    seeds: tuple[int, ...]
    policy: Path | None
    environment: str
    python: Path
    wheelhouse: Path | None
    image: Path | None
    device: str
    sandbox: str
    i_trust_this_code: bool
    engine: str
    ray_address: str | None
    slurm_folder: Path | None
    slurm_partition: str | None
    parallel: int | None
    time_limit: float | None
    memory_limit: int | None
    disk_limit: int | None
    state: Path | None
    keep: Path | None


def run_verify(options: VerifyOptions) -> int:
    """``verify-bundle``. Returns the exit code."""
    from bundler.cli.console import show_report
    from bundler.cli.progress import Bars
    from bundler.policy import DEFAULT
    from bundler.policy import load as load_policy
    from bundler.storage import open_bag
    from bundler.storage.model import shown
    from bundler.verify import verify

    _refuse_targets(options)
    refuse_contradictions(options)
    signer = None if options.key is None else load_signer(options.key)
    keys = load_trust(options.trust)
    bars = Bars()
    earlier = _read_earlier(options.previous, keys) if options.previous else None
    policy = DEFAULT if options.policy is None else load_policy(options.policy)
    rerunner = _rerunner(options, policy, bars)
    try:
        report = verify(
            lambda: open_bag(options.bundle),
            shown(options.bundle.name or str(options.bundle)),
            keys,
            clock=_now,
            rerunner=rerunner,
            before=rerunner.before if rerunner is not None and options.blind else None,
            earlier=earlier,
            policy=policy,
            progress=bars,
            evaluation_wanted=bool(options.evaluate and not options.plan),
        )
    except KeyboardInterrupt:
        if options.rerun:
            click.echo("what was trained is kept: the same command goes on from there", err=True)
        raise
    target = options.report
    if target is None and signer is not None:
        # The verdict names the report by its digest, so there has to be one.
        target = _beside(options.bundle, "report.json")
    show_report(report, "" if target is None else str(target))
    data = _serialised(report)
    if target is not None:
        _write(target, data)
    if signer is not None:
        _sign_verdict(_beside(options.bundle, "vsa.dsse.json"), report, data, signer)
    if rerunner is not None and report.judgement is not None:
        rerunner.complete()
    return report.exit_code


def _text(value: Any) -> Any:
    """``value`` as UTF-8 can carry it: a file name may hold half a character."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_text(each) for each in value]
    if isinstance(value, dict):
        return {_text(name): _text(each) for name, each in value.items()}
    return value


def _serialised(report: Report) -> bytes:
    try:
        return canonical.serialise(_text(codec.to_json(report))) + b"\n"
    except MalformedError as error:
        raise OutputError(
            f"the report cannot be written as JSON: {error.message}",
            remedy="This is a fault of this program; please report it. What was trained is kept.",
        ) from None


def _refuse_targets(options: VerifyOptions) -> None:
    """Places that cannot be written to: said before hours of training, not after."""
    for path, option in (
        (options.report, "--report"),
        (options.keep, "--keep"),
        (options.state, "--state"),
    ):
        if path is not None:
            refuse_inside_a_bundle(path, option, options.bundle)
            _refuse_unwritable(path, made=option != "--report")
    if options.keep is not None:
        _refuse_existing(
            options.keep,
            "the re-run is kept in a new folder",
            "Name another; what was trained before a stop is taken over all the same.",
        )
    if options.report is not None and options.report.is_dir():
        raise OutputError(f"cannot write {options.report}: it is a folder", remedy="Name a file.")
    if options.blind:
        _refuse_existing(_beside(options.bundle, "blind-results.json"), _COMMITTED)
    if options.key is not None:
        _refuse_existing(_beside(options.bundle, "vsa.dsse.json"), _NEVER)
    if (options.blind or options.key is not None) and options.bundle.exists():
        _refuse_unwritable(_beside(options.bundle, "report.json"), made=False)


def _rerunner(options: VerifyOptions, policy: Policy, bars: Bars) -> Reexecution | None:
    """What re-executes the training, where anything is to be executed or planned."""
    if not (options.rerun or options.plan or options.evaluate):
        return None
    from bundler.cli.console import show_plan
    from bundler.engines.model import EngineOptions, SlurmOptions
    from bundler.rerun import Reexecution
    from bundler.sandbox import Limits
    from bundler.session import RerunOptions

    given = {
        "wall_seconds": options.time_limit,
        "memory_bytes": options.memory_limit,
        "output_bytes": options.disk_limit,
        "file_bytes": options.disk_limit,
    }
    limits = Limits(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # click read them
    slurm = None
    if options.slurm_folder is not None:
        slurm = SlurmOptions(
            folder=options.slurm_folder.absolute(), partition=options.slurm_partition
        )
    how = RerunOptions(
        # Not resolved: a virtual environment is known by the path of its interpreter.
        python=options.python.absolute(),
        confinement=options.sandbox,  # type: ignore[arg-type]  # click checked the choice
        trusted=options.i_trust_this_code,
        keep=options.keep,
        limits=limits,
        mode=options.environment,  # type: ignore[arg-type]  # click checked the choice
        wheelhouse=options.wheelhouse,
        image=options.image,
        policy=policy,
        own_seeds=options.seeds,
        runs=options.runs,
        engine=EngineOptions(
            kind=options.engine,  # type: ignore[arg-type]  # click checked the choice
            parallel=options.parallel,
            limits=limits,
            ray_address=options.ray_address,
            slurm=slurm,
        ),
        state=options.state,
        device=options.device,  # type: ignore[arg-type]  # click checked the choice
        train=options.rerun or options.plan,
        score=options.rerun if options.evaluate is None else options.evaluate,
        plan_only=options.plan,
    )
    return Reexecution(
        how,
        bars,
        clock=_now,
        on_plan=partial(show_plan, alone=options.plan, policy=options.policy is not None),
        on_log=bars.log,
        tell=bars.tell,
        on_commit=(lambda data: _commit(options.bundle, data)) if options.blind else None,
    )


def _commit(bundle: Path, data: bytes) -> None:
    """Write the verifier's own results, and say their digest, before a declared value is opened."""
    target = _beside(bundle, "blind-results.json")
    _refuse_existing(target, _COMMITTED)
    _write(target, data)
    click.echo(f"committed to own results: sha256:{digest_bytes(data)}  {target}", err=True)


def refuse_contradictions(options: VerifyOptions) -> None:
    """Refuse options that do not go together, before anything is done. Raises :class:`UsageError`."""
    if options.sandbox == "none" and not options.i_trust_this_code:
        raise UsageError(
            "--sandbox none runs the provider's code with all your rights",
            remedy="Add --i-trust-this-code if that is what you want; the verdict will say so.",
        )
    if options.seeds and options.runs is not None:
        raise UsageError(
            "--seeds names the seeds, and --runs says how many random ones: give one of them",
            remedy="With --seeds, as many trainings are made as it names.",
        )
    for name in _WITH_RERUN if not (options.rerun or options.plan) else ():
        if getattr(options, name) not in {None, False, ()}:
            raise UsageError(f"--{name} says how --rerun is done", remedy="Add --rerun.")
    for name, (option, wanted) in _BELONGS.items():
        if getattr(options, name) is not None and getattr(options, option) != wanted:
            shown = "--" + name.replace("_", "-")
            raise UsageError(
                f"{shown} is for --{option} {wanted}", remedy=f"Add --{option} {wanted}."
            )
    for name, (option, wanted) in _NEEDED.items():
        if getattr(options, option) == wanted and getattr(options, name) is None:
            shown = "--" + name.replace("_", "-")
            raise UsageError(
                f"--{option} {wanted} needs {shown}",
                remedy=f"`verify-bundle --help` says what {shown} is.",
            )


_WITH_RERUN = ("blind", "runs", "seeds", "keep", "parallel", "state")
_NEEDED = {
    "wheelhouse": ("environment", "locked"),
    "image": ("environment", "image"),
    "ray_address": ("engine", "ray"),
    "slurm_folder": ("engine", "slurm"),
}
_BELONGS = {
    **_NEEDED,
    "slurm_partition": ("engine", "slurm"),
}
"""Options that mean something only where another has a value, and those that this value needs."""


def _sign_verdict(target: Path, report: Report, data: bytes, signer: Signer) -> None:
    if report.subject.tag_manifest_sha256 is None:
        click.echo("no verdict was signed: the bundle could not be identified", err=True)
        return
    _write(target, sign_payload(vsa.payload(report, data, signer.keyid), signer))
    click.echo(f"signed verdict: {target}")


_NEVER = "a signed verdict is never overwritten"
_COMMITTED = "results that were committed to are never overwritten"


def _beside(bundle: Path, suffix: str) -> Path:
    """Beside the bundle, never inside: the bundle is the provider's."""
    bundle = bundle.absolute()
    return bundle.with_name(f"{bundle.name}.{suffix}")


def _read_earlier(path: Path, keys: tuple[Key, ...]) -> Predecessor:
    """The release before, whose files must be intact and signed by a trusted key as well."""
    from bundler.evidence import intact_files, predecessor, read_contents
    from bundler.storage import open_bag
    from bundler.verify import unsealed

    problem, code = "its signature is about another bundle", "statement-subject"
    try:
        bag = open_bag(path)
        files = intact_files(bag)
        if not keys or unsealed(bag, keys)[0].tag_manifest_sha256 == files.tag_manifest_sha256:
            return predecessor(files, read_contents(files))
    except MalformedError as error:
        problem, code = error.message, error.code
    raise MalformedError(
        code,
        f"the earlier bundle {path} cannot be used: {problem}",
        remedy="Verify it by itself first.",
    )


def _refuse_existing(path: Path, why: str, remedy: str = "Move it away first.") -> None:
    if path.exists():
        raise OutputError(f"{path} exists; {why}", remedy=remedy)


def _refuse_unwritable(path: Path, *, made: bool) -> None:
    """Refuse ``path`` where its folder is missing or closed; ``made``: missing folders are made."""
    folder = path.absolute().parent
    if made:
        folder = path if path.exists() else next(p for p in path.absolute().parents if p.exists())
    why = "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is closed to you"
    if not folder.is_dir():
        why = f"there is no folder {folder}"
    if why:
        raise OutputError(f"cannot write {path}: {why}", remedy="Make the folder, or name another.")


def _write(target: Path, data: bytes) -> None:
    """Write whole or not at all; an earlier report of that name is replaced."""
    try:
        descriptor, staging = tempfile.mkstemp(dir=target.parent, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(staging, 0o644)
            os.replace(staging, target)
        finally:
            Path(staging).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}", remedy="Check free space and permissions."
        ) from None


def _now() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
