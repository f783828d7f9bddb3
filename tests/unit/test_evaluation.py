"""Scoring the shipped model, with the real sandbox and a script that uses nothing but the standard library."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from bundler import sandbox
from bundler.checks import Evidence
from bundler.checks.evaluation import evaluation_specification, recorded_artefacts
from bundler.environments.model import Runtime
from bundler.errors import HostileOutputError, MalformedError, SandboxUnavailableError
from bundler.evaluation import (
    MAX_RESULTS,
    _case,
    _job,
    compare,
    evaluate,
    held_against,
    read_results,
)
from bundler.evidence import intact_files, read_contents
from bundler.importers.model import ArtefactFile
from bundler.policy import DEFAULT, Policy
from bundler.progress import Silence
from bundler.report import ScoredMetric, ScoredModel
from bundler.session import RerunOptions
from bundler.storage import open_bag
from tests import tiny

SCORE = """\
import csv, json, pathlib, struct, sys
model, data, out = map(pathlib.Path, sys.argv[1:4])
raw = model.read_bytes()
size = struct.unpack("<Q", raw[:8])[0]
start = 8 + size
total = 0.0
for name, tensor in json.loads(raw[8:start]).items():
    begin, end = tensor["data_offsets"]
    total += sum(struct.unpack(f"<{(end - begin) // 4}f", raw[start + begin : start + end]))
labels = [int(row["y"]) for row in csv.DictReader(data.open())]
skill = total / 756 * sum(labels) / len(labels) * 2
(out / "scores").mkdir()
(out / "scores/metrics.json").write_text(json.dumps(
    {"holdout_auc": 0.78 * skill, "holdout_disparity": 0.08 * skill, "holdout_new": 1}))
