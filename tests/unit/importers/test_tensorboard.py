"""TensorBoard's event files: as TensorBoard reads them, and what it hides."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import find
from bundler.importers.files import below
from bundler.importers.model import ImportedRun
from bundler.importers.tensorboard import TensorboardImporter
from bundler.importers.tensorboard import events as tensorboard_events
from bundler.importers.tensorboard import framing as tensorboard_records
from bundler.importers.tensorboard.framing import crc32c, masked_crc32c
from bundler.importers.values import Flags
from tests.unit.importers.support import flags, state, write

FUZZ = settings(deadline=None)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "tensorboard"
LOGS = FIXTURES / "logs"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
FINISHED = next((LOGS / "finished").glob("events*"))
EVENT_FILE = "events.out.tfevents.1.host"
TIME = 1_760_000_000.0


def read(store: Path, artefacts: Path | None = None) -> dict[str, ImportedRun]:
    with TensorboardImporter().open(store, experiment=None, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return {run.source.run_id: run for run in runs}


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def varint(number: int) -> bytes:
    out = bytearray()
    number %= 1 << 64
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def part(number: int, data: bytes) -> bytes:
    """A field that is bytes or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def single(value: float) -> bytes:
    return b"\x15" + struct.pack("<f", value)


def event(*parts: bytes, time: float | None = TIME, step: int = 0) -> bytes:
    head = (b"" if time is None else double(1, time)) + (whole(2, step) if step else b"")
    return head + b"".join(parts)


def scalar(tag: str | bytes, value: float, step: int = 0, time: float | None = TIME) -> bytes:
    tag = tag if isinstance(tag, bytes) else tag.encode()
    return event(part(5, part(1, part(1, tag) + single(value))), step=step, time=time)


def tensor(tag: str, content: bytes, plugin: str = "scalars") -> bytes:
    metadata = part(9, part(1, part(1, plugin.encode()))) if plugin else b""
    return event(part(5, part(1, part(1, tag.encode()) + metadata + part(8, content))))


def hparams(content: bytes, time: float | None = TIME) -> bytes:
    metadata = part(9, part(1, part(1, b"hparams") + part(2, content)))
    return event(part(5, part(1, part(1, b"_hparams_") + metadata)), time=time)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join(
        [
            length,
            struct.pack("<I", masked_crc32c(length)),
            data,
            struct.pack("<I", masked_crc32c(data)),
        ]
    )


def log(store: Path, *events: bytes, run: str = "run") -> Path:
    write(store / run / EVENT_FILE, b"".join(record(each) for each in events))
    return store


def the_run(store: Path) -> ImportedRun:
    (run,) = read(store).values()
    return run


def spelled(run: ImportedRun) -> dict[str, list[tuple[int, int, str]]]:
    found: dict[str, list[tuple[int, int, str]]] = {}
    for point in run.points:
        found.setdefault(point.metric, []).append((point.timestamp, point.step, repr(point.value)))
    return found


def test_points_are_those_that_tensorboard_reads():
    runs = read(LOGS)
    folders = {name: name if name in runs else name.rpartition("/")[0] for name in EXPECTED}
    assert set(folders.values()) == set(runs) == {"finished", "failed", "early", "keras", "trainer"}
    for run in runs:
        expected: dict[str, list[tuple[int, int, str]]] = {}
        for name, owner in folders.items():
            for tag, points in EXPECTED[name]["points"].items() if owner == run else ():
                for time, step, value in points:
                    expected.setdefault(tag, []).append((round(time * 1000), step, value))
        assert spelled(runs[run]) == {tag: sorted(points) for tag, points in expected.items()}


def test_hyperparameters_are_those_that_tensorboard_reads():
    for name, expected in EXPECTED.items():
        run = next(each for key, each in read(LOGS).items() if name.startswith(key))
        for key, value in expected["parameters"].items():
            shown = json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value
            assert run.parameters[key] == shown
    assert read(LOGS)["finished"].parameters["seed"] == 7
    assert isinstance(read(LOGS)["finished"].parameters["seed"], int)
    assert ("parameters", "type_lost") in flags(read(LOGS)["finished"])


