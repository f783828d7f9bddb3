"""The site of an honest bundle, and the bundles and reports of which none is made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from bundler import storage
from bundler.errors import AuthenticityError, BundlerError, MalformedError, OutputError, UsageError
from bundler.importers.model import ImportedRun
from bundler.progress import Silence
from bundler.records import FidelityFlag, moment
from bundler.report import Knob, MetricComparison, Rerun, TensorComparison
from bundler.site import model, pages, plugin, render
from bundler.site.safety import UnsafeSiteError
from tests import tiny
from tests.unit.site.conftest import report_about
from tests.unit.site.payloads import read

PAGES = {name.replace(".md", ".html") for _, name in pages.NAVIGATION}


def text_of(site: Path, page: str) -> str:
    return " ".join(" ".join(read(site / page).words).split())


def manifest_of(site: Path) -> dict[str, str]:
    return {
        file.relative_to(site).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in site.rglob("*")
        if file.is_file()
    }


def test_pages_of_the_module(honest):
    _, report, site = honest
    assert {file.name for file in site.glob("*.html")} == PAGES
    assert len(list((site / "runs").glob("*.html"))) == 9
    overview = text_of(site, "index.html")
    assert "tiny-scoring" in overview
    assert "Scoring of loan applications by natural persons" in overview
    assert tiny.KEY.keyid in overview
    assert report.subject.tag_manifest_sha256 in overview
    assert "not run not asked for; use --rerun" in overview
    assert "1 gap admitted by the bundle, none of them required" in overview
    assert "Evidence, not conformity" in overview
    assert "Best validation AUC within the disparity bound." in text_of(site, "selection.html")
    assert "val_disparity is 0.4, wanted <= 0.2" in text_of(site, "selection.html")
    assert "lower 95% bound 0.7303 >= 0.7" in text_of(site, "gates.html")
    assert "One CPU architecture was tried." in text_of(site, "limits.html")
    assert "No re-run in the report" in text_of(site, "reproducibility.html")
    assert "outside this bundle" in text_of(site, "legal-map.html")
    assert "1 finished, deleted" in text_of(site, "experiments.html")


def test_run_page_says_where_it_comes_from(honest):
    _, _, site = honest
    (page,) = (site / "runs").glob("*-run-c.html")
    words = " ".join(read(page).text.split())
    assert "the selected run" in words
    assert "rank 1 of" in words
    assert "data/artefacts/run-c/model.safetensors" in words
    assert "data/runs/run-c/metrics.csv" in words
    (failed,) = (site / "runs").glob("*-run-e.html")
    assert "status failed" in read(failed).text


def test_without_a_report_every_page_says_so(provider, tmp_path, make_site):
    provider.build(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle")
    overview = text_of(site, "index.html")
    assert "No verification report" in overview
    assert overview.count("no report") == 6
    assert "signature was not checked when this site was rendered" in overview
    assert "Nothing here says who made the bundle" in overview
    assert "There is no report" in text_of(site, "limits.html")
    assert "There is no report" in text_of(site, "reproducibility.html")
    assert "no report" in text_of(site, "gates.html")


def test_signer_of_the_report_without_keys(honest, make_site):
    bundle, report, _ = honest
    site = make_site(bundle, report=report)
    overview = text_of(site, "index.html")
    assert "signature was not checked when this site was rendered" in overview
    assert "Key id according to the report" in overview
    assert tiny.KEY.keyid in overview


def test_same_bundle_and_report_give_the_same_bytes(honest, make_site, monkeypatch):
    bundle, report, first = honest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    second = make_site(bundle, report=report, keys=tiny.TRUST)
    assert manifest_of(first) == manifest_of(second)
    assert os.environ["SOURCE_DATE_EPOCH"] == "1"


def test_other_processes_give_the_same_bytes(provider, tmp_path, make_site):
    provider.build(tmp_path / "bundle")
    here = make_site(tmp_path / "bundle")
    code = (
        "import sys; from pathlib import Path; from bundler import storage;"
        "from bundler.site import render; from bundler.progress import Silence;"
        "render(storage.open_bag(Path(sys.argv[1])), None, (), Path(sys.argv[2]), Silence())"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "bundle", tmp_path / "there"],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert manifest_of(here) == manifest_of(tmp_path / "there")


def test_manifest_of_the_site(honest):
    _, _, site = honest
    done = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "site-manifest-sha256.txt"], cwd=site
    )
    assert done.returncode == 0
    listed = (site / "site-manifest-sha256.txt").read_text().splitlines()
    assert len(listed) == len(manifest_of(site)) - 1


def test_nothing_leads_out(honest):
    _, _, site = honest
    for page in site.rglob("*.html"):
        for link in read(page).links:
            assert not re.match(r"[a-z]+:|//|/", link), (page.name, link)
    names = {file.name for file in site.rglob("*")}
    assert not names & {"sitemap.xml", "sitemap.xml.gz", "404.html"}
    assert not [name for name in names if name.endswith(".map")]
    for sheet in site.rglob("assets/site/*"):
        assert not re.findall(r"https?://(?!www\.w3\.org/)", sheet.read_text()), sheet


def test_figures_tell_their_finding(honest):
    _, _, site = honest
    figures = {file.name for file in (site / "assets/site").glob("*.svg")}
    names = ("gates", "learning-curves", "search-over-time", "trade-off")
    assert figures == {f"{name}-{shade}.svg" for name in names for shade in ("light", "dark")}
    assert any("1 break the limit" in each for each in read(site / "selection.html").attributes)
    light = (site / "assets/site/gates-light.svg").read_text()
    dark = (site / "assets/site/gates-dark.svg").read_text()
    assert "<!--" not in light
    assert "DOCTYPE" not in light
    assert "#24292f" in light
    assert "#24292f" not in dark


def test_a_rerun_is_shown_with_all_differences(provider, tmp_path, make_site):
    provider.build(tmp_path / "bundle")
    rerun = Rerun(
        run="run-c",
        seed=42,
        verdict="not bitwise",
        exit_code=0,
        seconds=200.0,
        conditions="another machine",
        isolation={"kind": "bubblewrap", "network": True, "probes": ("canary: blocked",), "x": ()},
        environment={},
        metrics=(
            MetricComparison(
                metric="holdout_auc",
                role="hold-out",
                declared=0.78,
                rerun=0.775,
                points_declared=3,
                points_rerun=2,
                points_differing=2,
                first_differing_step=1,
            ),
            MetricComparison(
                metric="train_loss",
                role="training",
                declared="NaN",
                rerun=None,
                points_declared=1,
                points_rerun=1,
                points_differing=0,
                first_differing_step=None,
            ),
        ),
        tensors=(
            TensorComparison(
                tensor="weight",
                dtype="F32",
                shape=(2, 3),
                equal=False,
                equal_fraction=0.5,
                max_absolute_difference=1e-7,
            ),
            TensorComparison(
                tensor="bias",
                dtype="F32",
                shape=(3,),
                equal=False,
                equal_fraction=None,
                max_absolute_difference=None,
            ),
        ),
        knobs=(Knob(name="threads", declared=1, rerun=2),),
    )
    report = replace(report_about(tmp_path / "bundle"), reruns=(rerun,))
    words = text_of(make_site(tmp_path / "bundle", report=report), "reproducibility.html")
    assert "not bitwise" in words
    assert "canary: blocked" in words
    assert "0.78 0.775 0.005 0.01 0.00342 3 / 2 2 1" in words
    assert "2 × 3 50 % 1e-07" in words
    assert "The report holds no statistical verdict" in words
    assert "no statistical verdict over seeds of the verifier's own choice in the report" in words
    assert "the model was not scored" in words
    assert "The report holds no plan" in words
    assert "threads 1 2" in words
    bare = replace(rerun, metrics=(), tensors=(), knobs=(), verdict="bitwise")
    report = replace(report, reruns=(bare,))
    words = text_of(make_site(tmp_path / "bundle", report=report), "reproducibility.html")
    assert "No metric was compared." in words
    assert "No recorded fact differs" in words


def test_a_bundle_that_shows_little(provider, tmp_path, make_site):
    """Nothing optional is declared; the selected run has neither names nor histories with steps."""
    for part in ("gates", "training"):
        provider.config.pop(part)
    provider.config["system"].pop("responsible")
    provider.config["selection"]["constraints"] = []
    provider.config["selection"]["eligible"] = {}
    provider.config["selection"].pop("declared_at")
    provider.config["selection"]["exclusions"] = [{"run": "run-d", "reason": "it was a try"}]
    provider.config["reproducibility"] = {"level": "statistical"}
    provider.edit("run-c", bare)
    provider.runs = [run for run in provider.runs if run.source.run_id in {"run-c", "run-d"}]
    provider.build(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle", report=report_about(tmp_path / "bundle"))
    assert not list((site / "assets/site").glob("*.svg"))
    assert "8 of" in text_of(site, "index.html")
    assert "declares no gate" in text_of(site, "gates.html")
    assert "does not say how to repeat" in text_of(site, "reproducibility.html")
    assert "no list of software versions" in text_of(site, "development.html")
    assert "it was a try" in text_of(site, "selection.html")
    (page,) = (site / "runs").glob("*-run-c.html")
    assert "value_cut truncated 80" in text_of(site, f"runs/{page.name}")


def bare(run: ImportedRun) -> ImportedRun:
    return replace(
        run,
        name=None,
        started=None,
        ended=None,
        points=tuple(point for point in run.points if point.metric == "val_auc"),
        artefacts=(),
        data=(),
        tags={},
        parameters={"flag": True},
        fidelity=(FidelityFlag(field="value_cut", flag="truncated", detail="80"),),
    )


def test_large_logs_get_pages_for_what_counts(provider, tmp_path, make_site, monkeypatch):
    monkeypatch.setattr(model, "ALL_PAGES", 3)
    monkeypatch.setattr(model, "SHORT_LIST", 1)
    monkeypatch.setattr(pages, "MAX_REGISTER", 5)
    provider.config["selection"]["exclusions"] = [{"run": "run-a", "reason": "a baseline"}]
    provider.build(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle")
    names = {page.name[5:-5] for page in (site / "runs").iterdir()}
    assert names == {"run-c", "run-c1", "run-c2", "run-c3", "run-a", "run-e", "run-f"}
    assert "7 of 9 runs have a page" in text_of(site, "experiments.html")
    assert re.search(r"5 of \d+ files shown", text_of(site, "evidence.html"))
    data = (site / "assets/site/runs.js").read_text()
    rows = json.loads(data.removeprefix("window.aisdpRuns = ").removesuffix(";\n"))["rows"]
    assert ["run-b", None] in [row[0] for row in rows]
    monkeypatch.setattr(model, "MAX_PAGES", 2)
    assert len(list((make_site(tmp_path / "bundle") / "runs").iterdir())) == 2


def test_limits_that_no_run_has_a_value_for(provider, tmp_path, make_site):
    """No trade-off to draw, a run without any metric, and a selected run that breaks the rule."""
    provider.config["selection"]["constraints"][0]["metric"] = "val_missing"
    provider.edit("run-a", lambda run: replace(run, points=()))
    provider.edit("run-b", lambda run: replace(run, points=()))
    provider.build(tmp_path / "bundle")
    report = report_about(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle", report=report)
    assert not (site / "assets/site/trade-off-light.svg").exists()
    assert "not met" in text_of(site, "selection.html")
    assert "No run competed" in text_of(site, "selection.html")
    assert "no finite value of val_missing" in text_of(site, "selection.html")
    seen = model.make_model(*parts(tmp_path / "bundle"), None, None)
    without = next(run for run in seen.runs if run.record.id == "run-a")
    assert seen.points(without) == ()
    assert seen.margin("holdout_auc") == 0.01


def test_many_points_are_pixels(provider, tmp_path, make_site, monkeypatch):
    from bundler.site import figures

    monkeypatch.setattr(figures, "MAX_MARKS", 2)
    provider.build(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle")
    assert "data:image/png" in (site / "assets/site/trade-off-light.svg").read_text()


def test_hashed_lock_and_unpinned_packages(provider, tmp_path, make_site):
    lock = provider.root / "repository/requirements.txt"
    lock.write_text("numpy==2.0.0 --hash=sha256:" + "0" * 64 + "\n")
    provider.build(tmp_path / "hashed")
    page = text_of(make_site(tmp_path / "hashed"), "development.html")
    assert "pinned to an exact version with a hash? cannot be shown" in page
    lock.write_text("numpy>=2\n")
    provider.build(tmp_path / "loose")
    assert "numpy>=2" in text_of(make_site(tmp_path / "loose"), "development.html")


def test_rendering_is_quiet(provider, tmp_path, make_site, capsys):
    provider.build(tmp_path / "bundle")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_site(tmp_path / "bundle")
    assert capsys.readouterr() == ("", "")


# --- refused ------------------------------------------------------------------------------------------------------


def test_report_about_another_bundle(provider, tmp_path, make_site):
    provider.build(tmp_path / "one")
    provider.config["system"]["version"] = "2.0.0"
    provider.build(tmp_path / "two")
    with pytest.raises(UsageError, match="about another bundle") as caught:
        make_site(tmp_path / "two", report=report_about(tmp_path / "one"))
    assert caught.value.remedy


def test_report_about_no_bundle(provider, tmp_path, make_site):
    provider.build(tmp_path / "one")
    report = report_about(tmp_path / "one")
    report = replace(report, subject=replace(report.subject, tag_manifest_sha256=None))
    with pytest.raises(UsageError, match="unknown"):
        make_site(tmp_path / "one", report=report)


def test_changed_file(provider, tmp_path, make_site):
    provider.build(tmp_path / "bundle")
    index = tmp_path / "bundle/data/bundle.json"
    index.write_bytes(index.read_bytes().replace(b"tiny-scoring", b"tiny-boasting"))
    with pytest.raises(MalformedError) as caught:
        make_site(tmp_path / "bundle")
    assert caught.value.code == "file-digest"
    assert not (tmp_path / "site-0").exists()


def test_untrusted_signature(provider, tmp_path, make_site):
    from cryptography.hazmat.primitives.asymmetric import ed25519

    from bundler.signers import FileSigner

    other = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))
    provider.build(tmp_path / "bundle", signer=other)
    with pytest.raises(AuthenticityError):
        make_site(tmp_path / "bundle", keys=tiny.TRUST)


def test_missing_signature(provider, tmp_path, make_site):
    provider.build(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle/signatures")
    with pytest.raises(MalformedError) as caught:
        make_site(tmp_path / "bundle", keys=tiny.TRUST)
    assert caught.value.code == "signature-missing"
    assert "signature was not checked" in text_of(make_site(tmp_path / "bundle"), "index.html")


def test_signature_of_another_bundle(provider, tmp_path, make_site):
    provider.build(tmp_path / "one")
    provider.config["system"]["version"] = "2.0.0"
    provider.build(tmp_path / "two")
    envelope = (tmp_path / "one/signatures/release.dsse.json").read_bytes()
    (tmp_path / "two/signatures/release.dsse.json").write_bytes(envelope)
    with pytest.raises(MalformedError) as caught:
        make_site(tmp_path / "two", keys=tiny.TRUST)
    assert caught.value.code == "statement-subject"


def parts(bundle: Path):
    from bundler.evidence import intact_files, read_contents

    files = intact_files(storage.open_bag(bundle))
    return files, read_contents(files)


def test_log_that_was_not_signed(provider, tmp_path):
    from bundler.attestation import Release, Statement

    provider.build(tmp_path / "bundle")
    files, contents = parts(tmp_path / "bundle")
    release = Release(
        system="x",
        version="1",
        created=contents.index.created,
        log=replace(contents.index.log, size=1),
        previous=None,
    )
    statement = Statement(tag_manifest_sha256=files.tag_manifest_sha256, release=release)
    with pytest.raises(MalformedError) as caught:
        model.make_model(files, contents, None, (statement, tiny.TRUST[0]))
    assert caught.value.code == "log-checkpoint"


def test_unsafe_run_id(provider, tmp_path):
    provider.build(tmp_path / "bundle")
    files, contents = parts(tmp_path / "bundle")
    bad = replace(contents.log[0], id="../../x")
    contents = replace(contents, log=(bad, *contents.log[1:]), records=(bad, *contents.records[1:]))
    with pytest.raises(MalformedError) as caught:
        model.make_model(files, contents, None, None)
    assert caught.value.code == "run-id"


def test_unknown_selected_run(provider, tmp_path):
    provider.build(tmp_path / "bundle")
    files, contents = parts(tmp_path / "bundle")
    index = contents.index
    contents = replace(
        contents, index=replace(index, selection=replace(index.selection, run="run-z"))
    )
    with pytest.raises(MalformedError) as caught:
        model.make_model(files, contents, None, None)
    assert caught.value.code == "selection-run-unknown"


def test_output_below_any_folder(provider, tmp_path):
    """Names in the path of the output must not be taken for names of the theme's files."""
    provider.build(tmp_path / "bundle")
    site = tmp_path / "lunr" / "x.map"
    bag = storage.open_bag(tmp_path / "bundle")
    assert render(bag, None, (), site, Silence()) == len(PAGES) + 9
    assert (site / "index.html").exists()
    assert not list(site.rglob("lunr"))


