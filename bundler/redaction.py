"""Personal data and credentials in run records, taken out before a record is signed and handed out.

Trackers log who ran a training, on which machine and in whose home folder. None of that is evidence of how a model was
developed, and a bundle is signed once and handed to many (GDPR Art. 5(1)(c), data minimisation). What is taken out is
listed in the bundle, by kind and field, and a marker or ``~`` stands in its place. Free text is searched for shapes
(addresses, home folders), not for names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal, get_args

from bundler.records import CodeVersion, DatasetVersion, RunRecord, Scalar
from bundler.spec import Redaction

PersonalData = Literal["user-name", "host-name", "e-mail", "home-path"]
PERSONAL_DATA: tuple[PersonalData, ...] = get_args(PersonalData)
"""Kinds that a provider may choose to keep. A credential is never kept."""

_Clean = Callable[[str | None, str], str | None]

Found = tuple[str, str]
"""Kind and field of one redaction."""

_KEYS = {
    "user-name": {
        *("user", "username", "user_name", "login", "logname", "author", "author_name", "owner"),
        *("created_by", "committer", "account", "entity"),
    },
    "host-name": {
        *("host", "hostname", "host_name", "fqdn", "nodename", "node_name", "computer_name"),
        *("machine_name", "ip", "ip_address", "ipaddress", "mac_address"),
    },
    "e-mail": {"email", "e-mail", "mail", "user_email", "author_email"},
    "credential": {
        *("password", "passwd", "secret", "api_key", "apikey", "access_key", "access_token"),
        *("auth_token", "private_key", "secret_key", "secret_access_key", "authorization"),
    },
}
"""Last parts of names whose whole value is taken out. ``token`` and ``node`` are left: they are hyperparameters too."""

_SHAPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (
        "credential",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        "[redacted credential]",
    ),
    (
        "credential",
        re.compile(
            r"\b(?:AKIA[0-9A-Z]{16}|gh[opsu]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,60}|glpat-[A-Za-z0-9_-]{20}"
            r"|sk-[A-Za-z0-9_-]{32,200}|xox[abprs]-[A-Za-z0-9-]{10,100})\b"
        ),
        "[redacted credential]",
    ),
    # User and password in an address: not the user alone, which ssh addresses of repositories have.
    ("credential", re.compile(r"(?<=://)[^\s/@:]{0,256}:[^\s/@]{0,256}@"), ""),
    # git@host:path is the address of a repository and names nobody.
    (
        "e-mail",
        re.compile(
            r"(?<![\w.+-])(?<!//)[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b(?!:[^\s/])"
        ),
        "[redacted e-mail]",
    ),
    (
        "home-path",
        re.compile(
            r"(?<![\w.~-])(?:/home/[^/\s:;,'\"<>|]+|/Users/[^/\s:;,'\"<>|]+|/root(?![\w.-])"
            r"|[A-Za-z]:[\\/]Users[\\/][^\\/:;,'\"<>|]+)"
        ),
        "~",
    ),
)


def redact(record: RunRecord, kept: Collection[str] = ()) -> tuple[RunRecord, frozenset[Found]]:
    """``record`` without personal data of the kinds not ``kept``, and what was taken out."""
    found: set[Found] = set()

    def clean(text: str, field: str) -> str:
        for kind, shape, marker in _SHAPES:
            if kind not in kept:
                text, count = shape.subn(marker, text)
                if count:
                    found.add((kind, field))
        return text

    def value(text: Scalar, field: str) -> Scalar:
        kind = _kind_of(field)
        marker = f"[redacted {kind}]"
        if kind is not None and kind not in kept and text not in {None, "", True, False, marker}:
            found.add((kind, field))
            return marker
        return clean(text, field) if isinstance(text, str) else text

    def mapped(values: Mapping[str, Scalar], group: str) -> dict[str, Scalar]:
        return {name: value(text, f"{group}.{name}") for name, text in values.items()}

    def optional(text: str | None, field: str) -> str | None:
        return None if text is None else clean(text, field)

    cleaned = replace(
        record,
        name=optional(record.name, "name"),
        source=replace(
            record.source,
            experiment=clean(record.source.experiment, "source.experiment"),
        ),
        code=_code(record.code, optional),
        data=tuple(_dataset(each, optional) for each in record.data),
        parameters=mapped(record.parameters, "parameters"),
        environment=mapped(record.environment, "environment"),
        tags={name: str(text) for name, text in mapped(record.tags, "tags").items()},
        fidelity=tuple(
            replace(each, detail=clean(each.detail, "fidelity")) for each in record.fidelity
        ),
    )
    return cleaned, frozenset(found)


def personal_data_in(text: str) -> tuple[str, ...]:
    """Kinds of personal data and credentials whose shape is in ``text``, sorted."""
    return tuple(sorted({kind for kind, shape, _ in _SHAPES if shape.search(text)}))


def summary(found: Iterable[frozenset[Found]]) -> tuple[Redaction, ...]:
    """What was taken out of all records, by kind and field, with the number of runs."""
    counts = Counter(each for run in found for each in run)
    return tuple(
        Redaction(kind=kind, field=field, runs=count)
        for (kind, field), count in sorted(counts.items())
    )


def _kind_of(field: str) -> str | None:
    group, _, name = field.partition(".")
    if group not in {"parameters", "tags", "environment"}:
        return None
    # The last part of a nested name: mlflow.user, sys/owner, metadata.host.
    last = re.split(r"[./|:]", name.lower())[-1].replace(" ", "_").strip("_")
    return next((kind for kind, keys in _KEYS.items() if last in keys), None)


def _code(code: CodeVersion, clean: _Clean) -> CodeVersion:
    return replace(
        code,
        repository=clean(code.repository, "code.repository"),
        branch=clean(code.branch, "code.branch"),
        entry_point=clean(code.entry_point, "code.entry_point"),
    )


def _dataset(data: DatasetVersion, clean: _Clean) -> DatasetVersion:
    return replace(
        data,
        name=clean(data.name, "data.name") or "",
        source=clean(data.source, "data.source"),
        version=clean(data.version, "data.version"),
    )
