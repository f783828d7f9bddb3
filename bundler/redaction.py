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
    "e-mail": {"email", "e_mail", "mail", "user_email", "author_email"},
}
"""Last parts of names whose whole value is taken out."""

_CREDENTIAL = re.compile(
    # Whole words at the end. A token alone is left: max_tokens, eos_token and pad_token are hyperparameters.
    r"(?:^|_)(?:secret|authorization|credentials?|apikey|basic_auth|(?:connection|conn)_string"
    r"|(?:api|access|secret|private|account|storage|shared|ssh|signing|encryption|master|subscription|app)_?key"
    r"|(?:secret_)?access_key_id|(?:db|database|user|admin|root)_pwd|amz_(?:signature|credential)"
    r"|(?:access|auth|api|refresh|bearer|session|security|secret|id|personal|deploy|bot|sas|csrf|oauth|jwt|hub"
    r"|hf|hugging_?face|hugging_face_hub|gh|git_?hub|git_?lab|slack|wandb|mlflow|neptune|comet|clearml|databricks"
    r"|kaggle|aws|azure|gcp|pypi|npm|vault|replicate|telegram|discord|tracking|login|service_account)_?token)s?$"
    # Also inside a word: PGPASSWORD.
    r"|(?:password|passwd|passphrase)s?$"
)
_SWITCH = re.compile(r"(?:use|has|no|with|without|is|needs?|requires?|ask|prompt|show|n|num)_")
"""Begins the name of a switch or a count: ``use_password`` holds none."""

_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE
)
_CONSTANTS = {"", "none", "null", "nil", "true", "false", "yes", "no"}

