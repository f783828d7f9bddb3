"""The commands as a person types them: what they print, what they end with, and never a traceback."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from bundler import cli
from bundler.attestation import open_envelope, pae
from bundler.build import Request, build
from bundler.cli.console import show_built, show_plan, show_report
from bundler.cli.door import _replace, _Stop
from bundler.config import load
from bundler.errors import EnvironmentNotRecreatableError, SandboxUnavailableError
from bundler.report import Finding, Plan, PlannedMetric
from bundler.rerun import RerunOutcome
from bundler.signers import load_signer
from bundler.spec import Gap
from bundler.storage import open_bag
from bundler.storage.hashing import digest_bytes
from bundler.trust import load_keys
from bundler.verify import verify
from tests import tiny
from tests.conformance.harness import KEYS, VALID, Bundle

SCHEMAS = Path(__file__).parents[2] / "schemas"
COMMANDS = {
    "bundler": cli.main,
    "build-bundle": cli.build_bundle,
    "verify-bundle": cli.verify_bundle,
}
TRUST = ["--trust", str(KEYS / "trust.pem")]


@pytest.fixture(autouse=True)
def listening():
    """SIGINT as at a terminal: a job in the background, as a CI's may be, starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command; return (exit code, standard output, standard error)."""

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}

    def run(*words):
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        try:
            COMMANDS[words[0]]()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["bundler"],
        ["bundler", "--help"],
        ["build-bundle", "--help"],
        ["verify-bundle", "-h"],
        *(["bundler", name, "--help"] for name in ("init", "keygen", "build", "verify", "site")),
    ],
)
def test_help_fits_the_screen_and_shows_an_example(run, words):
    code, out, err = run(*words)
    text = out + err
    assert code in {0, 2}
    assert max(map(len, text.splitlines())) <= 80
    assert "\\b" not in text
    assert "\b" not in text
    if len(words) > 2 or words[0] != "bundler":
        assert re.search(r"\n  Examples?:\n    (cd |bundler |build-bundle |verify-bundle )", text)


def test_an_unknown_option_is_a_usage_error(run):
    code, _, err = run("verify-bundle", VALID, "--fast")
    assert code == 2
    assert "--fast" in err


def test_keygen_says_what_to_keep_and_what_to_publish(run, tmp_path):
    code, out, _ = run("bundler", "keygen", "-o", tmp_path / "keys", "--algorithm", "ed25519")
    assert code == 0
    assert "key id" in out
    assert (tmp_path / "keys" / "key.pem").stat().st_mode & 0o777 == 0o600
    code, _, err = run("bundler", "keygen", "-o", tmp_path / "keys")
    assert code == 8
    assert "never overwritten" in err


