"""Parameter and metric files are read as DVC reads them, within bounds; series are read row by row."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc import values as dvc_values
from bundler.importers.dvc.metrics import last_values, lines_of, series, series_name
from bundler.importers.dvc.pipeline import pipeline_of
from bundler.importers.dvc.values import flat, number, parsed, scalar
from bundler.importers.values import Flags

FUZZ = settings(max_examples=80, deadline=None)

# What ruamel.yaml 0.19 (`YAML(typ="safe")`, as in DVC 3.67) makes of plain words.
WORDS = {
    "1e-5": 1e-05, "1E+3": 1000.0, "010": 10, "0o10": 8, "0x1F": 31, "0b11": 3, "yes": "yes", "on": "on", "True": True,
    "TRUE": True, "tRue": "tRue", "1:30": "1:30", "1_000": 1000, "~": None, "null": None, "Null": None, "": None,
    "-.inf": -math.inf, ".NaN": math.nan, ".nan": math.nan, ".5": 0.5, "-.5e3": "-.5e3", "1.": 1.0, "1.e3": 1000.0,
    "1.2.3": "1.2.3", "+1": 1, "-0": 0, "1e": "1e", "e5": "e5", "0o": "0o", "0x": "0x", "08": 8, "1__0": 10,
    "_1": "_1", ".": ".", "+.INF": math.inf, "1.5_0": 1.5, "<": "<", "0b": "0b", "12e03": 12000.0, "-2e+05": -200000.0,
    "1e400": math.inf, "9" * 400: int("9" * 400),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_words_have_the_types_of_yaml_1_2(word):
    found = parsed(f"a: {word}\n".encode(), "x.yaml")["a"]
    assert (type(found), repr(found)) == (type(WORDS[word]), repr(WORDS[word]))


def test_dates_stay_text():
    assert parsed(b"a: 2026-01-02", "x.yaml") == {"a": "2026-01-02"}
    found = parsed(b"a = 2026-01-02T03:04:05Z\nb = [07:32:00]\n", "x.toml")
    assert {name: scalar(value) for name, value in found.items()} == {
        "a": "2026-01-02T03:04:05+00:00",
        "b": '["07:32:00"]',
    }


def test_anchors_are_read_and_merged():
    text = b"b: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: [*b, *b]\ne: {<<: [*b, {z: 4}]}\n"
    assert parsed(text, "x.yaml") == {
        "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": [{"x": 1, "y": 2}] * 2, "e": {"x": 1, "y": 2, "z": 4},
    }  # fmt: skip


BROKEN = {
    "python.py": (b"lr = 1", "Python is not run"),
    "latin.yaml": (b"a: \xe9", "."),
    "latin.json": (b'"\xe9"', "not UTF-8 at byte 1"),
    "latin.toml": (b'a = "\xe9"', "not UTF-8 at byte 5"),
    "tag.yaml": (b"a: !!python/object/apply:os.system [x]", "line 1: tags are not read"),
    "local.yaml": (b"a: !x 1", "tags"),
    "binary.yaml": (b"a: !!binary x", "tags"),
    "twice.yaml": (b"a: 1\nb: {c: 1, c: 2}", "line 2: a key twice"),
    "twice.json": (b'{"a": 1, "a": 2}', "twice"),
    "twice.toml": (b"a = 1\na = 2", "."),
    "deep.yaml": (b"[" * 1500, "nested too deep"),
    "deep.json": (b"[" * 100_000, "nested too deep"),
    "deep.toml": (b"a = " + b"[" * 3000, "."),
    "long.json": (b"9" * 5000, "."),
    "long.toml": (b"a = " + b"9" * 5000, "."),
    "huge.json": (b"1e400", "too large"),
    "cut.yaml": (b"a: [", "."),
    "control.yaml": (b"a: \x1b[31m", "."),
    "key.yaml": (b"? [a]\n: 1", "."),
    "alias.yaml": (b"a: *x", "undefined alias"),
    "merge.yaml": (b"a: {<<: 1}", "."),
    "many merges.yaml": (b"b: &b {x: 1}\na: {<<: [" + b"*b, " * 17 + b"]}", "more than 16 mappings merged"),
    "null.yaml": (b"\0", "."),
    "0x.yaml": (b"a: 0x_", "."),
}  # fmt: skip


@pytest.mark.parametrize("path", BROKEN)
def test_broken_files_are_errors_in_words_that_can_be_shown(path):
    data, words = BROKEN[path]
    with pytest.raises(ValueError, match=words) as error:
        parsed(data, path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def bomb(levels: int) -> bytes:
    """Lists of lists of lists, ten each."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines).encode()


