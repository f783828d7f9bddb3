"""What the sub-commands do, once their arguments are read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler import canonical, codec, vsa
from bundler.errors import MalformedError, OutputError, UsageError
from bundler.manifest import INDEX
from bundler.report import Report
from bundler.signers import Signer, generate, load_signer, sign_payload
from bundler.spec import Predecessor
from bundler.storage.hashing import digest_bytes
from bundler.trust import Key, load_keys

if TYPE_CHECKING:
    from bundler.cli.console import Bars
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


def run_init(
    folder: Path, output: Path | None, experiment: str | None, sources: tuple[str, ...]
) -> None:
    """``bundler init``."""
    from bundler.config import source_of
    from bundler.starter import write_starter

    target = output or folder / "bundle.yaml"
    todo = write_starter(folder, target, experiment, tuple(map(source_of, sources)))
    click.echo(f"wrote {target}; {todo} places are marked TODO: only a human can fill them")
    click.echo("next: edit it, then `build-bundle " + str(target) + " -o BUNDLE --key KEY.pem`")


def run_keygen(output: Path, algorithm: str) -> None:
    """``bundler keygen``."""
    refuse_inside_a_bundle(output, "-o")
    signer = generate(output, algorithm)  # type: ignore[arg-type]  # click checked the choice
    click.echo(f"wrote {output / 'key.pem'} (secret) and {output / 'trust.pem'} (hand it out)")
    click.echo(f"key id {signer.keyid}: publish it where assessors can compare it")


def run_build(  # noqa: PLR0913  # one argument an option
    config: Path,
    output: Path,
    key: Path,
    *,
    as_tar: bool,
    strict: bool,
    previous: Path | None,
    sources: tuple[str, ...],
) -> None:
    """``build-bundle``."""
    from bundler.build import Request, build
    from bundler.cli.console import Bars, show_built
    from bundler.config import load, with_sources

    refuse_inside_a_bundle(output, "-o")
    request = Request(
        config=with_sources(load(config), sources),
        base=config.resolve().parent,
        target=output,
        signer=load_signer(key),
        as_tar=as_tar,
        strict=strict,
        previous=previous,
    )
    with _told_if_whole(output, "the bundle"):
        show_built(build(request, Bars()))


def run_verify(options: VerifyOptions) -> int:
    """``verify-bundle``. Returns the exit code."""
    from bundler.cli.console import Bars, show_report
    from bundler.policy import DEFAULT
    from bundler.policy import load as load_policy
    from bundler.storage import open_bag
    from bundler.storage.model import shown
    from bundler.verify import verify

    _refuse_contradictions(options)
    for path, option in (
        (options.report, "--report"),
        (options.keep, "--keep"),
        (options.state, "--state"),
    ):
        if path is not None:
            refuse_inside_a_bundle(path, option, options.bundle)
    if options.keep is not None:
        _refuse_existing(options.keep, "the re-run is kept in a new folder")
    signer = None
    if options.key is not None:
        signer = load_signer(options.key)
        _refuse_existing(_beside(options.bundle, "vsa.dsse.json"), _NEVER)
    keys = load_trust(options.trust)
    bars = Bars()
    earlier = _read_earlier(options.previous, keys) if options.previous else None
    policy = DEFAULT if options.policy is None else load_policy(options.policy)
    rerunner = _rerunner(options, policy, bars)
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
    )
    show_report(report)
    data = canonical.serialise(codec.to_json(report)) + b"\n"
    target = options.report
    if target is None and signer is not None:
        # The verdict names the report by its digest, so there has to be one.
        target = _beside(options.bundle, "report.json")
    if target is not None:
        _write(target, data)
    if signer is not None:
        _sign_verdict(_beside(options.bundle, "vsa.dsse.json"), report, data, signer)
    return report.exit_code


def _refuse_contradictions(options: VerifyOptions) -> None:
    """Options that do not go together: said before anything is done."""
    if options.sandbox == "none" and not options.i_trust_this_code:
        raise UsageError(
            "--sandbox none runs the provider's code with all your rights",
            remedy="Add --i-trust-this-code if that is what you want; the verdict will say so.",
        )
    if options.blind and not options.rerun:
        raise UsageError("--blind says how --rerun is done", remedy="Add --rerun.")
    wanted = {"locked": ("--wheelhouse", options.wheelhouse), "image": ("--image", options.image)}
    name, value = wanted.get(options.environment, ("", options.python))
    if value is None:
        raise UsageError(f"--environment {options.environment} needs {name}")
    for mode, (name, value) in wanted.items():
        if value is not None and options.environment != mode:
            raise UsageError(
                f"{name} is for --environment {mode}", remedy=f"Add --environment {mode}."
            )
    if options.engine == "slurm" and options.slurm_folder is None:
        raise UsageError(
            "--engine slurm needs --slurm-folder",
            remedy="Name a folder on a file system that the nodes of the cluster share with this machine.",
        )


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
        on_plan=show_plan,
        on_log=bars.log,
        on_commit=(lambda data: _commit(options.bundle, data)) if options.blind else None,
    )


def _commit(bundle: Path, data: bytes) -> None:
    """Write the verifier's own results, and say their digest, before a declared value is opened."""
    target = _beside(bundle, "blind-results.json")
    _refuse_existing(target, "results that were committed to are never overwritten")
    _write(target, data)
    click.echo(f"committed to own results: sha256:{digest_bytes(data)}  {target}", err=True)


def run_site(bundle: Path, report: Path | None, trust: tuple[Path, ...], output: Path) -> None:
    """``bundler site``."""
    from bundler.cli.console import Bars
    from bundler.site import render
    from bundler.storage import open_bag

    refuse_inside_a_bundle(output, "-o", bundle)
    seen, keys = _load_report(report), load_trust(trust)
    with _told_if_whole(output, "the site"):
        pages = render(open_bag(bundle), seen, keys, output, Bars())
        click.echo(f"wrote {pages} pages; open {output / 'index.html'}")


@contextmanager
def _told_if_whole(target: Path, what: str) -> Iterator[None]:
    """Whoever stops a command just after ``target`` got its name is told that it is there: a retry would refuse it."""
    before = os.path.lexists(target)
    try:
        yield
    except KeyboardInterrupt:
        if not before and os.path.lexists(target):
            click.echo(f"{what} {target} is complete", err=True)
        raise


def _sign_verdict(target: Path, report: Report, data: bytes, signer: Signer) -> None:
    if report.subject.tag_manifest_sha256 is None:
        click.echo("no verdict was signed: the bundle could not be identified", err=True)
        return
    _write(target, sign_payload(vsa.payload(report, data, signer.keyid), signer))
    click.echo(f"signed verdict: {target}")


_NEVER = "a signed verdict is never overwritten"


def _beside(bundle: Path, suffix: str) -> Path:
    """Beside the bundle, never inside: the bundle is the provider's."""
    bundle = bundle.absolute()
    return bundle.with_name(f"{bundle.name}.{suffix}")


def load_trust(paths: tuple[Path, ...]) -> tuple[Key, ...]:
    """The public keys in the files that were given with ``--trust``."""
    keys: list[Key] = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                remedy="--trust takes the provider's public key in PEM form, from outside the bundle.",
            ) from None
        keys += load_keys(data, name=str(path))
    return tuple(keys)


def _load_report(path: Path | None) -> Report | None:
    if path is None:
        return None
    try:
        value = canonical.parse(path.read_bytes(), name=str(path))
        return codec.from_json(Report, value)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except MalformedError as error:
        raise UsageError(
            f"{path} is no report: {error.message}", remedy="Write one with verify-bundle --report."
        ) from None


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


def refuse_inside_a_bundle(path: Path, option: str, bundle: Path | None = None) -> None:
    """A bundle is the provider's, and one file more breaks it: nothing is written into ``bundle`` or any other."""
    target = Path(os.path.realpath(path))
    named = Path(os.path.realpath(bundle)) if bundle is not None else None
    for place in (target, *target.parents):
        other = place != target and os.path.isfile(place / INDEX)  # noqa: PTH113  # Path's raises where it may not look
        if place == named or other:
            raise UsageError(
                f"{option} {path} would change the bundle {place}",
                remedy="Choose a place beside it, not in it.",
            )


def _refuse_existing(path: Path, why: str) -> None:
    if path.exists():
        raise OutputError(f"{path} exists; {why}", remedy="Move it away first.")


def _write(target: Path, data: bytes) -> None:
    """Write whole or not at all; an earlier report of that name is replaced."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
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
