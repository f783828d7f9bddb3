"""Many digests at once."""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager, nullcontext

import pytest

from bundler.errors import MalformedError
from bundler.storage.hashing import digest_all, digest_bytes, digest_file

SIZES = [0, 1, 63, 64, 65, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_003]


def content(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_a_digest_is_that_of_hashlib_at_every_size(size):
    data = content(size)
    assert digest_file(io.BytesIO(data)) == digest_bytes(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("workers", [None, 1, 7])
def test_all_files_get_their_own_digest(workers):
    files = {f"f{number}": content(number * 17) for number in range(300)}
    counted: list[int] = []
    digests = digest_all(
        files,
        lambda path: nullcontext(io.BytesIO(files[path])),
        on_bytes=counted.append,
        workers=workers,
    )
    assert digests == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    assert list(digests) == list(files)
    assert sum(counted) == sum(map(len, files.values()))


def test_nothing_is_nothing():
    assert digest_all([], lambda path: nullcontext(io.BytesIO())) == {}


def test_only_what_is_left_to_read_is_hashed():
    file = io.BytesIO(b"abc")
    file.read(1)
    assert digest_file(file) == digest_bytes(b"bc")


def test_an_error_of_one_file_ends_it_and_every_opened_file_is_closed():
    opened: list[io.BytesIO] = []

    @contextmanager
    def opener(path: str):
        if path == "f50":
            raise MalformedError("file-changed", path)
        file = io.BytesIO(b"x")
        opened.append(file)
        yield file
        file.close()

    with pytest.raises(MalformedError) as refused:
        digest_all([f"f{number}" for number in range(100)], opener, workers=2)
    assert refused.value.code == "file-changed"
    assert all(file.closed for file in opened)
