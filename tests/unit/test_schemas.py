"""The schemas are the contract, the dataclasses their mirror: neither can drift from the other."""

from __future__ import annotations

import copy
import dataclasses
import json
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from bundler import canonical, codec, resources
from bundler.attestation import RELEASE_TYPE, Release, open_envelope, read_statement
from bundler.environments.wheels import WheelList
from bundler.errors import MalformedError
from bundler.evidence import intact_files, read_contents
from bundler.records import RunRecord
from bundler.report import Report
from bundler.spec import Index, TrainingSpec
from bundler.storage import open_bag
from bundler.verify import verify
from tests import tiny

KINDS = {
    "bundle-1.schema.json": Index,
    "run-record-1.schema.json": RunRecord,
    "training-spec-1.schema.json": TrainingSpec,
    "release-1.schema.json": Release,
    "report-1.schema.json": Report,
    "wheels-1.schema.json": WheelList,
}
SCHEMAS = {name: json.loads(data) for name, data in resources.schemas().items()}


def test_every_schema_is_one_of_these_and_valid():
    assert set(SCHEMAS) == set(KINDS)
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"urn:aisdp-bundler:schema:{name.removesuffix('-1.schema.json')}:1"


# --- the mirror -----------------------------------------------------------------------------------------------------


def parts(kind: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """The dataclasses inside ``kind``, itself included, by name."""
    found = {} if found is None else found
    if dataclasses.is_dataclass(kind):
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            for hint in get_type_hints(kind).values():
                parts(hint, found)
    else:
        for inner in get_args(kind):
            parts(inner, found)
    return found


PAIRS = [
    pytest.param(
        SCHEMAS[file] if part is kind else SCHEMAS[file]["$defs"].get(name),
        part,
        id=f"{file}:{name}",
    )
    for file, kind in KINDS.items()
    for name, part in parts(kind).items()
]


@pytest.mark.parametrize(("schema", "kind"), PAIRS)
def test_properties_and_required_are_the_fields(schema, kind):
    names = [field.name for field in dataclasses.fields(kind)]
    assert list(schema["properties"]) == names
    # Everything is written, so everything is required, and nothing else is allowed.
    assert schema["required"] == names
    assert schema["additionalProperties"] is False
    assert schema["type"] == "object"


@pytest.mark.parametrize("file", KINDS)
def test_no_definition_is_left_over(file):
    root = KINDS[file].__name__
    assert set(SCHEMAS[file].get("$defs", {})) == set(parts(KINDS[file])) - {root}


def allowed(schema: dict[str, Any]) -> set[str]:
    """JSON types that a property admits."""
    if "$ref" in schema:
        return {"object"}
    if "anyOf" in schema:
        return set().union(*map(allowed, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return {"string"}
    kinds = schema["type"]
    return {kinds} if isinstance(kinds, str) else set(kinds)


def wanted(hint: Any) -> set[str]:
    """JSON types that a field takes."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return set().union(*map(wanted, get_args(hint)))
    if origin is Literal:
        return {"string"}
    if origin is tuple:
        return {"array"}
    if dataclasses.is_dataclass(hint) or origin is not None:
        return {"object"}
    words = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {words[hint]}


@pytest.mark.parametrize(("schema", "kind"), PAIRS)
def test_types_are_those_of_the_fields(schema, kind):
    for name, hint in get_type_hints(kind).items():
        assert allowed(schema["properties"][name]) == wanted(hint), name


@pytest.mark.parametrize(("schema", "kind"), PAIRS)
def test_words_are_those_of_the_literals(schema, kind):
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal:
            said = schema["properties"][name]
            assert set(said.get("enum", [said.get("const")])) == set(get_args(hint)), name


# --- what is generated ------------------------------------------------------------------------------------------------


@pytest.fixture
def generated(provider: tiny.Provider, tmp_path) -> dict[str, list[Any]]:
    """File name of the schema → every object of that kind in a bundle and its report, with gates, gaps and a predecessor."""
    provider.build(tmp_path / "first")
    provider.config["system"]["version"] = "2.0.0"
    provider.config["selection"]["exclusions"] = [{"run": "run-a", "reason": "a baseline"}]
    provider.build(tmp_path / "second", previous=tmp_path / "first")
    bag = open_bag(tmp_path / "second")
    contents = read_contents(intact_files(bag))
    envelope = open_envelope(
        (tmp_path / "second/signatures/release.dsse.json").read_bytes(), name="e"
    )
    report = verify(lambda: bag, "second", tiny.TRUST, clock=lambda: "2026-11-25T00:00:00.000Z")
    assert report.exit_code == 0
    return {
        "bundle-1.schema.json": [contents.index],
        "run-record-1.schema.json": list(contents.log),
        "training-spec-1.schema.json": [contents.training],
        "release-1.schema.json": [read_statement(envelope.payload, name="e").release],
        "report-1.schema.json": [report],
    }


def test_each_generated_object_satisfies_its_schema_and_round_trips(generated):
    for file, objects in generated.items():
        assert objects
        validator = Draft202012Validator(SCHEMAS[file])
        for each in objects:
            value = codec.to_json(each)
            assert [error.message for error in validator.iter_errors(value)] == []
            data = canonical.serialise(value)
            assert codec.from_json(KINDS[file], canonical.parse_canonical(data)) == each


def test_the_predicate_in_the_statement_is_of_the_release_type(provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "b")
    envelope = open_envelope((tmp_path / "b/signatures/release.dsse.json").read_bytes(), name="e")
    statement = json.loads(envelope.payload)
    assert statement["predicateType"] == RELEASE_TYPE
    assert (
        list(
            Draft202012Validator(SCHEMAS["release-1.schema.json"]).iter_errors(
                statement["predicate"]
            )
        )
        == []
    )


def places(value: Any):
    """Every object inside ``value`` that mirrors a dataclass: not the free mappings."""
    free = {"parameters", "environment", "tags", "eligible", "metrics", "isolation"}
    if isinstance(value, dict):
        yield value
        for key, item in value.items():
            if not (key in free and isinstance(item, dict)):
                yield from places(item)
    elif isinstance(value, list):
        for item in value[:2]:
            yield from places(item)


def test_an_unknown_field_is_refused_by_both_at_every_place(generated):
    for file, objects in generated.items():
        whole = codec.to_json(objects[-1])
        validator = Draft202012Validator(SCHEMAS[file])
        count = len(list(places(whole)))
        for position in range(count):
            changed = copy.deepcopy(whole)
            list(places(changed))[position]["surprise"] = 1
            assert not validator.is_valid(changed), (file, position)
            with pytest.raises(MalformedError, match=r"surprise: (unknown|expected text)"):
                codec.from_json(KINDS[file], changed)


def test_a_missing_field_is_refused_by_the_schema(generated):
    for file, objects in generated.items():
        whole = codec.to_json(objects[-1])
        for name in whole:
            less = {key: value for key, value in whole.items() if key != name}
            assert not Draft202012Validator(SCHEMAS[file]).is_valid(less)
