"""Strict JSON in, RFC 8785 out. The vectors are those of RFC 8785, sections 3.2.2 and 3.2.3 and appendix B."""

from __future__ import annotations

import json
import math
import struct

import pytest

from bundler import canonical
from bundler.errors import MalformedError

REFUSED = {
    "a key that stands twice": (b'{"a":1,"a":2}', "json-duplicate-key"),
    "a key that stands twice in an inner object": (b'[{"b":{"a":1,"a":1}}]', "json-duplicate-key"),
    "a key that stands twice in two spellings": (b'{"a":1,"\\u0061":2}', "json-duplicate-key"),
    "NaN": (b"[NaN]", "json-not-finite"),
    "Infinity": (b"Infinity", "json-not-finite"),
    "-Infinity": (b"-Infinity", "json-not-finite"),
    "1e400": (b"1e400", "json-number-range"),
    "-1e400": (b"[-1e400]", "json-number-range"),
    "2^53 + 1": (b"9007199254740993", "json-integer-range"),
    "-2^53 - 1": (b"-9007199254740993", "json-integer-range"),
    "2^64 - 1": (b"18446744073709551615", "json-integer-range"),
    "10^21 without an exponent": (b"1" + b"0" * 21, "json-integer-range"),
    "5,000 digits": (b"9" * 5000, "json-integer-range"),
    "100,000 arrays": (b"[" * 100_000 + b"]" * 100_000, "json-depth"),
    "65 arrays": (b"[" * 65 + b"]" * 65, "json-depth"),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json-depth"),
    "a lone high surrogate": (b'"\\ud800"', "json-surrogate"),
    "a lone low surrogate": (b'"\\udc00x"', "json-surrogate"),
    "a surrogate pair in the wrong order": (b'"\\udc00\\ud800"', "json-surrogate"),
    "a lone surrogate in a key": (b'{"\\udfff":1}', "json-surrogate"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "json-encoding"),
    "UTF-16 with a mark": ('{"a":1}'.encode("utf-16"), "json-encoding"),
    "UTF-16 without a mark": ('{"é":1}'.encode("utf-16-le"), "json-encoding"),
    "UTF-16 that is ASCII with NULs": ("1".encode("utf-16-be"), "json-syntax"),
    "Latin-1": (b'"\xe9"', "json-encoding"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "json-encoding"),
    "an overlong NUL": (b'"\xc0\x80"', "json-encoding"),
    "trailing data": (b"{}{}", "json-syntax"),
    "a trailing NUL": (b"{}\0", "json-syntax"),
    "nothing": (b"", "json-syntax"),
    "a raw line break in a string": (b'"a\nb"', "json-syntax"),
    "a trailing comma": (b"[1,]", "json-syntax"),
    "a comment": (b"/* */ 1", "json-syntax"),
    "single quotes": (b"'a'", "json-syntax"),
    "a leading zero": (b"01", "json-syntax"),
    "a leading plus": (b"+1", "json-syntax"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_two_readers_could_read_differently_is_refused_by_name(what):
    text, code = REFUSED[what]
    with pytest.raises(MalformedError) as refused:
        canonical.parse(text, name="x.json")
    assert refused.value.code == code
    assert refused.value.message.startswith("x.json: ")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("digits", ["9007199254740991", "-9007199254740991", "0", "-1"])
def test_an_integer_that_every_reader_keeps_is_an_integer(digits):
    value = canonical.parse(digits.encode())
    assert type(value) is int
    assert value == int(digits)


@pytest.mark.parametrize("value", [2.0**53, -(2.0**53), 1e17, 1.2e18, 2.0**60, 1e20, -1e20])
def test_a_large_double_without_a_fraction_can_be_read_back(value):
    """RFC 8785 writes 1e17 as an integer; a bundle with such a metric must not be unreadable."""
    again = canonical.parse_canonical(canonical.serialise({"flops": value}))
    assert again == {"flops": value}
    assert type(again["flops"]) is float


def test_a_large_integer_is_not_written():
    with pytest.raises(MalformedError) as refused:
        canonical.serialise({"seed": 2**53})
    assert refused.value.code == "json-not-canonical"


def test_many_keys_with_the_last_one_twice_are_refused_in_one_pass():
    """Counting each key anew would take hours here."""
    text = "{" + ",".join(f'"{i}":0' for i in range(200_000)) + ',"199999":0}'
    with pytest.raises(MalformedError) as refused:
        canonical.parse(text.encode())
    assert refused.value.code == "json-duplicate-key"


def test_a_message_neither_floods_nor_steers_a_terminal():
    text = '{"%s":1,"%s":1}' % (("\\u001b[2J" + "a" * 10_000,) * 2)
    with pytest.raises(MalformedError) as refused:
        canonical.parse(text.encode())
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 100


def test_the_sample_of_rfc_8785_section_3_2_2():
    text = rb"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical.serialise(canonical.parse(text)) == expected


def test_the_sample_of_rfc_8785_section_3_2_3_sorts_by_utf_16():
    value = {
        "€": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "ö": "Latin Small Letter O With Diaeresis",
    }
    written = json.loads(canonical.serialise(value))
    assert [text.split()[0] for text in written.values()] == [
        "Carriage", "One", "Control", "Latin", "Euro", "Emoji:", "Hebrew",
    ]  # fmt: skip


APPENDIX_B = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize("bits", APPENDIX_B)
def test_numbers_are_written_as_in_appendix_b_and_read_back(bits):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    text = APPENDIX_B[bits].encode()
    assert canonical.serialise(value) == text
    assert canonical.parse_canonical(text) == value


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, {1: 2}, {None: 1}, {"a"}, b"a", object()]
)
def test_what_has_no_canonical_form_is_not_written(value):
    with pytest.raises(MalformedError) as refused:
        canonical.serialise(value)
    assert refused.value.code == "json-not-canonical"


@pytest.mark.parametrize(
    ("value", "code"), [("\ud800", "json-surrogate"), ({"\udc00": 1}, "json-surrogate")]
)
def test_a_lone_surrogate_is_not_written(value, code):
    with pytest.raises(MalformedError) as refused:
        canonical.serialise(value)
    assert refused.value.code == code


def test_a_value_that_holds_itself_is_not_written():
    loop: list = []
    loop.append(loop)
    with pytest.raises(MalformedError) as refused:
        canonical.serialise(loop)
    assert refused.value.code == "json-depth"


@pytest.mark.parametrize(
    "text", [b'{ "a":1}', b'{"b":1,"a":2}', b"1.0", b"1e3", b"-0", b'"\\u0041"', b'"\\/"', b"[1]\n"]
)
def test_text_that_is_not_in_canonical_form_is_refused_where_it_must_be(text):
    canonical.parse(text)
    with pytest.raises(MalformedError) as refused:
        canonical.parse_canonical(text)
    assert refused.value.code == "json-not-canonical"


def test_depth_64_is_read_and_written():
    text = b"[" * 64 + b"]" * 64
    assert canonical.serialise(canonical.parse_canonical(text)) == text