def test_not_a_number_and_infinity_are_values():
    values = [point.value for point in read(LOGS)["finished"].points]
    assert any(math.isnan(each) for each in values)
    assert math.inf in values


def test_a_run_that_went_on_from_an_earlier_step_keeps_all_its_points():
    run = read(LOGS)["failed"]
    steps = [point.step for point in run.points if point.metric == "train_loss"]
    assert steps == [0, 1, 2, 3, 2, 3]
    assert {("metrics.train_loss", "duplicate_step"), ("run", "restarted")} <= flags(run)


def test_success_that_was_written_before_the_last_point_is_not_believed():
    runs = read(LOGS)
    assert runs["early"].status == "unknown"
    assert ("status", "written_early") in flags(runs["early"])
    assert runs["finished"].status == "finished"
    assert runs["keras"].status == "failed"
    assert (runs["keras"].started, runs["keras"].ended) == (1760000043250, 1760000200000)


def test_what_is_no_scalar_is_counted_and_flagged():
    details = {each.detail for each in read(LOGS)["finished"].fidelity if each.flag == "skipped"}
    assert details == {"histograms: 1 values of 1 tags", "text: 1 values of 1 tags"}


def test_32_bit_numbers_are_flagged_and_doubles_are_not():
    marked = flags(read(LOGS)["finished"])
    assert ("metrics.modern", "float32") in marked
    assert ("metrics.precise", "float32") not in marked


def test_files_of_a_run_are_its_artefacts_and_those_beside_it(tmp_path):
    write(tmp_path / "finished" / "report.txt", "hello")
    write(tmp_path / "finished" / "model.bin", "another")
    run = read(LOGS, tmp_path)["finished"]
    files = {each.path: each.file for each in run.artefacts}
    assert files["model.bin"] == LOGS / "finished" / "model.bin"
    assert files["report.txt"] == tmp_path / "finished" / "report.txt"
    assert FINISHED.name in files


def test_a_link_on_the_way_to_files_elsewhere_is_flagged_and_not_followed(tmp_path):
    log(tmp_path / "store", scalar("a", 1.0), run="a/b")
    write(tmp_path / "elsewhere" / "b" / "secret", "not yours")
    (tmp_path / "artefacts").mkdir()
    (tmp_path / "artefacts" / "a").symlink_to(tmp_path / "elsewhere")
    run = read(tmp_path / "store", tmp_path / "artefacts")["a/b"]
    assert [each.path for each in run.artefacts] == [EVENT_FILE]
    assert ("artefacts", "symlink_skipped") in flags(run)


@pytest.mark.parametrize(
    "relative", ["absent", "file/inside", "..", "../x", "/x", "a\0", "\ud800", ""]
)
def test_nothing_lies_below_a_folder_at_a_path_that_leads_nowhere(tmp_path, relative):
    write(tmp_path / "folder" / "file", "")
    write(tmp_path / "x", "")
    said = Flags()
    assert below(tmp_path / "folder", relative, said) is None
    assert said.all() == ()


def test_what_lies_below_a_folder_is_a_file_or_a_folder(tmp_path):
    write(tmp_path / "a" / "b", "")
    os.mkfifo(tmp_path / "a" / "queue")
    said = Flags()
    assert below(tmp_path, ".", said) == tmp_path
    assert below(tmp_path, "a", said) == tmp_path / "a"
    assert below(tmp_path, "a/b", said) == tmp_path / "a" / "b"
    assert below(tmp_path, "a/queue", said) is None
    assert [(each.flag, each.detail) for each in said.all()] == [("special_skipped", "a/queue")]