def test_build_and_verify_and_the_whole_report(run, provider, tmp_path):
    tiny.FakeImporter.runs = provider.runs
    config = provider.write_config()
    bundle, report = tmp_path / "out" / "bundle", tmp_path / "report.json"
    code, out, _ = run("build-bundle", config, "-o", bundle, "--key", KEYS / "key.pem", "--strict")
    assert code == 0
    assert "9 runs in the log" in " ".join(out.split())
    assert "gate" in out
    assert "lock" not in out.splitlines()[0]

    code, out, _ = run("verify-bundle", bundle, *TRUST, "--report", report)
    assert code == 0
    assert "verified" in out
    assert len(out.splitlines()) <= 24
    value = json.loads(report.read_bytes())
    schema = json.loads((SCHEMAS / "report-1.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(value)


def test_a_failed_verification_shows_what_failed_first_and_fits_a_screen(run, tmp_path):
    bundle = Bundle(tmp_path)
    for name in sorted(path.name for path in (bundle.path / "data" / "runs").iterdir()):
        bundle.do_flip(f"data/runs/{name}/metrics.csv", -2)
    code, out, _ = run("verify-bundle", bundle.path, *TRUST)
    assert code == 3
    lines = out.splitlines()
    assert "file-digest, 9 times" in lines[2]
    assert len(lines) <= 24


def test_hostile_text_cannot_steer_the_terminal(run, tmp_path):
    bundle = Bundle(tmp_path)
    (bundle.path / "data" / "a\x1b[2J[bold]b").write_text("x")
    _, out, _ = run("verify-bundle", bundle.path, *TRUST)
    assert "\x1b[2J" not in out
    assert "[bold]" in out


def test_strict_names_every_missing_piece_and_builds_nothing(run, provider, tmp_path):
    tiny.FakeImporter.runs = provider.runs
    provider.config["selection"]["rationale"] = "TODO"
    config = provider.write_config()
    code, _, err = run(
        "build-bundle", config, "-o", tmp_path / "b", "--key", KEYS / "key.pem", "--strict"
    )
    assert code == 1
    assert "selection.rationale" in err
    assert list(tmp_path.glob("*b*")) == []
    code, out, _ = run("build-bundle", config, "-o", tmp_path / "b", "--key", KEYS / "key.pem")
    assert code == 0
    assert "required" in out


def test_an_amended_bundle_continues_the_log(run, provider, tmp_path):
    tiny.FakeImporter.runs = provider.runs
    config = provider.write_config()
    key = ["--key", KEYS / "key.pem"]
    run("build-bundle", config, "-o", tmp_path / "one", *key)
    provider.config["system"]["version"] = "1.1.0"
    provider.write_config()
    code, _, _ = run(
        "build-bundle",
        config,
        "-o",
        tmp_path / "two.tar",
        "--tar",
        "--previous",
        tmp_path / "one",
        *key,
    )
    assert code == 0
    code, out, _ = run("verify-bundle", tmp_path / "two.tar", *TRUST)
    assert code == 0
    assert "1.1.0" in out

    two = ["verify-bundle", tmp_path / "two.tar", *TRUST, "--previous"]
    assert run(*two, tmp_path / "one")[0] == 0
    code, out, _ = run("verify-bundle", VALID, *TRUST, "--previous", tmp_path / "two.tar")
    assert code == 3
    assert "log-predecessor" in out
    (tmp_path / "one" / "bagit.txt").unlink()
    code, _, err = run(*two, tmp_path / "one")
    assert code == 3
    assert "cannot be used" in err


def test_an_earlier_release_signed_by_nobody_trusted_is_refused(run, tmp_path):
    bundle = Bundle(tmp_path)
    bundle.do_sign(**{"with": ["other"]})
    code, _, err = run("verify-bundle", VALID, *TRUST, "--previous", bundle.path)
    assert code == 3
    assert "signed by none of the trusted keys" in err


def test_an_earlier_release_with_anothers_signature_is_refused(run, tmp_path):
    bundle = Bundle(tmp_path)
    bundle.apply([{"do": "seal", "statement": {"/subject/0/digest/sha256": "1" * 64}}])
    code, _, err = run("verify-bundle", VALID, *TRUST, "--previous", bundle.path)
    assert code == 3
    assert "another bundle" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verify-bundle", "nowhere", *TRUST], 3, "does not exist"),
        (["verify-bundle", VALID, "--trust", "nowhere.pem"], 2, "cannot read nowhere.pem"),
        (["verify-bundle", VALID, "--trust", VALID / "bagit.txt"], 2, "holds no public key"),
        (["verify-bundle", VALID, "--trust", KEYS / "key.pem"], 2, "private key"),
        (["verify-bundle", VALID, *TRUST, "--sandbox", "none"], 2, "--i-trust-this-code"),
        (["verify-bundle", "nowhere", *TRUST], 3, "there is no such file or folder. Evidence"),
        (
            ["verify-bundle", VALID, *TRUST, "--rerun", "--seeds", "5", "--runs", "8"],
            2,
            "give one of them",
        ),
        (["build-bundle", "nowhere.yaml", "-o", "x", "--key", KEYS / "key.pem"], 2, "bundler init"),
        (
            ["bundler", "site", VALID, "--report", "nowhere.json", "-o", "x"],
            2,
            "cannot read nowhere.json",
        ),
        (["bundler", "site", VALID, "--report", VALID / "bagit.txt", "-o", "x"], 2, "is no report"),
        (["bundler", "init", "nowhere"], 2, "is not a folder"),
    ],
)
def test_bad_input_gives_one_clear_message_and_a_documented_code(run, words, code, says):
    got, out, err = run(*words)
    assert got == code
    assert says in out + err


