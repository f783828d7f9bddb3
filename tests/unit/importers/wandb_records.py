"""Record logs made by hand: messages, records and frames as W&B writes them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.model import ImportedRun
from bundler.importers.wandb import WandbImporter

FIXTURES = Path(__file__).parents[2] / "fixtures" / "wandb"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
VERSIONS = ("0.17", "0.19", "0.31")
HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32768


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: float | str | bytes) -> bytes:
    """One field: an int as a varint, a float in eight bytes, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def item(name: str | tuple[str, ...], value: object, *, raw: str | None = None) -> bytes:
    """An item of history, summary or config; a tuple is a nested name. ``raw`` is JSON text as it is."""
    parts = [field(1, name)] if isinstance(name, str) else [field(2, each) for each in name]
    return b"".join(parts) + field(16, json.dumps(value) if raw is None else raw)


def history(step: int, **values: object) -> bytes:
    """A history record."""
    body = b"".join(field(1, item(name, value)) for name, value in values.items())
    return record(2, body + field(2, field(1, step) if step else b""))


def record(kind: int, body: bytes, number: int = 1) -> bytes:
    return field(1, number) + field(kind, body)


def run(identity: str = "abc", project: str = "p", started: int = 1000, more: bytes = b"") -> bytes:
    """A record of a run; ``started`` in milliseconds."""
    stamp = field(1, started // 1000) + field(2, started % 1000 * 1_000_000)
    return record(17, field(1, identity) + field(3, project) + field(17, stamp) + more)


def done(code: int = 0) -> bytes:
    return record(18, field(1, code) if code else b"")


def frame(body: bytes, kind: int = 1) -> bytes:
    return struct.pack("<IHB", zlib.crc32(body, zlib.crc32(bytes([kind]))), len(body), kind) + body


def framed(*records: bytes) -> bytes:
    """A whole log."""
    out = bytearray(HEADER)
    for each in records:
        first, rest = True, each
        while rest or first:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += bytes(left)
                continue
            body, rest = rest[: left - 7], rest[left - 7 :]
            out += frame(body, (1 if first else 4) if not rest else (2 if first else 3))
            first = False
    return bytes(out)


def write_log(folder: Path, *records: bytes, identity: str = "abc", day: int = 1) -> Path:
    """A run folder in ``folder`` with a log of ``records``; returns the log."""
    log = folder / f"offline-run-202601{day:02}_000000-{identity}" / f"run-{identity}.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(framed(*records))
    return log


def read(
    store: Path | str, experiment: str | None = None, artefacts: Path | None = None
) -> list[ImportedRun]:
    with WandbImporter().open(store, experiment=experiment, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def only(store: Path, **more: object) -> ImportedRun:
    (found,) = read(store, **more)
    return found


def one(folder: Path, *records: bytes) -> ImportedRun:
    """The run of a log that holds a record of the run, ``records`` and an exit."""
    return only(write_log(folder, run(), *records, done()).parents[1])


def fixture(name: str) -> ImportedRun:
    """The fixture's run with the id ``name``, such as ``baseline-031``."""
    version = f"0.{name[-2:]}"
    (found,) = [each for each in read(FIXTURES / version / "wandb") if each.source.run_id == name]
    return found


def values(found: ImportedRun, metric: str) -> list[float]:
    return [point.value for point in found.points if point.metric == metric]


def flags(found: ImportedRun) -> dict[tuple[str, str], str]:
    return {(each.field, each.flag): each.detail for each in found.fidelity}


def refused(store: Path | str, match: str) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value
