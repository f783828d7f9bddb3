"""What is shipped for a re-run, with a real git repository."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundler import training
from bundler.config import load
from bundler.errors import GapsError, SourceError, UsageError
from bundler.records import CodeVersion
from bundler.storage import open_bag
from bundler.verify import verify
from tests import tiny


def git(provider, *arguments):
    folder = provider.root / "repository"
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(provider, **files):
    for name, text in files.items():
        path = provider.root / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(provider, "add", ".")
    git(provider, "commit", "-qm", "more")
    head = git(provider, "rev-parse", "HEAD")
    provider.runs = [replace(run, code=replace(run.code, commit=head)) for run in provider.runs]


def gaps(built):
    return {gap.code: gap for gap in built.index.gaps}


def code_in(folder):
    return sorted(
        path.relative_to(folder / "data/code").as_posix()
        for path in (folder / "data/code").rglob("*")
        if path.is_file()
    )


def test_the_code_is_that_of_the_recorded_commit(provider, tmp_path):
    (provider.root / "repository" / "train.py").write_text("changed and not committed\n")
    provider.build(tmp_path / "b")
    assert (tmp_path / "b/data/code/train.py").read_text() == tiny.TRAIN


@pytest.mark.parametrize(
    "recorded", [None, "f" * 40, "main", "--output=/tmp/aisdp-injected", "HEAD"]
)
def test_a_commit_that_is_not_there_is_a_gap(recorded, provider, tmp_path):
    provider.edit("run-c", lambda run: replace(run, code=CodeVersion(commit=recorded, dirty=False)))
    built = provider.build(tmp_path / "b")
    assert gaps(built)["code-commit-missing"].level == "required"
    assert "train.py" in code_in(tmp_path / "b")
    assert not Path("/tmp/aisdp-injected").exists()


def test_a_shallow_clone_is_told_how_to_get_the_commit(provider, tmp_path):
    git(provider, "commit", "-qm", "later", "--allow-empty")
    whole = provider.root / "repository"
    origin = whole.rename(provider.root / "origin")
    clone = ["git", "clone", "-q", "--depth", "1", origin.as_uri(), str(whole)]
    subprocess.run(clone, check=True, capture_output=True)
    gap = gaps(provider.build(tmp_path / "a"))["code-commit-missing"]
    assert "git fetch --unshallow" in gap.remedy
    git(provider, "fetch", "-q", "--unshallow")
    assert "code-commit-missing" not in gaps(provider.build(tmp_path / "b"))


def test_a_deeper_clone_is_no_remedy_where_no_commit_is_recorded(provider, tmp_path):
    provider.edit("run-c", lambda run: replace(run, code=CodeVersion(dirty=False)))
    gap = gaps(provider.build(tmp_path / "b"))["code-commit-missing"]
    assert "unshallow" not in gap.remedy


def test_files_that_cannot_stand_in_a_bag_are_a_gap(provider, tmp_path):
    (provider.root / "repository" / "link").symlink_to("/etc/passwd")
    commit(
        provider,
        **{
            ".env": "SECRET=1",
            "a b.py": "",
            "ä.py": "",
            "ok.py": "",
            "Train.py": "",
            "d/" * 14 + "x.py": "",
        },
    )
    built = provider.build(tmp_path / "b")
    # Of two names that differ by case alone, the first in order is shipped.
    assert code_in(tmp_path / "b") == ["Train.py", "data.csv", "ok.py", "requirements.txt"]
    gap = gaps(built)["code-left-out"]
    assert gap.level == "recommended"
    assert gap.subject.startswith("6 files: '.env', 'a b.py', 'd/d/")


def test_stores_inside_the_code_folder_are_no_code(provider, tmp_path):
    commit(provider, **{"store/db.txt": "runs", "stored.py": ""})
    provider.config["sources"][0] |= {"store": "repository/store", "artefacts": "elsewhere"}
    (provider.root / "elsewhere").mkdir()
    provider.build(tmp_path / "b")
    assert code_in(tmp_path / "b") == ["data.csv", "requirements.txt", "stored.py", "train.py"]


def test_a_folder_of_the_repository(provider, tmp_path):
    commit(provider, **{"src/model.py": "x = 1\n"})
    provider.config["training"]["code"] = "repository/src"
    provider.build(tmp_path / "b")
    assert code_in(tmp_path / "b") == ["model.py"]


def test_the_specification(provider, tmp_path):
    provider.build(tmp_path / "b")
    spec = json.loads((tmp_path / "b/data/spec/training.json").read_text())
    assert spec["run"] == "run-c"
    assert spec["seed"] == 42
    assert spec["parameters"] == {"model": "mlp", "rate": "0.01", "seed": "42"}
    assert spec["lock"] == "data/environment/requirements.txt"
    assert spec["expected_seconds"] == 1.0
    assert [each["path"] for each in spec["inputs"]] == ["data/datasets/data/data.csv"]


def test_times_that_run_backwards_or_are_missing(provider, tmp_path):
    provider.edit("run-c", lambda run: replace(run, ended=run.started - 5000))
    provider.build(tmp_path / "a")
    provider.edit("run-c", lambda run: replace(run, ended=None))
    provider.build(tmp_path / "b")
    found = [
        json.loads((tmp_path / n / "data/spec/training.json").read_text())["expected_seconds"]
        for n in "ab"
    ]
    assert found == [0.0, None]


def test_without_a_section_training(provider, tmp_path):
    del provider.config["training"]
    built = provider.build(tmp_path / "b")
    assert {"training-spec", "code-included", "lock"} <= set(gaps(built))
    assert not (tmp_path / "b/data/code").exists()


def test_without_a_lock(provider, tmp_path):
    del provider.config["training"]["lock"]
    built = provider.build(tmp_path / "b")
    assert {"lock", "lock-hashed"} <= set(gaps(built))


def test_hashes_alone_do_not_show_that_the_list_is_whole(provider, tmp_path):
    (provider.root / "lock.txt").write_text("numpy==2.0.0 --hash=sha256:" + "0" * 64 + "\n")
    provider.config["training"]["lock"] = "lock.txt"
    assert set(gaps(provider.build(tmp_path / "b"))) == {"lock-hashed"}


def test_a_lock_with_the_graph(provider, tmp_path):
    lock = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "numpy"
version = "2.0.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://files.pythonhosted.org/numpy.whl", hash = "sha256:%s" }]
""" % ("0" * 64)
    (provider.root / "uv.lock").write_text(lock)
    provider.config["training"]["lock"] = "uv.lock"
    assert gaps(provider.build(tmp_path / "b")) == {}
    assert (tmp_path / "b/data/environment/uv.lock").read_text() == lock


