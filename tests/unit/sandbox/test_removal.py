"""What a job left is measured and removed whatever its depth and its modes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bundler.sandbox import diagnosis, output, removal
from bundler.sandbox.removal import remove
from bundler.sandbox.workplace import sweep, workplace


def _nested(folder: Path, levels: int) -> None:
    """Make folders deeper than Python's stack and than a path may be."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        above, fd = fd, os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(above)
    with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:  # noqa: PTH123
        file.write("x")
    os.close(fd)


def test_a_measured_tree_may_be_deeper_than_the_stack(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    _nested(place, 3000)
    try:
        assert "nested more than" in output.excess(place, max_bytes=10**6, max_files=10**6)
        assert len(list(output.walk(place, max_depth=500))) == 501
    finally:
        remove(place)


def test_what_is_removed_may_be_deeper_than_the_stack_and_leaves_no_file_open(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    _nested(place, 3000)
    (place / "e").mkdir()
    _nested(place / "e", 2)
    before = len(os.listdir("/proc/self/fd"))
    remove(place)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


def test_removing_follows_no_link(tmp_path):
    for name in ("place", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside/kept").touch()
    (tmp_path / "place/link").symlink_to(tmp_path / "outside")
    (tmp_path / "place/loop").symlink_to(".")
    os.mkfifo(tmp_path / "place/fifo")
    (tmp_path / "root").symlink_to(tmp_path / "outside")
    remove(tmp_path / "root")
    remove(tmp_path / "place")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert (tmp_path / "outside/kept").exists()


_LOCKED = """
import os, sys
from pathlib import Path
from bundler.sandbox.removal import remove
place = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for mode in (0, 0o100, 0o400, 0o500, 0o300):
    for above in (place / "a", place / "a" / "b"):
        above.mkdir(parents=True)
        (above / "f").touch()
    for folder in (place / "a/b", place / "a", place):
        folder.chmod(mode)
    remove(place / "a")
    remove(place)
    assert not os.listdir(place), (mode, os.listdir(place))
"""


def test_folders_that_their_owner_closed_are_removed_by_a_user_that_is_not_root():
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "place"
        place.mkdir()
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", _LOCKED, str(place)],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(Path(output.__file__).parents[2])},
        )
        assert done.returncode == 0, done.stderr


def test_removing_never_raises(tmp_path, monkeypatch):
    remove(tmp_path / "none")
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    place = tmp_path / "place"
    (place / "a/b").mkdir(parents=True)

    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        for name in ("rmdir", "listdir", "unlink"):  # one after the other, and together
            patch.setattr(removal.os, name, refuse)
            remove(place)
    assert (place / "a/b").exists()


def test_removing_stops_where_a_folder_was_moved_away(tmp_path, monkeypatch):
    (tmp_path / "place/a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").touch()
    level = removal._level

    def move(fd, name):
        if name == "b":
            (tmp_path / "place/a/b").rename(tmp_path / "elsewhere/b")
        return level(fd, name)

    monkeypatch.setattr(removal, "_level", move)
    remove(tmp_path / "place")
    assert (tmp_path / "elsewhere/kept").exists()
    assert (tmp_path / "elsewhere/b").exists()


def test_a_workplace_goes_whatever_lies_in_it():
    with workplace(None) as place:
        _nested(place, 1500)
    assert not place.exists()


def test_why_nothing_was_left_needs_no_working_folder(tmp_path):
    assert diagnosis.why_nothing_was_left(tmp_path / "none", "store") == ""


def test_what_a_killed_verification_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, signal\nfrom bundler.sandbox.workplace import workplace\n"
        "with workplace(None) as place:\n"
        "    (place / 'out').mkdir()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    (left,) = tmp_path.iterdir()
    foreign = tmp_path / "aisdp-rerun-of-an-older-version"
    foreign.mkdir()
    with workplace(None) as place:
        sweep()
        assert not left.exists()
        assert place.exists(), "one that is in use"
        assert foreign.exists(), "one that cannot be told"
