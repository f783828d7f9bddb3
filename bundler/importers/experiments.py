"""Choosing one experiment of a store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bundler.errors import SourceError, quoted
from bundler.importers.model import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment of a store and how many runs it has, deleted ones included."""

    id: str
    name: str
    runs: int
    deleted: bool


def ordered(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Experiments with most runs first; ids are numbers in most stores, so shorter ones come first."""
    return sorted(experiments, key=lambda each: (-each.runs, len(each.id), each.id))


def choose(experiments: Iterable[Experiment], wanted: str | None, store: Store) -> Experiment:
    """The experiment called ``wanted`` (name, else id), or the only one that has runs.

    Deleted experiments count: leaving one out is for the caller to say, not for the store.
    """
    known = list(experiments)
    if wanted is None:
        matching = [each for each in known if each.runs] or known
        problem = "several experiments" if matching else "no experiment"
    else:
        matching = [each for each in known if each.name == wanted]
        matching = matching or [each for each in known if each.id == wanted]
        problem = (
            f"several experiments {quoted(wanted)}"
            if matching
            else f"no experiment {quoted(wanted)}"
        )
    if len(matching) != 1:
        names = ", ".join(
            f"{quoted(each.name)} (id {each.id}, {each.runs} runs{', deleted' if each.deleted else ''})"
            for each in known
        )
        raise SourceError(
            f"{quoted(str(store), 200)} has {problem}", remedy=f"Name one of: {names or 'none'}."
        )
    return matching[0]