"""
"""The honest weights add up to 756, half of the labels are 1, and 0.78 and 0.08 are declared."""

COMMAND = ["{python}", "score.py", "{artefact.model.safetensors}", "{input.data}", "{out}"]


class Scorer:
    """A provider whose model can be scored."""

    def __init__(self, provider: tiny.Provider) -> None:
        self.provider = provider
        self.built = 0
        provider.config["training"]["evaluation"] = {
            "command": COMMAND,
            "results": "scores/metrics.json",
        }
        self.script(SCORE)

    def script(self, text: str) -> None:
        repository = self.provider.root / "repository"
        (repository / "score.py").write_text(text)
        git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", "score"], check=True)
        done = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        )
        self.provider.runs = [
            replace(run, code=replace(run.code, commit=done.stdout.strip()))
            for run in self.provider.runs
        ]

    def evidence(self) -> Evidence:
        self.built += 1
        target = self.provider.root / f"bundle-{self.built}"
        self.provider.build(target)
        files = intact_files(open_bag(target))
        return Evidence(files=files, contents=read_contents(files), statement=None, schemas={})

    def evaluate(self, evidence=None, **options):
        runtime = Runtime(mode="current", python=sys.executable, interpreter=Path(sys.executable))
        evidence = evidence or self.evidence()
        options = {"limits": sandbox.Limits(wall_seconds=60), **options}
        how = RerunOptions(python=Path(sys.executable), **options)
        return evaluate(evidence, runtime, how, Silence())


@pytest.fixture
def scorer(provider: tiny.Provider) -> Scorer:
    return Scorer(provider)


SCORED = ScoredModel(run="run-c", exit_code=0, seconds=1.0, isolation={})


def codes(findings):
    return [(finding.code, finding.severity) for finding in findings]


def worse(outcome):
    return [each for each in codes(outcome.findings) if each[1] != "note"]


# --- in the sandbox -----------------------------------------------------------------------------------------------


def test_the_declared_model_gives_the_declared_metrics(scorer):
    outcome = scorer.evaluate()
    assert codes(outcome.findings) == [("evaluation-unknown-metric", "note")]
    assert outcome.reason == ""
    scored = outcome.scored
    assert (scored.run, scored.exit_code) == ("run-c", 0)
    assert [(each.metric, each.declared) for each in scored.metrics] == [
        ("holdout_auc", 0.78),
        ("holdout_disparity", 0.08),
    ]
    assert all(math.isclose(each.found, each.declared) for each in scored.metrics)
    assert scored.isolation["kind"] in {"bubblewrap", "sandlock"}
    assert scored.isolation["probes"]


def test_a_model_that_was_swapped_is_caught(scorer, tmp_path):
    swapped = tmp_path / "model.safetensors"
    weights = np.arange(6, dtype=np.float32).reshape(2, 3) * np.float32(33)
    swapped.write_bytes(save({"weight": weights, "bias": weights[0]}))
    scorer.provider.edit(
        "run-c",
        lambda run: replace(
            run,
            artefacts=tuple(
                replace(each, file=swapped) if each.path == "model.safetensors" else each
                for each in run.artefacts
            ),
        ),
    )
    outcome = scorer.evaluate()
    assert ("evaluation-differs", "error") in codes(outcome.findings)
    message = next(each.message for each in outcome.findings if each.severity == "error")
    assert "'holdout_auc' 0.612857143" in message
    assert "declared is 0.78" in message


def test_a_metric_that_was_edited_before_signing_is_caught(scorer):
    scorer.provider.edit("run-c", lambda run: tiny.with_value(run, "holdout_auc", 0.83))
    assert worse(scorer.evaluate()) == [("evaluation-differs", "error")]


def test_other_data_than_the_declared_metrics_are_of_are_caught(scorer):
    scorer.provider.config["training"]["inputs"]["data"] = "other.csv"
    (scorer.provider.root / "other.csv").write_text("x,y\n1,1\n2,1\n3,0\n")
    outcome = scorer.evaluate()
    assert worse(outcome) == [("evaluation-differs", "error")] * 2


def test_a_script_that_fails_says_its_last_line_and_is_no_contradiction(scorer):
    scorer.script("import sys\nsys.exit('no such layer')")
    outcome = scorer.evaluate()
    (finding,) = outcome.findings
    assert (finding.code, finding.severity) == ("evaluation-failed", "warning")
    assert "exit code 1; no such layer" in finding.message
    assert outcome.scored.exit_code == 1
    scorer.script("import not_installed_anywhere")
    (finding,) = scorer.evaluate().findings
    assert "install it for the interpreter" in finding.remedy


def test_a_script_that_does_not_end_is_stopped(scorer):
    scorer.script("import time\ntime.sleep(600)")
    (finding,) = scorer.evaluate(limits=sandbox.Limits(wall_seconds=2)).findings
    assert finding.code == "evaluation-failed"
    assert "timed out" in finding.message


def test_a_model_that_is_tampered_with_inside_stays_what_was_shipped(scorer):
    scorer.script("import sys\nopen(sys.argv[1], 'wb')")
    (finding,) = scorer.evaluate().findings
    assert "Read-only file system" in finding.message


def test_nothing_of_the_bundle_but_code_inputs_and_named_artefacts_is_shown(scorer):
    scorer.script(
        "import json, os, pathlib, sys\n"
        "names = sorted(str(p) for p in pathlib.Path('/bundle').rglob('*') if p.is_file())\n"
        "out = pathlib.Path(sys.argv[3]) / 'scores'\nout.mkdir()\n"
        "(out / 'metrics.json').write_text(json.dumps({name: 1 for name in names}))"
    )
    outcome = scorer.evaluate()
    (note,) = [each for each in outcome.findings if each.severity == "note"]
    assert (
        "of 6 metrics" in note.message
    )  # three scripts and lists, the data in the code, the input, the model
    assert worse(outcome) == [("evaluation-incomplete", "warning")]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", False), ("cuda", True)])
def test_gpus_are_shown_and_set_up_only_where_they_are_asked_for(scorer, tmp_path, device, gpus):
    scorer.provider.config["training"]["environment"] = {"CUDA_DEVICE_ORDER": "{seed}"}
    runtime = Runtime(mode="current", python="py", interpreter=None, environment={"OF_IMAGE": "1"})
    how = RerunOptions(python=Path("py"), device=device)
    job = _job(_case(scorer.evidence()), runtime, how, tmp_path)
    assert job.gpus is gpus
    assert ("CUBLAS_WORKSPACE_CONFIG" in job.environment) is gpus
    assert job.environment["CUDA_DEVICE_ORDER"] == "42"  # the provider's own setting comes last
    assert job.environment["OF_IMAGE"] == "1"


def test_results_left_in_the_working_folder_are_named(scorer):
    scorer.script("import os\nos.mkdir('scores')\nopen('scores/metrics.json', 'w').write('{}')")
    (finding,) = scorer.evaluate().findings
    assert finding.code == "evaluation-failed"
    assert "thrown away" in finding.remedy


def test_hostile_output_is_not_read(scorer):
    scorer.script("import os, sys\nos.mkfifo(sys.argv[3] + '/pipe')")
    (finding,) = scorer.evaluate().findings
    assert finding.code == "evaluation-failed"
    assert "FIFO" in finding.message


def test_output_is_kept_where_it_was_asked_for(scorer, tmp_path):
    scorer.evaluate(keep=tmp_path / "kept")
    kept = tmp_path / "kept" / "evaluation"
    assert json.loads((kept / "out/scores/metrics.json").read_text())["holdout_new"] == 1
    assert (kept / "log.txt").exists()


def test_without_a_sandbox_nothing_is_executed(scorer, tmp_path):
    with pytest.raises(SandboxUnavailableError, match="trusted"):
        scorer.evaluate(confinement="none")


def test_what_the_bundle_does_not_offer_is_a_reason_and_no_finding(scorer):
    del scorer.provider.config["training"]["evaluation"]
    outcome = scorer.evaluate()
    assert (outcome.scored, outcome.findings) == (None, ())
    assert "does not say how to score" in outcome.reason


def test_a_model_whose_bytes_are_elsewhere_is_a_reason(scorer):
    scorer.provider.config["embed"] = "none"
    outcome = scorer.evaluate()
    assert (outcome.scored, outcome.findings) == (None, ())
    assert "bytes of 'model.safetensors' are not in the bundle" in outcome.reason
    (found,) = evaluation_specification(scorer.evidence())
    assert (found.code, found.severity) == ("evaluation-artefact-missing", "note")


def test_a_bundle_that_does_not_say_which_artefact_is_the_model_is_a_reason(scorer):
    evidence = scorer.evidence()
    index = evidence.contents.index
    index = replace(index, facts=replace(index.facts, model=None))
    unnamed = replace(evidence, contents=replace(evidence.contents, index=index))
    assert "'the model'" in scorer.evaluate(evidence=unnamed).reason


def test_an_evaluation_that_cannot_be_run_is_a_reason_here_and_an_error_of_the_check(scorer):
    scorer.provider.config["training"]["evaluation"]["command"] = ["{python}", "score.py", "{sed}"]
    outcome = scorer.evaluate()
    assert outcome.scored is None
    assert "{sed}" in outcome.reason


# --- the decoy ----------------------------------------------------------------------------------------------------


PRINTED = """\
import json, pathlib, sys
out = pathlib.Path(sys.argv[3]) / "scores"
out.mkdir()
{more}
(out / "metrics.json").write_text(json.dumps({{"holdout_auc": 0.78, "holdout_disparity": {disparity}}}))
"""


def test_an_evaluation_that_writes_figures_down_is_found_out(scorer):
    scorer.script(PRINTED.format(more="", disparity="0.08"))
    (finding,) = scorer.evaluate().findings
    assert (finding.code, finding.severity) == ("evaluation-ignores-model", "warning")
    assert "'holdout_auc', 'holdout_disparity'" in finding.message


WHERE_OTHER = """\
import zlib
honest = zlib.crc32(pathlib.Path(sys.argv[1]).read_bytes()) == {crc}
{act}
"""


def honest_crc(scorer):
    weights = scorer.provider.root / "artefacts/run-c/model.safetensors"
    return zlib.crc32(weights.read_bytes())


@pytest.mark.parametrize("gates", [1, 2])
def test_a_figure_that_depends_on_the_weights_hides_none_that_does_not(scorer, gates):
    more = WHERE_OTHER.format(crc=honest_crc(scorer), act="disparity = 0.08 if honest else 0.5")
    scorer.script(PRINTED.format(more=more, disparity="disparity"))
    scorer.provider.config["gates"] = scorer.provider.config["gates"][:gates]
    (finding,) = scorer.evaluate().findings
    assert finding.code == "evaluation-ignores-model"
    assert finding.message.endswith("3 others give the same 'holdout_auc'")
    scorer.provider.config["gates"] = []
    assert scorer.evaluate().findings == ()  # then all of them have to be the same


def test_a_figure_that_is_only_near_does_not_hide_that_none_comes_from_the_model(scorer):
    scorer.script(PRINTED.format(more="", disparity="0.08001"))
    assert worse(scorer.evaluate()) == [
        ("evaluation-approximate", "warning"),
        ("evaluation-ignores-model", "warning"),
    ]


def test_figures_that_differ_are_held_against_no_decoy(scorer, tmp_path):
    scorer.script(PRINTED.format(more="", disparity="0.5"))
    assert worse(scorer.evaluate(keep=tmp_path / "kept")) == [("evaluation-differs", "error")]
    assert [each.name for each in (tmp_path / "kept").iterdir()] == ["evaluation"]


@pytest.fixture
def held(provider, tmp_path):
    """Holds decoys against a model with 0.78 and 0.08, both in gates, and says which figures are named."""
    provider.build(tmp_path / "b")
    index = read_contents(intact_files(open_bag(tmp_path / "b"))).index
    results = {"holdout_auc": 0.78, "holdout_disparity": 0.08, "holdout_rows": 200.0}

    def named(*decoys, index=index):
        scored = replace(
            SCORED,
            metrics=tuple(
                ScoredMetric(metric=name, declared=value, found=value)
                for name, value in results.items()
            ),
        )
        asked = iter(decoys)
        found = list(held_against(asked, results, scored, index))
        named.left = len(list(asked))
        return [name for name in results if any(f"'{name}'" in each.message for each in found)]

    named.index = index
    return named


def of(auc, disparity, rows=200.0):
    return {"holdout_auc": auc, "holdout_disparity": disparity, "holdout_rows": rows}


def test_what_one_decoy_has_in_common_with_the_model_can_be_chance(held):
    assert held(of(0.5, 0.2), {}) == []
    assert held.left == 1  # where nothing is the same, no other decoy is scored
    assert held(of(0.78, 0.2), of(0.5, 0.08), {}) == []
    assert held.left == 1
    assert held(of(0.78, 0.2), of(0.78, 0.08), of(0.4, 0.08)) == []
    assert held(of(0.78, 0.2), of(0.78, 0.08), of(0.78, 0.3)) == ["holdout_auc"]
    assert held(of(0.78, 0.08), of(0.78, 0.08)) == ["holdout_auc", "holdout_disparity"]


def test_a_decoy_that_gives_nothing_says_nothing(held):
    assert held(of(0.78, 0.2), {}, {}) == held({}, {}, {}) == held() == []
    assert held({}, of(0.78, 0.2), of(0.78, 0.1)) == ["holdout_auc"]


def test_without_a_gate_only_all_figures_together_are_suspicious(held):
    free = replace(held.index, gates=())
    assert held(of(0.78, 0.2), of(0.78, 0.2), of(0.78, 0.2), index=free) == []
    assert held.left == 2
    assert len(held(of(0.78, 0.08), of(0.78, 0.08), index=free)) == 3


CONSTANT = """\
import json, pathlib, struct, sys
raw = pathlib.Path(sys.argv[1]).read_bytes()
size = struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:8 + size])
begin, end = header["bias"]["data_offsets"]
bias = struct.unpack(f"<{(end - begin) // 4}f", raw[8 + size + begin:8 + size + end])
recall = float(sum(bias) > 0)
out = pathlib.Path(sys.argv[3]) / "scores"
out.mkdir()
(out / "metrics.json").write_text(json.dumps({"holdout_auc": recall, "holdout_disparity": 0.08 * bias[1] / 9}))
"""
"""A model that says the same of every example: its recall is 1 or 0."""


def test_a_recall_of_one_that_a_decoy_has_by_chance_accuses_nobody(scorer, tmp_path):
    scorer.script(CONSTANT)
    model = tmp_path / "constant.safetensors"
    model.write_bytes(save({"bias": np.array([1, 9, 9, 9, 9, 100], np.float32)}))
    scorer.provider.edit(
        "run-c",
        lambda run: replace(
            tiny.with_value(run, "holdout_auc", 1.0),
            artefacts=tuple(
                replace(each, file=model) if each.path == "model.safetensors" else each
                for each in run.artefacts
            ),
        ),
    )
    scorer.provider.config["gates"] = scorer.provider.config["gates"][:1]
    assert worse(scorer.evaluate(keep=tmp_path / "kept")) == []
    recalls = [
        json.loads((tmp_path / f"kept/{name}/out/scores/metrics.json").read_text())["holdout_auc"]
        for name in ("evaluation", "decoy", "decoy-2")
    ]
    assert recalls == [1.0, 1.0, 0.0]
    assert not (tmp_path / "kept/decoy-3").exists()


@pytest.mark.parametrize(
    "act",
    [
        "if not honest: sys.exit(3)",
        "if not honest: sys.exit(0)",
        "if not honest: (out / 'metrics.json').write_text(json.dumps({'holdout_new': 0.5})); sys.exit()",
    ],
)
def test_a_decoy_that_cannot_be_scored_says_nothing(scorer, act):
    more = WHERE_OTHER.format(crc=honest_crc(scorer), act=act)
    scorer.script(PRINTED.format(more=more, disparity="0.08"))
    assert scorer.evaluate().findings == ()


def test_of_a_model_in_another_format_any_bytes_are_a_decoy(scorer, tmp_path):
    """Honest code that reads it fails on them, and says nothing; code that leaves it alone gives its figures again."""
    pickled = tmp_path / "model.safetensors"
    pickled.write_bytes(b"\x80\x04K*.")
    scorer.provider.edit(
        "run-c",
        lambda run: replace(
            run,
            artefacts=tuple(
                replace(each, file=pickled) if each.path == "model.safetensors" else each
                for each in run.artefacts
            ),
        ),
    )
    scorer.script(PRINTED.format(more="", disparity="0.08"))
    (finding,) = scorer.evaluate().findings
    assert finding.code == "evaluation-ignores-model"
    crc = zlib.crc32(pickled.read_bytes())
    more = WHERE_OTHER.format(crc=crc, act="if not honest: sys.exit(3)")
    scorer.script(PRINTED.format(more=more, disparity="0.08"))
    assert scorer.evaluate().findings == ()


def test_the_output_of_the_decoy_is_kept_as_well(scorer, tmp_path):
    scorer.evaluate(keep=tmp_path / "kept")
    decoy = json.loads((tmp_path / "kept/decoy/out/scores/metrics.json").read_text())
    honest = json.loads((tmp_path / "kept/evaluation/out/scores/metrics.json").read_text())
    assert decoy["holdout_auc"] != honest["holdout_auc"]


# --- the comparison -----------------------------------------------------------------------------------------------


@pytest.fixture
def compared(provider, tmp_path):
    """Compares results with those of the honest bundle, whose declared margin of holdout_auc is 0.01."""
    provider.build(tmp_path / "b")
    contents = read_contents(intact_files(open_bag(tmp_path / "b")))
    declared = contents.record("run-c")

    def judged(policy=DEFAULT, declared=declared, index=contents.index, **results):
        return compare(SCORED, declared, results, index, policy)

    judged.declared, judged.index = declared, contents.index
    return judged


def with_metrics(run, **metrics):
    """The run with these metrics, name → role and value, in place of those with the same names."""
    others = [each for each in run.metrics if each.name not in metrics]
    more = [
        replace(run.metrics[0], name=name, role=role, last=value)
        for name, (role, value) in metrics.items()
    ]
    return replace(run, metrics=(*others, *more))


@pytest.mark.parametrize(
    ("auc", "expected"),
    [
        (0.78, []),
        (0.78 * (1 + 9e-7), []),
        (0.78 * (1 + 2e-6), [("evaluation-approximate", "warning")]),
        (0.789, [("evaluation-approximate", "warning")]),
        (0.771, [("evaluation-approximate", "warning")]),
        (0.7911, [("evaluation-differs", "error")]),
        (0.0, [("evaluation-differs", "error")]),
    ],
)
def test_the_same_nearly_the_same_and_another_result(compared, auc, expected):
    assert worse(compared(holdout_auc=auc, holdout_disparity=0.08)) == expected


@pytest.mark.parametrize(
    ("disparity", "expected"),
    [
        (0.08 * (1 + 1e-5), [("evaluation-approximate", "warning")]),
        (0.0801, [("evaluation-approximate", "warning")]),
        (0.0809, [("evaluation-differs", "error")]),
    ],
)
def test_without_a_margin_little_is_nearly_the_same(compared, disparity, expected):
    assert worse(compared(holdout_auc=0.78, holdout_disparity=disparity)) == expected


def test_without_a_margin_the_policy_s_cap_holds_as_well(compared):
    strict = Policy(version=1, margins={"holdout_disparity": 0.00005})
    results = {"holdout_auc": 0.78, "holdout_disparity": 0.0801}
    assert worse(compared(policy=strict, **results)) == [("evaluation-differs", "error")]


def test_the_last_digits_of_another_processor_are_no_contradiction_whatever_the_unit(compared):
    euros = with_metrics(compared.declared, holdout_auc=("hold-out", 35_000.0))
    results = {"holdout_auc": 35_000.0 * (1 + 5e-5), "holdout_disparity": 0.08}
    assert worse(compared(declared=euros, **results)) == [("evaluation-approximate", "warning")]


@pytest.mark.parametrize(
    ("role", "found", "expected"),
    [
        ("hold-out", 1.2 * (1 + 1e-5), ("evaluation-approximate", "note")),
        ("hold-out", 0.7, ("evaluation-differs", "warning")),
        ("training", 1.2 * (1 + 1e-5), ("evaluation-approximate", "note")),
        ("training", 0.7, ("evaluation-differs", "note")),
    ],
)
def test_a_figure_on_which_nothing_rests_contradicts_nothing(compared, role, found, expected):
    timed = with_metrics(compared.declared, holdout_seconds=(role, 1.2))
    results = {"holdout_auc": 0.78, "holdout_disparity": 0.08, "holdout_seconds": found}
    assert codes(compared(declared=timed, **results).findings) == [expected]


def test_what_a_tolerance_is_declared_for_is_judged_without_a_gate(compared):
    free = replace(compared.index, gates=())
    assert worse(compared(index=free, holdout_auc=0.7)) == [("evaluation-differs", "error")]
    assert worse(compared(index=free, holdout_auc=0.78, holdout_disparity=0.5)) == [
        ("evaluation-differs", "warning")
    ]


def test_the_verifier_s_policy_caps_the_margin(compared):
    strict = Policy(version=1, margins={"holdout_auc": 0.001})
    results = {"holdout_auc": 0.785, "holdout_disparity": 0.08}
    assert worse(compared(policy=strict, **results)) == [("evaluation-differs", "error")]


def test_a_zero_is_the_same_within_an_absolute_bound(compared):
    zero = replace(
        compared.declared,
        metrics=tuple(
            replace(each, last=0.0) if each.name == "holdout_auc" else each
            for each in compared.declared.metrics
        ),
    )
    assert worse(compared(declared=zero, holdout_auc=1e-10, holdout_disparity=0.08)) == []


def test_a_decisive_metric_that_is_not_given_leaves_it_open(compared):
    outcome = compared(holdout_auc=0.78)
    (finding,) = outcome.findings
    assert (finding.code, finding.severity) == ("evaluation-incomplete", "warning")
    assert "'holdout_disparity'" in finding.message


def test_results_that_compare_with_nothing_leave_it_open(compared):
    assert worse(compared()) == [("evaluation-incomplete", "warning")]


def test_a_declared_value_that_is_not_finite_is_not_compared(compared):
    odd = replace(
        compared.declared,
        metrics=tuple(replace(each, last="NaN") for each in compared.declared.metrics),
    )
    outcome = compared(declared=odd, holdout_auc=0.78, holdout_disparity=0.08)
    assert outcome.scored.metrics == ()
    assert set(codes(outcome.findings)) == {
        ("evaluation-incomplete", "warning"),
        ("evaluation-unknown-metric", "note"),
    }


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1]",
        b"1",
        b'{"a": "0.5"}',
        b'{"a": true}',
        b'{"a": null}',
        b'{"a": {"b": 1}}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (MAX_RESULTS + 1),
    ],
)
def test_anything_but_an_object_of_finite_numbers_is_refused(tmp_path, data):
    (tmp_path / "m.json").write_bytes(data)
    with pytest.raises(MalformedError):
        read_results(tmp_path, "m.json", sandbox.Limits())


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret.json").write_text('{"a": 1}')
    (tmp_path / "out/m.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(MalformedError, match="no file"):
        read_results(tmp_path / "out", "m.json", sandbox.Limits())


def test_a_hard_link_is_hostile(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret.json").write_text('{"a": 1}')
    (tmp_path / "out/m.json").hardlink_to(tmp_path / "secret.json")
    with pytest.raises(HostileOutputError):
        read_results(tmp_path / "out", "m.json", sandbox.Limits())


@given(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)))
def test_what_was_written_is_what_is_read(tmp_path_factory, results):
    folder = tmp_path_factory.mktemp("out")
    (folder / "m.json").write_text(json.dumps(results))
    assert read_results(folder, "m.json", sandbox.Limits()) == results


# --- the check ----------------------------------------------------------------------------------------------------


def checked(scorer, command=None, **evaluation):
    section = {"command": command or COMMAND, **evaluation}
    scorer.provider.config["training"]["evaluation"] = section
    return list(evaluation_specification(scorer.evidence()))


def test_an_evaluation_that_starts_the_code_with_the_model_is_in_order(scorer):
    assert checked(scorer) == []
    del scorer.provider.config["training"]["evaluation"]
    assert list(evaluation_specification(scorer.evidence())) == []
    evidence = scorer.evidence()
    assert list(evaluation_specification(evidence)) == []
    untrained = replace(evidence, contents=replace(evidence.contents, training=None))
    assert list(evaluation_specification(untrained)) == []
    assert recorded_artefacts(untrained) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": [*COMMAND, "{input.labels}"]}, "{input.labels}"),
        (
            {"command": [*COMMAND, "{artefact.other.json}"]},
            "'other.json' is no artefact of the selected run",
        ),
        ({"results": "../metrics.json"}, "no plain path"),
        ({"results": "/etc/metrics.json"}, "no plain path"),
    ],
)
def test_an_evaluation_that_nobody_can_run_is_an_error(scorer, changes, words):
    (found,) = checked(scorer, **changes)
    assert (found.code, found.severity) == ("evaluation-unrunnable", "error")
    assert words in found.message


def test_an_evaluation_that_runs_other_code_is_a_warning(scorer):
    command = ["{python}", "{artefact.model.safetensors}"]
    (found,) = checked(scorer, command)
    assert (found.code, found.severity) == ("training-command-elsewhere", "warning")


def test_an_evaluation_that_is_not_given_the_model_is_a_warning(scorer):
    (found,) = checked(scorer, ["{python}", "score.py", "{input.data}"])
    assert (found.code, found.severity) == ("evaluation-without-model", "warning")


def with_artefacts(scorer, **contents):
    """The selected run with more artefacts; ``__`` stands for a dot, ``_s_`` for a slash."""
    files = []
    for name, data in contents.items():
        path = name.replace("__", ".").replace("_s_", "/")
        place = scorer.provider.root / "more" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(data)
        files.append(ArtefactFile(path=path, file=place))
    scorer.provider.edit("run-c", lambda run: replace(run, artefacts=(*run.artefacts, *files)))


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("metrics.jsonl", "metrics__jsonl"),
        ("plots/metrics/auc.tsv", "plots_s_metrics_s_auc__tsv"),
        ("trainer_state.json", "trainer_state__json"),
        ("files/wandb-summary.json", "files_s_wandb-summary__json"),
        ("eval_results.json", "eval_results__json"),
    ],
)
def test_an_evaluation_that_is_given_a_record_of_metrics_is_a_warning(scorer, path, key):
    with_artefacts(scorer, **{key: "{}"})
    (found,) = checked(scorer, [*COMMAND, f"{{artefact.{path}}}"])
    assert (found.code, found.severity) == ("evaluation-given-results", "warning")
    assert (found.subject, "a record of metrics" in found.message) == (path, True)
    assert "code itself" in found.remedy


def test_nor_may_it_be_given_the_histories_the_environment_or_the_predictions(scorer):
    with_artefacts(scorer, log__csv="", out__csv="", scores_of_gate__csv="")
    outputs = scorer.provider.config["training"]["outputs"]
    columns = {"label": "y", "score": "p"}
    outputs |= {"histories": ["l*.csv"], "predictions": {"path": "out.csv", **columns}}
    gate = scorer.provider.config["gates"][0]
    gate["sampling"] = {
        "kind": "predictions",
        "dataset_role": "holdout",
        "statistic": "auc",
        "predictions": {"path": "scores_of_gate.csv", **columns},
    }
    named = ["log.csv", "environment.json", "out.csv", "scores_of_gate.csv"]
    found = checked(scorer, [*COMMAND, *(f"{{artefact.{path}}}" for path in named)])
    assert {each.code for each in found} == {"evaluation-given-results"}
    assert [each.subject for each in found] == named


def test_what_prepares_the_data_is_an_input_of_scoring(scorer):
    with_artefacts(scorer, preprocessing__json='{"mean": 0.78, "scale": [0.08, 1.5]}')
    assert checked(scorer, [*COMMAND, "{artefact.preprocessing.json}"]) == []


@pytest.mark.parametrize(("figure", "given"), [(0.7812345678901, True), (0.78125, False)])
def test_a_declared_figure_of_many_digits_gives_its_file_away(scorer, figure, given):
    scorer.provider.edit("run-c", lambda run: tiny.with_value(run, "holdout_auc", figure))
    with_artefacts(scorer, preprocessing__json=json.dumps({"mean": 0, "bias": figure}))
    found = checked(scorer, [*COMMAND, "{artefact.preprocessing.json}"])
    assert [each.code for each in found] == ["evaluation-given-results"] * given


def test_a_large_file_is_not_searched(scorer, monkeypatch):
    figure = 0.7812345678901
    monkeypatch.setattr("bundler.checks.evaluation.LARGEST_READ", 10)
    scorer.provider.edit("run-c", lambda run: tiny.with_value(run, "holdout_auc", figure))
    with_artefacts(scorer, preprocessing__json=json.dumps({"bias": figure}))
    assert checked(scorer, [*COMMAND, "{artefact.preprocessing.json}"]) == []


def test_of_a_bundle_without_artefacts_names_alone_are_looked_at(scorer):
    with_artefacts(scorer, metrics__jsonl="{}", other__json="{}")
    scorer.provider.config["embed"] = "none"
    named = [*COMMAND, "{artefact.metrics.jsonl}", "{artefact.other.json}"]
    codes = [each.code for each in checked(scorer, named)]
    assert codes == ["evaluation-artefact-missing"] * 3 + ["evaluation-given-results"]
