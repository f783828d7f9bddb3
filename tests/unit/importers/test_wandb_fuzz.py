"""Whatever the bytes of a record log are: runs come out, or a SourceError that says what to do."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.protobuf import WireError, fields
from bundler.importers.wandb import WandbImporter
from bundler.importers.wandb.datastore import RecordLog
from bundler.importers.wandb.items import ItemReader, read_item
from tests.unit.importers.wandb_records import FIXTURES, done, field, framed, item, record, run

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LOGS = [
    log.read_bytes()
    for name in ("0.17/wandb/*tuned*", "0.19/wandb/*baseline*", "0.31/wandb/*tuned*", "0.31/wandb/*typed*")
    for log in FIXTURES.glob(f"{name}/*.wandb")
]  # fmt: skip
RECORDS = [
    [data for _, data in RecordLog(log).records()]
    for log in sorted(FIXTURES.glob("*/wandb/*/*.wandb"))
]


def survives(data: bytes, folder) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    log = folder / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(data)
    WandbImporter().detect(folder)
    try:
        with WandbImporter().open(folder, experiment=None, artefacts=None) as session:
            texts = [repr(run) for run in session]
            assert len(texts) == len(session)
    except SourceError as error:
        texts = [error.message, error.remedy]
        printable = error.message.isprintable()
    else:
        printable = True
    assert printable
    for text in texts:
        assert text
        text.encode()


@FUZZ
@given(
    st.sampled_from(LOGS),
    st.lists(st.tuples(st.integers(0, 8000), st.binary(min_size=1, max_size=20)), max_size=8),
)
def test_overwritten_bytes(tmp_path, log, changes):
    data = bytearray(log)
    for place, junk in changes:
        data[place : place + len(junk)] = junk
    survives(bytes(data), tmp_path)


@FUZZ
@given(st.sampled_from(LOGS), st.integers(0, 8000), st.integers(0, 8000), st.binary(max_size=200))
def test_cut_and_spliced_logs(tmp_path, log, start, end, junk):
    survives(log[:start] + junk + log[end:], tmp_path)


@FUZZ
@given(st.binary(max_size=500))
def test_any_bytes(tmp_path, data):
    survives(data, tmp_path)
    survives(framed() + data, tmp_path)


@FUZZ
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_records(tmp_path, records):
    survives(framed(run(), *records, done()), tmp_path)


@FUZZ
@given(st.sampled_from(RECORDS).filter(bool), st.data())
def test_changed_records_with_right_checksums(tmp_path, records, data):
    records = list(records)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(records) - 1))
        start = data.draw(st.integers(0, len(records[index])))
        after = start + data.draw(st.integers(0, 5))
        junk = data.draw(st.binary(max_size=8))
        records[index] = records[index][:start] + junk + records[index][after:]
    survives(framed(*records), tmp_path)


TEXTS = st.sampled_from(
    ["NaN", "1e400", "-0", "null", "true", '"NaN"', '"\\ud800"', "{}", "[]", '{"_type":1}', '{"a":{"b":NaN}}', "9" * 400,
     "9" * 5000, "1,2", "[1", "2]", "", " 1 ", "1.0", '{"":1}', "[" * 3000, '{"a":' * 70 + "1" + "}" * 70]
)  # fmt: skip
NAMES = st.sampled_from(["loss", "_step", "_timestamp", "_wandb", "", "a.b", "\u0142\x01", "_type"])
ITEMS = st.builds(
    lambda name, text: item(name if len(name) > 1 else name[0], None, raw=text),
    st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    TEXTS,
)
ODD = st.builds(
    lambda kind, items, step: record(kind, b"".join(field(n, each) for n, each in items) + step),
    st.sampled_from([2, 3, 5]),
    st.lists(st.tuples(st.sampled_from([1, 1, 1, 2]), ITEMS), max_size=4),
    st.sampled_from([b"", field(2, b""), field(2, field(1, 130)), field(2, field(1, 1 << 63))]),
)


@FUZZ
@given(st.lists(ODD, max_size=6))
def test_odd_values_under_odd_names(tmp_path, records):
    survives(framed(run(), *records, done()), tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=6), st.binary(max_size=6))
def test_the_short_way_agrees_with_the_long_one(items, tail):
    body = b"".join(field(1, each) for each in items) + tail

    found = []

    def sink(name):
        return (lambda text: found.append((name, text))), (lambda row: None)

    def long_way(data: bytes) -> None:
        for number, kind, value in fields(data):
            if number == 1 and kind == 2:
                found.append(read_item(value))
            else:
                found.append((number, value))

    def outcome(short: bool):
        found.clear()
        try:
            long_way(reader.read(body, 0)[1] if short else body)
        except WireError:
            return None
        return list(found)

    reader = ItemReader(sink)
    whole = outcome(short=False)
    assert outcome(short=True) == whole
    assert outcome(short=True) == whole