def test_existing_output(provider, tmp_path):
    provider.build(tmp_path / "bundle")
    (tmp_path / "site").mkdir()
    with pytest.raises(OutputError):
        render(storage.open_bag(tmp_path / "bundle"), None, (), tmp_path / "site", Silence())


def test_planted_script_stops_the_site(provider, tmp_path, make_site, monkeypatch):
    original = pages.Pages.fill
    monkeypatch.setattr(
        pages.Pages,
        "fill",
        lambda self, *args: original(self, *args) + "<script>alert(1)</script>",
    )
    provider.build(tmp_path / "bundle")
    with pytest.raises(UnsafeSiteError, match="inline script"):
        make_site(tmp_path / "bundle")
    assert not (tmp_path / "site-0").exists()


def test_template_faults_are_errors(provider, tmp_path, make_site, monkeypatch):
    provider.build(tmp_path / "bundle")
    monkeypatch.setattr(pages.Pages, "markdown", lambda self, page: "<!-- slot: nothing-there -->")
    with pytest.raises(BundlerError, match="no template for slot nothing-there"):
        make_site(tmp_path / "bundle")
    monkeypatch.setattr(pages.Pages, "markdown", lambda self, page: "[x](missing.md)")
    with pytest.raises(BundlerError, match=r"cannot be built.*missing\.md"):
        make_site(tmp_path / "bundle")


def test_configuration_faults_are_errors(tmp_path, monkeypatch):
    with pytest.raises(BundlerError, match="cannot be configured: docs_dir"):
        plugin.configure(tmp_path / "missing", tmp_path / "site")


@pytest.mark.parametrize(
    ("created", "epoch"), [("2026-01-01T00:00:00.000Z", "1767225600"), ("yesterday", "0")]
)
def test_epoch_is_the_bundles(created, epoch):
    assert plugin._epoch(created) == epoch


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, False), ("x", False), ("2026-01-01T00:00:00", False), ("2026-01-01T00:00:00Z", True)],
)
def test_moments(text, found):
    assert (moment(text) is not None) is found


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [(None, "—"), (0, "0 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (10**13, "10000.0 GB")],
)
def test_sizes(bytes_, words):
    assert pages.size(bytes_) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "—"), (1.25, "1.2 s"), (180, "3.0 min"), (7200, "2.0 h")]
)
def test_durations(seconds, words):
    assert pages.duration(seconds) == words


def test_numbers():
    assert [pages.num(value) for value in (None, "NaN", 1, 0.1 + 0.2)] == ["—", "NaN", "1", "0.3"]
    assert pages.root(None) is None
    assert pages.root(0.25) == 0.5