_ASSIGNMENT = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]++)(?:(?P<quote>\\{0,8}[\"'`])?[ \t]{0,3}(?:[=!:]=|=>|=|:(?!//))[ \t]{0,3}"
    # Between a flag and its value: a space, or the quotes of a list of arguments.
    r"|(?P<flag>\\{0,8}[\"']\s{0,3},\s{0,9}|[ \t]{1,8}))"
)
_QUOTED = re.compile(r"(?P<open>\\{0,8}[\"'`])((?:(?!(?P=open))(?:\\.|[^\\\n])){1,512}+)(?P=open)")
# A comma belongs to the value, unless another assignment follows it.
_BARE = re.compile(
    r"(?:(?:Basic|Bearer|Token)[ \t]{1,4})?(?:[^\s\"'`&;,]|,(?![ \t]{0,3}[\w.-]{1,64}[\"']?[=:]))++",
    re.IGNORECASE,
)

_TOKENS = (
    re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r".*?(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        re.DOTALL,
    ),
    re.compile(
        r"(?<![A-Za-z0-9])(?:A[KS]IA[0-9A-Z]{16}|gh[oprsu]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
        r"|hf_[A-Za-z0-9]{30,60}|glpat-[A-Za-z0-9_-]{20,60}|xox[abeprs]-[A-Za-z0-9-]{10,100}|AIza[A-Za-z0-9_-]{35}"
        r"|dapi[0-9a-f]{32}|npm_[A-Za-z0-9]{36}|sk-[0-9a-f]{32})(?![A-Za-z0-9])"
    ),
    re.compile(
        r"(?<![\w-])sk-(?=[\w-]{0,200}[0-9])(?=[\w-]{0,200}[a-z])(?=[\w-]{0,200}[A-Z])[A-Za-z0-9_-]{32,}+"
    ),
    # A JSON web token.
    re.compile(r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]{5,}+\.[\w-]*+"),
)
"""Credentials that nothing else looks like."""

_CREDENTIALS = (
    *_TOKENS,
    # Words have no digits and are not that long.
    re.compile(
        r"\b(?<=Bearer)[ \t]{1,4}(?=[\w.~+/=-]{0,255}[0-9]|[\w.~+/=-]{24})[\w.~+/=-]{6,}+",
        re.IGNORECASE,
    ),
    # What signs an address.
    re.compile(
        r"(?:(?<=[?&])(?:sig|signature|token|auth|jwt|code)|(?<=[?&])key(?==[\w-]{20})"
        r"|(?<![\w-])X-(?:Amz|Goog|Ms)-(?:Signature|Credential|Security-Token))"
        r"=(?!\[redacted )[^\s&#\"'<>\\]++",
        re.IGNORECASE,
    ),
)
_USERINFO = re.compile(r"(?<=://)[^\s/\"'`<>\\]*@(?!sha[0-9]{3}:)")
_CONTAINER = re.compile(r"(?:abfss?|wasbs?)://\Z", re.IGNORECASE)
"""Schemes with the name of a container, not of a person, before the ``@``."""

# bundler.capture.privacy has the same: that runs where nothing of this can be imported.
_P = r"(?:/|\\/|%(?:25)?2[Ff]){1,4}"
_S = r"(?:[/\\]|%(?:25)?(?:2[Ff]|5[Cc])){1,4}"
_NAME = r"(?:(?!%(?:25)?(?:2[Ff]|5[Cc]))[^\s/\\:;,'\"`<>|()\[\]{}&?#*=])+"
_HOME = re.compile(
    # Where a path begins: not in a longer one, but after an escape (%20, \n) and after -I.
    r"(?:(?<![\w.~/\\-])(?!(?<=:)//)|(?<=://)|(?<=%[0-9A-Fa-f]{2})(?<!2[Ff])(?<!5[Cc])"
    r"|(?<=\\[nrt])|(?<=[\s\"'=]-[A-Za-z]))(?:"
    rf"{_P}(?:(?:var|usr|private{_P}var){_P}"
    rf"|(?:mnt|export|gpfs|lustre|nfs|net|srv|vol|volumes?){_P}(?:[\w.-]{{1,64}}{_P})?)?"
    rf"(?:home|Users){_P}{_NAME}"
    rf"|{_P}(?:var{_P})?root(?![\w.-])"
    rf"|{_P}(?:(?:mnt|cygdrive){_P})?[A-Za-z]{_P}(?i:users){_P}{_NAME}"
    rf"|(?:{_S})?[A-Za-z](?::|%3[Aa]){_S}(?i:users|documents\ and\ settings){_S}{_NAME}"
    # A name of several words: only where the path goes on after them.
    rf"(?:(?:\ [^\s/\\:;,'\"<>|]{{1,64}}){{1,2}}(?=\\))?"
    rf"|[/\\]{{2,4}}[\w.-]{{1,64}}{_S}(?:[\w.$-]{{1,64}}{_S})?(?i:home|users){_S}{_NAME}"
    r"|(?P<host>(?i:s?ftp|ssh|scp|rsync|smb|nfs|file|hdfs)://[^\s/]{1,255}/)"
    rf"(?:home|Users)/{_NAME})"
)

_ADDRESS = re.compile(
    # git@host names nobody; what stands behind :// is no address of a person, or already gone.
    r"(?<![\w.+-])(?<!://)(?!git(?:@|%(?:25)?40))[\w.+-]++(?:@|%(?:25)?40)(?P<domain>[\w-]++(?:\.[\w-]++)++)"
)
_DOMAINS = {
    *("com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "io", "dev", "app", "cloud"),
    *("tech", "online", "site", "science", "academy", "bank", "company", "email", "group"),
    *("health", "hospital", "berlin", "hamburg", "bayern", "koeln", "cologne", "saarland", "nrw"),
    *("ruhr", "wien", "tirol", "swiss", "london", "paris", "amsterdam", "brussels", "vlaanderen"),
    *("museum", "aero", "coop", "jobs", "xyz", "club", "digital", "systems", "solutions"),
    *("software", "engineering", "consulting", "global", "international", "world", "network"),
    *("agency", "insurance", "finance", "local", "localdomain", "internal", "intranet", "lan"),
    *("corp"),
}
_SUFFIXES = {"py", "pt", "sh", "md", "rs", "cc", "so", "ml"}
"""Names of countries that are suffixes of files as well."""
_NO_DOMAINS = {"gz", "xz", "js", "ts", "db", "rb"}
_VERSION = re.compile(
    r"v?[0-9].*|best|last|latest|final|main|master|head|step.*|epoch.*", re.IGNORECASE
)


def _without_userinfo(text: str) -> str:
    def bare(match: re.Match[str]) -> str:
        before = text[max(0, match.start() - 8) : match.start()]
        return match[0] if match[0] == "git@" or _CONTAINER.search(before) else ""

    return _USERINFO.sub(bare, text)


def _without_values(text: str) -> str:
    """``text`` without values of credentials: ``--password x``, ``api_key=x``, ``"secret": "x"``."""
    parts, end = [], 0
    for match in _ASSIGNMENT.finditer(text):
        flag = match["name"].startswith("-")
        if (
            match.start() < end
            or (match["flag"] and not flag)
            or not credential_name(match["name"])
        ):
            continue
        span = _value_at(text, match)
        if span is not None:
            parts += [text[end : span[0]], "[redacted credential]"]
            end = span[1]
    return "".join([*parts, text[end:]])


def _value_at(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """Where the value after ``name`` is, if it is one."""
    quoted = _QUOTED.match(text, name.end())
    bare = None if quoted else _BARE.match(text, name.end())
    if quoted:
        start, end = quoted.span(2)
    elif bare:
        start, end = bare.start(), bare.start() + len(bare[0].rstrip("()[]{},\\"))
    else:
        return None
    value = text[start:end]
    if value.lower() in _CONSTANTS or text.startswith("[redacted ", start):
        return None
    if bare and (
        # A flag after a flag; a number in JSON, as in a vocabulary.
        (name["flag"] and value.startswith("-")) or (name["quote"] and _NUMBER.fullmatch(value))
    ):
        return None
    return start, end


def _without_credentials(text: str) -> str:
    text = _without_userinfo(_without_values(text))
    for shape in _CREDENTIALS:
        text = shape.sub(_marked, text)
    return text


def _marked(match: re.Match[str]) -> str:
    """The marker, behind the name if there is one: ``sig=…``, `` Bearer …``."""
    text = match[0]
    if text[0] in " \t":
        return " [redacted credential]"
    name, equals, _ = text.partition("=")
    named = equals and re.fullmatch(r"[A-Za-z-]{3,24}", name)
    return f"{name}=[redacted credential]" if named else "[redacted credential]"


def _without_homes(text: str) -> str:
    return _HOME.sub(r"\g<host>~", text)


def _without_addresses(text: str) -> str:
    def marked(match: re.Match[str]) -> str:
        labels = match["domain"].split(".")
        # From the longest: a sentence may follow without a space.
        for count in range(len(labels), 1, -1):
            if _is_domain(labels[count - 2], labels[count - 1]):
                return "".join(["[redacted e-mail]", *(f".{label}" for label in labels[count:])])
        return match[0]

    return _ADDRESS.sub(marked, text)


def _is_domain(name: str, top: str) -> bool:
    top = top.lower()
    if top in _SUFFIXES:
        return not _VERSION.fullmatch(name)
    if len(top) == 2 or not top.isascii():  # a country
        return top.isalpha() and top not in _NO_DOMAINS
    return top in _DOMAINS or top.startswith("xn--")


_SHAPES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("credential", _without_credentials),
    # Before addresses: the name of a home folder can be one.
    ("home-path", _without_homes),
    ("e-mail", _without_addresses),
)

_ROUNDS = 8
"""Passes over one text: a shape may show only when another is gone."""


def redact(record: RunRecord, kept: Collection[str] = ()) -> tuple[RunRecord, frozenset[Found]]:
    """``record`` without personal data of the kinds not ``kept``, and what was taken out."""
    found: set[Found] = set()

    def clean(text: str, field: str) -> str:
        text, kinds = _cleaned(text, kept)
        found.update((kind, field) for kind in kinds)
        return text

    def value(value: Scalar, field: str) -> Scalar:
        if not isinstance(value, str):
            return value
        kind = _kind_of(field, value)
        if kind is None or kind in kept:
            return clean(value, field)
        found.add((kind, field))
        return f"[redacted {kind}]"

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


def clean_text(text: str, kept: Collection[str] = ()) -> str:
    """``text`` without personal data of the kinds not ``kept``, by their shapes."""
    return _cleaned(text, kept)[0]


_IN_FILES = (
    # With a body: code that looks for keys names their first line.
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----\s{1,4}[A-Za-z0-9+/=\s]{40}"),
    re.compile(rf"(?:{_TOKENS[1].pattern})(?<!EXAMPLE)"),
    _TOKENS[2],
    # What stands in manuals is shorter.
    re.compile(r"(?<![\w-])eyJ[\w-]{16,}+\.eyJ[\w-]{16,}+\.[\w-]{32,}+"),
)


def holds_a_token(text: str) -> bool:
    """Whether ``text`` holds a credential that nothing else looks like: a private key, a token of a known form.

    ``password = getpass()`` is none. For files, of which most are code.
    """
    return any(shape.search(text) for shape in _IN_FILES)


def personal_data_in(text: str) -> tuple[str, ...]:
    """Kinds of personal data and credentials whose shape is in ``text``, sorted."""
    return tuple(sorted(_cleaned(text, ())[1]))


def summary(found: Iterable[frozenset[Found]]) -> tuple[Redaction, ...]:
    """What was taken out of all records, by kind and field, with the number of runs."""
    counts = Counter(each for run in found for each in run)
    return tuple(
        Redaction(kind=kind, field=field, runs=count)
        for (kind, field), count in sorted(counts.items())
    )


def credential_name(name: str) -> bool:
    """Whether ``name`` is that of a credential, by its last words: ``aws.secretKey``, ``hf_token``, not ``token``."""
    words = _words(name).rstrip("_0123456789")
    return _CREDENTIAL.search(words) is not None and not _SWITCH.match(words)


def _cleaned(text: str, kept: Collection[str]) -> tuple[str, set[str]]:
    """``text`` without the kinds that are not ``kept``, and those found."""
    kinds: set[str] = set()
    for _ in range(_ROUNDS):
        before = text
        for kind, without in _SHAPES:
            if kind not in kept and (cleaned := without(text)) != text:
                text = cleaned
                kinds.add(kind)
        if text == before:
            break
    return text, kinds


def _kind_of(field: str, value: str) -> str | None:
    """The kind that a text is by the name of its ``field``. Numbers and switches are none, whatever they are called."""
    group, _, name = field.partition(".")
    if group not in {"parameters", "tags", "environment"} or value.lower() in _CONSTANTS:
        return None
    if credential_name(name):
        kind = "credential"
    else:
        kind = next((kind for kind, keys in _KEYS.items() if _words(name) in keys), "")
    if not kind or value == f"[redacted {kind}]":
        return None
    # A number is a setting, unless it is a secret of digits.
    secret = kind == "credential" and re.fullmatch(r"[0-9]{6,}", value)
    return kind if secret or not _is_number(value) else None


def _is_number(text: str) -> bool:
    """Whether ``text`` is a number or a list of numbers."""
    parts = [part for part in re.split(r"[\[\](),\s]+", text) if part]
    return bool(parts) and all(_NUMBER.fullmatch(part) for part in parts)


def _words(name: str) -> str:
    """The last part of a nested ``name``, its words in lower case joined by ``_``: sys/ownerName → ``owner_name``."""
    parts = [part for part in re.split(r"[./|:]", name) if part.strip("0123456789_- ")]
    last = re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", parts[-1] if parts else ""
    )
    return re.sub(r"[\s_-]+", "_", last).strip("_").lower()


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
