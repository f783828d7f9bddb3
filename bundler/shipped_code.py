"""Shipping the training code as committed: what git lists, submodules included, without the stores beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.config import BuildConfig, TrainingConfig
from bundler.errors import SourceError
from bundler.manifest import CODE, path_problem
from bundler.records import MAX_DEPTH, RunRecord
from bundler.repository import CodeFile, Repository
from bundler.spec import CodeTree, Gap, TreeEntry
from bundler.storage.writer import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedCode:
    """Number of files, what git says they are, and what is missing."""

    files: int
    trees: tuple[CodeTree, ...]
    gaps: list[Gap]


def ship_code(
    config: BuildConfig, training: TrainingConfig, base: Path, bag: Path, selected: RunRecord
) -> ShippedCode:
    """Ship the code of the commit that the selected run recorded; HEAD, with a gap, where that is not to be had."""
    folder = base / training.code
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder",
            remedy="Set training.code to the folder of the training code.",
        )
    repository = Repository(folder)
    gaps = []
    commit = selected.code.commit.lower() if selected.code.commit else None
    if commit is None or not repository.has(commit):
        # With no commit recorded, a deeper clone would not help.
        shallow = commit is not None and repository.is_shallow()
        commit = repository.head()
        if commit is None:
            raise SourceError(
                f"the repository of {folder} has no commit", remedy="Commit the code."
            )
        gaps.append(
            code_gap(
                "required",
                "code-commit-missing",
                f"run {selected.id}",
                f"the recorded commit is not in the repository; the code shipped is that of {commit[:12]}",
                "This is a shallow clone: run `git fetch --unshallow` in it, and build again."
                if shallow
                else "Build from a clone that has the commit of the selected run.",
            )
        )
    stores = _below(folder, base, config)
    trees, left_out, count = [], [], 0
    places = list(_with_submodules(repository, folder, commit))
    shipped = {at for at, _, _ in places}
    for at, place, its_commit in places:
        kept, unfit = _sort_out(place.files(its_commit), at, [] if at else stores)
        for file, data in place.contents(kept):
            write_file(bag, f"{CODE}/{at}{file.path}", data)
        count += len(kept)
        left_out += [each for each in unfit if f"{at}{each.path}/" not in shipped]
        tree = _tree(place, its_commit, at)
        if tree is None:
            gaps.append(_unlisted_gap(selected))
        else:
            trees.append(tree)
    if left_out:
        gaps.append(_left_out_gap(left_out))
    return ShippedCode(files=count, trees=tuple(trees), gaps=gaps)


def _with_submodules(
    repository: Repository, folder: Path, commit: str
) -> Iterator[tuple[str, Repository, str]]:
    """The code's own repository and those of its submodules that are checked out: place, repository, commit."""
    waiting = [("", repository, commit)]
    while waiting:
        at, place, its_commit = waiting.pop(0)
        yield at, place, its_commit
        for file in place.files(its_commit):
            below = folder / at / file.path
            # One that is not checked out has a commit and no files: git would answer for the repository around it.
            if file.kind == "submodule" and below.is_dir() and not below.is_symlink():
                submodule = _checked_out(below, file.blob)
                if submodule is not None:
                    waiting.append((f"{at}{file.path}/", submodule, file.blob))


def _checked_out(folder: Path, commit: str) -> Repository | None:
    """The repository of a submodule if it is there with its commit: a copied tree may have lost it."""
    try:
        submodule = Repository(folder)
    except SourceError:
        return None
    return submodule if submodule.prefix() == "" and submodule.has(commit) else None


def _tree(repository: Repository, commit: str, at: str) -> CodeTree | None:
    """What git says the code is, ``None`` where a path is no text that can be listed."""
    entries = _entries(repository.files(commit))
    above = tuple(map(_entries, repository.above(commit)))
    named = (*entries, *(entry for listing in above for entry in listing))
    if any(not _is_text(each.path) for each in named) or not _is_text(repository.prefix()):
        return None
    return CodeTree(
        commit=repository.commit(commit),
        folder=repository.prefix(),
        tree=repository.tree(commit),
        entries=entries,
        at=at.rstrip("/"),
        above=above,
    )


def _entries(files: Iterable[CodeFile]) -> tuple[TreeEntry, ...]:
    return tuple(TreeEntry(mode=file.mode, id=file.blob, path=file.path) for file in files)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unlisted_gap(selected: RunRecord) -> Gap:
    return code_gap(
        "recommended",
        "code-unlisted",
        f"run {selected.id}",
        "the code has a file whose name is not UTF-8, so it cannot be held against git's own id of it",
        "Rename the file.",
    )


def _sort_out(
    files: tuple[CodeFile, ...], at: str, stores: list[str]
) -> tuple[list[CodeFile], list[CodeFile]]:
    """The files that a bag can hold below ``at``, and those it cannot. What lies in ``stores`` is no code."""
    kept: dict[str, CodeFile] = {}
    left_out = []
    for file in files:
        path = f"{CODE}/{at}{file.path}"
        if any(file.path == store or file.path.startswith(store + "/") for store in stores):
            continue
        unfit = path_problem(path) is not None or path.count("/") >= MAX_DEPTH
        if unfit or file.kind != "file" or path.lower() in kept:
            left_out.append(file)
        else:
            kept[path.lower()] = file
    return list(kept.values()), left_out


def _left_out_gap(files: list[CodeFile]) -> Gap:
    return code_gap(
        "recommended",
        "code-left-out",
        f"{len(files)} files: {', '.join(ascii(file.path) for file in files[:3])}",
        "links, submodules and files whose names cannot stand in a bag (hidden, spaces, not ASCII, too deep,"
        " another only by upper and lower case) are left out",
        "Rename or replace them if the training needs them.",
    )


def _below(folder: Path, base: Path, config: BuildConfig) -> list[str]:
    """The tracker stores that lie in the code folder: they are evidence, not code."""
    stores = []
    for source in config.sources:
        for path in (source.store, source.artefacts):
            if path is None:
                continue
            try:
                stores.append((base / path).resolve().relative_to(folder.resolve()).as_posix())
            except ValueError:
                continue
    return [store for store in stores if store != "."]


def code_gap(level: str, code: str, subject: str, message: str, remedy: str) -> Gap:
    """What the training specification lacks."""
    return Gap(
        level=level,  # type: ignore[arg-type]  # one of two words, above
        code=code,
        point="Annex IV 2(a)",
        subject=subject,
        message=message,
        remedy=remedy,
    )
