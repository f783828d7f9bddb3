"""Names and manifests, over any text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bundler.manifest import collisions, format_manifest, parse_manifest, path_problem
from bundler.storage.archive import member_header
from bundler.storage.model import name_problems
from tests.property.strategies import attempt, manifests, paths


def parsed_manifest(data: bytes) -> dict[str, str]:
    return parse_manifest(data, name="m")


@given(manifests)
def test_every_manifest_survives_the_way_there_and_back(digests):
    assert parse_manifest(format_manifest(digests), name="m") == digests


@given(manifests, st.data())
def test_a_changed_manifest_is_another_one_or_refused(digests, data):
    text = bytearray(format_manifest(digests))
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= 1 << data.draw(st.integers(0, 7))
    parsed, code = attempt(parsed_manifest, bytes(text))
    assert code or (parsed != digests and format_manifest(parsed) == bytes(text))


@given(st.binary(max_size=200))
def test_any_bytes_are_the_form_that_we_write_or_refused(data):
    parsed, code = attempt(parsed_manifest, data)
    assert code.startswith(("manifest-", "path-")) or format_manifest(parsed) == data


@given(paths)
def test_a_path_without_problem_stays_inside_and_fits_a_tar_header(path):
    parts = path.split("/")
    assert not path.startswith("/")
    assert not any(part in {"", ".", ".."} for part in parts)
    assert len(member_header(path, 0)) == 512


@given(
    st.lists(st.from_regex(r"[a-z]{1,100}", fullmatch=True), min_size=1, max_size=4).map("/".join)
)
def test_long_paths_have_a_problem_exactly_if_tar_cannot_carry_them(path):
    _, code = attempt(member_header, path, 0)
    assert (path_problem(path) is None) is (not code and len(path) <= 200)


@given(st.text(max_size=30))
def test_any_other_text_has_a_printable_finding(text):
    for finding in name_problems([text, text.upper(), text.lower()]):
        assert (finding.subject + finding.message).isprintable()
        assert finding.subject.isascii()


@given(
    st.lists(
        st.sampled_from(["a", "A", "b", "a/a", "a/A", "A/b", "b/a/a", "b/A/a", "B"]), unique=True
    )
)
def test_paths_collide_exactly_if_a_folder_without_case_would_lose_one(names):
    """A tree of dictionaries with lower-case names stands in for the file system."""
    tree: dict = {}
    lost = False
    spelled: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            lost |= spelled.setdefault(part.lower(), part) != part
            kind = "file" if depth == len(parts) else "folder"
            lost |= tree.setdefault(part.lower(), kind) != kind
    assert bool(collisions(names)) is lost
