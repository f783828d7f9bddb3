"""However bundle.yaml is broken: one message that names the place, and never another exception."""

from __future__ import annotations

import copy
import math
import os

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundler.config import MAX_BYTES, load, source_of, with_sources
from bundler.errors import MalformedError, UsageError
from bundler.spec import FactMap
from bundler.strict_yaml import parse_yaml
from tests.tiny import CONFIG


def write(folder, data):
    path = folder / "bundle.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refused(folder, data) -> str:
    with pytest.raises(UsageError) as caught:
        load(write(folder, data))
    assert caught.value.exit_code == 2
    assert caught.value.message.count("\n") == 0
    assert "bundle.yaml" in caught.value.message
    return caught.value.message


def changed(*path, value=None):
    config = copy.deepcopy(CONFIG)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return yaml.safe_dump(config, sort_keys=False)


def test_a_good_one(tmp_path):
    config = load(write(tmp_path, yaml.safe_dump(CONFIG)))
    assert config.selection.run == "run-c"
    assert config.gates[0].confidence == 0.95
    assert config.facts.metrics["hold-out"] == ("holdout_*",)
    assert config.embed == "selected"


def test_a_small_one(tmp_path):
    small = {
        key: CONFIG[key] for key in ("version", "system", "sources", "selection", "reproducibility")
    }
    config = load(write(tmp_path, yaml.safe_dump(small | {"facts": {}})))
    assert (config.training, config.gates, config.facts) == (None, (), FactMap())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\n  system: x", "line 2, column 9"),
        ("version: 1\n\tsystem: x", "line 2"),
        ("a: [1, 2", "line 1"),
        ("a: &x [1]\nb: *x", "line 1, column 4: anchors and aliases are not allowed"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "anchors"),
        ("a: !!python/object/apply:os.system [id]", "line 1, column 4: tags are not allowed"),
        ("a: !!str 1", "tags are not allowed"),
        ("a: !secret x", "tags are not allowed"),
        ("version: 1\nversion: 1", "line 2, column 1: key 'version' stands twice"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice"),
        ("<<: {a: 1}", "merge keys"),
        ("? [a]\n: b", "a key is not a plain word"),
        ("? {a: b}\n: c", "a key is not a plain word"),
        ("--- 1\n--- 2", "line 2"),
        ("a: 2026-02-30", "day is out of range"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 'x", "line 1"),
        ("a: \x01", "special characters"),
        ("[" * 3000, "nested"),
        ("", "expected an object"),
        ("# nothing", "expected an object"),
        ("just words", "expected an object"),
        ("- a\n- b", "expected an object"),
        ("1: 2", "1: unknown"),
        ("null: 2", "None: unknown"),
        (b"\xff\xfe\x00\x00", ""),
        (b"\x89PNG\r\n\x1a\n\0\0", ""),
        (b"a: \xc3\x28", ""),
    ],
)
def test_broken_text(text, words, tmp_path):
    assert words in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["version"], 2, "version: expected one of 1, found 2"),
        (["version"], True, "version: expected one of 1"),
        (["sistem"], {}, "sistem: unknown; known are: version, system"),
        (["system", "purpose"], "x", "system.purpose: unknown"),
        (["system", "name"], 5, "system.name: expected text, found 5"),
        (["system", "name"], "", "system.name"),
        (["system", "version"], 1.0, "system.version: expected text, found 1.0"),
        (["system"], None, "system: expected an object"),
        (["sources"], {}, "sources: expected a list"),
        (["sources", 0, "store"], None, "sources[0].store: expected text"),
        (["sources", 0], {"tracker": "x"}, "sources[0].store: missing"),
        (["gates", 0, "threshold"], "0.7", "gates[0].threshold: expected a number, found '0.7'"),
        (["gates", 0, "threshold"], float("nan"), "gates[0].threshold"),
        (["gates", 0, "threshold"], float("inf"), "gates[0].threshold"),
        (["gates", 1, "comparator"], ">", "gates[1].comparator: expected one of >=, <="),
        (["gates", 0, "confidence"], 95, "gates[0].confidence: 95.0 is greater"),
        (["gates", 0, "confidence"], 0.5, "gates[0].confidence: 0.5 is less"),
        (["gates", 0, "category"], "speed", "gates[0].category"),
        (
            ["gates", 0, "sampling"],
            {"kind": "auc", "dataset_role": "h"},
            "gates[0].sampling.positives: missing",
        ),
        (["gates", 0, "sampling", "positives"], 0, "gates[0].sampling.positives: 0 is less"),
        (["gates", 1, "sampling", "groups"], [1], "gates[1].sampling.groups: expected two numbers"),
        (["gates", 1, "sampling", "groups"], [1, 2, 3], "gates[1].sampling.groups"),
        (["gates", 1, "name"], "auc", "gates: 'auc' stands twice"),
        (
            ["reproducibility", "level"],
            "exact",
            "reproducibility.level: expected one of bitwise, statistical",
        ),
        (
            ["reproducibility", "tolerances", 0, "margin"],
            -1,
            "reproducibility.tolerances[0].margin: -1.0 is less",
        ),
        (["reproducibility", "mechanisms"], "seeds", "reproducibility.mechanisms: expected a list"),
        (
            ["reproducibility", "tolerances"],
            [{"metric": "m", "margin": n} for n in (1, 2)],
            "reproducibility.tolerances: 'm' stands twice",
        ),
        (["selection", "declared_at"], "soon", "selection.declared_at: 'soon' is no date"),
        (["selection", "eligible"], {"sed": [42]}, "selection.eligible: 'sed' is no fact"),
        (["selection", "eligible"], {"seed": 42}, "selection.eligible.seed: expected a list"),
        (["selection", "eligible"], {"seed": [2**60]}, "selection.eligible.seed[0]"),
        (["selection", "direction"], "max", "selection.direction"),
        (
            ["facts", "seed"],
            "params.seed",
            "facts.seed: 'params.seed' is neither parameters.NAME nor tags.NAME",
        ),
        (["facts", "metrics"], {"test": ["x"]}, "facts.metrics"),
        (["training", "command"], "python train.py", "training.command: expected a list"),
        (["training", "outputs"], {}, "training.outputs.tracker: missing"),
        (["embed"], "some", "embed: expected one of selected, all, none"),
    ],
)
def test_broken_values(path, value, words, tmp_path):
    assert words in refused(tmp_path, changed(*path, value=value))


