"""Writes docs/findings.md and the table in docs/sources.md from the program, its vectors and fixtures.

``--check`` only compares (a test runs that).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bundler.report import CheckResult, Report
from bundler.requirements import BUNDLE_REQUIREMENTS, run_requirements
from bundler.spec import FactMap
from bundler.storage import open_bag
from bundler.trust import load_keys
from bundler.verify import verify

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.conformance.harness import KEYS, Bundle  # noqa: E402  # tests are not installed
from tests.sources import legend, table  # noqa: E402

VECTORS = ROOT / "tests" / "conformance" / "tampered"
FINDINGS = ROOT / "docs" / "findings.md"
SOURCES = ROOT / "docs" / "sources.md"
TABLE = ("<!-- table: written by make docs -->", "<!-- end of table -->")


def findings() -> str:
    """The page: requirement → check → vector. Every vector is run to see which check finds it."""
    vectors = defaultdict(list)
    claims = {}
    given = defaultdict(set)
    for folder in sorted(VECTORS.iterdir()):
        expected = json.loads((folder / "expected.json").read_text())
        vectors[expected["finding"]].append(folder.name)
        claims[expected["finding"]] = (expected["claim"], expected["exit_code"])
        for result in checks_of(folder):
            given[result.check].update(
                each.code for each in result.findings if each.code == expected["finding"]
            )
    lines = [
        "# Findings: requirement, check, vector",
        "",
        "Written by `make docs`; do not edit. A vector is a folder below `tests/conformance/tampered/`.",
        "",
        "## Checks, in the order in which they run",
        "",
        "| check | claim | the question | codes that it gives |",
        "|---|---|---|---|",
    ]
    valid = verify_vector([]).checks
    for result in valid:
        shown = ", ".join(f"`{code}`" for code in sorted(given[result.check]))
        lines.append(f"| `{result.check}` | {result.claim} | {result.title} | {shown} |")
    lines += [
        "",
        "## Codes and their vectors",
        "",
        "| code | claim | exit code | vectors that provoke it |",
        "|---|---|---|---|",
    ]
    for code in sorted(vectors):
        claim, exit_code = claims[code]
        named = ", ".join(vectors[code])
        lines.append(f"| `{code}` | {claim} | {exit_code} | {named} |")
    lines += [
        "",
        "## Requirements",
        "",
        "A gap of level *required* is an error of the claim completeness (`gap-required`), a *recommended* one a note.",
        "",
        "| point | level | asked of | gap | what is missing |",
        "|---|---|---|---|---|",
    ]
    rows = [("the bundle", each) for each in BUNDLE_REQUIREMENTS]
    for each in run_requirements(FactMap()):
        rows.append(("every finished run" if each.finished_only else "every run", each))
    for subject, each in sorted(rows, key=lambda row: (row[1].point, row[1].code)):
        lines.append(
            f"| {each.point} | {each.level} | {subject} | `{each.code}` | {each.message} |"
        )
    return "\n".join(lines) + "\n"


def checks_of(folder: Path) -> tuple[CheckResult, ...]:
    """The results of verifying one vector."""
    return verify_vector(json.loads((folder / "edits.json").read_text())).checks


def verify_vector(edits: list[dict]) -> Report:
    """Verify the valid bundle after ``edits``."""
    trust = load_keys((KEYS / "trust.pem").read_bytes(), name="trust.pem")
    with tempfile.TemporaryDirectory() as place:
        bundle = Bundle(Path(place))
        bundle.apply(edits)
        return verify(
            lambda: open_bag(bundle.path), "vector", trust, clock=lambda: "2026-01-01T00:00:00.000Z"
        )


def sources() -> str:
    """docs/sources.md with its table."""
    before, rest = SOURCES.read_text().split(TABLE[0])
    after = rest.split(TABLE[1])[1]
    return f"{before}{TABLE[0]}\n{table()}\n\n{legend()}\n{TABLE[1]}{after}"


if __name__ == "__main__":
    pages = {FINDINGS: findings(), SOURCES: sources()}
    if sys.argv[1:] == ["--check"]:
        stale = [file.name for file, text in pages.items() if file.read_text() != text]
        sys.exit(f"docs/{stale[0]} is out of date: run `make docs`" if stale else 0)
    for file, text in pages.items():
        file.write_text(text)
