from __future__ import annotations

from pathlib import Path

import pytest

from bundler import storage
from bundler.checks import CHECKS
from bundler.errors import MalformedError, SandboxUnavailableError
from bundler.report import CLAIMS, Claim
from bundler.rerun import RerunOutcome
from bundler.verify import exit_code, verify
from tests import tiny
from tests.conformance.harness import VALID, Bundle


def run(path: Path, keys=tiny.TRUST, rerunner=None):
    return verify(
        lambda: storage.open_bag(path),
        "bundle",
        keys,
        clock=lambda: "2026-01-01T00:00:00.000Z",
        rerunner=rerunner,
    )


def statuses(report):
    return {claim.name: claim.status for claim in report.claims}


def test_every_check_is_named_even_when_it_did_not_run(tmp_path):
    names = [result.check for result in run(VALID).checks]
    assert len(names) == len(set(names))
    for case in (tmp_path / "missing", VALID / "bagit.txt"):
        results = {result.check: result for result in run(case).checks}
        for check in CHECKS:
            assert results[check.id].outcome == "skipped"
            assert results[check.id].detail
        assert results["training.rerun"].outcome == "skipped"


def test_without_a_trusted_key_only_the_files_are_examined():
    report = run(VALID, keys=())
    assert report.exit_code == 6
    assert statuses(report)["integrity"] == "inconclusive"
    assert "signer is not established" in report.claim("integrity").summary
    assert statuses(report)["authenticity"] == "not run"
    assert report.subject.signed_by is None


def test_without_a_trusted_key_a_changed_file_is_still_found(tmp_path):
    bundle = Bundle(tmp_path)
    bundle.do_flip("data/code/train.py", 0)
    assert run(bundle.path, keys=()).exit_code == 3


def test_nothing_is_executed_from_a_bundle_that_is_not_intact(tmp_path):
    called = []
    bundle = Bundle(tmp_path)
    bundle.do_flip("data/code/train.py", 0)
    report = run(bundle.path, rerunner=called.append)
    assert called == []
    assert report.claim("reproduction").status == "not run"


def test_nothing_is_executed_when_the_statement_is_about_other_files(tmp_path):
    called = []
    bundle = Bundle(tmp_path)
    bundle.apply([{"do": "set", "path": "data/bundle.json", "at": "/system/version", "value": "2"}])
    bundle.apply([{"do": "seal", "release": False}])
    report = run(bundle.path, rerunner=called.append)
    assert called == []
    assert report.exit_code == 3


def test_nothing_is_executed_without_a_trusted_key():
    called = []
    run(VALID, keys=(), rerunner=called.append)
    assert called == []


def test_a_better_run_does_not_keep_the_training_from_being_rerun(tmp_path):
    """Only integrity and authenticity decide whether code may run; the other claims are judged side by side."""
    called = []
    bundle = Bundle(tmp_path)
    edit = {"do": "set", "path": "data/bundle.json", "at": "/gates/0/threshold", "value": 0.99}
    bundle.apply([edit, {"do": "seal"}])

    def rerunner(evidence):
        called.append(evidence)
        return RerunOutcome(rerun=None, findings=())

    assert run(bundle.path, rerunner=rerunner).exit_code == 1
    assert len(called) == 1


def test_a_refusal_of_the_sandbox_decides_the_exit_code_unless_something_is_worse(tmp_path):
    def refuse(evidence):
        raise SandboxUnavailableError("none works", remedy="install one")

    report = run(VALID, rerunner=refuse)
    assert report.exit_code == 5
    assert report.claim("reproduction").summary == "none works\ninstall one"
    bundle = Bundle(tmp_path)
    edit = {"do": "set", "path": "data/bundle.json", "at": "/gates/0/threshold", "value": 0.99}
    bundle.apply([edit, {"do": "seal"}])
    assert run(bundle.path, rerunner=refuse).exit_code == 1


def test_malformed_content_met_during_the_rerun_is_a_finding():
    def stumble(evidence):
        raise MalformedError("file-changed", "data/code/train.py changed since it was hashed")

    report = run(VALID, rerunner=stumble)
    assert report.claim("reproduction").status == "not met"


def test_the_report_says_which_bundle_and_which_key():
    report = run(VALID)
    assert report.subject.system == "tiny-scoring"
    assert report.subject.records == 9
    assert report.subject.signed_by == tiny.KEY.keyid
    assert report.trusted_keys == (tiny.KEY.keyid,)
    assert [result.verdict for result in report.gates] == ["met", "met"]


def test_unreadable_histories_leave_the_gates_out_and_say_so(tmp_path):
    bundle = Bundle(tmp_path)
    bundle.apply(
        [
            {
                "do": "history",
                "path": "data/runs/run-c/metrics.csv",
                "row": "val_auc",
                "value": "x",
            },
            {"do": "chain"},
            {"do": "seal"},
        ]
    )
    report = run(bundle.path)
    assert report.gates == ()
    assert report.exit_code == 1
    assert statuses(report)["gates"] == "not met"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"reproduction": "not run"}, 0),
        ({"reproduction": "inconclusive"}, 6),
        ({"selection": "inconclusive"}, 6),
        ({"authenticity": "not run"}, 6),
        ({"gates": "not met"}, 1),
        ({"gates": "not met", "selection": "inconclusive"}, 1),
        ({"authenticity": "not met", "gates": "not met"}, 3),
        ({"integrity": "not met"}, 3),
    ],
)
def test_exit_codes_put_the_worst_first(changes, code):
    claims = tuple(Claim(name=name, status=changes.get(name, "met"), summary="") for name in CLAIMS)
    assert exit_code(claims, None) == code
