"""A real git repository, read without changing it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.repository import CodeFile, Repository


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [
            "git",
            "-C",
            str(folder),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "protocol.file.allow=always",
            *arguments,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "sub" / "model.py").write_text("x = 1\n")
    (folder / "sub" / "deep" / "ä b\n.txt").write_text("odd\n")
    (folder / "sub" / "link").symlink_to("/etc/passwd")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_files_of_the_root(root):
    repository = Repository(root)
    files = {file.path: file for file in repository.files(repository.head())}
    assert set(files) == {"train.py", "sub/model.py", "sub/deep/ä b\n.txt", "sub/link"}
    wanted = [files["train.py"], files["sub/model.py"]]
    assert [data for _, data in repository.contents(wanted)] == [b"print(1)\n", b"x = 1\n"]
    assert [path for path, file in files.items() if file.kind != "file"] == ["sub/link"]
    assert files["sub/link"].kind == "link"


def test_files_of_a_subfolder_are_named_from_there(root):
    repository = Repository(root / "sub")
    paths = [file.path for file in repository.files(repository.head())]
    assert paths == ["deep/ä b\n.txt", "link", "model.py"]


def test_names_that_are_not_utf8(root):
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt"))).write_text("x")
    git(root, "add", ".")
    git(root, "commit", "-qm", "odd")
    repository = Repository(root)
    assert "\udcff.txt" in [file.path for file in repository.files(repository.head())]


def test_submodules_are_named_as_such(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-qm", "x", "--allow-empty")
    git(root, "submodule", "add", "-q", str(other), "vendor")
    git(root, "commit", "-qm", "submodule")
    repository = Repository(root)
    kinds = {file.path: file.kind for file in repository.files(repository.head())}
    assert kinds["vendor"] == "submodule"


def test_commits(root):
    repository = Repository(root)
    head = repository.head()
    assert len(head) == 40
    assert repository.has(head)
    assert repository.has(head[:12])
    assert not repository.has("f" * 40)
    assert not Repository(root / "sub").has("f" * 40)


@pytest.mark.parametrize(
    "commit",
    [
        "HEAD",
        "main",
        "",
        "HEAD~0",
        ":/first",
        "--output=/tmp/x",
        "-h",
        "--git-dir=/tmp",
        "abc",
        "main\0x",
        "a" * 65,
        "$(id)",
    ],
)
def test_what_is_no_hash_is_no_commit(root, commit):
    assert not Repository(root).has(commit)


def test_a_branch_that_looks_like_a_hash_is_no_commit(root):
    git(root, "branch", "deadbeef")
    assert not Repository(root).has("deadbeef")


def test_a_commit_without_the_folder(root):
    first = Repository(root).head()
    (root / "new").mkdir()
    (root / "new" / "x.py").write_text("")
    git(root, "add", ".")
    git(root, "commit", "-qm", "second")
    assert not Repository(root / "new").has(first)
    assert Repository(root / "new").has(Repository(root).head())


def test_a_shallow_clone_is_known(root, tmp_path):
    git(root, "commit", "-qm", "second", "--allow-empty")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", root.as_uri(), str(clone))
    assert Repository(clone).is_shallow()
    assert not Repository(root).is_shallow()


def test_what_git_tracks_is_named_from_the_folder(root):
    (root / "untracked.csv").write_text("")
    assert Repository(root / "sub").tracked() == ("deep/ä b\n.txt", "link", "model.py")
    assert "untracked.csv" not in Repository(root).tracked()


def test_an_option_in_place_of_a_commit_writes_nothing(root, tmp_path):
    target = tmp_path / "written"
    with pytest.raises(SourceError):
        Repository(root).files(f"--output={target}")
    assert not target.exists()


def test_dirty_or_clean(root):
    repository = Repository(root / "sub")
    assert not repository.is_dirty()
    (root / "train.py").write_text("changed outside of the folder\n")
    assert not repository.is_dirty()
    (root / "sub" / "new.py").write_text("")
    assert repository.is_dirty()
    assert Repository(root).is_dirty()


def test_nothing_is_written_into_the_repository(root):
    def state():
        return {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")}

    (root / "train.py").touch()
    before = state()
    repository = Repository(root)
    repository.is_dirty()
    repository.files(repository.head())
    repository.remote()
    assert state() == before


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:s3cret@host/a.git", "https://host/a.git"),
        ("https://user:p@ss@host/a.git", "https://host/a.git"),
        ("git@host:a.git", "git@host:a.git"),
    ],
)
def test_the_remote_without_its_password(root, url, shown):
    repository = Repository(root)
    assert repository.remote() is None
    git(root, "remote", "add", "origin", url)
    assert repository.remote() == shown


def test_before_the_first_commit(tmp_path):
    git(tmp_path, "init", "-q")
    assert Repository(tmp_path).head() is None


def test_no_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SourceError, match="not a git repository") as caught:
        Repository(tmp_path)
    assert "training.code" in caught.value.remedy
    with pytest.raises(SourceError, match="cannot change to"):
        Repository(tmp_path / "missing")


def test_git_is_not_installed(root, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="git is not installed"):
        Repository(root)


def test_a_hook_cannot_lead_to_another_repository(root, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    expected = Repository(root).head()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert Repository(root).head() == expected


def test_bytes_that_the_clone_does_not_have_are_an_error(root):
    repository = Repository(root)
    gone = CodeFile(path="train.py", blob="0" * 40)
    with pytest.raises(SourceError, match="does not have the bytes"):
        list(repository.contents([gone]))
