"""Every source, alone and all together, through the commands as a provider types them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from bundler import codec
from bundler.config import load
from tests import sources
from tests.sources import Case

BIN = Path(sys.executable).parent

CASES = [
    pytest.param(folder, case, id=case.source) for folder, case in sources.cases() if not case.live
]

DECLARED = {
    "version": 1,
    "system": {"name": "s", "version": "1", "provider": "p", "intended_purpose": "p"},
    "reproducibility": {"level": "statistical"},
}


def command(*words: object, expected: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [BIN / str(words[0]), *map(str, words[1:])], capture_output=True, text=True
    )
    assert done.returncode in expected, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    command("bundler", "keygen", "-o", folder)
    return folder


def source_of(case: Case, place: Path) -> dict:
    """The entry of bundle.yaml for the fixture of ``case`` in ``place``."""
    named = {"tracker": case.tracker, "store": str((place / case.store).resolve())}
    optional = {
        "experiment": case.experiment,
        "artefacts": str((place / case.artefacts).resolve()) if case.artefacts else None,
        "columns": codec.to_json(case.columns) if case.columns else None,
    }
    return named | {name: value for name, value in optional.items() if value is not None}


def configured(folder: Path, entries: list[dict], case: Case, run: str, metric: str) -> Path:
    facts = {name: value for name, value in codec.to_json(case.facts).items() if value}
    selection = {"run": run, "metric": metric, "direction": "minimise", "rationale": "r"}
    file = folder / "bundle.yaml"
    text = yaml.safe_dump(DECLARED | {"sources": entries, "facts": facts, "selection": selection})
    file.write_text(text, encoding="utf-8")
    return file


def chosen(folder: Path, case: Case) -> tuple[str, str]:
    """A finished run of the fixture, and a metric of it."""
    found = [imported for imported, _ in sources.runs(folder, case)]
    # One that finished and has metrics, if there is any.
    best = max(found, key=lambda each: (bool(each.points), each.status == "finished"))
    return best.source.run_id, best.points[0].metric if best.points else "none"


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_a_source_alone(folder, case, key, tmp_path):
    run, metric = chosen(folder, case)
    with sources.restored(folder, case) as place:
        before = state(place)
        config = configured(tmp_path, [source_of(case, place)], case, run, metric)
        for name in ("one", "two"):
            command("build-bundle", config, "-o", tmp_path / name, "--key", key / "key.pem")
        assert state(place) == before, "the source was changed"
    assert state(tmp_path / "one") == state(tmp_path / "two"), "not the same bytes"
    report = tmp_path / "report.json"
    # Gaps there are: a fixture is no whole provider.
    command(
        *("verify-bundle", tmp_path / "one", "--trust", key / "trust.pem", "--report", report),
        expected=(1, 6),
    )
    claims = {each["name"]: each["status"] for each in json.loads(report.read_text())["claims"]}
    assert (claims["integrity"], claims["authenticity"]) == ("met", "met")


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_init_reads_it(folder, case, tmp_path):
    if case.columns is not None:
        pytest.skip("what its columns mean is for a human to say first")
    (tmp_path / "here").mkdir()
    with sources.restored(folder, case) as place:
        fragment = f"#{case.experiment}" if case.experiment else ""
        command(
            *("bundler", "init", tmp_path / "here", "-o", tmp_path / "bundle.yaml"),
            *("--from", f"{case.tracker}:{place / case.store}{fragment}"),
        )
    config = load(tmp_path / "bundle.yaml")
    assert config.sources[0].tracker == case.tracker
    found = {imported.source.run_id for imported, _ in sources.runs(folder, case)}
    runs = "1 run, which is" if len(found) == 1 else f"{len(found)} runs, all are"
    assert f"has {runs} imported" in (tmp_path / "bundle.yaml").read_text()


def test_all_sources_in_one_bundle(key, tmp_path):
    with ExitStack() as stack:
        entries = [
            source_of(case, stack.enter_context(sources.restored(folder, case)))
            for folder, case in sources.cases()
            if not case.live
        ]
        check_bundle_of(entries, key, tmp_path)


def check_bundle_of(entries: list[dict], key: Path, tmp_path: Path) -> None:
    folder, first = next(each for each in sources.cases() if not each[1].live)
    run, metric = chosen(folder, first)
    config = configured(tmp_path, entries, first, run, metric)
    said = command("build-bundle", config, "-o", tmp_path / "b", "--key", key / "key.pem")
    lines = (tmp_path / "b" / "data" / "records.jsonl").read_text().splitlines()
    trackers = {json.loads(line)["run"]["source"]["tracker"] for line in lines}
    assert trackers == {case.tracker for _, case in sources.cases()}
    assert "Importing runs from" in said
    trust = key / "trust.pem"
    command("verify-bundle", tmp_path / "b", "--trust", trust, expected=(1, 6))
    command("bundler", "site", tmp_path / "b", "--trust", trust, "-o", tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()


def state(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, or the file itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }
