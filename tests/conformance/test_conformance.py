"""The vectors, through the real ``verify-bundle``: each tampered bundle gives the named finding and exit code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundler import cli
from tests import tiny
from tests.conformance.harness import HERE, KEYS, VALID, Bundle

CASES = sorted(path.name for path in (HERE / "tampered").iterdir())
PACKAGE = HERE.parent.parent / "bundler"


def verify(path: Path, report: Path, monkeypatch) -> tuple[int, dict]:
    """Run ``verify-bundle`` as the console script does; return its exit code and the report."""
    trust = str(KEYS / "trust.pem")
    monkeypatch.setattr(
        "sys.argv", ["verify-bundle", str(path), "--trust", trust, "--report", str(report)]
    )
    with pytest.raises(SystemExit) as ended:
        cli.verify_bundle()
    return ended.value.code, json.loads(report.read_bytes())


def test_the_valid_bundle_is_verified(tmp_path, monkeypatch):
    code, report = verify(VALID, tmp_path / "report.json", monkeypatch)
    assert code == 0
    assert {claim["name"]: claim["status"] for claim in report["claims"]} == {
        "integrity": "met",
        "authenticity": "met",
        "completeness": "met",
        "selection": "met",
        "gates": "met",
        "reproduction": "not run",
    }


def test_the_valid_bundle_as_one_tar_file_is_verified(tmp_path, monkeypatch):
    bundle = Bundle(tmp_path)
    bundle.do_tar()
    code, _ = verify(bundle.path, tmp_path / "report.json", monkeypatch)
    assert code == 0


@pytest.mark.parametrize("case", CASES)
def test_tampering_is_found_and_named(case, tmp_path, monkeypatch):
    folder = HERE / "tampered" / case
    expected = json.loads((folder / "expected.json").read_text())
    bundle = Bundle(tmp_path)
    bundle.apply(json.loads((folder / "edits.json").read_text()))

    code, report = verify(bundle.path, tmp_path / "report.json", monkeypatch)

    findings = [
        (finding["code"], check["claim"])
        for check in report["checks"]
        for finding in check["findings"]
    ]
    assert (expected["finding"], expected["claim"]) in findings
    assert code == expected["exit_code"]


def test_building_again_gives_the_valid_bundle_byte_for_byte(provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "again")
    for file in sorted(VALID.rglob("*")):
        if file.is_file():
            name = file.relative_to(VALID)
            assert (tmp_path / "again" / name).read_bytes() == file.read_bytes(), name
    assert len(list((tmp_path / "again").rglob("*"))) == len(list(VALID.rglob("*")))


def test_every_finding_of_a_verifier_has_a_vector_or_a_test():
    """A check without a vector that makes it fail is a check that cannot fail."""
    sources = [
        "evidence",
        "trust",
        "attestation",
        "chain",
        "manifest",
        "canonical",
        "codec",
        "history",
    ]
    texts = [(PACKAGE / f"{name}.py").read_text() for name in sources]
    texts += [
        path.read_text()
        for path in [*(PACKAGE / "storage").glob("*.py"), *(PACKAGE / "checks").glob("*.py")]
    ]
    call = re.compile(
        r'(?:_?finding|_error|_problem|Error|_refuse)\(\s*(?:f?)"([a-z0-9]+(?:-[a-z0-9]+)+)"'
    )
    codes = {code for text in texts for code in call.findall(text)}
    assert len(codes) > 50
    expected = (
        json.loads((HERE / "tampered" / case / "expected.json").read_text()) for case in CASES
    )
    proven = {each["finding"] for each in expected}
    elsewhere = "\n".join(
        path.read_text()
        for folder in ("unit", "property")
        for path in (HERE.parent / folder).rglob("*.py")
    )
    assert sorted(code for code in codes - proven if f'"{code}"' not in elsewhere) == []


def test_vectors_leave_the_valid_bundle_alone(tmp_path):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in VALID.rglob("*"))
    Bundle(tmp_path).apply([{"do": "delete", "path": "bagit.txt"}])
    assert sorted((path.name, path.stat().st_mtime_ns) for path in VALID.rglob("*")) == before
    shutil.rmtree(tmp_path)


def test_the_page_of_findings_is_up_to_date():
    script = PACKAGE.parent / "scripts" / "generate_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
