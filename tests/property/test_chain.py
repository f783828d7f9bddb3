"""Any change to any log is found: by the chain, or by the checkpoint if the chain was rebuilt."""

from __future__ import annotations

import hashlib
import json

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st

from bundler import chain
from tests.property.strategies import attempt, logs, records


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def accepted(lines: list[bytes], checkpoint) -> bool:
    """What a verifier accepts: the chain holds and ends as signed."""
    _, code = attempt(lambda: list(chain.walk(lines)))
    assert not code or code.startswith(("log-", "json-"))
    return not code and chain.checkpoint(lines) == checkpoint


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_the_merkle_root_is_that_of_the_recursive_definition(leaves):
    assert chain.merkle_root(leaves) == mth(leaves).hex()


@pytest.mark.parametrize("size", [2**k + d for k in range(1, 9) for d in (-1, 0, 1)])
def test_the_merkle_root_is_right_around_every_power_of_two(size):
    leaves = [b"%d" % number for number in range(size)]
    assert chain.merkle_root(leaves) == mth(leaves).hex()


@given(logs)
def test_a_log_is_accepted_and_gives_its_records_back(runs):
    lines = chain.append([], runs)
    assert accepted(lines, chain.checkpoint(lines))
    assert [rfc8785.dumps(run) for run in chain.walk(lines)] == [rfc8785.dumps(run) for run in runs]
    assert chain.split(chain.join(lines)) == lines


@given(logs, logs)
def test_a_log_written_in_two_goes_is_the_same_log(first, second):
    assert chain.append(chain.append([], first), second) == chain.append([], first + second)


@given(logs, st.data())
def test_a_flipped_bit_anywhere_is_found(runs, data):
    lines = chain.append([], runs)
    text = bytearray(chain.join(lines))
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= 1 << data.draw(st.integers(0, 7))
    changed, code = attempt(chain.split, bytes(text))
    assert code == "log-syntax" or not accepted(changed, chain.checkpoint(lines))


@st.composite
def changes(draw) -> tuple[list[dict], list[dict]]:
    """A log's runs, and the runs after one was dropped, added, moved, doubled or edited."""
    runs = draw(logs)
    at = draw(st.integers(0, len(runs) - 1))
    changed = list(runs)
    match draw(st.sampled_from(["drop", "add", "move", "double", "edit", "swap"])):
        case "drop":
            del changed[at]
        case "add":
            changed.insert(draw(st.integers(0, len(runs))), draw(records))
        case "move":
            changed.insert(draw(st.integers(0, len(runs) - 1)), changed.pop(at))
        case "double":
            changed.insert(draw(st.integers(0, len(runs))), runs[at])
        case "edit":
            changed[at] = draw(records)
        case "swap":
            other = draw(st.integers(0, len(runs) - 1))
            changed[at], changed[other] = changed[other], changed[at]
    assume(rfc8785.dumps(changed) != rfc8785.dumps(runs))
    return runs, changed


@given(changes())
def test_any_change_is_found_even_if_the_chain_is_rebuilt(pair):
    runs, changed = pair
    signed = chain.checkpoint(chain.append([], runs))
    rebuilt = chain.append([], changed)
    list(chain.walk(rebuilt))
    actual = chain.checkpoint(rebuilt)
    assert actual != signed
    assert actual.root != signed.root


@given(logs, st.data())
def test_dropping_doubling_or_moving_any_line_is_found(runs, data):
    lines = chain.append([], runs)
    at = data.draw(st.integers(0, len(lines) - 1))
    others = lines[:at] + lines[at + 1 :]
    to = data.draw(st.integers(0, len(others)))
    for changed in (others, lines[: at + 1] + lines[at:], [*others[:to], lines[at], *others[to:]]):
        if changed != lines:
            assert not accepted(changed, chain.checkpoint(lines))


@given(logs, records, st.data())
def test_editing_one_line_in_place_is_found(runs, other, data):
    lines = chain.append([], runs)
    at = data.draw(st.integers(0, len(lines) - 1))
    document = json.loads(lines[at])
    edited = rfc8785.dumps(document | {"run": other})
    assume(edited != lines[at])
    assert not accepted([*lines[:at], edited, *lines[at + 1 :]], chain.checkpoint(lines))


@given(logs, st.integers(0, 8))
def test_a_cut_tail_is_found_by_the_checkpoint_only(runs, keep):
    assume(keep < len(runs))
    lines = chain.append([], runs)
    list(chain.walk(lines[:keep]))
    assert not accepted(lines[:keep], chain.checkpoint(lines))
