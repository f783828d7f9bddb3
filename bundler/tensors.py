"""Model weights in safetensors format, compared tensor by tensor and bit by bit. Nothing is unpickled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

from bundler.canonical import MAX_INTEGER
from bundler.errors import MalformedError, quoted
from bundler.report import TensorComparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# numpy's names for the dtypes that it has, and for BF16 those of its bits; others are compared by their bytes alone.
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
}

# The bits of infinity: above them, without the sign, lies what is not a number.
_INFINITY = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}

CHUNK = 1 << 20
"""Elements that are converted to 64 bits at a time, so that a tensor needs memory once more, not many times."""


LARGEST = 2**53 - 1
"""Largest dimension of a tensor: the largest whole number that every JSON reader keeps."""


def read(data: bytes, *, name: str) -> dict[str, dict[str, Any]]:
    """Return tensor name → {dtype, shape, data}. Raises :class:`MalformedError` (``tensors-syntax``)."""
    try:
        tensors = {key: dict(value) for key, value in deserialize(data)}  # type: ignore[no-untyped-call]  # Rust
    except (SafetensorError, ValueError) as error:
        raise MalformedError("tensors-syntax", f"{name}: not a safetensors file: {error}") from None
    for key, value in tensors.items():
        if any(size > LARGEST for size in value["shape"]):
            # An empty tensor can have any shape; no report could hold it.
            raise MalformedError(
                "tensors-syntax", f"{name}: {quoted(key)} has a dimension beyond 2^53"
            )
    return tensors


def compare(declared: bytes, rerun: bytes, *, name: str) -> tuple[TensorComparison, ...]:
    """Compare two safetensors files; a tensor that only one of them has counts as different.

    Of equal bits, all distances are zero, whatever they are. Distances in units in the last place are integers of at
    most 2^53 - 1, the largest that JSON carries.
    """
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
    distances: dict[str, Any] = {"equal_fraction": None, "max_absolute_difference": None}
    if equal:
        distances = {
            "equal_fraction": 1.0,
            "max_absolute_difference": 0.0,
            "ulp_median": 0,
            "ulp_p99": 0,
            "relative_l2": 0.0,
            "cosine": 1.0,
        }
    elif same_kind and shown["dtype"] in _NUMPY:
        data = (left["data"], right["data"])  # type: ignore[index]  # same_kind: both are there
        distances = _distances(shown["dtype"], *data) | _last_places(shown["dtype"], *data)
    return TensorComparison(
        tensor=name,
        dtype=shown["dtype"],
        shape=tuple(shown["shape"]),
        equal=equal,
        **distances,
    )


def _distances(dtype: str, left: bytes, right: bytes) -> dict[str, float | None]:
    """Fraction of equal elements, largest absolute difference, relative L2 and cosine: in 64 bits, chunk by chunk."""
    import numpy as np  # noqa: PLC0415  # only where bits differ

    a, b = _bits(dtype, left), _bits(dtype, right)
    same, largest = 0, 0.0
    squares, products, others, differences = 0.0, 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):
        for start in range(0, a.size, CHUNK):
            part = slice(start, start + CHUNK)
            same += int((a[part] == b[part]).sum())
            x, y = _values(dtype, a[part]), _values(dtype, b[part])
            difference = np.abs(y - x)
            # numpy's maximum keeps what is not a number; Python's would depend on the order.
            largest = float(np.maximum(largest, difference.max()))
            squares += float(x @ x)
            others += float(y @ y)
            products += float(x @ y)
            differences += float(difference @ difference)
    norms = math.sqrt(squares) * math.sqrt(others)
    cosine = products / norms if norms > 0 else math.nan
    # Zeros of both signs differ in their bits alone.
    relative = 0.0 if differences == 0 else math.inf
    if squares > 0:
        relative = math.sqrt(differences / squares)
    return {
        "equal_fraction": same / a.size,
        "max_absolute_difference": _finite(largest),
        "relative_l2": _finite(relative),
        "cosine": max(-1.0, min(1.0, cosine)) if math.isfinite(cosine) else None,
    }


def _last_places(dtype: str, left: bytes, right: bytes) -> dict[str, int | None]:
    """Median and 99th percentile (nearest rank) of the distance in units in the last place, for floats.

    Counted over the floats of the type in their order, so that both zeros are one and infinity follows the largest
    number. What is a number on one side only is infinitely far away; on neither, at the same place.
    """
    if dtype not in _INFINITY:
        return {}
    import numpy as np  # noqa: PLC0415  # only where bits differ

    a, b = _bits(dtype, left), _bits(dtype, right)
    far = int(np.iinfo(a.dtype).max)
    distance = np.empty(a.size, a.dtype)
    for start in range(0, a.size, CHUNK):
        part = slice(start, start + CHUNK)
        x, x_nan = _place(dtype, a[part])
        y, y_nan = _place(dtype, b[part])
        places = np.maximum(x, y) - np.minimum(x, y)
        places[x_nan | y_nan] = far
        places[x_nan & y_nan] = 0
        distance[part] = places
    ranks = [(a.size - 1) // 2, math.ceil(0.99 * a.size) - 1]
    distance.partition(ranks)
    found = [int(distance[rank]) for rank in ranks]
    median, high = [None if each == far else min(each, MAX_INTEGER) for each in found]
    return {"ulp_median": median, "ulp_p99": high}


def _place(dtype: str, bits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Position of each float in the order of all floats of its type, and which of them are none."""
    import numpy as np  # noqa: PLC0415  # only where bits differ

    middle = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    size = bits & ~middle
    return np.where(bits & middle, middle - size, middle + size), size > _INFINITY[dtype]


def _bits(dtype: str, data: bytes) -> NDArray[Any]:
    """The elements as unsigned integers: equal only where all bits are."""
    import numpy as np  # noqa: PLC0415  # only where bits differ

    return np.frombuffer(data, dtype=f"<u{np.dtype(_NUMPY[dtype]).itemsize}")


def _values(dtype: str, bits: NDArray[Any]) -> NDArray[np.float64]:
    """The elements as doubles. BF16 is the upper half of F32."""
    import numpy as np  # noqa: PLC0415  # only where bits differ

    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(_NUMPY[dtype]).astype(np.float64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