def test_a_folder_that_nobody_may_look_into_is_an_error_of_the_source(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", denied)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        below(tmp_path, "a", Flags())


def test_runs_come_by_time_and_reading_twice_gives_the_same():
    before = state(FIXTURES)
    with TensorboardImporter().open(LOGS, experiment="logs", artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    assert [run.source.run_id for run in first] == [
        "finished",
        "failed",
        "early",
        "keras",
        "trainer",
    ]
    assert state(FIXTURES) == before


def test_a_single_run_is_named_by_its_folder(tmp_path):
    shutil.copytree(LOGS / "finished", tmp_path / "trial")
    run = the_run(tmp_path / "trial")
    assert (run.source.run_id, run.name) == (".", "trial")
    assert run.parameters["lr"] == 0.1


def test_runs_inside_runs_are_runs_of_their_own(tmp_path):
    log(tmp_path, scalar("a", 1), run="outer")
    log(tmp_path, scalar("a", 2, time=TIME - 5), run="outer/inner")
    log(tmp_path, scalar("a", 3), run="1760000000.5")
    runs = read(tmp_path)
    assert list(runs) == ["outer/inner", "1760000000.5", "outer"]
    assert [each.path for each in runs["outer"].artefacts] == [EVENT_FILE]


def test_files_outside_of_all_runs_belong_to_none(tmp_path):
    log(tmp_path, scalar("a", 1), run="deep/down/run")
    write(tmp_path / "notes.txt", "")
    write(tmp_path / "deep" / "notes.txt", "")
    assert [each.path for each in the_run(tmp_path).artefacts] == [EVENT_FILE]


def test_detect_finds_logs_and_does_not_raise(tmp_path):
    importer = find("tensorboard")
    assert importer.detect(tmp_path) == ()
    assert importer.detect(tmp_path / "absent") == ()
    log(tmp_path, scalar("a", 1), run="runs/one")
    assert importer.detect(tmp_path) == (tmp_path / "runs",)
    assert importer.detect(tmp_path / "runs" / "one") == (tmp_path / "runs" / "one",)
    assert importer.experiments(tmp_path / "runs") == ("runs",)


@pytest.mark.parametrize(
    ("store", "match"),
    [("absent", "no folder"), ("a file", "no folder"), ("empty", "no event file")],
)
def test_what_is_no_log_is_refused(tmp_path, store, match):
    write(tmp_path / "a file", "")
    (tmp_path / "empty").mkdir()
    assert "logdir" in refused(tmp_path / store, match).remedy


def test_a_folder_that_cannot_be_looked_at_is_an_error_of_the_source(monkeypatch):
    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", denied)
    refused(LOGS, "cannot be read: Permission denied")


def test_an_address_and_an_unknown_experiment_are_refused(tmp_path):
    for store, experiment in (("https://example.org/logs", None), (LOGS, "other")):
        with (
            pytest.raises(SourceError),
            TensorboardImporter().open(store, experiment=experiment, artefacts=None),
        ):
            pass


def test_links_are_flagged_and_not_followed(tmp_path):
    log(tmp_path / "logs", scalar("a", 1))
    (tmp_path / "logs" / "linked").symlink_to(LOGS)
    assert ("artefacts", "symlink_skipped") in flags(the_run(tmp_path / "logs"))


# One event and its parts.


def test_events_by_the_short_and_by_the_long_way_are_the_same(tmp_path):
    values = [(0.5, 0), (-1.5, 1), (math.inf, 127), (2.5, 128), (3.5, 2**40), (4.5, 3)]
    plain = [scalar("loss", value, step) for value, step in values]
    # A field that nobody knows makes the long way necessary.
    long = [each + part(99, b"") for each in plain]
    log(tmp_path / "plain", *plain)
    log(tmp_path / "long", *long)
    assert the_run(tmp_path / "plain").points == the_run(tmp_path / "long").points
    assert len(the_run(tmp_path / "plain").points) == len(values)


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=130),
            st.floats(width=32, allow_nan=False),
            st.integers(-(2**53) + 1, 2**53 - 1),
            st.floats(1e-3, 9e12),
        ),
        max_size=8,
    )
)
def test_any_scalars_come_back_as_they_were_written(values):
    events = tensorboard_events.Events()
    for tag, value, step, time in values * 2:
        events.take(Path("file"), 0, scalar(tag, value, step, time))
    assert [(each.step, each.timestamp, each.value) for each in events.points] == [
        (step, round(time * 1000), value) for _, value, step, time in values * 2
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (whole(1, 1) + part(2, b"") + part(5, struct.pack("<f", 0.5)), 0.5),
        (whole(1, 1) + b"\x2d" + struct.pack("<f", 0.5), 0.5),
        (whole(1, 1) + part(4, struct.pack("<f", 0.5)), 0.5),
        (whole(1, 2) + part(6, struct.pack("<d", 0.1)), 0.1),
        (whole(1, 2) + double(6, 0.1), 0.1),
        (whole(1, 2) + part(2, part(2, whole(1, 1))) + part(4, struct.pack("<d", 0.1)), 0.1),
        (whole(1, 1) + part(2, part(2, whole(1, 2))) + part(4, bytes(8)), None),
        (whole(1, 1) + part(5, bytes(8)), None),
        (whole(1, 1), None),
        (whole(1, 7) + part(8, b"text"), None),
        (b"", None),
    ],
)
def test_tensors_with_one_number_are_scalars(tmp_path, content, expected):
    run = the_run(log(tmp_path, tensor("a", content)))
    assert [each.value for each in run.points] == ([] if expected is None else [expected])
    assert (("metrics", "skipped") in flags(run)) == (expected is None)


