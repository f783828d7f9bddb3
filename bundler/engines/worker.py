"""The worker's side of an engine beyond this machine: a request comes in, an answer goes out, both JSON.

Nothing else travels: no code, no pickled objects of ours. The sandbox starts on the worker, and what confined the
training there is part of the result.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundler
from bundler import canonical, codec, errors
from bundler.engines import machine, package
from bundler.engines.model import Work
from bundler.engines.retries import Lost, unforeseen
from bundler.errors import BundlerError, MalformedError, OutputError, UsageError, quoted
from bundler.sandbox.removal import remove
from bundler.trials import Trial, TrialResult

OnOutput = Callable[[bytes], None] | None

_ERRORS: Mapping[str, type[BundlerError]] = {
    kind.__name__: kind
    for kind in (
        UsageError,
        errors.EnvironmentNotRecreatableError,
        errors.SandboxUnavailableError,
        errors.HostileOutputError,
        errors.SourceError,
        OutputError,
        BundlerError,
    )
}


def request(trial: Trial, sha256: str) -> bytes:
    """What a worker is sent: the trial, and the digest of the package that it needs."""
    return encoded({
        "version": bundler.__version__,
        "package": sha256,
        "trial": codec.to_json(trial),
    })  # fmt: skip


def serve(  # noqa: PLR0913  # what a worker has
    asked: bytes,
    folder: Path,
    fetch: Callable[[], package.Source],
    work: Work,
    on_output: OnOutput,
    *,
    stops: tuple[type[Exception], ...] = (),
) -> bytes:
    """Run the trial of a request and return the answer; ``folder`` is the session's folder on this machine.

    Raises only what ends the worker itself, to which belong ``stops``, the errors by which a scheduler stops it.
    """
    try:
        wanted = _understood(asked)
        trial = codec.from_json(Trial, wanted["trial"])
        _require(trial)
        try:
            staged = package.provide(fetch, wanted["package"], folder)
            place = Path(tempfile.mkdtemp(prefix="trial-", dir=folder)).resolve()
        except OSError as error:
            return encoded({"lost": f"{platform.node()} has no room for the training: {error}"})
        try:
            result = work(trial, staged, place, on_output)
        finally:
            remove(place)
        return encoded({"result": codec.to_json(result)})
    except stops:
        raise
    except BundlerError as error:
        failure = error
    except OSError as error:
        failure = OutputError(f"the training could not be handled: {error}")
    except Exception as error:  # noqa: BLE001  # the other side has to hear of it
        failure = unforeseen(error)
    return encoded({
        "failed": type(failure).__name__,
        "code": getattr(failure, "code", ""),
        "message": f"worker {platform.node()}: {failure.message}",
        "remedy": failure.remedy,
    })  # fmt: skip


def settle(answer: bytes, where: str = "") -> TrialResult | Lost:
    """The result that ``answer`` carries, or the error, which is raised."""
    said = canonical.parse(answer, name="the worker's answer")
    if not isinstance(said, dict):
        raise MalformedError("structure", "the worker's answer is no object")
    if "result" in said:
        result = codec.from_json(TrialResult, said["result"])
        return replace(result, where=where or result.where)
    if "lost" in said:
        return Lost(reason=str(said["lost"]))
    message, remedy = str(said.get("message")), str(said.get("remedy"))
    if said.get("failed") in {"MalformedError", "AuthenticityError"}:
        raise MalformedError(str(said.get("code")), message, remedy=remedy)
    raise _ERRORS.get(str(said.get("failed")), BundlerError)(message, remedy=remedy)


def given_gpus(trial: Trial, ids: tuple[str, ...]) -> Trial:
    """``trial`` with the GPUs that a cluster's scheduler gave to it."""
    return machine.with_gpus(trial, ids, machine.this_machine().devices)


def encoded(value: object) -> bytes:
    """JSON text. File names that are no Unicode get question marks: no reader would take them otherwise."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
    return text.encode("utf-8", "replace")


def _understood(asked: bytes) -> dict[str, Any]:
    """The fields of a request, once it is clear that both sides mean the same by them."""
    wanted = canonical.parse(asked, name="the request")
    if not isinstance(wanted, dict):
        raise MalformedError("structure", "the request is no object")
    if wanted.get("version") != bundler.__version__:
        raise UsageError(
            f"aisdp-bundler {bundler.__version__} is installed there, and"
            f" {quoted(wanted.get('version'))} on the machine that verifies",
            remedy="Install the same version of aisdp-bundler on all machines of the cluster.",
        )
    return wanted


def _require(trial: Trial) -> None:
    """Refuse a trial whose software is not on this machine."""
    for what, path in (("interpreter", trial.interpreter), ("root file system", trial.root)):
        if path is not None and not Path(path).exists():
            raise UsageError(
                f"there is no {what} {quoted(path, 200)}",
                remedy="Its path must be the same on all machines of the cluster: install it there,"
                " or put it on a file system that they share.",
            )