def test_a_lock_that_cannot_be_read_is_refused(provider, tmp_path):
    (provider.root / "uv.lock").write_text("[[package]\n")
    provider.config["training"]["lock"] = "uv.lock"
    with pytest.raises(SourceError, match=r"training\.lock: .*line 1"):
        provider.build(tmp_path / "b")


def test_tensors_that_the_run_does_not_have_are_a_gap(provider, tmp_path):
    provider.config["training"]["outputs"]["tensors"] = ["model.safetensors", "other.safetensors"]
    gap = gaps(provider.build(tmp_path / "b"))["tensors-missing"]
    assert "'other.safetensors'" in gap.subject + gap.message
    assert "model.safetensors'" not in gap.message.replace("'other.safetensors'", "")


def refused(provider, tmp_path, error):
    with pytest.raises(error) as caught:
        provider.build(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize("location", ["/etc", "..", "a/../../b", "."])
def test_an_output_outside_of_the_output_folder_is_a_gap(location, provider, tmp_path):
    provider.config["training"]["outputs"]["location"] = location
    gap = gaps(provider.build(tmp_path / "b"))["training-unrunnable"]
    assert gap.level == "required"
    assert "is no plain path below {out}" in gap.message


@pytest.mark.parametrize("section", ["command", "environment"])
def test_a_placeholder_that_means_nothing_is_a_gap(section, provider, tmp_path):
    if section == "command":
        provider.config["training"]["command"].append("{parameter.rat}")
    else:
        provider.config["training"]["environment"] = {"X": "{parameter.rat}"}
    gap = gaps(provider.build(tmp_path / "b"))["training-unrunnable"]
    assert "{parameter.rat}" in gap.message
    with pytest.raises(GapsError):
        provider.build(tmp_path / "c", strict=True)


def test_an_output_that_no_verifier_can_read(provider, tmp_path):
    provider.config["training"]["outputs"]["tracker"] = "excel"
    with pytest.raises(UsageError, match="no importer for 'excel'"):
        provider.build(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("code", "missing", "is not a folder"),
        ("lock", "missing.txt", "training.lock: cannot read"),
        ("lock", ".", "Is a directory"),
        ("inputs", {"data": "missing.csv"}, "training.inputs.data: cannot read"),
        ("inputs", {"data": "repository"}, "Is a directory"),
    ],
)
def test_paths_that_are_not_there(key, value, words, provider, tmp_path):
    provider.config["training"][key] = value
    assert words in refused(provider, tmp_path, SourceError)


