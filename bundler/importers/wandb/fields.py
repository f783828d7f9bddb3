"""Fields of W&B's messages that name a run and its environment, by their numbers in ``wandb_internal.proto``."""

from __future__ import annotations

from typing import Any, cast

from bundler.importers import protobuf
from bundler.importers.protobuf import signed

_RUN_TEXTS = {
    1: "id",
    2: "entity",
    3: "project",
    6: "group",
    7: "job_type",
    8: "name",
    9: "notes",
    12: "sweep",
    13: "host",
}


def run_fields(body: bytes) -> dict[str, Any]:
    """What a ``run`` record says; messages in it as bytes: ``configs``, ``summaries``, ``telemetry``."""
    said: dict[str, Any] = {"tags": [], "configs": [], "summaries": []}
    for number, kind, value in protobuf.fields(body):
        if kind != protobuf.BYTES:
            continue
        data = cast(bytes, value)
        if number in _RUN_TEXTS:
            said[_RUN_TEXTS[number]] = decoded(data)
        elif number == 4:
            said["configs"].append(data)
        elif number == 5:
            said["summaries"].append(data)
        elif number == 10:
            said["tags"].append(decoded(data))
        elif number == 17:
            said["started"] = milliseconds(data)
        elif number == 19:
            said["telemetry"] = data
        elif number == 21:
            said["remote"], said["commit"] = text_field(data, 1), text_field(data, 2)
    return said


_ENVIRONMENT_TEXTS = {
    1: "os",
    2: "python",
    4: "docker",
    6: "program",
    7: "codePath",
    8: "codePathLocal",
    10: "email",
    11: "root",
    12: "host",
    13: "username",
    14: "executable",
    18: "gpu",
    25: "cudaVersion",
}
_ENVIRONMENT_NUMBERS = {16: "cpu_count", 17: "cpu_count_logical", 19: "gpu_count"}


def environment_fields(body: bytes) -> dict[str, Any]:
    """An environment record in the form of ``wandb-metadata.json``."""
    said: dict[str, Any] = {}
    for number, kind, value in protobuf.fields(body):
        if isinstance(value, int):
            if number in _ENVIRONMENT_NUMBERS:
                said[_ENVIRONMENT_NUMBERS[number]] = value
        elif kind == protobuf.BYTES:
            if number in _ENVIRONMENT_TEXTS:
                said[_ENVIRONMENT_TEXTS[number]] = decoded(value)
            _environment_parts(number, value, said)
    return said


def _environment_parts(number: int, value: bytes, said: dict[str, Any]) -> None:
    if number == 5:
        said.setdefault("args", []).append(decoded(value))
    elif number == 9:
        said["git"] = {"remote": text_field(value, 1), "commit": text_field(value, 2)}
    elif number == 21:
        said["memory"] = {"total": number_field(value, 1)}
    elif number == 22:
        said["cpu"] = {"model": text_field(value, 3)}
    elif number == 24:
        device = {"name": text_field(value, 1), "memoryTotal": number_field(value, 2)}
        said.setdefault("gpu_nvidia", []).append(device)


def milliseconds(stamp: bytes) -> int | None:
    """Milliseconds that a message ``Timestamp`` says."""
    seconds, nanos = number_field(stamp, 1), number_field(stamp, 2)
    return signed(seconds) * 1000 + signed(nanos) // 1_000_000 if seconds or nanos else None


def text_field(message: bytes, wanted: int) -> str:
    """The text of field ``wanted``; the last one counts, as everywhere in Protocol Buffers."""
    found = b""
    for number, kind, value in protobuf.fields(message):
        if number == wanted and kind == protobuf.BYTES:
            found = cast(bytes, value)
    return decoded(found)


def number_field(message: bytes, wanted: int) -> int:
    """The number in field ``wanted``, 0 if there is none."""
    found = 0
    for number, kind, value in protobuf.fields(message):
        if number == wanted and kind == protobuf.VARINT:
            found = cast(int, value)
    return found


def decoded(data: bytes) -> str:
    """Text of a field."""
    return data.decode("utf-8", "backslashreplace")