def merges(levels: int) -> bytes:
    """Mappings that merge each other again and again."""
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 16)}]}}")
    return "\n".join(lines).encode()


def test_what_anchors_add_up_to_is_bounded():
    value = parsed(bomb(12), "x.yaml")
    with pytest.raises(ValueError, match="more than 100,000 values"):
        list(flat(value))
    nested = parsed(bomb(12).replace(b"[", b"{q: [").replace(b"]", b"]}"), "x.yaml")
    with pytest.raises(ValueError, match="more than 100,000 values"):
        list(flat(nested))


def test_what_is_merged_is_bounded(monkeypatch):
    # PyYAML before 6.0.4 repeats what is merged many times; from there on this takes many names.
    monkeypatch.setattr(dvc_values, "MAX_VALUES", 3)
    with pytest.raises(ValueError, match="more than 3 values"):
        parsed(b"a: &a {b: 1, c: 2}\nd: {<<: *a, e: 3, f: 4}\n", "x.yaml")


@pytest.mark.parametrize("text", [b"&a [*a]", b"a: &a {b: *a}", b"a: &a [{b: *a}]"])
def test_what_holds_itself_is_refused(text):
    with pytest.raises(ValueError, match=r"nested too deep|more than"):
        list(flat({"x": parsed(text, "x.yaml")}))


def test_nesting_is_bounded():
    deep: object = 1
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested too deep"):
        list(flat(deep))
    listed: object = 1
    for _ in range(100):
        listed = [listed]
    with pytest.raises(ValueError, match="nested too deep"):
        list(flat({"a": listed}))


def test_nested_values_have_names_with_dots_and_lists_are_text():
    value = {"a": {"b": {"c": 1}, "d": []}, "e": {}, 1: None, "f": [{"z": 1, "y": [True, "ä"]}]}
    assert [(name, scalar(item)) for name, item in flat(value)] == [
        ("a.b.c", 1), ("a.d", "[]"), ("1", None), ("f", '[{"y":[true,"ä"],"z":1}]'),
    ]  # fmt: skip
    assert list(flat(7)) == [("", 7)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0.5, 0.5), (True, None), ("1", None), ("nan", math.nan), ("Inf", math.inf), ("-inf", -math.inf),
     ("+inf", math.inf), (None, None), ([1], None), (10**400, None), (10**20, 1e20)],
)  # fmt: skip
def test_a_metric_is_a_number_or_a_word_for_one_that_json_lacks(value, expected):
    assert repr(number(value)) == repr(expected)


def test_half_characters_become_escapes():
    assert scalar("\ud800") == "\\ud800"
    assert scalar(["\ud800"]) == '["\\ud800"]'


# --- series -------------------------------------------------------------------------------------------------------------


def points(text: str | bytes, flag: Flags | None = None):
    data = text if isinstance(text, bytes) else text.encode()
    return list(series("m", lines_of(io.BytesIO(data)), flag or Flags(), "m.tsv"))


def flagged(text: str | bytes) -> set[tuple[str, str]]:
    flag = Flags()
    points(text, flag)
    return {(each.flag, each.detail) for each in flag.all()}