@pytest.mark.parametrize("name", ["../../x", "a b", "ä", ".x", "a/../b"])
def test_input_names_that_cannot_stand_in_a_bag(name, provider, tmp_path):
    provider.config["training"]["inputs"] = {name: "repository/data.csv"}
    assert "cannot stand in a bag" in refused(provider, tmp_path, UsageError)


def test_a_file_name_that_cannot_stand_in_a_bag(provider, tmp_path):
    (provider.root / "repository/data.csv").rename(provider.root / "the data.csv")
    provider.config["training"]["inputs"] = {"data": "the data.csv"}
    assert "cannot stand in a bag" in refused(provider, tmp_path, UsageError)


def test_no_repository(provider, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (provider.root / "plain").mkdir()
    provider.config["training"]["code"] = "plain"
    assert "not a git repository" in refused(provider, tmp_path, SourceError)


def test_a_repository_without_a_commit(provider, tmp_path):
    subprocess.run(["git", "init", "-q", str(provider.root / "fresh")], check=True)
    provider.config["training"]["code"] = "fresh"
    assert "has no commit" in refused(provider, tmp_path, SourceError)


def test_a_selected_run_without_a_seed(provider, tmp_path):
    provider.edit("run-c", lambda run: replace(run, parameters={"rate": "1"}))
    assert "records no seed" in refused(provider, tmp_path, UsageError)


# --- submodules -----------------------------------------------------------------------------------------------------


def git_in(folder, *words):
    options = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "protocol.file.allow=always",
    ]
    done = subprocess.run(
        ["git", "-C", str(folder), *options, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def with_submodule(provider, tmp_path):
    """The provider's repository with a submodule; all runs were made from the commit that has it."""
    library = tmp_path / "library"
    library.mkdir()
    git_in(library, "init", "-q")
    (library / "tools.py").write_text("tools = 1\n")
    git_in(library, "add", ".")
    git_in(library, "commit", "-qm", "library")
    repository = provider.root / "repository"
    git_in(repository, "submodule", "add", "-q", str(library), "lib")
    git_in(repository, "commit", "-qm", "with library")
    commit = git_in(repository, "rev-parse", "HEAD")
    provider.runs = [replace(run, code=replace(run.code, commit=commit)) for run in provider.runs]
    return provider


def findings_of(folder):
    report = verify(
        lambda: open_bag(folder), "b", tiny.TRUST, clock=lambda: "2026-11-25T00:00:00.000Z"
    )
    return {each.code: each.severity for each in report.findings()}


def test_the_files_of_a_submodule_are_shipped_and_held_against_its_commit(with_submodule, tmp_path):
    with_submodule.build(tmp_path / "b")
    assert (tmp_path / "b/data/code/lib/tools.py").read_text() == "tools = 1\n"
    spec = json.loads((tmp_path / "b/data/spec/training.json").read_text())
    assert [each["at"] for each in spec["code_trees"]] == ["", "lib"]
    found = findings_of(tmp_path / "b")
    assert not {code for code in found if code.startswith("code-") and code != "code-left-out"}


def test_a_submodule_that_is_not_checked_out_is_a_gap(with_submodule, tmp_path):
    repository = with_submodule.root / "repository"
    git_in(repository, "submodule", "deinit", "-q", "-f", "lib")
    built = with_submodule.build(tmp_path / "b")
    assert "code-left-out" in {gap.code for gap in built.index.gaps}
    assert not (tmp_path / "b/data/code/lib").exists()
    assert "code-file" not in findings_of(tmp_path / "b")


def test_a_submodule_that_travels_along_is_no_gap(with_submodule, tmp_path):
    built = with_submodule.build(tmp_path / "b")
    assert "lib" not in str([gap for gap in built.index.gaps if gap.code == "code-left-out"])


def test_a_name_that_is_not_utf_8_cannot_be_listed(provider, tmp_path):
    repository = provider.root / "repository"
    (repository / os.fsdecode(b"\xff.txt")).write_text("x")
    git_in(repository, "add", ".")
    git_in(repository, "commit", "-qm", "odd")
    commit = git_in(repository, "rev-parse", "HEAD")
    provider.runs = [replace(run, code=replace(run.code, commit=commit)) for run in provider.runs]
    built = provider.build(tmp_path / "b")
    assert "code-unlisted" in {gap.code for gap in built.index.gaps}
    assert findings_of(tmp_path / "b")["training-code-commit"] == "warning"


# --- what must not be handed out, and how the output is read --------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_SECRET_ACCESS_KEY": "wJalr"},
        {"URL": "https://anna:pw@host/"},
        {"X": "AKIA" + "A" * 16},
    ],
)
def test_a_credential_in_the_environment_is_refused(environment, provider, tmp_path):
    provider.config["training"]["environment"] = environment
    with pytest.raises(UsageError, match="looks like a credential"):
        provider.build(tmp_path / "b")


