"""Reads parquet files for :mod:`bundler.importers.neptune.parquet`, as a program of its own.

A damaged or hostile file can end the process that decodes it (one in 300 damaged footers does, with pyarrow 26) or make
it take all memory. So it is another process than the bundler's, with a bound on its memory. It needs nothing but the
standard library and pyarrow, and is started by its path.

Each line of input asks for columns of a file; lines of output answer: rows, batch by batch, and the end or an error.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, TextIO

MAX_MEMORY = 6 << 30
"""Most bytes of address space of this process."""

BATCH = 8192
"""Rows in memory at a time."""

TEXTS = ("project_id", "run_id", "attribute_path", "attribute_type", "string_value")
"""Columns whose texts repeat."""

TYPES = {
    "project_id": "string",
    "run_id": "string",
    "attribute_path": "string",
    "attribute_type": "string",
    "step": "decimal128(18, 6)",
    "timestamp": "timestamp[ms, tz=UTC]",
    "int_value": "int64",
    "float_value": "double",
    "string_value": "string",
    "bool_value": "bool",
    "datetime_value": "timestamp[ms, tz=UTC]",
    "string_set_value": "list<element: string>",
    "file_value": "struct<path: string>",
}
"""Columns that are read, and their types. Histograms are not read."""


class RefusedError(ValueError):
    """A file that is no part of an export, or a larger one than any export has."""


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line of ``requests`` until there is none."""
    for line in requests:
        request = json.loads(line)
        try:
            found = batches(request["part"], request["columns"], request["limits"])
            answers.writelines(json.dumps({"rows": batch}) + "\n" for batch in found)
            answer: dict[str, object] = {"end": True}
        # Whatever the decoder raises is an answer; what ends the process is one as well.
        except Exception as error:  # noqa: BLE001
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def batches(part: str, columns: list[str], limits: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The columns of ``part``, some rows at a time; times in milliseconds, decimals as text.

    A column of texts is a list of different ones and their places, which are ``None`` where there is no text.
    """
    # An extra, without types.
    pq: Any = import_module("pyarrow.parquet")
    metadata = pq.read_metadata(part)
    _check(metadata, limits)
    with pq.ParquetFile(part, metadata=metadata, read_dictionary=list(TEXTS)) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns, use_threads=False):
            # Pages are decoded as they are: a text may be no text, a reference may lead nowhere.
            batch.validate(full=True)
            found = {name: _values(batch.column(name), TYPES[name]) for name in columns}
            if "string_value" in found:
                # Series of texts may be long, and nobody asks for them.
                kinds, value = found["attribute_type"], found["string_value"]
                texts = kinds["texts"].to_pylist()
                wanted = {place for place, text in enumerate(texts) if text == "string"}
                value["places"] = [
                    place if kind in wanted else None
                    for place, kind in zip(value["places"], kinds["places"], strict=True)
                ]
            yield {name: _compact(each) for name, each in found.items()}


def _values(column: Any, kind: str) -> Any:
    if kind == "string":
        return {"texts": column.dictionary, "places": column.indices.to_pylist()}
    if kind.startswith("timestamp"):
        return column.cast("int64").to_pylist()
    values = column.to_pylist()
    if kind.startswith("decimal"):
        return [None if each is None else str(each) for each in values]
    return values


def _compact(column: Any) -> Any:
    """A column of texts with those only that a row has."""
    if isinstance(column, list):
        return column
    used = sorted({place for place in column["places"] if place is not None})
    renumbered = {place: number for number, place in enumerate(used)}
    return {
        "texts": [column["texts"][place].as_py() for place in used],
        "places": [None if place is None else renumbered[place] for place in column["places"]],
    }


def _check(metadata: Any, limits: dict[str, int]) -> None:
    """Refuse other columns than the exporter's, and more than any export has."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    sets = [each for each in chunks if each.path_in_schema.startswith("string_set_value")]
    for what, count in (
        ("rows", metadata.num_rows),
        ("bytes when decompressed", sum(group.total_byte_size for group in groups)),
        ("members of sets", sum(each.num_values for each in sets) - metadata.num_rows),
    ):
        if count > limits[what]:
            raise RefusedError(f"more than {limits[what]:,} {what}")
    schema = metadata.schema.to_arrow_schema()
    for name, kind in TYPES.items():
        if name not in schema.names:
            raise RefusedError(f"no column {name}")
        found = str(schema.field(name).type).replace("list<item:", "list<element:")
        if found not in {kind, f"dictionary<values={kind}, indices=int32, ordered=0>"}:
            raise RefusedError(f"column {name} is {found}, not {kind}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin, sys.stdout)