def test_the_wrong_key_is_named_with_what_to_do(run, provider, tmp_path):
    run("bundler", "keygen", "-o", tmp_path / "keys")
    code, out, _ = run("verify-bundle", VALID, "--trust", tmp_path / "keys" / "trust.pem")
    assert code == 3
    assert "signature-untrusted" in out
    assert "Compare the key ids" in out


def test_the_verdict_is_signed_beside_the_bundle_and_never_overwritten(run, tmp_path):
    bundle = Bundle(tmp_path)
    run("bundler", "keygen", "-o", tmp_path / "mine")
    mine = tmp_path / "mine" / "key.pem"
    code, out, _ = run("verify-bundle", bundle.path, *TRUST, "--key", mine)
    assert code == 0
    target = tmp_path / "bundle.vsa.dsse.json"
    assert str(target) in out.replace("\n", "")
    envelope = open_envelope(target.read_bytes(), name="vsa")
    (key,) = load_keys((tmp_path / "mine" / "trust.pem").read_bytes(), name="trust")
    assert key.verifies(envelope.signatures[0].sig, pae(envelope.payload))
    predicate = json.loads(envelope.payload)["predicate"]
    assert predicate["verificationResult"] == "PASSED"
    assert "AISDP_SELECTION" in predicate["verifiedLevels"]
    code, _, err = run("verify-bundle", bundle.path, *TRUST, "--key", mine)
    assert code == 8
    assert "never overwritten" in err


def test_a_verdict_brings_the_report_that_it_names(run, tmp_path):
    bundle = Bundle(tmp_path)
    run("bundler", "keygen", "-o", tmp_path / "mine")
    run("verify-bundle", bundle.path, *TRUST, "--key", tmp_path / "mine" / "key.pem")
    report = (tmp_path / "bundle.report.json").read_bytes()
    envelope = open_envelope((tmp_path / "bundle.vsa.dsse.json").read_bytes(), name="vsa")
    said = json.loads(envelope.payload)["predicate"]["aisdp"]["report"]["sha256"]
    assert said == digest_bytes(report)


def test_a_re_run_is_kept_in_a_new_folder_only(run, tmp_path):
    code, _, err = run("verify-bundle", VALID, *TRUST, "--keep", tmp_path)
    assert code == 8
    assert "new folder" in err


def test_no_verdict_is_signed_over_a_bundle_that_cannot_be_identified(run, tmp_path):
    run("bundler", "keygen", "-o", tmp_path / "mine")
    broken = tmp_path / "broken"
    broken.mkdir()
    code, _, err = run("verify-bundle", broken, *TRUST, "--key", tmp_path / "mine" / "key.pem")
    assert code == 3
    assert "no verdict was signed" in err
    assert not (tmp_path / "broken.vsa.dsse.json").exists()


def test_an_unknown_signing_key_is_refused_before_the_verification(run, tmp_path):
    code, out, err = run("verify-bundle", VALID, *TRUST, "--key", tmp_path / "none.pem")
    assert code == 2
    assert "bundler keygen" in err
    assert "verified" not in out