def test_a_credential_in_the_command_is_refused(provider, tmp_path):
    provider.config["training"]["command"].append("https://anna:pw@host/")
    with pytest.raises(UsageError, match=r"training\.command looks like a credential"):
        provider.build(tmp_path / "b")


def test_a_credential_in_the_code_is_a_required_gap(provider, tmp_path):
    repository = provider.root / "repository"
    (repository / "settings.py").write_text("KEY = 'AKIA" + "A" * 16 + "'\n")
    git_in(repository, "add", ".")
    git_in(repository, "commit", "-qm", "key")
    commit = git_in(repository, "rev-parse", "HEAD")
    provider.runs = [replace(run, code=replace(run.code, commit=commit)) for run in provider.runs]
    gap = gaps(provider.build(tmp_path / "b"))["credential-embedded"]
    assert (gap.level, gap.subject) == ("required", "1 file: data/code/settings.py")


def test_a_parameter_that_was_taken_out_cannot_be_trained_with(provider, tmp_path):
    provider.runs = [
        replace(run, parameters={**run.parameters, "path": "/home/anna/data.csv"})
        for run in provider.runs
    ]
    provider.config["training"]["command"].append("{parameter.path}")
    gap = gaps(provider.build(tmp_path / "b"))["training-unrunnable"]
    assert "parameter path was taken out" in gap.message


def test_the_output_is_read_as_the_source_is(provider, tmp_path):
    provider.config["sources"][0] |= {"rename": {"tags.dirty": "tags.git"}, "histories": ["*.csv"]}
    provider.build(tmp_path / "b")
    spec = json.loads((tmp_path / "b/data/spec/training.json").read_text())
    assert spec["outputs"]["rename"] == {"tags.dirty": "tags.git"}
    assert spec["outputs"]["histories"] == ["*.csv"]


def test_a_rule_about_what_was_taken_out_is_refused(provider, tmp_path):
    provider.runs = [replace(run, tags={**run.tags, "user": "anna"}) for run in provider.runs]
    provider.config["selection"]["eligible"] = {"tags.user": ["anna"]}
    with pytest.raises(UsageError, match=r"tags\.user was taken out") as error:
        provider.build(tmp_path / "b")
    assert "keep_personal_data: [user-name]" in error.value.remedy
    provider.config["keep_personal_data"] = ["user-name"]
    provider.build(tmp_path / "kept")


def test_taking_out_more_than_the_release_before_is_no_change_of_a_result(provider, tmp_path):
    provider.runs = [
        replace(run, parameters={**run.parameters, "path": "/home/anna/x"}) for run in provider.runs
    ]
    provider.config["keep_personal_data"] = ["home-path"]
    provider.build(tmp_path / "one")
    provider.config["keep_personal_data"] = []
    provider.build(tmp_path / "two", previous=tmp_path / "one")
    assert "log-result-amended" not in findings_of(tmp_path / "two")


@pytest.mark.parametrize("value", ["", "offline", "dummy", "{parameter.rate}"])
def test_what_a_tracker_is_put_off_with_is_no_credential(value, provider, tmp_path):
    provider.config["training"]["environment"] = {"WANDB_API_KEY": value}
    provider.build(tmp_path / "b")


def test_sources_that_are_read_in_several_ways_leave_the_rerun_open(provider, tmp_path):
    config = load(provider.write_config())
    (source,) = config.sources
    selected = SimpleNamespace(source=provider.runs[0].source)
    alike = replace(source, rename={"tags.dirty": "tags.git"})
    both = replace(config, sources=(alike, replace(alike, store="other")))
    assert training.outputs_of(both, config.training, selected).rename == alike.rename
    apart = replace(config, sources=(alike, source))
    with pytest.raises(UsageError, match="read in several ways"):
        training.outputs_of(apart, config.training, selected)