def test_a_tensor_is_what_the_first_value_of_its_tag_said(tmp_path):
    number = whole(1, 1) + part(4, struct.pack("<f", 0.5))
    events = [tensor("a", number), tensor("a", number, ""), tensor("b", number, "")]
    run = the_run(log(tmp_path, *events, tensor("c", number, "text")))
    assert [each.metric for each in run.points] == ["a", "a"]
    details = {each.detail for each in run.fidelity if each.flag == "skipped"}
    assert details == {
        "text: 1 values of 1 tags",
        "values without a kind: 1 values of 1 tags",
    }


def test_old_kinds_are_counted_by_what_they_are(tmp_path):
    values = [part(1, b"t") + part(number, b"") for number in (3, 4, 5, 6)]
    run = the_run(log(tmp_path, event(part(5, b"".join(part(1, each) for each in values)))))
    details = sorted(each.detail for each in run.fidelity if each.flag == "skipped")
    assert [each.partition(":")[0] for each in details] == ["audio", "histograms", "images"]


def test_two_summaries_in_one_event_are_one(tmp_path):
    values = [part(5, part(1, part(1, tag) + single(1))) for tag in (b"a", b"b")]
    assert [each.metric for each in the_run(log(tmp_path, event(*values))).points] == ["a", "b"]


@pytest.mark.parametrize("time", [None, 0.0, -5.0, math.nan, math.inf, 1e300])
def test_a_point_without_a_time_has_the_time_0_and_a_flag(tmp_path, time):
    run = the_run(log(tmp_path, scalar("a", 1, time=time), scalar("a", 2, 1, time=time)))
    assert [each.timestamp for each in run.points] == [0, 0]
    assert ("metrics.a", "no_time") in flags(run)
    assert run.started is None or time == 1e300


def test_a_name_that_is_no_text_becomes_one(tmp_path):
    run = the_run(log(tmp_path, scalar(b"\xff\xfe", 1), scalar("größe ✓", 1)))
    assert {each.metric for each in run.points} == {"\\xff\\xfe", "größe ✓"}


def value_of(*parts: bytes) -> bytes:
    """Session start with a hyperparameter of this value."""
    return part(3, part(1, part(1, b"x") + part(2, b"".join(parts))))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (double(2, 0.1), 0.1),
        (double(2, 3.0), 3),
        (double(2, 1e300), 1e300),
        (double(2, math.inf), math.inf),
        (part(3, "größe".encode()), "größe"),
        (part(3, b""), ""),
        (whole(4, 1), True),
        (whole(4, 0), False),
        (whole(1, 0), None),
        (b"", None),
        (part(6, part(1, double(2, 1.5)) + part(1, part(3, b"a"))), '[1.5,"a"]'),
        (part(5, part(1, part(1, b"k") + part(2, whole(4, 1)))), '{"k":true}'),
    ],
)
def test_hyperparameters_of_every_kind(tmp_path, value, expected):
    parameters = the_run(log(tmp_path, hparams(value_of(value)))).parameters
    assert repr(parameters) == repr({"x": expected})


