"""Mechanisms of repeatability are what was set when the selected run was trained, not only what is written down."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.checks.model import Evidence, finding
from bundler.errors import quoted
from bundler.mechanism_facts import Recorded
from bundler.mechanisms import examine
from bundler.records import RunRecord
from bundler.report import Finding
from bundler.spec import ImageIdentity


def claimed_mechanisms(evidence: Evidence) -> Iterator[Finding]:
    """No recorded fact may contradict a claimed mechanism; what none shows is the provider's word."""
    index = evidence.contents.index
    run = evidence.contents.record(index.selection.run)
    if run is None:
        return
    recorded = _recorded(evidence, run)
    unshown: list[str] = []
    total = 0
    for mechanism in index.reproducibility.mechanisms:
        for reading in examine(mechanism, recorded):
            total += 1
            if reading.outcome == "contradicted":
                yield finding(
                    "mechanism-contradicted",
                    run.id,
                    f"reproducibility.mechanisms claims {quoted(reading.claim)}, the run recorded"
                    f" {quoted(reading.fact, 120)}",
                    remedy="Ask the provider which is right. Settings that a script makes after the environment is"
                    " recorded are not in the record.",
                )
            elif reading.outcome == "not shown":
                unshown.append(reading.claim)
    if unshown:
        yield finding(
            "mechanism-not-shown",
            run.id,
            f"no recorded fact shows {len(unshown)} of {total} claims under reproducibility.mechanisms, they are the"
            f" provider's word: {', '.join(quoted(each) for each in unshown[:3])}",
            "note",
            "Record the environment with `bundler capture` once everything is set (docs/mechanisms.md).",
        )


def _recorded(evidence: Evidence, run: RunRecord) -> Recorded:
    training, lock = evidence.contents.training, evidence.lock
    listed = lock is not None and lock.lists_any
    return Recorded(
        environment=run.environment,
        parameters=run.parameters,
        variables=training.environment if training is not None else {},
        seed=run.seed,
        locked=listed,
        hashed=listed and lock is not None and lock.answer == "yes",
        images=frozenset(
            each for image in evidence.contents.index.images for each in _digests(image)
        ),
    )


def _digests(image: ImageIdentity) -> Iterator[str]:
    if image.resolved:
        known = (image.manifest_digest, image.index_digest, image.config_digest)
        yield from (digest for digest in known if digest is not None)