def test_a_lone_surrogate_is_refused_at_its_place(tmp_path):
    text = yaml.safe_dump(CONFIG).replace("tiny-scoring", '"\\ud800"')
    assert "system.name" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-25", "2026-11-25"),
        ("2026-11-25 10:00:00", "2026-11-25T10:00:00"),
        ("2026-11-25T10:00:00Z", "2026-11-25T10:00:00+00:00"),
        ("'2026-11-25'", "2026-11-25"),
    ],
)
def test_dates_become_text(written, read, tmp_path):
    text = yaml.safe_dump(CONFIG).replace("'2025-10-01'", written)
    assert load(write(tmp_path, text)).selection.declared_at == read


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="No such file") as caught:
        load(tmp_path / "missing.yaml")
    assert "bundler init" in caught.value.remedy
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)


def test_five_megabytes_are_not_even_parsed(tmp_path):
    path = tmp_path / "bundle.yaml"
    path.touch()
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(UsageError, match="larger than 4 MiB"):
        load(path)


def refused_or_read(data: bytes) -> None:
    refusal = None
    try:
        parse_yaml(data)
    except MalformedError as error:
        refusal = error
    assert refusal is None or (refusal.code, "\n" in refusal.message) == ("yaml-syntax", False)


YAML = "a: |- |? |[|]|{|}|\n|  |&x |*x|!!|>|'|\"|<<: |# |1|0x|0o|1e9|2026-13-01|.nan|.inf|=|~|%|@|`|---|...|\t|1:60|0b2|_|\x85|\ufeff"
WORDS = st.sampled_from([*YAML.split("|"), "|"])


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS | st.text(max_size=3), max_size=12).map("".join))
@example("a: 0x_")
@example("a: 1:9999999999999999999999999999999999999999.1")
@example("a: 2026-01-01T25:00:00")
@example("a: 2026-01-01T00:00:00+99:00")
@example("=: 1")
def test_any_text_is_read_or_refused(text):
    refused_or_read(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    refused_or_read(data)


PLACES = [
    ("system", "name"),
    ("gates", 0),
    ("gates", 0, "threshold"),
    ("selection", "eligible"),
    ("facts", "metrics"),
    ("training",),
    ("sources",),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PLACES), value=VALUES)