def test_rows_with_and_without_a_time_stand_under_one_header():
    text = "step\tm\n0\t1.0\n5000\t1\tnan\n2\t-inf\n"
    found = [(p.step, p.timestamp, repr(p.value)) for p in points(text)]
    assert found == [(0, 0, "1.0"), (1, 5000, "nan"), (2, 5000, "-inf")]
    assert flagged(text) == {("time_unknown", "2 points")}
    text = "timestamp\tstep\tm\n5000\t0\t1.0\n1\t2.0\n"
    assert [(p.step, p.timestamp) for p in points(text)] == [(0, 5000), (1, 5000)]


@pytest.mark.parametrize(
    ("row", "flag"),
    [
        ("0\tword\n", ("not_a_number", "m.tsv: row 2")),
        ("x\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("0.5\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("1\t2\t3\t4\n", ("not_a_number", "m.tsv: row 2")),
        ("9007199254740993\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("-9007199254740993\t1\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("1\n", ("not_a_number", "m.tsv: row 2")),
        (f"{'9' * 5000}\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("\xff\t1\n", ("not_a_number", "m.tsv: row 2")),
        ("0\t1", ("truncated_file", "m.tsv: row 2, the last, may be cut")),
        ("0", ("truncated_file", "m.tsv: row 2, the last, may be cut")),
    ],
)
def test_rows_that_are_no_points_are_flagged(row, flag):
    assert flag in flagged(("step\tm\n" + row).encode("latin-1"))


def test_of_many_rows_that_are_no_points_the_first_are_named():
    rows = "step\tm\n" + "".join(f"{step}\t{'x' if step % 2 else 1}\n" for step in range(12))
    assert ("not_a_number", "m.tsv: 6 rows: 3, 5, 7 ...") in flagged(rows)


def test_a_last_row_without_its_end_counts_where_it_is_whole():
    assert [p.value for p in points("step\tm\n0\t1.5")] == [1.5]
    assert points("step\tm\n0") == []
    assert points("timestamp\tstep\tm\n5000\t0") == []


def test_empty_lines_quotes_and_carriage_returns_are_read():
    assert [p.value for p in points('step\t"a\tb"\r\n\r\n0\t"1.5"\r\n')] == [1.5]
    assert flagged("") == {("truncated_file", "m.tsv: empty")}


@pytest.mark.parametrize(
    "text", ["a\tb\n", "step\ta\tb\n", "m\n", "a\tstep\tb\tc\n", '"\n', "\0\n"]
)
def test_another_header_is_refused(text):
    with pytest.raises(ValueError, match="the first row is not"):
        points(text)


def test_a_row_without_end_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="more than 65,536 bytes in row 2"):
        points("step\tm\n" + "1" * 70_000)


def test_only_tables_are_series():
    assert series_name("a/b.tsv") == "a/b"
    assert series_name("a.b.csv") == "a.b"
    for path in ("a.json", "tsv", ".tsv"):
        assert series_name(path) is None


def test_last_values_know_their_step_and_say_what_they_are_not():
    flag = Flags()
    value = {"a": {"b": 1}, "step": 3, "word": "x", "flag": True, "big": 2**60 + 1, "none": None}
    found = {each.name: (each.value, each.step) for each in last_values(value, "/", flag)}
    assert found == {"a/b": (1.0, 3), "big": (2.0**60, 3)}
    assert {(each.field, each.flag) for each in flag.all()} == {
        ("metrics.word", "not_a_number"), ("metrics.flag", "not_a_number"), ("metrics.none", "not_a_number"),
        ("metrics.big", "rounded"),
    }  # fmt: skip
    (only,) = last_values({"a": 1, "step": 2**60}, "/", Flags())
    assert only.step is None
    assert [each.name for each in last_values({"step": 1}, ".", Flags())] == ["step"]
    assert [(each.name, each.value) for each in last_values(5, ".", Flags())] == [("value", 5.0)]


def test_a_last_value_that_the_series_does_not_end_with_is_added():
    flag = Flags()
    logged = points("step\tm\n0\t1.0\n1\tnan\n")
    last = [dvc_metrics.Value("m", math.nan, 1), dvc_metrics.Value("other", 2.0, None)]
    assert len(dvc_metrics.joined(logged, last, flag)) == 3
    assert ("metrics.m", "summary_differs") not in {(e.field, e.flag) for e in flag.all()}
    found = dvc_metrics.joined(logged, [dvc_metrics.Value("m", 7.0, 1)], flag)
    assert [(p.step, repr(p.value)) for p in found] == [(0, "1.0"), (1, "nan"), (1, "7.0")]
    assert {("metrics.m", "summary_differs"), ("metrics.m", "duplicate_step")} <= {
        (each.field, each.flag) for each in flag.all()
    }


def test_two_parameters_of_one_name_are_flagged():
    flag = Flags()
    assert dvc_metrics.parameters({"a.b": 1, "a": {"b": 2}}, flag) == {"a.b": 2}
    assert [each.flag for each in flag.all()] == ["name_conflict"]


# --- any bytes ----------------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    ["a: ", "b", "1", "e", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "!!x ", "'", '"', "\n", "  ", ":", "?", "\t",
     "|", "#", ".", "0x", "-", "%", "\\ud800", "---", "=", "\ufeff", "\x85"]
)  # fmt: skip


