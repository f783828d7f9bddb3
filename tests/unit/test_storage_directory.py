"""A folder as a bag, read as hostile: before, during and after the walk."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundler.errors import MalformedError
from bundler.storage import ArchiveBag, DirectoryBag, Entry, Limits, MemoryBag, open_bag
from bundler.storage.model import shown

FILES = {"bagit.txt": b"b", "data/a": b"one", "data/deep/er/b": b"two"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bag"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def read(bag, path: str) -> bytes:
    with bag.open(path) as file:
        return file.read()


def refusal(call, *arguments) -> MalformedError:
    with pytest.raises(MalformedError) as refused:
        call(*arguments)
    return refused.value


def codes(bag) -> list[tuple[str, str]]:
    return [(problem.code, problem.subject) for problem in bag.problems()]


def test_a_plain_folder_is_a_bag_without_problems(root):
    bag = open_bag(root)
    assert isinstance(bag, DirectoryBag)
    assert bag.name == "bag"
    assert bag.problems() == ()
    assert bag.entries() == tuple(Entry(path=path, size=len(FILES[path])) for path in sorted(FILES))
    assert {path: read(bag, path) for path in FILES} == FILES


def test_a_bag_in_memory_says_the_same(root):
    bag, twin = open_bag(root), MemoryBag(FILES)
    assert twin.entries() == bag.entries()
    assert twin.problems() == bag.problems()
    assert {path: read(twin, path) for path in FILES} == FILES


def test_a_relative_path_has_a_name(root, monkeypatch):
    monkeypatch.chdir(root)
    assert open_bag(Path()).name == "bag"


# --- what may stand at the path of a bundle ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["absent", "bag/bagit.txt/x", "bag/absent/x"])
def test_nothing_at_the_path_is_bundle_missing(root, name):
    error = refusal(open_bag, root.parent / name)
    assert error.code == "bundle-missing"
    assert error.remedy


def test_a_fifo_at_the_path_is_bundle_kind_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(open_bag, tmp_path / "pipe").code == "bundle-kind"
    assert refusal(ArchiveBag, tmp_path / "pipe", Limits()).code == "bundle-kind"


def test_a_socket_or_device_at_the_path_is_bundle_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert refusal(open_bag, Path("socket")).code == "bundle-kind"
    assert refusal(open_bag, Path("/dev/null")).code == "bundle-kind"


@pytest.mark.parametrize("target", ["bag", "bag/bagit.txt", "nowhere"])
def test_a_link_at_the_path_is_bundle_symlink(root, target):
    (root.parent / "link").symlink_to(root.parent / target)
    assert refusal(open_bag, root.parent / "link").code == "bundle-symlink"


def test_a_name_that_the_system_refuses_is_bundle_unreadable(tmp_path):
    assert refusal(open_bag, tmp_path / ("a" * 300)).code == "bundle-unreadable"


def test_a_folder_swapped_for_a_link_before_it_is_opened_is_bundle_unreadable(root):
    moved = root.rename(root.with_name("moved"))
    root.symlink_to(moved)
    assert refusal(DirectoryBag, root, Limits()).code == "bundle-unreadable"


# --- rights ------------------------------------------------------------------------------------------------------


@contextmanager
def as_nobody():
    """The rights of nobody, for root reads everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public():
    """A bag that nobody can reach; pytest's own folders are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for path, data in FILES.items():
            file = Path(folder) / "bag" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        yield Path(folder) / "bag"
        for path in ("bag", "bag/data", "bag/data/deep"):
            os.chmod(Path(folder) / path, 0o755)


def test_a_file_without_the_right_to_read_is_file_unreadable(public):
    os.chmod(public / "data/a", 0)
    with as_nobody():
        bag = open_bag(public)
        error = refusal(read, bag, "data/a")
    assert error.code == "file-unreadable"
    assert "data/a" in error.message


@pytest.mark.parametrize("mode", [0, 0o444, 0o111])
def test_an_inner_folder_without_rights_is_file_unreadable(public, mode):
    os.chmod(public / "data/deep", mode)
    with as_nobody():
        found = codes(open_bag(public))
    assert {code for code, _ in found} == {"file-unreadable"}
    assert all(subject.startswith("data/deep") for _, subject in found)


@pytest.mark.parametrize("mode", [0, 0o111])
def test_a_bag_without_the_right_to_list_it_is_bundle_unreadable(public, mode):
    os.chmod(public, mode)
    with as_nobody():
        assert refusal(open_bag, public).code == "bundle-unreadable"


def test_a_bag_in_a_folder_without_rights_is_bundle_unreadable(public):
    os.chmod(public / "data", 0)
    with as_nobody():
        assert refusal(open_bag, public / "data" / "deep").code == "bundle-unreadable"


def test_folder_rights_lost_after_the_walk_are_file_changed(public):
    with as_nobody():
        bag = open_bag(public)
    os.chmod(public / "data/deep", 0)
    with as_nobody():
        assert refusal(read, bag, "data/deep/er/b").code == "file-changed"


# --- what lies in the folder -------------------------------------------------------------------------------------


def test_everything_but_files_and_folders_is_named(root, monkeypatch):
    (root / "data/link").symlink_to(root / "data/a")
    (root / "data/folder-link").symlink_to(root / "data/deep")
    (root / "data/broken-link").symlink_to("nowhere")
    os.mkfifo(root / "data/pipe")
    os.link(root / "data/a", root / "data/hard")
    (root / "data/empty").mkdir()
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("data/socket")
    assert codes(open_bag(root)) == [
        ("file-hardlink", "data/a"),
        ("file-symlink", "data/broken-link"),
        ("folder-empty", "data/empty/"),
        ("file-symlink", "data/folder-link"),
        ("file-hardlink", "data/hard"),
        ("file-symlink", "data/link"),
        ("file-special", "data/pipe"),
        ("file-special", "data/socket"),
    ]


def test_an_empty_bag_is_an_empty_folder(tmp_path):
    assert codes(DirectoryBag(tmp_path, Limits())) == [("folder-empty", ".")]


def test_names_that_are_no_text_are_named_without_steering_the_terminal(root):
    Path(os.fsdecode(bytes(root) + b"/data/\xff\x1b[2J")).write_bytes(b"")
    (problem,) = open_bag(root).problems()
    assert problem.code == "path-unsafe"
    assert problem.subject == "data/\\udcff\\x1b[2J"


def test_a_long_name_is_cut():
    assert len(shown("a" * 1000)) == 120


# --- limits ------------------------------------------------------------------------------------------------------


def test_more_files_than_the_limit_are_bundle_too_large(root):
    assert open_bag(root, Limits(files=6)).problems() == ()
    assert refusal(open_bag, root, Limits(files=5)).code == "bundle-too-large"


def test_links_and_empty_folders_count_as_well(root):
    for number in range(10):
        (root / "data" / f"link-{number}").symlink_to("x")
    assert refusal(open_bag, root, Limits(files=10)).code == "bundle-too-large"


def test_more_bytes_than_the_limit_are_bundle_too_large(root):
    assert open_bag(root, Limits(total=7)).problems() == ()
    assert refusal(open_bag, root, Limits(total=6)).code == "bundle-too-large"


def test_a_sparse_file_of_terabytes_is_bundle_too_large_and_not_hashed(root):
    try:
        os.truncate(root / "data/a", 2 << 40)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")
    assert refusal(open_bag, root).code == "bundle-too-large"


def test_folders_deeper_than_the_limit_are_named_and_not_entered(root):
    assert codes(open_bag(root, Limits(depth=4))) == []
    assert codes(open_bag(root, Limits(depth=3))) == [("path-depth", "data/deep/er/")]


# --- between the walk and the reading ----------------------------------------------------------------------------


def test_a_file_written_to_after_the_walk_is_file_changed(root):
    bag = open_bag(root)
    (root / "data/a").write_bytes(b"longer")
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_file_changed(root):
    bag = open_bag(root)
    before = (root / "data/a").stat()
    (root / "new").write_bytes(b"eno")
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new").replace(root / "data/a")
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_file_written_in_place_with_its_time_set_back_is_file_changed(root):
    bag = open_bag(root)
    before = (root / "data/a").stat()
    (root / "data/a").write_bytes(b"eno")
    os.utime(root / "data/a", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (root / "data/a").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_file_that_changes_while_it_is_read_is_file_changed(root):
    def read_and_change() -> None:
        with bag.open("data/a") as file:
            assert file.read(1) == b"o"
            (root / "data/a").write_bytes(b"one and more")
            file.read()

    bag = open_bag(root)
    assert refusal(read_and_change).code == "file-changed"


def test_a_file_removed_after_the_walk_is_file_unreadable(root):
    bag = open_bag(root)
    (root / "data/a").unlink()
    assert refusal(read, bag, "data/a").code == "file-unreadable"


def test_a_file_swapped_for_a_link_to_the_same_bytes_is_file_unreadable(root):
    bag = open_bag(root)
    (root / "data/a").rename(root.parent / "a")
    (root / "data/a").symlink_to(root.parent / "a")
    assert refusal(read, bag, "data/a").code == "file-unreadable"


def test_a_fifo_in_the_place_of_a_file_is_file_changed_and_does_not_hang(root):
    bag = open_bag(root)
    (root / "data/a").unlink()
    os.mkfifo(root / "data/a")
    assert refusal(read, bag, "data/a").code == "file-changed"


@pytest.mark.parametrize("folder", ["data", "data/deep", "data/deep/er", "."])
def test_a_folder_swapped_for_a_link_to_itself_is_file_changed(root, folder):
    bag = open_bag(root)
    moved = root.with_name("moved")
    (root / folder).rename(moved)
    (root / folder).symlink_to(moved)
    assert refusal(read, bag, "data/deep/er/b").code == "file-changed"


def test_a_bag_removed_after_the_walk_is_file_changed(root):
    bag = open_bag(root)
    root.rename(root.with_name("gone"))
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_bag_swapped_for_an_equal_one_is_file_changed(root):
    bag = open_bag(root)
    root.rename(root.with_name("gone"))
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_disk_that_fails_while_a_file_is_read_is_file_unreadable(root):
    def fail() -> None:
        with bag.open("data/a"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    bag = open_bag(root)
    error = refusal(fail)
    assert error.code == "file-unreadable"
    assert "Input/output error" in error.message


def test_no_descriptor_stays_open(root):
    before = len(os.listdir("/proc/self/fd"))
    bag = open_bag(root)
    for path in FILES:
        read(bag, path)
    (root / "data/a").write_bytes(b"longer")
    refusal(read, bag, "data/a")
    (root / "data/deep").rename(root / "gone")
    refusal(read, bag, "data/deep/er/b")
    assert len(os.listdir("/proc/self/fd")) == before
