"""Model weights in safetensors format, compared tensor by tensor and bit by bit. Nothing is unpickled."""

from __future__ import annotations

import math
from typing import Any

from safetensors import SafetensorError, deserialize

from bundler.errors import MalformedError
from bundler.report import TensorComparison

# numpy's names for the dtypes that it has; others are compared by their bytes alone.
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}


def read(data: bytes, *, name: str) -> dict[str, dict[str, Any]]:
    """Return tensor name → {dtype, shape, data}. Raises :class:`MalformedError` (``tensors-syntax``)."""
    try:
        return {key: dict(value) for key, value in deserialize(data)}  # type: ignore[no-untyped-call]  # Rust
    except (SafetensorError, ValueError) as error:
        raise MalformedError("tensors-syntax", f"{name}: not a safetensors file: {error}") from None


def compare(declared: bytes, rerun: bytes, *, name: str) -> tuple[TensorComparison, ...]:
    """Compare two safetensors files; a tensor that only one of them has counts as different."""
    left = read(declared, name=f"{name} as declared")
    right = read(rerun, name=f"{name} as re-run")
    return tuple(
        _compare(key, left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys())
    )


def _compare(
    name: str, left: dict[str, Any] | None, right: dict[str, Any] | None
) -> TensorComparison:
    shown = left or right or {}
    same_kind = (
        left is not None
        and right is not None
        and (left["dtype"], left["shape"]) == (right["dtype"], right["shape"])
    )
    equal = same_kind and left["data"] == right["data"]  # type: ignore[index]  # same_kind: both are there
    fraction, largest = (1.0, 0.0) if equal else (None, None)
    if same_kind and not equal:
        fraction, largest = _distance(shown["dtype"], left["data"], right["data"])  # type: ignore[index]
    return TensorComparison(
        tensor=name,
        dtype=shown["dtype"],
        shape=tuple(shown["shape"]),
        equal=equal,
        equal_fraction=fraction,
        max_absolute_difference=largest,
    )


def _distance(dtype: str, left: bytes, right: bytes) -> tuple[float | None, float | None]:
    """Fraction of equal elements, and largest absolute difference where it is finite."""
    if dtype not in _NUMPY:
        return None, None
    import numpy as np  # noqa: PLC0415  # only where bits differ

    a = np.frombuffer(left, dtype=_NUMPY[dtype])
    b = np.frombuffer(right, dtype=_NUMPY[dtype])
    size = a.dtype.itemsize
    same = (np.frombuffer(left, dtype=f"V{size}") == np.frombuffer(right, dtype=f"V{size}")).mean()
    with np.errstate(all="ignore"):
        largest = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    return float(same), largest if math.isfinite(largest) else None
