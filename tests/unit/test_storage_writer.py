"""Writing: the whole bundle under its name, or nothing at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.errors import MalformedError, OutputError, UsageError
from bundler.storage import open_bag
from bundler.storage.archive import MAX_MEMBER
from bundler.storage.writer import staged, write_archive, write_file


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(folder: Path) -> None:
    for path, data in {"data/b": b"two" * 400, "bagit.txt": b"x" * 512, "data/a": b""}.items():
        write_file(folder, path, data)


def test_what_the_block_made_appears_under_its_name(tmp_path):
    with staged(tmp_path / "new" / "bag") as folder:
        fill(folder)
        assert not (tmp_path / "new" / "bag").exists()
    assert listing(tmp_path / "new") == [
        "bag",
        "bag/bagit.txt",
        "bag/data",
        "bag/data/a",
        "bag/data/b",
    ]


def test_one_file_can_be_made_as_well(tmp_path):
    with staged(tmp_path / "bag.tar") as file:
        file.write_bytes(b"x")
    assert listing(tmp_path) == ["bag.tar"]


def test_others_do_not_see_the_half_made_bag(tmp_path):
    with staged(tmp_path / "bag") as folder:
        folder.mkdir()
        assert folder.parent.name.startswith(".bag.")
        assert folder.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, UsageError("no"), RuntimeError, MemoryError]
)
@pytest.mark.parametrize("target", ["bag", "new/deep/bag"])
def test_nothing_is_left_behind_whatever_happens_in_the_block(error, target, tmp_path):
    (tmp_path / "other").write_text("")
    with pytest.raises(BaseException) as raised, staged(tmp_path / target) as folder:
        fill(folder)
        raise error
    assert raised.type is (error if isinstance(error, type) else type(error))
    assert listing(tmp_path) == ["other"]


def test_a_folder_that_was_made_and_is_used_by_somebody_else_stays(tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path / "new" / "bag"):
        (tmp_path / "new" / "theirs").write_text("")
        raise RuntimeError
    assert listing(tmp_path) == ["new", "new/theirs"]


def test_an_error_of_writing_names_the_file_and_what_to_do(tmp_path):
    with pytest.raises(OutputError) as refused, staged(tmp_path / "bag") as folder:
        write_file(folder, "data/a", b"")
        write_file(folder, "data/a/b", b"")
    assert "cannot write" in refused.value.message
    assert "data/a" in refused.value.message
    assert refused.value.remedy
    assert listing(tmp_path) == []


def test_a_block_that_makes_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputError), staged(tmp_path / "bag"):
        pass
    assert listing(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from bundler.storage.writer import staged, write_file
with staged(Path(sys.argv[1])) as folder:
    write_file(folder, "data/a", b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    for name in ("bag", "bag.tar"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)])
    assert len(list(tmp_path.iterdir())) == 2
    theirs = tmp_path / ".bag.note.partial"
    theirs.mkdir()
    with staged(tmp_path / "bag") as folder:
        folder.mkdir()
    (other,) = tmp_path.glob(".bag.tar.*.partial")
    assert {path.name for path in tmp_path.iterdir()} == {"bag", other.name, theirs.name}


def test_what_a_running_process_writes_is_left_alone(tmp_path):
    with staged(tmp_path / "bag") as ours:
        fill(ours)
        with pytest.raises(RuntimeError), staged(tmp_path / "bag"):
            raise RuntimeError
    assert listing(tmp_path / "bag") == ["bagit.txt", "data", "data/a", "data/b"]
    assert listing(tmp_path) == ["bag", *(f"bag/{each}" for each in listing(tmp_path / "bag"))]


@pytest.mark.parametrize("kind", ["link", "file", "somebody else's"])
def test_only_an_own_folder_is_cleared_away(kind, tmp_path):
    left = tmp_path / ".bag.abcd1234.partial"
    (tmp_path / "kept").mkdir()
    if kind == "link":
        left.symlink_to("kept")
    elif kind == "file":
        left.write_text("")
    else:
        left.mkdir()
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(left, 65534, 65534)
    with staged(tmp_path / "bag") as folder:
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "bag", "kept"]


def test_a_folder_that_was_taken_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, times = fcntl.flock, []

    def late(descriptor, operation):
        if operation == fcntl.LOCK_EX and not times:
            times.append(1)
            (made,) = tmp_path.glob(".bag.*.partial")
            made.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with staged(tmp_path / "bag") as folder:
        fill(folder)
    assert times
    assert {path.name for path in tmp_path.iterdir()} == {"bag"}


def test_a_disk_without_locks_is_written_to_and_nothing_is_cleared_there(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".bag.abcd1234.partial").mkdir()
    with staged(tmp_path / "bag") as folder:
        folder.mkdir()
    assert listing(tmp_path) == [".bag.abcd1234.partial", "bag"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "link", "broken link"])
def test_an_existing_target_is_refused_before_the_block_runs(kind, tmp_path):
    target = tmp_path / "bag"
    if kind == "file":
        target.write_text("precious")
    elif "folder" in kind:
        target.mkdir()
    else:
        target.symlink_to("nowhere" if kind == "broken link" else ".")
    if kind == "folder":
        (target / "precious").write_text("")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="never overwritten") as refused, staged(target):
        pytest.fail("the block ran")
    assert refused.value.remedy
    assert listing(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "empty folder"])
def test_a_target_that_somebody_made_meanwhile_is_not_overwritten(kind, tmp_path):
    target = tmp_path / "bag"
    with pytest.raises(OutputError, match="never overwritten"), staged(target) as result:
        if kind == "file":
            result.write_text("ours")
            target.write_text("theirs")
        else:
            result.mkdir()
            (result / "ours").write_text("")
            target.mkdir()
    assert listing(tmp_path) == ["bag"]
    assert target.is_dir() or target.read_text() == "theirs"


def test_a_target_below_a_file_or_with_too_long_a_name_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (
        tmp_path / "file" / "bag",
        tmp_path / ("a" * 250),
        tmp_path / "new" / ("a" * 250),
    ):
        with pytest.raises(OutputError), staged(target):
            pytest.fail("the block ran")
    assert listing(tmp_path) == ["file"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("as_tar", [False, True])
def test_a_full_disk_is_an_error_and_leaves_the_disk_as_it_was(as_tar, small_disk):
    free = os.statvfs(small_disk).f_bfree
    target = small_disk / "new" / "bag"
    with pytest.raises(OutputError) as refused, staged(target) as result:
        folder = result.with_name("folder") if as_tar else result
        write_file(folder, "data/a", b"x" * 40_000)
        if as_tar:
            write_archive(folder, result)
        write_file(folder, "data/b", b"x" * 40_000)
    assert "No space left on device" in refused.value.message
    assert "free space" in refused.value.remedy
    assert listing(small_disk) == []
    assert os.statvfs(small_disk).f_bfree == free


def test_a_whole_build_on_a_full_disk_leaves_nothing(provider, small_disk):
    (small_disk / "ballast").write_bytes(b"x")
    with pytest.raises(OutputError, match="No space left"):
        provider.build(small_disk / "bag")
    assert listing(small_disk) == ["ballast"]


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", ".hidden", "a//b", "", "a\nb"])
def test_no_path_leads_out_of_the_bag(path, tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(MalformedError) as refused:
        write_file(tmp_path / "bag", path, b"x")
    assert refused.value.code == "path-unsafe"
    assert listing(tmp_path) == ["bag"]


def test_the_archive_holds_what_the_folder_holds(tmp_path):
    fill(tmp_path / "bag")
    write_archive(tmp_path / "bag", tmp_path / "bag.tar")
    folder, archive = open_bag(tmp_path / "bag"), open_bag(tmp_path / "bag.tar")
    assert archive.entries() == folder.entries()
    assert archive.problems() == folder.problems() == ()
    for entry in folder.entries():
        with folder.open(entry.path) as left, archive.open(entry.path) as right:
            assert left.read() == right.read()


def test_the_archive_does_not_depend_on_times_modes_or_order(tmp_path):
    fill(tmp_path / "first")
    for path in ("data/a", "bagit.txt", "data/b"):
        write_file(tmp_path / "second", path, (tmp_path / "first" / path).read_bytes())
        os.utime(tmp_path / "second" / path, (1, 1))
        os.chmod(tmp_path / "second" / path, 0o600)
    for name in ("first", "second"):
        write_archive(tmp_path / name, tmp_path / f"{name}.tar")
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_two_builds_give_the_same_bytes_as_folder_and_as_archive(provider, tmp_path):
    for number in ("1", "2"):
        provider.build(tmp_path / number / "bag")
        provider.build(tmp_path / number / "bag.tar", as_tar=True)
    names = listing(tmp_path / "1")
    assert names == listing(tmp_path / "2")
    for name in names:
        first = tmp_path / "1" / name
        assert first.is_dir() or first.read_bytes() == (tmp_path / "2" / name).read_bytes()
    folder, archive = open_bag(tmp_path / "1/bag"), open_bag(tmp_path / "1/bag.tar")
    assert folder.entries() == archive.entries()


def test_a_file_beyond_what_tar_can_carry_is_refused_with_what_to_do(tmp_path):
    fill(tmp_path / "bag")
    try:
        os.truncate(tmp_path / "bag/data/a", MAX_MEMBER + 1)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")
    with pytest.raises(OutputError, match="data/a is larger") as refused:
        write_archive(tmp_path / "bag", tmp_path / "bag.tar")
    assert "--tar" in refused.value.remedy
    assert not (tmp_path / "bag.tar").exists()