def survives(data: bytes, path: str) -> None:
    try:
        value = parsed(data, path)
        texts = [f"{name}={scalar(item)!r}" for name, item in flat(value)]
        list(last_values(value, "/", Flags()))
    except ValueError as error:
        texts = [str(error)]
    for text in texts:
        text.encode()


@FUZZ
@given(st.lists(TOKENS, max_size=25).map("".join), st.sampled_from(["x.yaml", "x.json", "x.toml"]))
def test_any_text_gives_values_or_an_error(text, path):
    survives(text.encode(), path)


@FUZZ
@given(st.binary(max_size=60), st.sampled_from(["x.yaml", "x.json", "x.toml"]))
def test_any_bytes_give_values_or_an_error(data, path):
    survives(data, path)


@FUZZ
@given(
    st.lists(
        st.sampled_from(
            ["\t", "\n", "1", "nan", "step", "m", '"', "\r", "-", "\xff", "timestamp", "9" * 20]
        )
    )
)
def test_any_series_gives_points_or_an_error(pieces):
    for head in ("", "step\tm\n", "timestamp\tstep\tm\n"):
        flag = Flags()
        try:
            found = points((head + "".join(pieces)).encode("latin-1"), flag)
        except ValueError:
            continue
        dvc_metrics.joined(found, [], flag)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4)
    | st.sampled_from(["a.json", "${x}", "..", "/x", "0" * 32, "model"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["stages", "schema", "cmd", "deps", "outs", "metrics", "params", "plots", "artifacts", "path",
                         "md5", "type", "do", "wdir", "cache", "train", "a.json"]),
        inner,
        max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@FUZZ
@given(VALUES, VALUES, VALUES)
def test_any_pipeline_gives_runs_or_flags(described, locked, pointer):
    import yaml

    texts = {"dvc.yaml": described, "dvc.lock": locked, "x.dvc": pointer}
    files = {name: yaml.safe_dump(value).encode() for name, value in texts.items()}
    flag = Flags()
    found = pipeline_of(files, lambda path, limit: files[path], flag)
    found.of_stages("out")
    for each in flag.all():
        each.detail.encode()


def test_a_file_of_the_pipeline_that_is_too_large_is_flagged():
    def read(path: str, limit: int) -> bytes:
        raise ValueError(f"more than {limit:,} bytes")

    flag = Flags()
    pipeline_of({"dvc.yaml": 0}, read, flag)
    (only,) = flag.all()
    assert (only.field, only.flag, only.detail) == (
        "run",
        "unreadable",
        f"dvc.yaml: more than {dvc_values.MAX_FILE:,} bytes",
    )


def test_bombs_of_any_depth_end():
    """No timing decides: this would take hours, or all memory, without the bounds."""
    survives(bomb(40), "x.yaml")
    survives(merges(40), "x.yaml")