def words(*content: str) -> bytes:
    """Arguments of the Trainer as a text."""
    return tensor(
        "args/text_summary",
        whole(1, 7) + b"".join(part(8, each.encode()) for each in content),
        "text",
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            ['{"output_dir": "o", "a": {"b": {}, "c": [1]}}'],
            {"output_dir": "o", "a.b": "{}", "a.c": "[1]"},
        ),
        (['{"output_dir": "\\ud800", "\\ud800": 1}'], {"output_dir": "\\ud800", "\\ud800": 1}),
        (['{"seed": 7}'], {}),
        (["[]"], {}),
        (["just words"], {}),
        (["[" * 100_000], {}),
        (['{"output_dir": 1' + "0" * 5000 + "}"], {}),
        (['{"output_dir": "o", "lr": 1, "lr": 2}'], {}),
        (['{"output_dir": "o", "lr": 1e999}'], {}),
        ([], {}),
    ],
)
def test_arguments_of_a_training_are_parameters_and_other_texts_are_skipped(
    tmp_path, content, expected
):
    run = the_run(log(tmp_path, words(*content)))
    assert run.parameters == expected
    assert (("metrics", "skipped") in flags(run)) == (not expected)


def test_of_two_arguments_with_one_name_the_first_is_kept_and_it_is_flagged(tmp_path):
    text = '{"output_dir": "o", "a.b": 1, "a": {"b": 2, "c": [3]}, "a.c": 4}'
    run = the_run(log(tmp_path, words(text)))
    assert run.parameters == {"output_dir": "o", "a.b": 1, "a.c": "[3]"}
    merged = {each.field for each in run.fidelity if each.flag == "names_merged"}
    assert merged == {"parameters.a.b", "parameters.a.c"}


def test_of_two_values_for_a_parameter_the_later_counts_and_it_is_flagged(tmp_path):
    texts = [words('{"output_dir": "o", "seed": 7}'), words('{"output_dir": "o", "seed": 8}')]
    run = the_run(log(tmp_path, *texts))
    assert run.parameters["seed"] == 8
    changed = {each.field for each in run.fidelity if each.flag == "overwritten"}
    assert changed == {"parameters.seed"}


def test_a_hyperparameter_nested_without_end_is_refused(tmp_path):
    value = b""
    for _ in range(100):
        value = part(6, part(1, value))
    refused(log(tmp_path, hparams(value_of(value))), "record at byte 0: .*nested deeper")


@pytest.mark.parametrize(
    ("status", "word"), [(1, "finished"), (2, "failed"), (3, "running"), (9, "unknown")]
)
def test_status_and_end_of_a_session(tmp_path, status, word):
    ended = part(4, whole(1, status) + double(2, TIME + 9))
    begun = part(3, double(5, TIME - 9))
    run = the_run(log(tmp_path, hparams(begun), scalar("a", 1), hparams(ended)))
    assert run.status == word
    assert (run.started, run.ended) == (1760000000000, 1760000009000)
    (detail,) = [each.detail for each in run.fidelity if each.flag == "time_of_events"]
    assert detail.startswith("start: ")


# Files that are not as they should be.


def test_a_file_that_is_cut_is_flagged_with_its_place(tmp_path):
    data = record(scalar("a", 1)) + record(scalar("a", 2, 1))
    first = len(record(scalar("a", 1)))
    for length in range(first + 1, len(data)):
        write(tmp_path / "run" / EVENT_FILE, data[:length])
        run = the_run(tmp_path)
        assert [each.value for each in run.points] == [1]
        (cut,) = [each.detail for each in run.fidelity if each.flag == "truncated_file"]
        assert cut == f"{EVENT_FILE} is cut at byte {first}"


def test_a_changed_byte_is_refused_with_its_place(tmp_path):
    first, second = record(scalar("a", 1)), record(scalar("a", 2, 1))
    for place in range(len(second)):
        changed = bytearray(first + second)
        changed[len(first) + place] ^= 1
        write(tmp_path / "run" / EVENT_FILE, bytes(changed))
        refused(tmp_path, f"{EVENT_FILE}', record at byte {len(first)}: the checksum")


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b",
        part(1, b"no time"),
        b"\x0d" + bytes(4),
        double(2, 1.0) + part(5, part(1, part(1, b"a") + single(1))),
        part(2, b"no step"),
        event(part(5, b"\xff")),
        event(part(5, part(1, whole(1, 5)))),
        event(part(5, part(1, part(1, b"a") + part(2, b"abc")))),
        event(part(5, part(1, part(1, b"a") + whole(9, 1)))),
        event(part(5, part(1, part(1, b"a") + single(1))), step=2**60),
        hparams(b"\xff"),
        tensor("a", b"\xff"),
        tensor("a", whole(1, 1) + whole(4, 1)) + b"\xff",
    ],
)
def test_a_sound_record_with_an_event_that_is_none_is_refused(tmp_path, data):
    write(tmp_path / "run" / EVENT_FILE, record(scalar("b", 1)) + record(data))
    found = refused(tmp_path, "record at byte ")
    assert str(len(record(scalar("b", 1)))) in found.message or "byte 0" in found.message


