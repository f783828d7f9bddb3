"""The commands as a person types them: what they print, what they end with, and never a traceback."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from bundler import cli
from bundler.attestation import open_envelope, pae
from bundler.storage.hashing import digest_bytes
from bundler.trust import load_keys
from tests import tiny
from tests.conformance.harness import KEYS, VALID, Bundle

SCHEMAS = Path(__file__).parents[2] / "schemas"
COMMANDS = {
    "bundler": cli.main,
    "build-bundle": cli.build_bundle,
    "verify-bundle": cli.verify_bundle,
}
TRUST = ["--trust", str(KEYS / "trust.pem")]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command; return (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        try:
            COMMANDS[words[0]]()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
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
    assert max(map(len, text.splitlines())) <= 110
    if len(words) > 2 or words[0] != "bundler":
        assert "Example" in text


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
    assert "9 runs in the log" in out
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
    assert "file-digest, 9 times" in lines[1]
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
    assert code == 2
    assert "cannot be used" in err


def test_an_earlier_release_signed_by_nobody_trusted_is_refused(run, tmp_path):
    bundle = Bundle(tmp_path)
    bundle.do_sign(**{"with": ["other"]})
    code, _, err = run("verify-bundle", VALID, *TRUST, "--previous", bundle.path)
    assert code == 2
    assert "signed by none of the trusted keys" in err


def test_an_earlier_release_with_anothers_signature_is_refused(run, tmp_path):
    bundle = Bundle(tmp_path)
    bundle.apply([{"do": "seal", "statement": {"/subject/0/digest/sha256": "1" * 64}}])
    code, _, err = run("verify-bundle", VALID, *TRUST, "--previous", bundle.path)
    assert code == 2
    assert "another bundle" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verify-bundle", "nowhere", *TRUST], 3, "does not exist"),
        (["verify-bundle", VALID, "--trust", "nowhere.pem"], 2, "cannot read nowhere.pem"),
        (["verify-bundle", VALID, "--trust", VALID / "bagit.txt"], 2, "holds no public key"),
        (["verify-bundle", VALID, "--trust", KEYS / "key.pem"], 2, "private key"),
        (["verify-bundle", VALID, *TRUST, "--sandbox", "none"], 2, "--i-trust-this-code"),
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
    from bundler.cli.console import Bars

    bars = Bars()
    screen = io.StringIO()
    bars._console = type(bars._console)(file=screen, force_terminal=True)
    for total, unit in ((None, ""), (10, ""), (10, "B")):
        with bars.step("Working", total, unit=unit) as step:
            step.advance(3)
    assert "Working" in screen.getvalue()