@example(path=("system", "name"), value={"\n": math.inf})
def test_any_value_at_any_place_is_read_or_refused(path, value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    message = ""
    try:
        load(write(folder, changed(*path, value=value)))
    except UsageError as error:
        message = error.message
    assert "\n" not in message


def test_a_gate_may_say_nothing_of_its_hold_out(tmp_path):
    config = load(write(tmp_path, changed("gates", 0, "sampling", value=None)))
    assert config.gates[0].sampling is None


def test_the_documentation_names_every_key():
    import dataclasses
    import typing
    from pathlib import Path

    from bundler.config import BuildConfig

    docs = Path(__file__).parents[2] / "docs"
    # The columns of a log have a page of their own.
    text = "".join((docs / name).read_text() for name in ("bundle-yaml.md", "experiment-log.md"))

    def keys(hint):
        if dataclasses.is_dataclass(hint):
            for name, inner in typing.get_type_hints(hint).items():
                yield name
                yield from keys(inner)
        for inner in typing.get_args(hint):
            yield from keys(inner)

    assert [key for key in keys(BuildConfig) if f"`{key}`" not in text] == []


# --- sources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tracker", "store", "experiment"),
    [
        ("mlflow:mlflow.db", "mlflow", "HERE/mlflow.db", None),
        ("mlflow:/srv/mlflow.db#credit scoring", "mlflow", "/srv/mlflow.db", "credit scoring"),
        ("mlflow:https://host:5000#a#b", "mlflow", "https://host:5000", "a#b"),
        ("wandb:wandb", "wandb", "HERE/wandb", None),
    ],
)
def test_a_source_of_the_command_line(text, tracker, store, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = source_of(text)
    wanted = store.replace("HERE", str(tmp_path))
    assert (source.tracker, source.store, source.experiment) == (tracker, wanted, experiment)


@pytest.mark.parametrize("text", ["", "mlflow", "mlflow:", ":x", "mlflow:#x"])
def test_a_source_that_is_none(text):
    with pytest.raises(UsageError, match="is not TRACKER:STORE") as error:
        source_of(text)
    assert "mlflow:mlflow.db" in error.value.remedy


def test_given_sources_stand_instead_of_the_written_ones(tmp_path):
    config = load(write(tmp_path, changed("version", value=1)))
    assert with_sources(config, ()) == config
    changed_config = with_sources(config, ["mlflow:/a", "wandb:/b"])
    assert [each.tracker for each in changed_config.sources] == ["mlflow", "wandb"]


def test_no_source_at_all_is_refused(tmp_path):
    config = load(write(tmp_path, changed("sources", value=[])))
    with pytest.raises(UsageError, match="no source of runs"):
        with_sources(config, ())


@pytest.mark.parametrize(
    "names",
    [
        {"parameters.a": "tags.b"},
        {"environment.a": "environment.b"},
        {"metrics.": "metrics.b"},
        {"a": "b"},
        {"metrics.a": "metrics.c", "metrics.b": "metrics.c"},
    ],
)
def test_names_that_cannot_be_given(names, tmp_path):
    with pytest.raises(UsageError, match=r"sources\[0\]\.rename: "):
        load(write(tmp_path, changed("sources", 0, "rename", value=names)))