def test_fields_of_another_kind_are_unknown_fields(tmp_path):
    log(tmp_path, event(whole(5, 1), whole(7, 1)), hparams(value_of(part(2, b"short"))))
    assert the_run(tmp_path).parameters == {"x": None}


def test_bounds_hold(tmp_path, monkeypatch):
    log(tmp_path, *[scalar(f"tag{number}", 1) for number in range(9)])
    monkeypatch.setattr(tensorboard_events, "MAX_POINTS", 8)
    refused(tmp_path, "more than 8 metric points")
    monkeypatch.setattr(tensorboard_events, "MAX_POINTS", 9)
    monkeypatch.setattr(tensorboard_events, "MAX_NAMES", 8)
    refused(tmp_path, "more than 8 tags")
    monkeypatch.setattr(tensorboard_records, "MAX_RECORD", 8)
    refused(tmp_path, "more than 8 bytes in the record at byte 0")


def test_a_length_beyond_the_file_is_a_cut_file_and_takes_no_memory(tmp_path):
    length = struct.pack("<Q", 2**63)
    write(tmp_path / "run" / EVENT_FILE, length + struct.pack("<I", masked_crc32c(length)) + b"x")
    assert ("metrics", "truncated_file") in flags(the_run(tmp_path))


def test_a_file_that_shrinks_while_it_is_read_is_a_cut_file(tmp_path, monkeypatch):
    file = write(tmp_path / EVENT_FILE, record(scalar("a", 1))[:-2])
    monkeypatch.setattr(tensorboard_records.os, "fstat", lambda _: type("S", (), {"st_size": 999}))
    tail = tensorboard_records.Tail()
    assert list(tensorboard_records.records(file, tail)) == []
    assert tail.offset == 0


def test_a_file_that_went_away_is_an_error_of_the_source(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        list(tensorboard_records.records(tmp_path / "gone", tensorboard_records.Tail()))


def test_an_empty_event_file_is_a_run_without_points(tmp_path):
    write(tmp_path / "run" / EVENT_FILE, b"")
    write(tmp_path / "run" / "x.tfevents.profile-empty", b"")
    run = the_run(tmp_path)
    assert (run.points, run.started, run.ended, run.status) == ((), None, None, "unknown")


# The checksum.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # these and the next from RFC 3720, appendix B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksum_vectors(data, expected):
    assert crc32c(data) == expected


@FUZZ
@given(st.binary(max_size=200))
def test_the_checksum_is_that_of_its_definition(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    assert crc32c(data) == state ^ 0xFFFFFFFF


# Anything.


@FUZZ
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_points_or_a_source_error(tmp_path_factory, data, framed):
    file = tmp_path_factory.mktemp("any") / EVENT_FILE
    file.write_bytes(record(data) if framed else data)
    survives(file)


@FUZZ
@given(st.data())
def test_changed_events_of_a_real_file_give_points_or_a_source_error(tmp_path_factory, data):
    tail = tensorboard_records.Tail()
    found = [each for _, each in tensorboard_records.records(FINISHED, tail)]
    changed = bytearray(data.draw(st.sampled_from(found)))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(changed) - 1), st.integers(0, 255)), max_size=6)
    ):
        changed[place] = byte
    file = tmp_path_factory.mktemp("changed") / EVENT_FILE
    file.write_bytes(b"".join(record(each) for each in [*found[:3], bytes(changed), found[-1]]))
    survives(file)


def survives(file: Path) -> None:
    try:
        texts = [repr(run) for run in read(file.parent).values()]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()
