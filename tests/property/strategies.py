"""What property tests draw from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from bundler.errors import MalformedError
from bundler.manifest import path_problem

MAX = 2**53 - 1

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Any Unicode but surrogates."""

doubles = st.floats(allow_nan=False, allow_infinity=False)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX, MAX) | doubles | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)

records = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.integers(-MAX, MAX) | doubles | texts, max_size=3
)
"""What stands under ``run`` in a line of a log; the chain does not care what it is."""

logs = st.lists(records, min_size=1, max_size=9)

_segments = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", fullmatch=True)

paths = (
    st.lists(_segments, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda path: path_problem(path) is None)
)
"""Paths that a bag may hold."""

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)

manifests = st.dictionaries(paths, digests, min_size=1, max_size=8)

files = st.dictionaries(paths, st.binary(max_size=1100), max_size=6)
"""Path → bytes; sizes around the block of a tar file."""


def attempt(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What ``call`` returns and no code, or nothing and the code of its refusal."""
    try:
        return call(*arguments), ""
    except MalformedError as error:
        return None, error.code


def same(left: object, right: object) -> bool:
    """Equal as JSON sees it: 1 is 1.0, and true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=0, abs_tol=0)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right
