"""What the evidence does not show of what is asked for: each row of :mod:`bundler.requirements` that is not met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bundler.requirements import BUNDLE_REQUIREMENTS, Declared, Requirement, run_requirements
from bundler.spec import Gap


def gaps(declared: Declared) -> Iterator[Gap]:
    """All gaps, required ones first, in the order of the tables."""
    found = [*_bundle_gaps(declared), *_run_gaps(declared)]
    yield from sorted(found, key=lambda gap: gap.level != "required")


def _bundle_gaps(declared: Declared) -> Iterator[Gap]:
    for requirement in BUNDLE_REQUIREMENTS:
        if not requirement.shown(declared):
            yield _gap(requirement, "bundle")


def _run_gaps(declared: Declared) -> Iterator[Gap]:
    for requirement in run_requirements(declared.facts):
        asked = [
            record
            for record in declared.records
            if record.status == "finished" or not requirement.finished_only
        ]
        without = [record.id for record in asked if not requirement.shown(record)]
        if without:
            named = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
            reasons = Counter(
                why for run in asked if not requirement.shown(run) and (why := requirement.why(run))
            )
            details = "".join(
                f"; in {count} of them {reason}" for reason, count in sorted(reasons.items())
            )
            yield _gap(requirement, f"{len(without)} of {len(asked)} runs: {named}", details)


def _gap(requirement: Requirement, subject: str, details: str = "") -> Gap:
    return Gap(
        level=requirement.level,
        code=requirement.code,
        point=requirement.point,
        subject=subject,
        message=requirement.message + details,
        remedy=requirement.remedy,
    )