def test_a_report_that_cannot_be_written_is_an_output_error(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(
        "verify-bundle", VALID, *TRUST, "--report", tmp_path / "file" / "report.json"
    )
    assert code == 8
    assert "cannot write" in err


@pytest.mark.parametrize("option", ["--report", "--state"])
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_checked(
    run, tmp_path, option
):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "below" / "it"
    code, out, err = run("verify-bundle", VALID, *TRUST, "--rerun", option, place)
    assert (code, out) == (8, "")
    assert "there is no folder" in err


def test_the_folder_of_a_report_is_not_made(run, tmp_path):
    code, out, err = run("verify-bundle", VALID, *TRUST, "--report", tmp_path / "typo/r.json")
    assert (code, out) == (8, "")
    assert f"there is no folder {tmp_path / 'typo'}" in err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("name", ["bundler", "build-bundle", "verify-bundle"])
def test_every_command_says_its_version(run, name):
    code, out, _ = run(name, "--version")
    assert (code, out.split()[0]) == (0, "aisdp-bundler,")


def test_init_writes_a_file_and_counts_what_is_left_to_do(run, tmp_path):
    code, out, _ = run("bundler", "init", tmp_path)
    assert code == 0
    assert "TODO" in out
    assert (tmp_path / "bundle.yaml").exists()
    code, _, err = run("bundler", "init", tmp_path)
    assert code == 8
    assert "never overwritten" in err


def test_a_fault_of_the_program_is_one_line_unless_it_is_debugged(run, monkeypatch):
    def fault(*arguments, **options):
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("bundler.cli.commands.run_init", fault)
    monkeypatch.delenv("BUNDLER_DEBUG", raising=False)
    code, _, err = run("bundler", "init")
    assert code == 70
    assert "deep inside" in err
    monkeypatch.setenv("BUNDLER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("bundler", "init")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0)])
def test_interruptions_end_quietly(run, monkeypatch, error, code):
    def interrupt(*arguments, **options):
        raise error

    class Closable:
        def close(self):
            pass

        def write(self, text):
            return len(text)

        def flush(self):
            pass

    monkeypatch.setattr("bundler.cli.commands.run_init", interrupt)
    if error is BrokenPipeError:
        monkeypatch.setattr("sys.stderr", Closable())
    assert run("bundler", "init")[0] == code


def test_progress_is_plain_lines_without_a_terminal(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from bundler.cli import verify_bundle; verify_bundle()",
            str(VALID),
            *TRUST,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["Hashing files …", "Checking the evidence …"]


def test_progress_is_a_bar_on_a_terminal():
    from bundler.cli.progress import Bars

    bars = Bars()
    screen = io.StringIO()
    bars._console = type(bars._console)(file=screen, force_terminal=True)
    for total, unit in ((None, ""), (10, ""), (10, "B")):
        with bars.step("Working", total, unit=unit) as step:
            step.advance(3)
    assert "Working" in screen.getvalue()


def screen(capsys, rerunner, written="") -> list[str]:
    """What is printed about the valid bundle after a re-run by ``rerunner``."""
    keys = load_keys((KEYS / "trust.pem").read_bytes(), name="trust")
    clock = lambda: "2026-01-01T00:00:00.000Z"  # noqa: E731
    report = verify(lambda: open_bag(VALID), "tiny", keys, clock=clock, rerunner=rerunner)
    show_report(report, written)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    return lines


@pytest.mark.parametrize(
    "error",
    [
        SandboxUnavailableError(
            "no sandbox works here, so nothing of the bundle was executed; tried bubblewrap: this looks like a"
            " container whose seccomp profile or masked /proc stops bwrap: bwrap: Creating new namespace failed:"
            " Operation not permitted; sandlock: it is not installed",
            remedy="(1) Run the container with --security-opt seccomp=unconfined --security-opt"
            " apparmor=unconfined --security-opt systempaths=unconfined, run outside the container, or use"
            " sandlock. (2) Install it: pip install aisdp-bundler[sandlock]",
        ),
        EnvironmentNotRecreatableError(
            "4 declared packages are not installed for /tmp/other/bin/python: mlflow, numpy, torch, safetensors",
            remedy="Install the declared versions: /tmp/other/bin/python -m pip install mlflow==3.0.0 numpy==2.3.1"
            " torch==2.13.0 safetensors==0.5 (the whole list is data/environment/requirements.txt in the bundle).",
        ),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_why_nothing_was_re_run_is_told_in_full(capsys, monkeypatch, error, apart):
    monkeypatch.setenv("COLUMNS", "80")
    if not apart:
        error = type(error)(f"{error.message} {error.remedy}")

    def refuse(evidence):
        raise error

    lines = screen(capsys, refuse)
    text = " ".join(" ".join(lines).split())
    assert error.message in text
    assert error.remedy in text
    assert any(line.startswith("  → ") for line in lines) == apart
    assert sum("reproduction" in line for line in lines) == 2


def test_what_differs_in_a_re_run_is_told_in_full(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = (
        "not bitwise on this machine: tensor layers.0.weight differs first by at most 1.19e-07; 5 of 12 metrics"
        " differ, first validation_loss at step 3; knobs that differ: package numpy, package torch, cpu_model,"
        " blas_threads, mkl_cbwr, cpu_flags"
    )
    finding = Finding(code="rerun-not-bitwise", severity="warning", subject="run-c", message=words)
    lines = screen(capsys, lambda evidence: RerunOutcome(rerun=None, findings=(finding,)))
    assert words in " ".join(" ".join(lines).split())
    assert lines[4].startswith("  "), "a hanging indent"


def test_many_long_findings_are_cut_to_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    findings = tuple(
        Finding(
            code=f"code-{n}",
            severity="error",
            subject="x",
            message="word " * 200,
            remedy="do " * 200,
        )
        for n in range(9)
    )
    lines = screen(capsys, lambda evidence: RerunOutcome(rerun=None, findings=findings))
    assert any("more kinds of findings" in line for line in lines)
    lines = screen(capsys, lambda evidence: RerunOutcome(rerun=None, findings=findings[:1]))
    assert sum("word word" in line for line in lines) in {7, 8}
    assert sum(line.endswith("…") for line in lines) == 3


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_what_decides_about_a_re_run_comes_first_with_its_whole_remedy(
    capsys, monkeypatch, severity
):
    monkeypatch.setenv("COLUMNS", "80")
    others = tuple(
        Finding(code=f"rerun-{n}", severity="warning", subject="x", message="word " * 60)
        for n in range(9)
    )
    code = {"error": "rerun-inconsistent", "warning": "rerun-inconclusive"}[severity]
    settles = "what is asked of the provider, " * 6 + "and then what would settle it."
    last = Finding(code=code, severity=severity, subject="auc", message="open", remedy=settles)
    lines = screen(
        capsys, lambda evidence: RerunOutcome(findings=(*others, last)), written="here/report.json"
    )
    text = " ".join(" ".join(lines).split())
    assert settles in text
    assert text.index(code) < text.index("rerun-0")
    assert "more kinds of findings; here/report.json has them all" in text


def test_an_evaluation_asked_for_by_name_is_a_claim_that_stays_open():
    keys = load_keys((KEYS / "trust.pem").read_bytes(), name="trust")
    clock = lambda: "2026-01-01T00:00:00.000Z"  # noqa: E731

    def status(*, wanted: bool) -> tuple[int, str]:
        rerun = lambda evidence: RerunOutcome(unscored="no model is shipped")  # noqa: E731
        report = verify(
            lambda: open_bag(VALID),
            "tiny",
            keys,
            clock=clock,
            rerunner=rerun,
            evaluation_wanted=wanted,
        )
        return report.exit_code, report.claim("reproduction").summary

    assert status(wanted=False) == (0, "1 check passed")
    assert status(wanted=True) == (
        6, "the evaluation was asked for and not done: no model is shipped"
    )  # fmt: skip


def test_nothing_executed_is_no_word_about_the_sandbox_alone(capsys):
    def refuse(evidence):
        raise SandboxUnavailableError("this machine shows no NVIDIA device")

    text = " ".join(screen(capsys, refuse))
    assert "no NVIDIA device" in text
    assert "sandbox" not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "default cap; --policy can grant more"),
        ({"policy": True}, "capped by the policy"),
    ],
)
def test_a_plan_is_the_output_where_it_is_alone_and_says_whose_cap_it_is(capsys, options, words):
    metric = PlannedMetric(
        metric="auc", runs=5, deviation=0.01, declared_margin=0.5, margin=0.05, needed=3
    )
    plan = Plan(
        command=("train",), declared_seed=42, own_seeds=(1, 2, 3), looks=(3,), environment="current",
        device="cpu", engine="local", parallel=1, isolation="bubblewrap", run_seconds=None,
        least_seconds=None, most_seconds=None, metrics=(metric,),
    )  # fmt: skip
    show_plan(plan, alone=True, **options)
    show_plan(replace(plan, declared_seed=43), **options)
    out, err = capsys.readouterr()
    assert words in " ".join(out.split())
    assert ("declared 42" in out, "declared 43" in err) == (True, True)


def test_without_a_key_the_option_is_named(run):
    code, out, _ = run("verify-bundle", VALID)
    assert code == 6
    lines = out.splitlines()
    assert (
        "  → use --trust FILE.pem with the provider's public key, from outside the bundle" in lines
    )
    assert max(map(len, lines)) <= 80


def test_bundle_and_signer_are_named_in_full(run):
    _, out, _ = run("verify-bundle", VALID, *TRUST)
    digest = digest_bytes((VALID / "tagmanifest-sha256.txt").read_bytes())
    (key,) = load_keys((KEYS / "trust.pem").read_bytes(), name="trust")
    assert out.splitlines()[1:3] == [f"bundle sha256:{digest}", f"signed by {key.keyid}"]


def test_what_was_built_is_counted_and_wrapped(capsys, monkeypatch, provider, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    tiny.FakeImporter.runs = provider.runs
    path = provider.write_config()
    built = build(
        Request(
            config=load(path),
            base=path.parent,
            target=tmp_path / "b",
            signer=load_signer(KEYS / "key.pem"),
        )
    )
    gap = Gap(
        level="required",
        point="Annex IV 2(a)",
        subject="run",
        code="x",
        message="long " * 30,
        remedy="do " * 60,
    )
    log = replace(built.index.log, size=10)
    index = replace(built.index, gaps=(gap,), log=log)
    finding = Finding(
        code="gate-failed", severity="error", subject="gate", message="bad", remedy="fix"
    )
    show_built(replace(built, index=index, findings=(finding,)))
    lines = capsys.readouterr().out.splitlines()
    assert "9 runs (10 lines) in the log" in " ".join(" ".join(lines).split())
    assert "  1 evidence gap (it is in the bundle and on the site):" in lines
    start = next(n for n, line in enumerate(lines) if "required run" in line)
    assert lines[start + 1].startswith("    long")
    assert any(line.startswith("    → do do") for line in lines)
    assert lines[-1].startswith("      do do")
    assert any("✗ gate-failed" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("option", ["--report", "--keep"])
@pytest.mark.parametrize("place", ["x", "data/runs/x", ".", "../link/x"])
def test_nothing_is_written_into_the_bundle_that_is_verified(run, tmp_path, option, place):
    bundle = Bundle(tmp_path)
    (tmp_path / "link").symlink_to(bundle.path)
    (bundle.path / "bagit.txt").unlink()
    before = sorted(bundle.path.rglob("*"))
    code, _, err = run("verify-bundle", bundle.path, *TRUST, option, bundle.path / place)
    assert code == 2
    assert "beside it" in err
    assert sorted(bundle.path.rglob("*")) == before


def test_a_report_does_not_replace_the_archive_it_is_about(run, tmp_path):
    archive = tmp_path / "b.tar"
    archive.write_bytes(b"x")
    code, _, _ = run("verify-bundle", archive, *TRUST, "--report", archive)
    assert code == 2
    assert archive.read_bytes() == b"x"


def test_nothing_is_written_into_another_bundle(run, provider, tmp_path):
    inside = Bundle(tmp_path).path / "x"
    tiny.FakeImporter.runs = provider.runs
    key = ["--key", KEYS / "key.pem"]
    for words in (
        ["build-bundle", provider.write_config(), "-o", inside, *key],
        ["bundler", "site", VALID, "-o", inside],
        ["bundler", "site", inside.parent, "-o", inside],
        ["bundler", "keygen", "-o", inside],
        ["verify-bundle", VALID, *TRUST, "--report", inside],
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "beside it" in err
        assert not inside.exists()


LOCALES = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}


def command(name, *words, **options):
    """The command as a process of its own."""
    entry = {"bundler": "main"}.get(name, name.replace("-", "_"))
    return subprocess.Popen(
        [sys.executable, "-c", f"from bundler.cli import {entry}; {entry}()", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.parametrize("name", LOCALES)
def test_every_command_works_whatever_the_output_can_encode(tmp_path, name):
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LC_", "LANG", "PYTHON"))
    }
    env |= LOCALES[name]
    place = tmp_path / "Prüfung\udcff"
    place.mkdir()
    (place / "repository").mkdir()
    (place / "bundle.yaml").write_text("system: [ü")

    def say(code, *words):
        process = command(*words, env=env, cwd=place)
        out, err = process.communicate()
        assert process.returncode == code, err
        assert b"Traceback" not in err
        return out.decode("utf-8" if name == "utf-8" else "latin-1", "replace")

    sign = "✓" if name == "utf-8" else "+"
    assert f"{sign} met      integrity" in say(0, "verify-bundle", VALID, *TRUST)
    assert ("→" if name == "utf-8" else "> use") in say(6, "verify-bundle", VALID)
    say(0, "bundler", "keygen", "-o", place / "ключ")
    say(0, "bundler", "init", place / "repository")
    say(2, "build-bundle", place / "bundle.yaml", "-o", place / "b", "--key", KEYS / "key.pem")
    say(0, "bundler", "site", VALID, "-o", place / "site")
    say(3, "verify-bundle", place / "nowhere", *TRUST)


def test_what_was_built_can_be_told_in_any_encoding(capsys, monkeypatch, provider, run, tmp_path):
    tiny.FakeImporter.runs = provider.runs
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    code, _, _ = run(
        "build-bundle", provider.write_config(), "-o", tmp_path / "b", "--key", KEYS / "key.pem"
    )
    out.flush()
    assert code == 0
    assert out.buffer.getvalue().startswith(b"+ ")


def test_only_what_cannot_be_encoded_is_replaced():
    assert _replace(UnicodeEncodeError("ascii", "a✓é→", 1, 4, "")) == ("+\\xe9>", 4)
    error = UnicodeDecodeError("ascii", b"\xff", 0, 1, "")
    with pytest.raises(UnicodeDecodeError):
        _replace(error)


STARTED = """
import builtins
import signal
import sys
from bundler.cli import verify_bundle
# A test run in the background of a shell hands down that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
real = builtins.__import__
def tell(name, *rest, **more):
    if name == "bundler.cli.door":
        builtins.__import__ = real
        sys.stderr.write("started\\n")
        sys.stderr.flush()
    return real(name, *rest, **more)
builtins.__import__ = tell
verify_bundle()
"""


def test_an_early_ctrl_c_leaves_no_traceback():
    """From the first import of the entry point on; before that, Python itself answers."""
    seen = set()
    for delay in [n * 0.012 for n in range(20)]:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTED, str(VALID), *TRUST],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr.readline() == b"started\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert b"Traceback" not in err, err
        assert process.returncode in {0, 130}
        if process.returncode == 130:
            assert b"stopped: nothing half-made" in err
        seen.add(process.returncode)
    assert 130 in seen


def test_an_interruption_that_a_library_turns_into_another_error_is_still_one(run, monkeypatch):
    def turn(*arguments, **options):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("half a module") from None

    monkeypatch.setattr("bundler.cli.commands.run_init", turn)
    code, _, err = run("bundler", "init")
    assert code == 130
    assert "half a module" not in err


def test_an_interruption_that_python_drops_is_asked_for_again(run, monkeypatch):
    class Dropping:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    def work(*arguments, **options):
        Dropping()
        time.sleep(5)

    monkeypatch.setattr("bundler.cli.commands.run_init", work)
    started = time.monotonic()
    assert run("bundler", "init")[0] == 130
    assert time.monotonic() - started < 4


def test_a_job_that_ignores_ctrl_c_goes_on_doing_so(monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _Stop()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_a_bundle_that_was_whole_when_it_was_stopped_is_named(run, monkeypatch, provider, tmp_path):
    tiny.FakeImporter.runs = provider.runs

    def stopped(built):
        raise KeyboardInterrupt

    monkeypatch.setattr("bundler.cli.console.show_built", stopped)
    words = [
        "build-bundle",
        provider.write_config(),
        "-o",
        tmp_path / "b",
        "--key",
        KEYS / "key.pem",
    ]
    code, _, err = run(*words)
    assert code == 130
    assert f"the bundle {tmp_path / 'b'} is complete" in err
    code, _, err = run(*words)
    assert code == 8
    assert "is complete" not in err
