"""One run from its parts: the record logs that have its id, each with the folder it lies in.

A run that was resumed offline has one folder a process, and they are one run: settings and configuration of a later
part replace those of an earlier one, histories follow each other (offline, steps begin anew: such steps are flagged),
the status is that of the last part. Files of earlier parts stand below the name of their folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.importers.collected import CollectedFiles
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.values import Flags, clean
from bundler.importers.wandb import artefacts as wandb_artefacts
from bundler.importers.wandb import folder as wandb_folder
from bundler.importers.wandb.artefacts import Entry, LoggedArtefact
from bundler.importers.wandb.datastore import damaged
from bundler.importers.wandb.history import NAMES_MERGED
from bundler.importers.wandb.run import Recorded, named_parameters, recorded
from bundler.importers.wandb.staging import Places
from bundler.importers.wandb.summary import with_summary
from bundler.records import CodeVersion, MetricPoint, Scalar, Source, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A record log (``None``: it is not there) and the folder of its run (``None``: the log alone was given)."""

    log: Path | None
    folder: Path | None
    started: int | None = None
    owner: str = ""

    @property
    def label(self) -> str:
        """What to call it."""
        return (self.folder or self.log or Path()).name


class _Merge:
    """Reads the parts of one run."""

    def __init__(self, parts: Sequence[Part], places: Places) -> None:
        self._parts = parts
        self._places = places
        self._flag = Flags()
        self._said = [self._read(each) for each in parts]

    def _read(self, part: Part) -> Recorded | None:
        if part.log is None:
            self._flag("run", "unreadable", f"{clean(part.label)}: no record log")
            return None
        said = recorded(part.log)
        if said.truncated is not None or not said.run:
            place = " before its first record of the run"
            if said.truncated is not None:
                place = f" at byte {said.truncated:,}"
            self._flag("run", "truncated_file", f"{clean(part.log.name)}: cut off{place}")
        return said

    def run(self, source: Source) -> ImportedRun:
        """The run."""
        said = [each for each in self._said if each is not None]
        settings: dict[str, Any] = {}
        config: dict[str, Any] = {}
        for each in said:
            settings |= {name: value for name, value in each.run.items() if value}
            config |= each.config
        points, ended = self._points(said)
        files, latest = self._files()
        facts, code = self._environment(said, settings, latest)
        logged = [artefact for each in said for artefact in each.artefacts]
        used = list(dict.fromkeys(pair for each in said for pair in each.used))
        started = next((each.run["started"] for each in said if each.run.get("started")), None)
        artefacts, found = self._artefacts(files, logged)
        return ImportedRun(
            source=source,
            name=clean(settings.get("name")),
            status=self._status(),
            deleted=False,
            started=started,
            ended=ended,
            code=code,
            data=tuple(wandb_artefacts.datasets(logged, used, found)),
            parameters=self._parameters(said, config),
            tags=_tags(said, settings),
            points=points,
            artefacts=artefacts,
            fidelity=self._flag.all(),
            environment=facts,
        )

    def _artefacts(
        self, files: Sequence[ArtefactFile], logged: Sequence[LoggedArtefact]
    ) -> tuple[tuple[ArtefactFile, ...], dict[tuple[int, Entry], Path | None]]:
        """All files, those of the run and of its artefacts, each at a path of its own; and the latter by entry."""
        places = [*self._places.folders, *self._own_places()]
        kept = CollectedFiles(self._flag)
        try:
            for each in files:
                kept.keep(each.path, each.file)
            found = wandb_artefacts.keep_files(logged, places, kept, self._flag)
        except ValueError as error:
            place = self._parts[-1].log or self._parts[-1].folder or Path()
            raise damaged(place, None, str(error)) from None
        if None in found.values():
            self._flag("artefacts", "not_staged_here", self._places.advice)
        return kept.all(), found

    def _own_places(self) -> list[Path]:
        """The folders of the runs' own files; one behind a link could be anybody's."""
        places = [each.folder / "files" for each in self._parts if each.folder]
        return [each for each in places if not each.is_symlink()]

    def _status(self) -> Status:
        """How the last part ended: a process that was killed wrote no record of its end."""
        if len(self._parts) > 1:
            self._flag("run", "resumed", ", ".join(str(clean(each.label)) for each in self._parts))
        last = self._said[-1]
        if last is None or last.exit_code is None:
            self._flag("run", "no_exit_record", "it was killed, or still runs")
            return "unknown"
        if last.open_ended:
            return "unknown"
        return "failed" if last.exit_code else "finished"

    def _points(self, said: Sequence[Recorded]) -> tuple[tuple[MetricPoint, ...], int | None]:
        """All points, and when the run ended: the last time that its log has anywhere."""
        if not said:
            return (), None
        last = said[-1]
        started, runtime = last.run.get("started"), last.run.get("runtime")
        _, time = last.history.last(started)
        times = [time, last.latest, started + runtime * 1000 if started and runtime else None]
        known = [each for each in times if each is not None]
        ended = None
        if last is self._said[-1] and last.exit_code is not None and not last.open_ended:
            ended = max(known, default=None)
        history = said[0].history
        for other in said[1:]:
            history.extend(other.history)
        points = history.points(said[0].run.get("started"), self._flag)
        summary = {name: value for each in said for name, value in each.values.items()}
        for name in {name for each in said for name in each.merged}:
            self._flag(f"metrics.{name}", "names_merged", NAMES_MERGED)
        points = with_summary(points, summary, history, started, self._flag)
        dropped = sum(each.dropped for each in said)
        if dropped:
            detail = f"W&B warned {dropped} times that it drops what is logged to an earlier step"
            self._flag("metrics", "dropped", detail)
        return points, ended

    def _parameters(self, said: Sequence[Recorded], config: Mapping[str, Any]) -> dict[str, Scalar]:
        found = named_parameters(config, self._flag)
        for each in said:
            for name in each.rewritten:
                detail = "W&B wrote a float as an integer later; the float is kept"
                self._flag(f"parameters.{clean(name)}", "type_lost", detail)
        return found

    def _files(self) -> tuple[list[ArtefactFile], dict[str, Path]]:
        """All files of all parts, and those of the last by name."""
        files: list[ArtefactFile] = []
        latest: dict[str, Path] = {}
        for part in self._parts:
            is_last = part is self._parts[-1]
            prefix = "" if is_last else f"{clean(part.label)}/"
            found = wandb_folder.run_files(part.folder, prefix, self._flag)
            files += found
            if is_last:
                latest = {each.path: each.file for each in found if each.file is not None}
        return files, latest

    def _environment(
        self, said: Sequence[Recorded], settings: Mapping[str, Any], files: Mapping[str, Path]
    ) -> tuple[dict[str, Scalar], CodeVersion]:
        """Environment and code: from the telemetry, the metadata file and the environment records, the last wins."""
        metadata = wandb_folder.metadata(files, self._flag)
        for each in said:
            metadata |= each.environment
        telemetry = {name: text for each in said for name, text in each.telemetry.items()}
        facts: dict[str, Scalar] = {name: clean(text) for name, text in telemetry.items()}
        if settings.get("host"):
            facts["host"] = clean(settings["host"])
        facts |= wandb_folder.environment(metadata)
        facts |= dict(wandb_folder.packages(files))
        git = metadata.get("git")
        git = git if isinstance(git, dict) else {}
        patch = wandb_folder.patch(files)
        entry = metadata.get("codePath") or metadata.get("codePathLocal") or metadata.get("program")
        return facts, CodeVersion(
            repository=clean(settings.get("remote") or git.get("remote") or None),
            commit=clean(settings.get("commit") or git.get("commit") or None),
            # Only changes leave a patch, and only if W&B was told to save code: none says nothing.
            dirty=True if patch else None,
            entry_point=clean(entry or None),
            patch=patch,
        )


def merged(parts: Sequence[Part], places: Places, source: Source) -> ImportedRun:
    """The run that ``parts`` are, in order of their start; ``places`` may hold the files of its artefacts."""
    return _Merge(parts, places).run(source)


def _tags(said: Sequence[Recorded], settings: Mapping[str, Any]) -> dict[str, str]:
    names = ("entity", "group", "job_type", "notes", "sweep")
    found = {name: str(clean(settings[name])) for name in names if settings.get(name)}
    tags = next((each.tags for each in reversed(said) if each.tags), [])
    if tags:
        found["tags"] = ", ".join(str(clean(each)) for each in tags)
    return found
