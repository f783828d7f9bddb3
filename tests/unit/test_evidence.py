"""From bytes to contents: the manifests hold, and what is read is what was hashed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from pathlib import Path

import pytest
import rfc8785

from bundler import evidence
from bundler.errors import MalformedError
from bundler.evidence import examine_files, finding_of, intact_files, read_contents
from bundler.manifest import RELEASE_ENVELOPE, format_manifest
from bundler.progress import Silence
from bundler.records import MetricPoint
from bundler.report import Report
from bundler.storage import MemoryBag, open_bag
from bundler.verify import verify
from tests import tiny
from tests.conformance.harness import VALID, Bundle

FILES = {
    path.relative_to(VALID).as_posix(): path.read_bytes()
    for path in sorted(VALID.rglob("*"))
    if path.is_file()
}


def examine(bag) -> tuple[object, list[tuple[str, str]]]:
    files, results = examine_files(bag, Silence())
    return files, [
        (finding.code, finding.subject) for result in results for finding in result.findings
    ]


def verified(bag) -> Report:
    return verify(lambda: bag, "bundle", tiny.TRUST, clock=lambda: "2026-01-01T00:00:00.000Z")


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings()}


def relisted(files: dict[str, bytes]) -> dict[str, bytes]:
    """``files`` with both manifests over them computed anew, everything outside data/ in the tag manifest."""

    def listed(inside: bool, leave_out: set[str]) -> bytes:
        return format_manifest(
            {
                path: hashlib.sha256(data).hexdigest()
                for path, data in files.items()
                if path.startswith("data/") is inside and path not in leave_out
            }
        )

    files = dict(files)
    files["manifest-sha256.txt"] = listed(True, set())
    files["tagmanifest-sha256.txt"] = listed(False, {"tagmanifest-sha256.txt", RELEASE_ENVELOPE})
    return files


class Changing:
    """A bag whose file ``path`` is ``first`` at its first reading and ``later`` afterwards."""

    def __init__(
        self, path: str, first: bytes, later: bytes, files: dict[str, bytes] = FILES
    ) -> None:
        self._bags = [MemoryBag(files | {path: data}) for data in (first, later)]
        self._path = path
        self.name = "bag"
        self.readings = 0

    def entries(self):
        return self._bags[0].entries()

    def problems(self):
        return self._bags[0].problems()

    def open(self, path: str):
        if path != self._path:
            return self._bags[0].open(path)
        self.readings += 1
        return self._bags[min(self.readings, 2) - 1].open(path)


def test_the_valid_bundle_is_intact_and_can_be_read():
    files = intact_files(MemoryBag(FILES))
    assert files.tag_manifest_sha256 == hashlib.sha256(FILES["tagmanifest-sha256.txt"]).hexdigest()
    assert files.read("bagit.txt") == FILES["bagit.txt"]
    assert "bagit.txt" in files
    assert RELEASE_ENVELOPE not in files
    assert files.below("data/code") == [
        "data/code/data.csv",
        "data/code/requirements.txt",
        "data/code/train.py",
    ]
    assert files.below("data/cod") == []
    contents = read_contents(files)
    assert len(contents.records) == len(contents.log) == len(contents.lines) == 9
    assert contents.record("run-c").id == "run-c"
    assert contents.record("run-z") is None


def test_contents_without_a_training_specification_can_be_read():
    index = FILES["data/bundle.json"].replace(
        b'"training_spec":"data/spec/training.json"', b'"training_spec":null'
    )
    contents = read_contents(intact_files(MemoryBag(relisted(FILES | {"data/bundle.json": index}))))
    assert contents.training is None


def test_an_index_that_names_a_file_outside_is_file_missing():
    index = FILES["data/bundle.json"].replace(b"data/spec/training.json", b"../../../etc/passwd")
    files = intact_files(MemoryBag(relisted(FILES | {"data/bundle.json": index})))
    with pytest.raises(MalformedError) as refused:
        read_contents(files)
    assert refused.value.code == "file-missing"


@pytest.mark.parametrize("path", ["bagit.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"])
def test_a_bag_without_its_own_files_is_named(path):
    files, found = examine(MemoryBag({name: data for name, data in FILES.items() if name != path}))
    assert files is None
    assert "file-missing" in {code for code, _ in found}


def test_the_first_finding_is_the_error_where_only_an_intact_bag_will_do():
    with pytest.raises(MalformedError) as refused:
        intact_files(MemoryBag(FILES | {"extra.txt": b""}))
    assert refused.value.code == "file-extra"
    assert "extra.txt" in refused.value.message


LISTED = [
    "fetch.txt", "manifest-md5.txt", "manifest-sha512.txt", "tagmanifest-sha512.txt", "notes.txt", "-",
    "code/run.sh", "VERIFY.txt", "schemas/x.json",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTED)
def test_no_other_tag_file_is_accepted_even_where_the_tag_manifest_names_it(path):
    """A BagIt tool would fetch what fetch.txt names, and sha256sum reads a dash as standard input."""
    files, found = examine(MemoryBag(relisted(FILES | {path: b"x"})))
    assert files is None
    assert ("manifest-scope", path) in found


@pytest.mark.parametrize("path", ["bag-info.txt", "manifest-sha256.txt", "bagit.txt"])
def test_a_tag_file_that_the_tag_manifest_does_not_name_is_not_covered(path):
    lines = FILES["tagmanifest-sha256.txt"].splitlines(keepends=True)
    tags = b"".join(line for line in lines if not line.endswith(f"  {path}\n".encode()))
    files, found = examine(MemoryBag(FILES | {"tagmanifest-sha256.txt": tags}))
    assert files is None
    assert ("file-missing", path) in found


def test_a_tag_manifest_that_changes_after_it_was_parsed_does_not_pass_for_the_signed_one():
    """First a list of other files, later the signed list: the files would be held against the first only."""
    evil = relisted(FILES | {"data/code/train.py": b"evil"})
    bag = Changing(
        "tagmanifest-sha256.txt",
        evil["tagmanifest-sha256.txt"],
        FILES["tagmanifest-sha256.txt"],
        evil,
    )
    assert "statement-subject" in codes(verified(bag))
    assert bag.readings == 1


def test_a_payload_manifest_that_changes_after_it_was_parsed_is_found():
    evil = relisted(FILES | {"data/code/train.py": b"evil"})
    evil["tagmanifest-sha256.txt"] = FILES["tagmanifest-sha256.txt"]
    bag = Changing(
        "manifest-sha256.txt", evil["manifest-sha256.txt"], FILES["manifest-sha256.txt"], evil
    )
    files, found = examine(bag)
    assert files is None
    assert found == [("file-digest", "manifest-sha256.txt")]


def test_a_file_that_changes_between_hashing_and_reading_is_file_changed():
    bag = Changing("data/bundle.json", FILES["data/bundle.json"], b"{}")
    report = verified(bag)
    assert codes(report) == {"file-changed"}
    assert report.exit_code == 3


def test_a_file_on_disk_that_changes_between_hashing_and_reading_is_file_changed(tmp_path):
    bundle = Bundle(tmp_path)
    files = intact_files(open_bag(bundle.path))
    bundle.do_flip("data/bundle.json", 5)
    with pytest.raises(MalformedError) as refused:
        files.read("data/bundle.json")
    assert refused.value.code == "file-changed"


def test_a_file_without_the_right_to_read_it_is_file_unreadable(tmp_path):
    bundle = Bundle(tmp_path)

    class Locked:
        name = "bag"

        def __init__(self) -> None:
            self._bag = open_bag(bundle.path)
            self.entries, self.problems = self._bag.entries, self._bag.problems

        def open(self, path: str):
            if path == "data/code/train.py":
                raise MalformedError("file-unreadable", f"{path}: Permission denied")
            return self._bag.open(path)

    report = verified(Locked())
    assert codes(report) == {"file-unreadable"}
    assert report.exit_code == 3


def test_a_manifest_beyond_the_limit_is_file_too_large_and_not_read(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_TEXT", 1000)
    _, found = examine(MemoryBag(FILES))
    assert ("file-too-large", "bundle") in found


def test_contents_beyond_the_limit_are_file_too_large(monkeypatch):
    files = intact_files(MemoryBag(FILES))
    monkeypatch.setattr(evidence, "MAX_TEXT", 1000)
    with pytest.raises(MalformedError) as refused:
        files.read("data/records.jsonl")
    assert refused.value.code == "file-too-large"
    with pytest.raises(MalformedError) as missing:
        files.read("data/absent")
    assert missing.value.code == "file-missing"


def test_an_endless_envelope_is_file_too_large_before_anybody_reads_it(tmp_path):
    """No manifest names it, so nobody has vouched for it when it is read."""
    bundle = Bundle(tmp_path)
    try:
        os.truncate(bundle.file(RELEASE_ENVELOPE), 1 << 38)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")
    report = verified(open_bag(bundle.path))
    assert codes(report) == {"file-too-large"}
    assert report.exit_code == 3


def test_artefacts_that_are_recorded_and_not_in_the_bundle_are_named_as_not_supplied():
    report = verified(MemoryBag(FILES))
    (finding,) = (each for each in report.findings() if each.code == "artefact-not-supplied")
    assert finding.severity == "note"
    assert "not in the bundle" in finding.message
    assert report.exit_code == 0


def test_a_run_that_changed_since_the_previous_bundle_is_log_amended(provider, tmp_path):
    provider.build(tmp_path / "first")
    provider.edit("run-b", lambda run: dataclasses.replace(run, name="a better name"))
    provider.config["system"]["version"] = "1.1.0"
    provider.build(tmp_path / "second", previous=tmp_path / "first")

    report = verified(open_bag(tmp_path / "second"))

    (finding,) = (each for each in report.findings() if each.code == "log-amended")
    assert (finding.severity, finding.subject) == ("note", "run-b")
    assert report.exit_code == 0
    before, after = (
        (tmp_path / name / "data/records.jsonl").read_bytes() for name in ("first", "second")
    )
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1


def test_a_finished_run_with_another_result_than_before_is_log_result_amended(provider, tmp_path):
    provider.build(tmp_path / "first")
    provider.edit("run-b", lambda run: tiny.with_value(run, "val_auc", 0.75))
    provider.build(tmp_path / "second", previous=tmp_path / "first")

    report = verified(open_bag(tmp_path / "second"))

    (finding,) = (each for each in report.findings() if each.code == "log-result-amended")
    assert (finding.severity, finding.subject) == ("warning", "run-b")
    assert report.exit_code == 6


MODEL = base64.b64encode(FILES["data/artefacts/run-c/model.safetensors"]).decode()
OUTPUTS = {
    "training-tensors-not-model": {
        "do": "set", "path": "data/spec/training.json", "at": "/outputs/tensors", "value": ["other.safetensors"],
    },
    "training-given-result": {"do": "write", "path": "data/code/start.safetensors", "base64": MODEL},
}  # fmt: skip


@pytest.mark.parametrize("code", OUTPUTS)
def test_equal_bits_that_would_say_nothing_about_the_training_are_named(code, tmp_path):
    bundle = Bundle(tmp_path)
    bundle.apply([OUTPUTS[code], {"do": "seal"}])
    report = verified(open_bag(bundle.path))
    assert code in codes(report)
    assert report.exit_code != 0


def test_a_previous_bundle_that_is_not_intact_is_refused(provider, tmp_path):
    provider.build(tmp_path / "first")
    (tmp_path / "first/data/code/train.py").write_bytes(b"")
    with pytest.raises(MalformedError, match="not intact"):
        provider.build(tmp_path / "second", previous=tmp_path / "first")


def test_a_path_that_is_missing_or_no_bundle_gives_a_report_with_the_finding(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    clock = lambda: "2026-01-01T00:00:00.000Z"  # noqa: E731
    for path, code in ((tmp_path / "absent", "bundle-missing"), (tmp_path / "pipe", "bundle-kind")):
        report = verify(lambda path=path: open_bag(path), "x", tiny.TRUST, clock=clock)
        assert codes(report) == {code}
        assert report.exit_code == 3


def test_a_finding_says_what_the_error_says():
    finding = finding_of(MalformedError("a-b", "message", remedy="remedy"), "subject")
    assert (finding.code, finding.subject, finding.message, finding.remedy) == (
        "a-b", "subject", "message", "remedy",
    )  # fmt: skip


def test_a_metric_as_large_as_a_count_of_operations_can_be_bundled(provider, tmp_path):
    """RFC 8785 writes 1.2e18 as an integer beyond 2^53."""

    def with_flops(run):
        points = (*run.points, MetricPoint("total_flos", 3, run.started, 1.2e18))
        return dataclasses.replace(run, points=points)

    provider.edit("run-c", with_flops)
    provider.build(tmp_path / "bag")
    assert rfc8785.dumps(1.2e18) in (tmp_path / "bag/data/records.jsonl").read_bytes()
    assert verified(open_bag(tmp_path / "bag")).exit_code == 0


def test_the_valid_bundle_on_disk_and_in_memory_give_the_same_report():
    assert verified(open_bag(Path(VALID))) == verified(MemoryBag(FILES))
