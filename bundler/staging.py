"""What a re-run is given: copies of the bundle's code and inputs, each read held against its digest.

What runs is what was verified. A staged package is a folder with ``bundle`` (to be read only), ``code`` (the template
of the working folder: many trainings write beside their script, so each gets a copy that is thrown away) and
``declared`` (what the output is compared with, which no job is ever shown).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from bundler.errors import MalformedError
from bundler.evidence import Files
from bundler.records import RunRecord, artefact_location
from bundler.sandbox.workplace import make, new_file
from bundler.spec import Outputs, TrainingSpec

BUNDLE = "bundle"
WORKSPACE = "code"
DECLARED = "declared"


def stage(files: Files, spec: TrainingSpec, place: Path, also: Iterable[str] = ()) -> None:
    """Copy code, inputs and the files ``also`` of the bag to ``place``.

    Raises :class:`MalformedError` (``training-unrunnable``) if there is no code.
    """
    code = files.below(spec.code)
    if not code:  # and so no path of the specification is believed that no manifest has
        raise MalformedError("training-unrunnable", f"there are no files below {spec.code!a}")
    bundle, workspace = place / BUNDLE, place / WORKSPACE
    for folder in (bundle, workspace):
        make(folder)
    programs = _programs(spec, code)
    for name in dict.fromkeys([*code, *(item.path for item in spec.inputs), *also]):
        _copy(files, name, bundle, name, programs)
    for name in code:
        inside = PurePosixPath(name).relative_to(spec.code).as_posix()
        _copy(files, name, workspace, inside, programs)


def embedded(outputs: Outputs, files: Files, declared: RunRecord) -> Outputs:
    """``outputs`` without those whose declared bytes are only referenced (``embed: none``): nothing to compare with."""
    known = {each.path: artefact_location(declared.id, each) for each in declared.artefacts}

    def is_there(path: str) -> bool:
        return path not in known or known[path] in files.digests

    predictions = outputs.predictions
    return replace(
        outputs,
        tensors=tuple(filter(is_there, outputs.tensors)),
        predictions=predictions if predictions and is_there(predictions.path) else None,
    )


def stage_declared(
    files: Files, declared: RunRecord, artefacts: Iterable[str], place: Path
) -> None:
    """Copy the declared bytes of ``artefacts``, by their paths in the tracker, to where outputs are compared."""
    known = {artefact.path: artefact for artefact in declared.artefacts}
    make(place / DECLARED)
    for number, path in enumerate(artefacts):
        location = artefact_location(declared.id, known[path]) if path in known else path
        _copy(files, location, place / DECLARED, str(number), set())


def _programs(spec: TrainingSpec, code: Iterable[str]) -> set[str]:
    """Those of the files ``code`` that are executable in git."""
    listed: dict[str, set[str]] = {}
    for tree in spec.code_trees:
        names = (entry.path for entry in tree.entries if entry.mode == "100755")
        listed.setdefault(tree.at, set()).update(names)
    found = set()
    for name in code:
        inside = PurePosixPath(name).relative_to(spec.code)
        # A listing is of the whole code or of a folder in it: a submodule.
        for folder in inside.parents:
            at = "" if folder == PurePosixPath() else folder.as_posix()
            if inside.relative_to(folder).as_posix() in listed.get(at, ()):
                found.add(name)
    return found


def _copy(files: Files, name: str, folder: Path, inside: str, programs: set[str]) -> None:
    with new_file(folder, inside, program=name in programs) as copy:
        files.copy(name, copy)
