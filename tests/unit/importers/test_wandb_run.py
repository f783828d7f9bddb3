"""Runs of Weights & Biases as records tell them: each thing that W&B can write, and the traps in it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil

import pytest

from bundler.errors import SourceError
from bundler.importers.wandb import WandbImporter
from bundler.importers.wandb import artefacts as wandb_artefacts
from bundler.importers.wandb import folder as wandb_folder
from bundler.importers.wandb import history as wandb_history
from bundler.importers.wandb import items as wandb_items
from bundler.importers.wandb import run as wandb_run
from bundler.importers.wandb import summary as wandb_summary
from tests.unit.importers.wandb_records import (
    done,
    field,
    flags,
    framed,
    history,
    item,
    one,
    only,
    read,
    record,
    refused,
    run,
    values,
    varint,
    write_log,
)

# --- the run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"), [(0, "finished"), (1, "failed"), (255, "failed"), (-9, "failed")]
)
def test_the_exit_code_is_the_status(tmp_path, code, status):
    assert only(write_log(tmp_path, run(), done(code)).parent).status == status


def test_a_run_that_says_it_is_not_complete_is_unknown(tmp_path):
    found = only(write_log(tmp_path, run(), record(18, field(3, 1))).parent)
    assert (found.status, found.ended) == ("unknown", None)


def test_a_later_record_of_the_run_replaces_what_it_names(tmp_path):
    first = run(more=field(8, "old") + field(9, "note") + field(10, "a") + field(12, "sweep-1"))
    second = run(started=9000, more=field(8, "new") + field(10, "b") + field(10, "c"))
    found = only(write_log(tmp_path, first, second, done()).parent)
    assert (found.name, found.started) == ("new", 1000)
    assert found.tags == {"notes": "note", "tags": "b, c", "sweep": "sweep-1"}


def test_the_end_is_the_last_time_that_the_log_tells(tmp_path):
    stamp = field(1, 7) + field(2, 250_000_000)
    output = record(13, field(2, stamp) + field(3, "text"))
    assert one(tmp_path / "a", history(0, loss=1, _timestamp=5.5), output).ended == 7250
    stats = record(7, field(2, field(1, 3)))
    assert one(tmp_path / "b", history(0, loss=1, _timestamp=5.5), stats).ended == 5500
    exit_record = record(18, field(2, 60))
    assert only(write_log(tmp_path / "c", run(), exit_record).parent).ended == 61_000
    assert only(write_log(tmp_path / "d", run(), done()).parent).ended is None


def test_a_dropped_log_is_flagged_where_wandb_warned_in_the_console(tmp_path):
    assert ("metrics", "dropped") not in flags(one(tmp_path / "a", history(5, x=1)))
    warning = field(
        3,
        "Tried to log to step 3 that is less than the current step 10. Steps must be monotonically increasing, so …",
    )
    found = flags(one(tmp_path / "b", record(13, warning), record(13, warning)))
    assert found["metrics", "dropped"].startswith("W&B warned 2 times")


# --- configuration ----------------------------------------------------------------------------------------------------


def config(*items: bytes, remove: tuple[bytes, ...] = ()) -> bytes:
    return record(
        5, b"".join(field(1, each) for each in items) + b"".join(field(2, each) for each in remove)
    )


def test_configuration_is_flattened_and_a_list_is_one_parameter(tmp_path):
    found = one(
        tmp_path,
        config(
            item("a", {"b": {"c": 1}, "list": [1, {"z": 1, "a": "ü"}], "none": {}}),
            item("text", "x" * 500),
        ),
        config(item("_wandb", {"t": {"1": [1]}}), item("empty", [])),
    )
    assert found.parameters == {
        "a.b.c": 1, "a.list": '[1,{"a":"ü","z":1}]', "a.none": "{}", "text": "x" * 500, "empty": "[]",
    }  # fmt: skip


def test_configuration_can_be_changed_and_removed_by_nested_names(tmp_path):
    found = one(
        tmp_path,
        config(item("a", {"b": 1, "c": 2}), item("gone", 1)),
        config(item(("a", "b"), 5), item(("new", "x", "y"), 6), item(("gone", "deep"), 1)),
        config(remove=(field(2, "a") + field(2, "c"), field(1, "gone"), field(1, "never"))),
    )
    assert found.parameters == {"a.b": 5, "new.x.y": 6}


def test_a_float_stays_one_and_a_changed_value_does_not(tmp_path):
    found = one(
        tmp_path,
        config(item("a", 1.0), item("b", 2.0), item("c", {"d": 3.0, "e": {}}), item("f", 1.0)),
        config(item("a", 1), item("b", 3), item("c", {"d": 3}), item("f", True)),
    )
    assert {name: repr(value) for name, value in found.parameters.items()} == {
        "a": "1.0", "b": "3", "c.d": "3.0", "c.e": "'{}'", "f": "True",
    }  # fmt: skip
    assert {name for name, flag in flags(found) if flag == "type_lost"} == {
        "parameters.a",
        "parameters.c.d",
    }


def test_configuration_in_the_record_of_the_run_counts(tmp_path):
    more = field(4, field(1, item("lr", 0.5))) + field(5, field(1, item("best", 2)))
    found = only(write_log(tmp_path, run(more=more), done()).parent)
    assert found.parameters == {"lr": 0.5}
    assert values(found, "best") == [2.0]


def test_half_characters_become_escapes(tmp_path):
    found = one(
        tmp_path,
        config(
            item("n\ud800ame".encode("utf-8", "replace").decode(), "a\ud800"), item("k", ["\udfff"])
        ),
    )
    for name, value in found.parameters.items():
        f"{name}{value}".encode()


# --- history ----------------------------------------------------------------------------------------------------------


def test_steps_of_any_size(tmp_path):
    steps = [0, 1, 127, 128, 130, 16383, 16384, 2097151, 2097152, 2**40, 2**53 - 1]
    found = one(tmp_path, *(history(step, loss=step, _timestamp=step) for step in steps))
    assert [point.step for point in found.points] == steps


@pytest.mark.parametrize("step", [2**53, 2**63])
def test_a_step_that_json_cannot_carry_is_refused(tmp_path, step):
    refused(
        write_log(tmp_path, run(), history(step, loss=1)).parent, "damaged at byte [0-9]+: step"
    )


def test_a_row_without_its_step_has_that_of_its_item_or_the_next(tmp_path):
    def row(**items):
        return record(2, b"".join(field(1, item(name, value)) for name, value in items.items()))

    found = one(tmp_path, row(a=1), row(a=2, _step=7), row(a=3), row(a=4, _step="x"))
    assert [(point.step, point.value) for point in found.points] == [(0, 1), (7, 2), (8, 3), (9, 4)]
    refused(
        write_log(tmp_path, run(), row(a=2, _step=2**70), identity="bad").parent,
        "step 1180591620717411303424",
    )


def test_a_row_without_a_time_has_that_of_the_row_before(tmp_path):
    rows = [history(0, a=1), history(1, a=2, _timestamp=5), history(2, a=3), history(3, a=4, _timestamp="x"),
            history(4, a=5, _timestamp=1e300), history(5, a=6, _timestamp=math.nan)]  # fmt: skip
    found = one(tmp_path, *rows)
    assert [(point.timestamp, point.value) for point in found.points] == [
        (1000, 1), (5000, 2), (5000, 3), (5000, 4), (5000, 5), (5000, 6),
    ]  # fmt: skip
    assert flags(found)["metrics", "time_missing"] == "5 steps"


def test_points_are_in_order_of_time_then_step_then_logging(tmp_path):
    rows = [history(5, a=1, _timestamp=9), history(4, a=2, _timestamp=8), history(3, a=3, _timestamp=9),
            history(3, a=4, _timestamp=9)]  # fmt: skip
    found = one(tmp_path, *rows)
    assert [(point.timestamp, point.step, point.value) for point in found.points] == [
        (8000, 4, 2), (9000, 3, 3), (9000, 3, 4), (9000, 5, 1),
    ]  # fmt: skip
    assert flags(found) == {("metrics.a", "duplicate_step"): "1 points"}


def test_the_short_way_gives_what_the_long_one_gives(tmp_path, monkeypatch):
    rows = [history(step, loss=1 / (step + 1), name="x" * step, **{f"m{step % 3}": step, "_timestamp": step})
            for step in range(150)]  # fmt: skip
    quick = one(tmp_path / "a", *rows)
    monkeypatch.setattr(wandb_items.ItemReader, "read", lambda self, record, row: (0, record))
    assert repr(one(tmp_path / "b", *rows)) == repr(quick)


def test_a_value_that_holds_the_tag_of_values_is_read_whole(tmp_path):
    # The two bytes of the tag stand in a text, in a name, in a length and in a step.
    odd = (
        field(1, item("loss", None, raw='"\x82\x01"'))
        + field(1, item("l\x82\x01", 1))
        + field(1, item("loss2", 2))
    )
    row = record(2, odd.replace("\x82".encode(), b"\x82") + field(2, field(1, 130)))
    refused(write_log(tmp_path, run(), row, history(130, loss=1)).parent, "damaged")
    good = field(1, item("ł\x01", 1)) + field(1, item("n", "ł" * 50)) + field(1, item("loss2", 2))
    found = one(tmp_path / "b", history(130, loss=1), record(2, good + field(2, field(1, 130))))
    assert [(point.metric, point.step, point.value) for point in found.points] == [
        ("loss", 130, 1), ("loss2", 130, 2), ("ł\x01", 130, 1),
    ]  # fmt: skip


def test_media_are_no_metrics(tmp_path):
    table = {"_type": "table-file", "ncols": 1, "nrows": 2}
    nested = b"".join(field(1, item(("t", name), value)) for name, value in table.items())
    found = one(
        tmp_path,
        history(
            0,
            image={"_type": "image-file", "size": 3},
            loss=1,
            deep={"inner": {"_type": "x", "n": 1}, "e": {}},
        ),
        record(2, nested + field(2, field(1, 1))),
        record(3, nested + field(1, item("image", {"_type": "image-file", "size": 3}))),
    )
    assert {point.metric for point in found.points} == {"loss", "deep.inner.n"} - {"deep.inner.n"}
    assert {name for name, flag in flags(found) if flag == "not_a_number"} >= {
        "metrics.image",
        "metrics.t",
    }


def test_numbers_that_a_float_cannot_hold_are_flagged(tmp_path):
    found = one(tmp_path, history(0, a=2**53 + 1, b=2**60, c=10**400, d=-(10**400), e=1))
    assert [point.value for point in found.points] == [2.0**53, 2.0**60, math.inf, -math.inf, 1.0]
    assert {name for name, flag in flags(found) if flag == "type_lost"} == {
        "metrics.a",
        "metrics.c",
        "metrics.d",
    }


def test_an_infinity_is_one_and_a_number_beyond_all_floats_is_flagged(tmp_path):
    rows = [record(2, field(1, item(name, None, raw=raw)) + field(2, field(1, step)))
            for step, raw in enumerate(("1", "Infinity", "-Infinity", "0.5")) for name in ("a", "b")]  # fmt: skip
    rows.append(record(2, field(1, item("b", None, raw="-1e400")) + field(2, field(1, 9))))
    found = one(tmp_path, *rows)
    assert values(found, "a") == [1, math.inf, -math.inf, 0.5]
    assert values(found, "b") == [1, math.inf, -math.inf, 0.5, -math.inf]
    assert {name for name, flag in flags(found) if flag == "type_lost"} == {"metrics.b"}


def test_typed_values_without_text_are_read_too(tmp_path):
    def typed(name: str, value: bytes) -> bytes:
        return field(1, field(2, name) + value)

    zigzag = {0: 0, -1: 1, 1: 2, -(2**40): 2**41 - 1}
    items = [typed(f"i{number}", field(5, coded)) for number, coded in zigzag.items()]
    items += [
        typed("f", field(6, 0.1)),
        typed("nan", field(6, math.nan)),
        typed("t", field(7, "NaN")),
    ]
    items += [
        typed("y", field(4, 1)),
        typed("n", field(3, 0)),
        typed("no", field(4, 0)),
        typed("j", field(8, '{"k": 2}')),
    ]
    found = one(tmp_path, record(2, b"".join(items) + field(2, b"")))
    got = {point.metric: point.value for point in found.points}
    assert math.isnan(got.pop("nan"))
    assert got == {"i0": 0, "i-1": -1, "i1": 1, f"i{-(2**40)}": -(2**40), "f": 0.1, "j.k": 2}
    assert {name for name, flag in flags(found) if flag == "not_a_number"} == {
        "metrics.t", "metrics.y", "metrics.n", "metrics.no",
    }  # fmt: skip


def test_more_values_than_are_turned_into_numbers_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_history, "_PENDING", 10)
    rows = [history(step, a=step / 4, b={"c": step}, _timestamp=step) for step in range(50)]
    found = one(tmp_path, *rows)
    assert values(found, "a") == [step / 4 for step in range(50)]
    assert values(found, "b.c") == list(range(50))


# --- summary ----------------------------------------------------------------------------------------------------------


def summary(*items: bytes, remove: tuple[bytes, ...] = ()) -> bytes:
    return record(
        3, b"".join(field(1, each) for each in items) + b"".join(field(2, each) for each in remove)
    )


def test_what_only_the_summary_has_stands_at_the_last_step(tmp_path):
    found = one(
        tmp_path,
        history(4, loss=0.5, _timestamp=2),
        summary(
            item("loss", 0.5),
            item("best", 1),
            item("dropped", 2),
            item(("n", "x"), 3),
            item("_step", 4),
        ),
        summary(
            item("best", {"max": math.nan}),
            item("t", "x" * 300),
            remove=(field(1, "dropped"), field(2, "n")),
        ),
    )
    assert [(p.metric, p.step, p.timestamp) for p in found.points] == [
        ("best.max", 4, 2000),
        ("loss", 4, 2000),
    ]
    assert set(flags(found)) == {("metrics.best.max", "from_summary")}


def test_a_summary_without_a_history(tmp_path):
    found = one(tmp_path, summary(item("accuracy", 0.5)))
    assert [tuple(point) for point in found.points] == [("accuracy", 0, 1000, 0.5)]


# --- artefacts and data sets ------------------------------------------------------------------------------------------


def entry(path: str, data: bytes | None = b"", **more: str) -> bytes:
    digest = more.get("digest") or base64.b64encode(hashlib.md5(data or b"").digest()).decode()
    body = field(1, path) + field(2, digest) + field(4, len(data or b""))
    return (
        body + field(3, more["ref"]) + b""
        if "ref" in more
        else body + field(6, more.get("local", ""))
    )


def artefact(name: str, kind: str, *entries: bytes, more: bytes = b"") -> bytes:
    manifest = b"".join(field(4, each) for each in entries) + more
    return record(8, field(4, kind) + field(5, name) + field(6, "0" * 32) + field(12, manifest))


def test_references_keep_what_their_place_gave(tmp_path):
    found = one(
        tmp_path,
        artefact(
            "d", "dataset",
            entry("a", ref="s3://bucket/a", digest="etag-1"),
            entry("b", ref="https://x.example/b", digest="https://x.example/b"),
            entry("c", b"c", ref="file:///data/c"),
            entry("e", digest="not base64!"),
        ),
    )  # fmt: skip
    md5 = hashlib.md5(b"c").hexdigest()
    assert [(each.name, each.source, each.tracker_digest) for each in found.data] == [
        ("d/a", "s3://bucket/a", "etag:etag-1"),
        ("d/b", "https://x.example/b", None),
        ("d/c", "file:///data/c", f"md5:{md5}"),
        ("d/e", None, "etag:not base64!"),
    ]
    assert all(each.sha256 is None for each in found.data)


def test_a_large_data_set_is_named_by_its_manifest(tmp_path):
    found = one(
        tmp_path, artefact("big", "Training-Data", *(entry(str(each)) for each in range(30)))
    )
    assert [(each.name, each.tracker_digest) for each in found.data] == [
        ("big", "manifest-md5:" + "0" * 32)
    ]
    assert len(found.artefacts) == 30
    assert (
        flags(found)["artefacts", "md5_only"]
        == f"artifacts/big: 30 files, md5 of the manifest {'0' * 32}"
    )


def test_what_the_run_used_is_data_with_its_version(tmp_path):
    used = [
        record(25, field(1, "QXJ0") + field(2, "dataset") + field(3, name))
        for name in ("data:v3", "plain", "data:v3")
    ]
    found = one(tmp_path, *used)
    assert [(each.name, each.version, each.role) for each in found.data] == [
        ("data", "v3", "input"),
        ("plain", None, "input"),
    ]


def test_a_manifest_that_is_elsewhere_is_flagged(tmp_path):
    found = one(tmp_path, artefact("m", "model", more=field(5, "/somewhere/manifest.json")))
    assert flags(found) == {("artefacts", "manifest_elsewhere"): "artifacts/m"}


def test_bytes_are_found_in_each_place_and_never_through_a_link_or_out_of_it(tmp_path):
    place = tmp_path / "place"
    (place / "m").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s")
    (place / "m" / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    (place / "tmp123").write_bytes(b"c")
    (place / "link").symlink_to(tmp_path / "secret")
    (place / "dir").symlink_to(tmp_path)
    logged = artefact(
        "m", "model", entry("a", b"a"), entry("b", b"b"), entry("c", b"c", local="C:\\x\\tmp123"), entry("link", b"s"),
        entry("dir/secret", b"s"), entry("../secret", b"s"), entry("x\0", b"s"), entry("m", b"q"), entry("a/b", b"q"),
        entry("n" * 300, b"q"),
    )  # fmt: skip
    log = write_log(tmp_path / "wandb", run(), logged, done())
    found = only(log.parent, artefacts=place)
    assert {each.path.removeprefix("artifacts/m/"): each.file for each in found.artefacts} == {
        "a": place / "m" / "a", "b": place / "b", "c": place / "tmp123", "link": None, "dir/secret": None,
        "secret": None, "x_": None, "m": None, "a/b": None, "n" * 200: None,
    }  # fmt: skip


def test_a_path_that_leads_upwards_is_renamed_and_files_of_one_path_are_told_apart(tmp_path):
    found = one(
        tmp_path,
        artefact("a", "model", entry("../../etc/x", b"x"), entry("f", b"1"), entry("f", b"2")),
        artefact("a", "model", entry("f", b"3")),
        artefact("a.2", "model", entry("f", b"4")),
    )
    assert [each.path for each in found.artefacts] == [
        "artifacts/a.2/f", "artifacts/a.2/f.2", "artifacts/a/etc/x", "artifacts/a/f", "artifacts/a/f.2",
    ]  # fmt: skip
    told = [each.detail for each in found.fidelity if each.flag in {"renamed", "same_name"}]
    assert told == [
        "'artifacts/a/../../etc/x': artifacts/a/etc/x",
        "artifacts/a.2/f: artifacts/a.2/f.2",
        "artifacts/a/f: artifacts/a/f.2",
    ]


def test_a_file_that_many_entries_name_is_read_once(tmp_path, monkeypatch):
    entries = [entry("big", b"other"), *(entry(f"b{n}", b"q", local="big") for n in range(9))]
    log = write_log(tmp_path, run(), artefact("m", "model", *entries), done())
    (log.parent / "files").mkdir()
    (log.parent / "files" / "big").write_bytes(b"q")
    read_files = []
    real = wandb_artefacts._digest_of
    monkeypatch.setattr(
        wandb_artefacts, "_digest_of", lambda *some: read_files.append(some[0]) or real(*some)
    )
    found = only(tmp_path)
    assert read_files == [log.parent / "files" / "big"]
    assert sum(each.file is not None for each in found.artefacts) == 10  # and the file itself


def test_a_folder_of_files_behind_a_link_holds_no_artefact(tmp_path):
    log = write_log(tmp_path / "wandb", run(), artefact("m", "model", entry("s", b"s")), done())
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "s").write_bytes(b"s")
    (log.parent / "files").symlink_to(tmp_path / "victim")
    found = only(tmp_path / "wandb")
    assert [(each.path, each.file) for each in found.artefacts] == [("artifacts/m/s", None)]


def test_more_files_than_a_run_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bundler.importers.collected.MAX_FILES", 1)
    write_log(tmp_path, run(), artefact("m", "model", entry("a"), entry("b")), done())
    refused(tmp_path, "more than 1 files")


def test_the_runs_own_files_may_hold_an_artefact(tmp_path):
    log = write_log(tmp_path, run(), artefact("m", "model", entry("model.bin", b"m")), done())
    (log.parent / "files").mkdir()
    (log.parent / "files" / "model.bin").write_bytes(b"m")
    assert [each.file for each in only(log.parent).artefacts] == [
        log.parent / "files" / "model.bin"
    ] * 2


def test_a_link_among_the_files_is_not_followed(tmp_path):
    log = write_log(tmp_path, run(), done())
    (log.parent / "files").mkdir()
    (log.parent / "files" / "secret").symlink_to("/etc/hostname")
    found = only(log.parent)
    assert found.artefacts == ()
    assert flags(found) == {("artefacts", "symlink_skipped"): "secret"}


# --- environment ------------------------------------------------------------------------------------------------------


def with_metadata(folder, data: object, **files: bytes):
    log = write_log(folder, run(), done())
    (log.parent / "files").mkdir()
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    (log.parent / "files" / "wandb-metadata.json").write_bytes(text)
    for name, content in files.items():
        (log.parent / "files" / name.replace("_", ".")).write_bytes(content)
    return only(log.parent)


def test_hardware_of_017_and_019_has_the_same_names(tmp_path):
    old = {"gpu": "A100", "gpu_count": 2, "gpu_devices": [{"name": "A100", "memory_total": 85899345920}, 3],
           "memory": {"total": 1.5}, "python": "3.9.1", "git": {"remote": "r", "commit": "c"}, "cuda": "12"}  # fmt: skip
    found = with_metadata(tmp_path / "a", old)
    assert found.environment == {
        "gpu.count": 2, "gpu.0.model": "A100", "gpu.0.memory_bytes": 85899345920, "memory_bytes": 3 << 29,
        "python": "3.9.1", "cuda": "12",
    }  # fmt: skip
    assert (found.code.repository, found.code.commit) == ("r", "c")
    new = {"gpu": "A100", "gpu_nvidia": [{"name": "A100", "memoryTotal": "85899345920"}], "memory": {"total": "99"},
           "python": "CPython 3.9.1", "cudaVersion": "12", "cpu": {"model": "M"}, "docker": "", "program": "t.py"}  # fmt: skip
    found = with_metadata(tmp_path / "b", new)
    assert found.environment == {
        "gpu.0.model": "A100", "gpu.0.memory_bytes": 85899345920, "memory_bytes": 99, "cpu.model": "M",
        "python": "3.9.1", "python.implementation": "CPython", "cuda": "12", "program": "t.py",
    }  # fmt: skip
    assert found.code.entry_point == "t.py"
    odd = {
        "gpu": "T4",
        "memory": {"total": -1.0},
        "cpu": 3,
        "args": "x",
        "git": 3,
        "python": 3,
        "gpu_devices": 7,
    }
    assert with_metadata(tmp_path / "c", odd).environment == {"gpu.0.model": "T4"}


def test_environment_records_add_up(tmp_path):
    gpu = field(24, field(1, "H100") + field(2, 80 << 30))
    first = (
        field(1, "Linux")
        + field(2, "CPython 3.12.1")
        + field(5, "--fast")
        + field(12, "h")
        + field(13, "u")
    )
    second = field(16, 8) + field(17, 16) + field(19, 1) + field(25, "12.4") + gpu
    second += (
        field(21, field(1, 64 << 30))
        + field(22, field(3, "EPYC"))
        + field(9, field(1, "remote") + field(2, "abc"))
    )
    found = one(tmp_path, record(26, first), record(26, second))
    assert found.environment == {
        "platform": "Linux", "python": "3.12.1", "python.implementation": "CPython", "arguments": '["--fast"]',
        "host": "h", "user": "u", "cpu.count": 8, "cpu.logical": 16, "gpu.count": 1, "cuda": "12.4",
        "gpu.0.model": "H100", "gpu.0.memory_bytes": 80 << 30, "memory_bytes": 64 << 30, "cpu.model": "EPYC",
    }  # fmt: skip
    assert found.code.commit == "abc"


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff"]
)
def test_metadata_that_is_no_json_object_is_flagged(tmp_path, data):
    assert flags(with_metadata(tmp_path, data)) == {
        ("environment", "unreadable"): "wandb-metadata.json"
    }


def test_packages_are_those_of_pip_freeze(tmp_path):
    text = b"numpy==2.1.0\n# no\ntool @ git+https://x.example/t\n\xff\n-e .\ntorch == 2.5.1+cu124\n"
    found = with_metadata(tmp_path, {}, requirements_txt=text, diff_patch=b"")
    assert found.environment == {
        "packages.numpy": "2.1.0", "packages.tool": "git+https://x.example/t", "packages.torch": "2.5.1+cu124",
    }  # fmt: skip
    assert (found.code.dirty, found.code.patch) == (None, None)


def test_a_side_file_that_is_too_large_or_unreadable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bundler.importers.wandb.folder.MAX_METADATA", 3)
    with pytest.raises(SourceError, match="more than 3 bytes"):
        with_metadata(tmp_path / "a", {"a": 1})

    def denied(self, *mode):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", denied)
        with pytest.raises(SourceError, match="Permission denied"):
            wandb_folder.metadata({"wandb-metadata.json": tmp_path}, print)
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "stat", denied)
        with pytest.raises(SourceError, match="Permission denied"):
            wandb_folder.patch({"diff.patch": tmp_path})


# --- stores -----------------------------------------------------------------------------------------------------------


def test_projects_are_experiments_and_a_run_without_one_counts_in_each(tmp_path):
    write_log(tmp_path, run("a", "one", 3000), done(), identity="a")
    write_log(tmp_path, run("b", "two", 2000), done(), identity="b")
    write_log(tmp_path, run("c", "two", 1000), done(), identity="c")
    write_log(tmp_path, run("d", "", 4000), done(), identity="d")
    write_log(tmp_path, identity="lost")
    assert WandbImporter().experiments(tmp_path) == ("two", "one", "uncategorized")
    assert [each.source.run_id for each in read(tmp_path, "two")] == ["lost", "c", "b"]
    assert [each.source.run_id for each in read(tmp_path, "one")] == ["lost", "a"]
    assert [each.source.run_id for each in read(tmp_path, "uncategorized")] == ["lost", "d"]
    refused(tmp_path, "several experiments")


def test_only_lost_runs_are_a_project_too(tmp_path):
    write_log(tmp_path, identity="lost")
    (folder,) = tmp_path.iterdir()
    (tmp_path / "run-20260101_000000-gone").mkdir()
    found = read(tmp_path)
    assert [(each.source.run_id, each.source.experiment) for each in found] == [
        ("gone", "uncategorized"), ("lost", "uncategorized"),
    ]  # fmt: skip
    assert flags(found[0])["run", "unreadable"] == "run-20260101_000000-gone: no record log"
    assert folder.name.endswith("-lost")


def test_a_lost_part_belongs_to_the_run_of_its_id_and_stands_where_its_folder_says(tmp_path):
    write_log(tmp_path / "a", run(), config(item("lr", 1)), history(0, a=1), done(), day=1)
    write_log(tmp_path / "a", day=2)
    found = only(tmp_path / "a")
    # It was resumed, and killed before anything was written.
    assert found.status == "unknown"
    assert ("run", "resumed") in flags(found)
    assert (found.parameters, found.started) == ({"lr": 1}, 1000)
    write_log(tmp_path / "b", day=1)
    write_log(tmp_path / "b", run(), history(0, a=1), done(), day=2)
    assert only(tmp_path / "b").status == "finished"


def test_a_lost_log_without_a_folder_comes_first(tmp_path):
    log = write_log(tmp_path, run(), done())
    (log.parent / "run-abc.copy.wandb").write_bytes(b"")
    assert [each.source.run_id for each in read(tmp_path)] == ["abc.copy", "abc"]
    other = write_log(tmp_path / "x", run("abc"), done(), identity="abc")
    (other.parent / "lost").mkdir()
    assert only(tmp_path / "x").status == "finished"


def test_a_later_part_without_a_log_leaves_the_end_unknown(tmp_path):
    write_log(tmp_path, run(), history(0, a=1, _timestamp=5), done())
    (tmp_path / "offline-run-20260102_000000-abc").mkdir()
    found = only(tmp_path)
    assert (found.status, found.ended, values(found, "a")) == ("unknown", None, [1])


def test_parts_follow_each_other_by_their_start(tmp_path):
    write_log(
        tmp_path,
        run(started=2000),
        config(item("lr", 2)),
        history(0, a=2.5, w="x", _timestamp=2),
        done(1),
        day=1,
    )
    write_log(
        tmp_path,
        run(started=1000),
        config(item("lr", 1), item("b", 1)),
        history(0, a=1, _timestamp=1),
        done(),
        day=2,
    )
    found = only(tmp_path)
    assert values(found, "a") == [1, 2.5]
    assert (found.started, found.ended, found.status) == (1000, 2000, "failed")
    assert found.parameters == {"lr": 2, "b": 1}


def test_a_copied_folder_is_refused(tmp_path):
    log = write_log(tmp_path, run(), done())
    shutil.copytree(log.parent, tmp_path / "offline-run-20260102_000000-abc")
    error = refused(tmp_path, "the same start of run 'abc'")
    assert "Move one of them" in error.remedy


def test_runs_of_two_owners_are_not_merged(tmp_path):
    write_log(tmp_path, run(more=field(2, "one")), done(), day=1)
    write_log(tmp_path, run(started=2000, more=field(2, "two")), done(), day=2)
    refused(tmp_path, "different owners")


@pytest.mark.parametrize("owners", [("", "one", "two"), ("one", "", "two")])
def test_a_run_that_names_no_owner_hides_no_second_one(tmp_path, owners):
    for day, owner in enumerate(owners, start=1):
        write_log(tmp_path, run(started=1000 * day, more=field(2, owner)), done(), day=day)
    error = refused(tmp_path, "different owners")
    named = [f"202601{day:02}" for day, owner in enumerate(owners, start=1) if owner]
    assert all(day in error.message for day in named)


def without_start(identity: str = "abc") -> bytes:
    return record(17, field(1, identity) + field(3, "p"))


def test_a_copy_without_a_start_is_refused_too(tmp_path):
    for day in (1, 2):
        write_log(tmp_path, without_start(), history(0, loss=1), done(), day=day)
    refused(tmp_path, "the same log of run 'abc'")


def test_parts_without_a_start_or_without_content_are_no_copies(tmp_path):
    for day in (1, 2):
        write_log(tmp_path, without_start(), history(day, loss=day), done(), day=day)
    for day in (3, 4):
        write_log(tmp_path, day=day)  # killed before the first record
    assert values(only(tmp_path), "loss") == [1, 2]


def test_a_log_that_becomes_unreadable_is_refused(tmp_path, monkeypatch):
    for day in (1, 2):
        write_log(tmp_path, without_start(), history(day, loss=day), done(), day=day)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hashlib.file_digest", denied)
    refused(tmp_path, "Permission denied")


def test_a_log_beside_the_folders_of_runs_hides_none(tmp_path):
    write_log(tmp_path / "wandb", run(), done())
    write_log(tmp_path / "wandb", run("b", started=2000), done(), identity="b")
    (tmp_path / "wandb" / "run-c.wandb").write_bytes(framed(run("c", started=3000), done()))
    (tmp_path / "run-d.wandb").write_bytes(framed(run("d", started=4000), done()))
    assert [each.source.run_id for each in read(tmp_path / "wandb")] == ["abc", "b", "c"]
    assert [each.source.run_id for each in read(tmp_path)] == ["abc", "b", "c", "d"]


def test_a_renamed_folder_is_still_a_run(tmp_path):
    log = write_log(tmp_path, run(), done(1))
    log.parent.rename(tmp_path / f"failed_{log.parent.name}")
    assert WandbImporter().detect(tmp_path) == (tmp_path,)
    write_log(tmp_path, run("b", started=2000), done(), identity="b")
    assert [each.status for each in read(tmp_path)] == ["failed", "finished"]


def test_what_a_run_saved_itself_is_no_run(tmp_path):
    log = write_log(tmp_path, run(), done())
    (log.parent / "files").mkdir()
    (log.parent / "files" / "saved.wandb").write_bytes(b"")
    assert [each.path for each in only(log.parent).artefacts] == ["saved.wandb"]


def test_the_folder_wandb_behind_a_link_is_refused(tmp_path):
    write_log(tmp_path / "elsewhere", run(), done())
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "wandb").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "store", "wandb' is a link")
    assert WandbImporter().detect(tmp_path / "store") == ()


def test_a_renamed_folder_behind_a_link_is_refused_and_one_without_runs_is_none(tmp_path):
    log = write_log(tmp_path / "elsewhere", run(), done())
    write_log(tmp_path / "wandb", run(), done())
    (tmp_path / "empty").mkdir()
    (tmp_path / "wandb" / "data").symlink_to(tmp_path / "empty")
    assert len(read(tmp_path / "wandb")) == 1
    (tmp_path / "wandb" / "old").symlink_to(log.parent)
    refused(tmp_path / "wandb", "old' is a link")


def test_a_linked_folder_that_cannot_be_listed_is_no_run(tmp_path, monkeypatch):
    write_log(tmp_path / "wandb", run(), done())
    (tmp_path / "closed").mkdir()
    (tmp_path / "wandb" / "data").symlink_to(tmp_path / "closed")
    real = type(tmp_path).iterdir

    def denied(self):
        if self.name in {"data", "inner"}:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", denied)
    assert len(read(tmp_path / "wandb")) == 1
    (tmp_path / "wandb" / "inner").mkdir()
    refused(tmp_path / "wandb", "Permission denied")


def test_logs_without_their_folders(tmp_path):
    for identity, started in (("b", 1000), ("a", 2000)):
        (tmp_path / f"run-{identity}.wandb").write_bytes(
            framed(run(identity, started=started), done())
        )
    assert [each.source.run_id for each in read(tmp_path)] == ["b", "a"]
    (tmp_path / "odd.wandb").write_bytes(b"")
    assert [each.source.run_id for each in read(tmp_path)] == ["odd.wandb", "b", "a"]


def test_a_second_log_in_a_folder_does_not_list_its_files_twice(tmp_path):
    log = write_log(tmp_path, run(), done())
    (log.parent / "run-zzz.wandb").write_bytes(framed(run("zzz", started=5000), done()))
    (log.parent / "files").mkdir()
    (log.parent / "files" / "a").write_bytes(b"")
    assert [len(each.artefacts) for each in read(tmp_path)] == [1, 0]


def test_what_is_no_store_is_refused(tmp_path):
    refused(tmp_path / "nothing", "no runs of Weights & Biases")
    refused(tmp_path, "no runs of Weights & Biases")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "damaged at byte 0")
    refused("https://wandb.example/team/p", "no W&B project has the address")
    assert WandbImporter().detect(tmp_path) == ()
    assert WandbImporter().detect(tmp_path / "nothing") == ()


def test_a_log_behind_a_link_is_refused(tmp_path):
    log = write_log(tmp_path, run(), done())
    moved = log.rename(tmp_path / "elsewhere")
    log.symlink_to(moved)
    refused(tmp_path, "is a link")
    assert WandbImporter().detect(log.parent) == ()


def test_a_run_folder_behind_a_link_is_refused_and_latest_run_is_none(tmp_path):
    log = write_log(tmp_path / "elsewhere", run(), done())
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "latest-run").symlink_to(log.parent)
    refused(tmp_path / "wandb", "no runs of Weights & Biases")
    (tmp_path / "wandb" / log.parent.name).symlink_to(log.parent)
    refused(tmp_path / "wandb", "is a link")


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    write_log(tmp_path, run(), done())

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "iterdir", denied)
    refused(tmp_path, "Permission denied")
    assert WandbImporter().detect(tmp_path) == ()


# --- names that become one --------------------------------------------------------------------------------------------


def test_parameters_that_are_spelled_alike_are_one_and_flagged(tmp_path):
    found = one(tmp_path, config(item("a.b", 1), item("a", {"b": 2})))
    assert found.parameters == {"a.b": 1}
    assert "the first is kept" in flags(found)["parameters.a.b", "names_merged"]


def test_metrics_that_are_spelled_alike_are_one_and_flagged(tmp_path):
    found = one(tmp_path, history(0, **{"m.x": 1.0, "m": {"x": 9.0}}))
    assert values(found, "m.x") == [1, 9]
    assert ("metrics.m.x", "names_merged") in flags(found)


def test_an_object_and_a_nested_name_are_one_metric(tmp_path):
    nested = record(2, field(1, item(("m", "x"), {"y": 1})) + field(2, b""))
    deeper = record(2, field(1, item(("m", "x", "y"), 2)) + field(2, field(1, 1)))
    found = one(tmp_path, nested, deeper, history(2, m={"x": {"y": 3}}))
    assert values(found, "m.x.y") == [1, 2, 3]
    assert not any(flag == "names_merged" for _, flag in flags(found))


def test_metrics_of_two_parts_and_of_the_summary_are_compared_too(tmp_path):
    both = summary(item("s.x", 1), item("s", {"x": 2}))
    write_log(tmp_path, run(), history(0, **{"m.x": 1.0}), done(), day=1)
    write_log(tmp_path, run(started=2000), history(0, m={"x": 9.0}), both, done(), day=2)
    merged_names = {name for name, flag in flags(only(tmp_path)) if flag == "names_merged"}
    assert merged_names == {"metrics.m.x", "metrics.s.x"}


# --- hostile records --------------------------------------------------------------------------------------------------

DEEP = "[" * 5000 + "]" * 5000
NESTED = '{"a":' * 80 + "1" + "}" * 80
HOSTILE = {
    "a record that is no message": (b"\xff\xff", "damaged at byte"),
    "a message of another kind of field": (varint(17 << 3 | 4), "wire type 4"),
    "a configuration that is no JSON": (config(item("a", None, raw="{")), "no JSON"),
    "a configuration of 5,000 digits": (config(item("a", None, raw="9" * 5000)), "no JSON"),
    "a configuration that is too deep": (config(item("a", None, raw=DEEP)), "damaged at byte"),
    "an object that is too deep": (config(item("a", None, raw=NESTED)), "deeper than 64"),
    "a name that is too deep": (config(item(("a",) * 70, 1)), "deeper than 64"),
    "names that are too deep together": (config(item(("a",) * 60, {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}})), "deeper than 64"),
    "a history that is no JSON": (history(3, a=1) + b"", None),
    "a metric that is no JSON": (record(2, field(1, item("loss", None, raw="1,2")) + field(2, field(1, 3))), "metric 'loss' at step 3"),
    "a metric without a value": (record(2, field(1, field(1, "loss")) + field(2, field(1, 3))), "metric 'loss' at step 3"),
    "a metric that is too deep": (record(2, field(1, item("loss", None, raw=NESTED)) + field(2, b"")), "metric 'loss' at step 0"),
    "a step that is no JSON": (record(2, field(1, item("_step", None, raw="x"))), "damaged at byte"),
    "a summary that is no JSON": (summary(item("a", None, raw="{")), "in the summary"),
    "an artefact that is no message": (record(8, field(12, b"\xff")), "damaged at byte"),
    "an environment that is no message": (record(26, field(24, b"\xff")), "damaged at byte"),
    "a metric that is nested too deep": (record(2, field(1, item(("a",) * 70, 1)) + field(2, b"")), "deeper than 64"),
    "a removed name that is too deep": (config(remove=(field(2, "a") * 70,)), "deeper than 64"),
    "a name of 200 parts": (history(0, **{".".join("a" * 200): 1}), "parts in the name of a metric"),
    "a name of 20,000 characters": (history(0, **{"x" * 20_000: 1}), "characters in the name of a metric"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_refused_with_their_place(tmp_path, name):
    hostile, match = HOSTILE[name]
    log = write_log(tmp_path, run(), hostile, done())
    if match is None:
        assert only(log.parent)
        return
    error = refused(log.parent, match)
    assert "run-abc.wandb" in error.message


def test_a_metric_may_hide_no_second_one(tmp_path):
    # Together they would be a list of as many numbers.
    rows = [
        record(2, field(1, item("a", None, raw=raw)) + field(2, field(1, 1)))
        for raw in ("1,2", "[3", "4]")
    ]
    refused(write_log(tmp_path, run(), *rows, done()).parent, "metric 'a' at step 1")


BOUNDS = {
    "points": (wandb_history, "MAX_POINTS", 3, [history(0, a=1, b=2, c=3, d=4)]),
    "rows": (wandb_history, "MAX_POINTS", 3, [history(step) for step in range(4)]),
    "kept configuration": (wandb_run, "MAX_CONFIG", 1000, [config(item("a", {str(n): {} for n in range(20)}))] + [config(item("a", {}))] * 4),
    "removals": (wandb_summary, "MAX_REMOVALS", 3, [summary(item("a", 1), item("b", 1))] + [summary(remove=(field(1, "z"),))] * 2),
    "metrics": (wandb_history, "MAX_METRICS", 3, [history(0, a=1, b=2, c=3, d=4)]),
    "configuration": (wandb_run, "MAX_CONFIG", 10, [config(item("a", "x" * 20))]),
    "files": (wandb_run, "MAX_ENTRIES", 1, [artefact("m", "model", entry("a"))]),
    "used": (wandb_run, "MAX_ENTRIES", 1, [record(25, field(3, "a")), record(25, field(3, "b"))]),
    "summary": (wandb_summary, "MAX_SUMMARY", 40, [summary(item("a", "x" * 90)), summary(item("b", "x" * 90)), summary(item("c", 1))]),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDS)
def test_everything_is_bounded(tmp_path, monkeypatch, name):
    module, constant, limit, records = BOUNDS[name]
    monkeypatch.setattr(module, constant, limit)
    refused(write_log(tmp_path, run(), *records, done()).parent, "holds more than")


def test_the_rows_of_all_parts_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_history, "MAX_POINTS", 3)
    for day in (1, 2):
        log = [run(started=1000 * day), history(0), history(1), done()]
        write_log(tmp_path, *log, day=day)
    refused(tmp_path, "more than 3 rows")


def test_a_length_of_four_bytes_is_none_of_three():
    length = 0x200005
    head = bytes([0x12, length & 0x7F | 0x80, (length >> 7) & 0x7F | 0x80, 0x80])
    short = (length & 0x3FFF) | (0x80 << 14)
    assert wandb_run._only_field(head + bytes(short)) == (0, 0)
    whole = field(2, bytes(20_000))
    assert wandb_run._only_field(whole) == (2, len(whole) - 20_000)


def test_a_summary_that_replaces_itself_is_not_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_summary, "MAX_SUMMARY", 100)
    found = one(tmp_path, *(summary(item("a", step)) for step in range(100)))
    assert values(found, "a") == [99.0]


def test_an_unreadable_file_is_refused_and_never_left_out(tmp_path, monkeypatch):
    log = write_log(tmp_path, run(), artefact("m", "model", entry("a", b"a")), done())
    (log.parent / "files").mkdir()
    (log.parent / "files" / "a").write_bytes(b"a")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "a")

    with monkeypatch.context() as patch:
        patch.setattr(wandb_artefacts.hashlib, "file_digest", denied)
        refused(log.parent, "Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(type(log), "is_symlink", denied)
        with pytest.raises(SourceError, match="Permission denied"):
            wandb_artefacts._digest_below(tmp_path, "a")
    assert log.exists()
