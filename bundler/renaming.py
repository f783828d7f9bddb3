"""Other names for parameters, tags and metrics, so that one thing has one name in all sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

GROUPS = ("parameters", "tags", "metrics")


def problems(names: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the changes ``names``, each ``GROUP.OLD`` → ``GROUP.NEW``."""
    for old, new in names.items():
        groups = {each.partition(".")[0] for each in (old, new)}
        named = all(each.partition(".")[2] for each in (old, new))
        if len(groups) != 1 or not groups <= {*GROUPS} or not named:
            yield (
                f"{old!r} → {new!r}: both must be names of one kind, such as"
                " metrics.val/auc: metrics.val_auc"
            )
    if len(set(names.values())) < len(names):
        yield "two names become one"
