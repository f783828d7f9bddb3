"""Ids of files and folders as git gives them: git itself is the oracle."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import MalformedError
from bundler.git_trees import blob_id, tree_id
from bundler.repository import Repository
from bundler.spec import TreeEntry


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def entries(repository: Repository, commit: str) -> list[TreeEntry]:
    return [
        TreeEntry(mode=file.mode, id=file.blob, path=file.path) for file in repository.files(commit)
    ]


@pytest.fixture(params=["sha1", "sha256"])
def repository(request, tmp_path) -> Path:
    git(tmp_path, "init", "-q", f"--object-format={request.param}")
    for path in ("a.py", "a/b.py", "a-b", "a.b/c", "tool.sh", "z/é ü.txt", "z/deep/er/x"):
        file = tmp_path / path if path != "a/b.py" else tmp_path / "A" / "b.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("a.py")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    return tmp_path


def test_a_tree_is_what_git_says(repository):
    opened = Repository(repository)
    head = opened.head()
    assert tree_id(entries(opened, head), head) == git(repository, "rev-parse", "HEAD^{tree}")
    assert opened.tree(head) == git(repository, "rev-parse", "HEAD^{tree}")
    below = Repository(repository / "z")
    assert below.prefix() == "z"
    assert tree_id(entries(below, head), head) == git(repository, "rev-parse", "HEAD:z")


def test_a_file_is_what_git_says(repository):
    named = {file.path: file.blob for file in Repository(repository).files("HEAD")}
    assert blob_id(b"a.py", named["a.py"]) == named["a.py"]
    assert blob_id(b"a.px", named["a.py"]) != named["a.py"]


def test_an_empty_folder_has_the_id_that_git_knows():
    assert tree_id([], "0" * 40) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a//b",), ("",), ("/a",)]
)
def test_a_listing_that_is_no_tree_is_refused(paths):
    listing = [TreeEntry(mode="100644", id="0" * 40, path=path) for path in paths]
    with pytest.raises(MalformedError) as error:
        tree_id(listing, "0" * 40)
    assert error.value.code == "code-tree"


def test_a_listing_deeper_than_the_stack():
    deep = "/".join(["d"] * 2_000)
    assert len(tree_id([TreeEntry(mode="100644", id="0" * 40, path=deep)], "0" * 40)) == 40


@given(
    st.sets(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=9))
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_names_in_any_order(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("any")
    git(folder, "init", "-q")
    listing = [
        TreeEntry(mode="100644", id=f"{n:040x}", path=name) for n, name in enumerate(names, 1)
    ]
    wanted = subprocess.run(
        ["git", "-C", str(folder), "mktree", "--missing", "-z"],
        input="".join(f"100644 blob {e.id}\t{e.path}\0" for e in listing).encode(),
        capture_output=True,
    )
    if wanted.returncode == 0:  # git knows names that no file can have, such as ..
        assert tree_id(listing, "0" * 40) == wanted.stdout.decode().strip()
