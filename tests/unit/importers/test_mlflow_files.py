"""MLflow's file store: as it is, also where it is broken, and never anything outside its own folder."""

from __future__ import annotations

import math
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from tests.unit.importers.support import (
    FIXTURES,
    MAIN,
    copy_of,
    flags,
    make_run,
    named,
    read,
    write,
)

SECRET = "root-secret"
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def store(tmp_path) -> Path:
    return copy_of("files", tmp_path / "store")


@pytest.fixture
def by_hand(tmp_path) -> Path:
    return tmp_path / "outside" / "mlruns"


def one(store: Path, **more):
    (run,) = read(store, None, **more)
    return run


def refused(store: Path, experiment: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as error:
        read(store, experiment)
    assert error.value.remedy
    return error.value


# --- metric rows ------------------------------------------------------------------------------------------------------


def test_rows_are_points_in_order(by_hand):
    run = make_run(by_hand)
    write(run / "metrics" / "a" / "b", "2000 2.0 1\n1000 1.5 0\n2000 1.0 1\n")
    write(run / "metrics" / "a.b", "1 0.1 0\n")
    points = one(by_hand).points
    assert [(p.metric, p.timestamp, p.step, p.value) for p in points] == [
        ("a.b", 1, 0, 0.1),
        ("a/b", 1000, 0, 1.5),
        ("a/b", 2000, 1, 2.0),
        ("a/b", 2000, 1, 1.0),
    ]


def test_what_is_not_finite_is_kept_and_nothing_was_replaced(by_hand):
    run = make_run(by_hand)
    write(run / "metrics" / "m", "1 nan 0\n2 inf 1\n3 -inf 2\n4 1.7976931348623157e+308 3\n")
    made = one(by_hand)
    assert math.isnan(made.points[0].value)
    assert [p.value for p in made.points[1:]] == [math.inf, -math.inf, 1.7976931348623157e308]
    assert flags(made) == set()


def test_a_row_of_an_old_store_has_step_zero(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "1000 0.5\n")
    assert [(p.step, p.value) for p in one(by_hand).points] == [(0, 0.5)]


def test_rows_that_are_no_points_are_flagged(by_hand):
    run = make_run(by_hand)
    junk = b"1 2\nx y z\n1\n\xff\xfe 1 1\n\n1 1 1.5\n" + b"9" * 3000 + b" 1 1\n7 0.5 7\n"
    write(run / "metrics" / "m", junk)
    made = one(by_hand)
    assert [p.step for p in made.points] == [0, 7]
    assert ("metrics.m", "truncated") in flags(made)


def test_a_number_that_no_bundle_can_carry_is_no_point(by_hand):
    write(make_run(by_hand) / "metrics" / "m", f"1 1 {10**30}\n{10**30} 1 1\n1 2 3\n")
    assert [p.value for p in one(by_hand).points] == [2.0]


def test_many_bad_rows_are_few_flags(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "x\n" * 50_000)
    assert len(one(by_hand).fidelity) < 10


# --- what is missing or broken ----------------------------------------------------------------------------------------


def test_a_run_with_missing_folders_is_read(by_hand):
    run = make_run(by_hand)
    (run / "metrics").rmdir()
    made = one(by_hand)
    assert (made.points, dict(made.parameters), made.artefacts) == ((), {}, ())
    assert made.status == "finished"


BROKEN = {
    "binary": b"\x00\xff\xfe" * 50,
    "a tag": b"!!python/object/apply:os.system ['touch /tmp/pwned']\n",
    "a bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "a list": b"- 1\n",
    "text": b"hello",
    "nothing": b"",
    "deep": b"[" * 3000,
    "no date": b"start_time: 2026-02-30\n",
    "a long number": b"start_time: " + b"9" * 5000 + b"\n",
    "an odd key": b"? [a]\n: 1\n",
    "a merge": b"<<: {run_id: x}\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_run_whose_description_is_broken_is_kept_and_flagged(by_hand, content):
    run = make_run(by_hand)
    write(run / "meta.yaml", content)
    write(run / "metrics" / "m", "1 2 3\n")
    made = one(by_hand)
    assert made.status == "unknown"
    assert made.started is None
    assert len(made.points) == 1
    assert ("run", "unreadable") in flags(made)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_experiment_whose_description_is_broken_is_refused(by_hand, content):
    make_run(by_hand)
    write(by_hand / "1" / "meta.yaml", content)
    assert "meta.yaml" in refused(by_hand).message


def test_values_of_the_wrong_kind_in_a_description_are_unknown(by_hand):
    make_run(by_hand, status="[]", start_time="soon", end_time="true", run_name="7")
    made = one(by_hand)
    assert (made.status, made.started, made.ended) == ("unknown", None, None)


def test_what_a_description_says_can_be_written_as_utf8(by_hand):
    make_run(by_hand, run_name='"\\ud800"')
    write(by_hand / "1" / "meta.yaml", 'experiment_id: "1"\nname: "\\ud800"\n')
    made = one(by_hand)
    for text in (made.name or "", made.source.experiment, made.source.run_id):
        text.encode()


def test_text_that_is_not_utf8_is_escaped_and_flagged(by_hand):
    run = make_run(by_hand)
    write(run / "params" / "p", b"\xffA")
    write(run / "tags" / "t", b"\xfe")
    made = one(by_hand)
    assert (made.parameters["p"], made.tags["t"]) == ("\\xffA", "\\xfe")
    assert {("params.p", "not_utf8"), ("tags.t", "not_utf8")} <= flags(made) or {
        ("parameters.p", "not_utf8"),
        ("tags.t", "not_utf8"),
    } <= flags(made)


def test_a_run_folder_whose_name_is_not_utf8_gets_a_name(by_hand):
    make_run(by_hand).rename(by_hand / "1" / os.fsdecode(b"r\xff"))
    assert one(by_hand).source.run_id == "r\\xff"


@pytest.mark.parametrize("identity", ["..", "../../../secret", "/etc", ".", "", "x\\0y", "[1]"])
def test_a_data_set_is_looked_for_only_among_the_data_sets(by_hand, identity):
    outside = write(by_hand.parent / "secret" / "meta.yaml", f"name: {SECRET}\n")
    run = make_run(by_hand)
    (by_hand / "1" / "datasets").mkdir()
    described = f'source_type: DATASET\nsource_id: "{identity}"\ndestination_id: "{identity}"\n'
    write(run / "inputs" / "i" / "meta.yaml", described)
    assert outside.exists()
    assert all(SECRET not in each.name for each in one(by_hand).data)


def test_a_data_set_without_a_description_is_named_and_flagged(by_hand):
    run = make_run(by_hand)
    write(run / "inputs" / "i" / "meta.yaml", "source_type: DATASET\nsource_id: gone\n")
    write(run / "inputs" / "broken" / "meta.yaml", "]")
    write(run / "inputs" / "model" / "meta.yaml", "source_type: MODEL_INPUT\nsource_id: m-1\n")
    made = one(by_hand)
    assert [each.name for each in made.data] == ["gone"]
    assert ("data", "unreadable") in flags(made)


def test_an_empty_folder_is_no_store(tmp_path):
    assert "no MLflow experiment" in refused(tmp_path).message
    assert MlflowImporter().detect(tmp_path) == ()


def test_a_run_folder_is_no_experiment(by_hand):
    make_run(by_hand)
    assert MlflowImporter().detect(by_hand / "1") == ()


def test_an_unreadable_folder_is_named(by_hand, monkeypatch):
    make_run(by_hand)
    scandir = os.scandir

    def fails(path=".", *args):
        if os.fspath(path) == str(by_hand / "1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path, *args)

    monkeypatch.setattr(os, "scandir", fails)
    assert "Permission denied" in refused(by_hand).message


def test_an_experiment_that_is_there_twice_is_refused(by_hand):
    make_run(by_hand)
    make_run(by_hand, experiment="2")
    write(by_hand / "2" / "meta.yaml", "experiment_id: '1'\nname: hand\n")
    assert "twice" in refused(by_hand).message


def test_a_description_that_names_another_run_is_flagged(by_hand):
    make_run(by_hand, run_id="other")
    assert ("run", "id_mismatch") in flags(one(by_hand))


def test_a_row_that_is_longer_than_any_of_mlflow_is_refused(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "1 1 1" + " " * 100_000 + "\n")
    assert "row" in refused(by_hand).message


def test_artefacts_that_a_server_keeps_in_the_store_are_read(by_hand):
    run = make_run(by_hand, artifact_uri=f"mlflow-artifacts:/1/{'a' * 32}/artifacts")
    file = write(run / "artifacts" / "model.bin", "x")
    made = one(by_hand)
    assert [each.file for each in made.artefacts] == [file]
    assert made.fidelity == ()


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_artefacts_elsewhere_are_flagged(by_hand):
    make_run(by_hand, artifact_uri="s3://bucket/1/r/artifacts")
    (flag,) = one(by_hand).fidelity
    assert (flag.field, flag.flag) == ("artefacts", "artefacts_unreachable")
    assert "s3" in flag.detail


def test_artefacts_of_a_given_folder_are_read(by_hand, tmp_path):
    run = make_run(by_hand, artifact_uri=f"mlflow-artifacts:/1/{'a' * 32}/artifacts")
    file = write(tmp_path / "given" / "1" / run.name / "artifacts" / "model.bin", "x")
    assert [each.file for each in one(by_hand, artefacts=tmp_path / "given").artefacts] == [file]
    assert ("artefacts", "artefacts_unreachable") in flags(one(by_hand))


def test_a_store_that_lost_its_empty_folders_is_read_alike():
    # The fixture has none: git does not keep them.
    assert not [path for path in (FIXTURES / "mlruns").rglob("*") if path.is_dir() and not any(path.iterdir())]  # fmt: skip
    assert named(FIXTURES / "mlruns", "killed").fidelity == ()


# --- hostile stores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["file:///etc", "/etc", "../../../../etc", "mlflow-artifacts:/../../etc", "file:../.."]
)
def test_a_foreign_store_cannot_point_at_the_readers_files(by_hand, uri):
    write(by_hand.parent / "secret", SECRET)
    make_run(by_hand, artifact_uri=f'"{uri}"')
    write(
        by_hand / "1" / "models" / "m-1" / "meta.yaml",
        f'source_run_id: {"a" * 32}\nartifact_location: "{uri}"\n',
    )
    for each in one(by_hand, confined=True).artefacts:
        assert by_hand in each.file.resolve().parents


LINKS = [
    "1/RUN/metrics/m",
    "1/RUN/params/p",
    "1/RUN/tags/t",
    "1/RUN/artifacts/a",
    "1/RUN/meta.yaml",
    "1/RUN/metrics",
    "1/RUN/params",
    "1/RUN/tags",
    "1/RUN/artifacts",
    "1/RUN/inputs",
    "1/datasets",
    "1/models",
    "1/other",
    "2",
    ".trash",
]


@pytest.mark.parametrize("place", LINKS)
def test_a_link_is_never_followed(by_hand, place):
    """Whatever is a link, nothing of what it leads to comes in (or the store is refused)."""
    outside = by_hand.parent.parent / "readers"
    for name in ("m", "p", "t", "a"):
        write(outside / "flat" / name, f"1 4711.0 1\n{SECRET}\n")
    elsewhere = make_run(outside / "tree", experiment="9", run=SECRET)
    write(elsewhere / "params" / "p", SECRET)
    write(outside / "i" / "meta.yaml", f"source_type: DATASET\nsource_id: {SECRET}\n")
    run = make_run(by_hand)
    link = by_hand / place.replace("RUN", run.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    targets = {
        "meta.yaml": elsewhere / "meta.yaml",
        "inputs": outside,
        "datasets": outside / "tree",
        "models": outside / "tree" / "9",
        "other": elsewhere,
        "2": elsewhere.parent,
        ".trash": outside / "tree",
    }
    default = outside / "flat" if len(place.split("/")) < 4 else outside / "flat" / link.name
    link.symlink_to(targets.get(link.name, default))
    try:
        runs = [
            run
            for name in MlflowImporter().experiments(by_hand)
            for run in read(by_hand, name, confined=True)
        ]
    except SourceError:
        return
    shown = repr([(r, [a.file and a.file.read_text() for a in r.artefacts]) for r in runs])
    assert SECRET not in shown
    assert "4711" not in shown


def test_pipes_and_devices_are_not_opened(by_hand):
    run = make_run(by_hand)
    for place in ("metrics/m", "params/p", "tags/t"):
        (run / place).parent.mkdir(exist_ok=True)
        os.mkfifo(run / place)
    (run / "meta.yaml").unlink()
    os.mkfifo(run / "meta.yaml")
    made = one(by_hand)
    assert made.points == ()
    assert ("run", "unreadable") in flags(made)


def sparse(file: Path, size: int) -> None:
    write(file, "")
    os.truncate(file, size)


@pytest.mark.parametrize(
    "place", ["1/meta.yaml", "1/RUN/meta.yaml", "1/RUN/params/p", "1/RUN/tags/t", "1/RUN/metrics/m"]
)
def test_a_huge_file_is_refused_before_it_is_read(by_hand, place):
    run = make_run(by_hand)
    sparse(by_hand / place.replace("RUN", run.name), 4 << 30)
    tracemalloc.start()
    try:
        error = refused(by_hand)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Path(place).name in error.message
    assert peak < 64 << 20


def test_many_large_values_of_one_run_are_refused(by_hand, monkeypatch):
    from bundler.importers import mlflow_files

    monkeypatch.setattr(mlflow_files, "MAX_TEXT", 1000)
    run = make_run(by_hand)
    for number in range(5):
        write(run / "params" / f"p{number}", "x" * 300)
    assert "1,000" in refused(by_hand).message


def test_too_many_points_of_one_run_are_refused(by_hand, monkeypatch):
    from bundler.importers import mlflow_files

    monkeypatch.setattr(mlflow_files, "MAX_POINTS", 10)
    run = make_run(by_hand)
    write(run / "metrics" / "a", "1 1 1\n" * 6)
    assert len(one(by_hand).points) == 6
    write(run / "metrics" / "b", "1 1 1\n" * 6)
    assert "10" in refused(by_hand).message


@pytest.mark.parametrize("group", ["artifacts", "metrics", "params"])
def test_folders_inside_one_another_have_an_end(by_hand, group):
    folder = make_run(by_hand) / group
    folder.mkdir(exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    try:
        # Longer than any path that the system takes at once.
        for _ in range(40):
            os.mkdir("d" * 200, dir_fd=here)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    made = one(by_hand)
    assert made.points == ()
    assert "unreadable" in {each.flag for each in made.fidelity}


# --- fuzz -------------------------------------------------------------------------------------------------------------

TEXTS = sorted(
    path.relative_to(FIXTURES / "mlruns")
    for path in (FIXTURES / "mlruns").rglob("*")
    if path.is_file() and "artifacts" not in path.parts
)


def survives(store: Path) -> None:
    """Reading gives runs or a :class:`SourceError`, and nothing else."""
    importer = MlflowImporter()
    importer.detect(store.parent)
    for experiment in (MAIN, None):
        try:
            with importer.open(
                store, experiment=experiment, artefacts=None, confined=True
            ) as session:
                list(session)
        except SourceError:
            continue


@FUZZ
@given(st.data())
def test_changed_text_files_never_end_in_another_error(tmp_path, data):
    store = tmp_path / "mlruns"
    if not store.exists():
        shutil.copytree(FIXTURES / "mlruns", store)
    files = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4, unique=True))
    try:
        for file in files:
            content = bytearray((FIXTURES / "mlruns" / file).read_bytes())
            start = data.draw(st.integers(0, len(content)))
            content[start : start + data.draw(st.integers(0, 8))] = data.draw(
                st.binary(max_size=40)
            )
            (store / file).write_bytes(content)
        survives(store)
    finally:
        for file in files:
            (store / file).write_bytes((FIXTURES / "mlruns" / file).read_bytes())


WORDS = st.sampled_from(
    ["experiment_id", "run_id", "name", "status", "start_time", "tags", "source_id", "a", "~", "1"]
)
PIECES = st.sampled_from(
    ["[]", "{}", "~", "-1", "1e400", ".nan", "0x", "2026-02-30", "1:99:99", "'", '"\\ud800"', "&a *a", "!!binary x",
     "9" * 4400, "..", "? [a]", "\t", "\x00", "|\n x", "=", "<<", "0o9", "0b2", "1_0", "true"]
)  # fmt: skip


@FUZZ
@given(st.lists(st.tuples(WORDS, PIECES), max_size=6), st.sampled_from(["1/meta.yaml", "RUN"]))
def test_odd_descriptions_never_end_in_another_error(tmp_path, lines, place):
    store = tmp_path / "mlruns"
    if store.exists():
        shutil.rmtree(store)
    run = make_run(store)
    text = "".join(f"{word}: {piece}\n" for word, piece in lines)
    write(run / "meta.yaml" if place == "RUN" else store / place, text)
    survives(store)
