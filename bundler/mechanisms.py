"""Claimed mechanisms of repeatability held against what was recorded of the run: shown, contradicted or neither.

``reproducibility.mechanisms`` is free text. :data:`ROWS` says which words mean which fact. A contradiction needs a
sentence that is understood to its last word: "no TF32", "4 threads for data loading" or "deterministic algorithms, but
not on the GPU" must not be misread. In doubt a claim is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bundler import mechanism_facts as facts
from bundler.mechanism_facts import Facts, Judge, Outcome, Recorded

LONGEST = 2000
"""Most characters of one mechanism that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A part of a claimed mechanism, and the recorded ``fact`` that shows or contradicts it (empty: none)."""

    claim: str
    outcome: Outcome
    fact: str


def examine(mechanism: str, recorded: Recorded) -> tuple[Reading, ...]:
    """What the record says to each part of ``mechanism``, in the order of its words. Raises nothing."""
    if len(mechanism) > LONGEST:
        return (Reading(claim=mechanism, outcome="not shown", fact=""),)
    known = Facts(recorded)
    return tuple(
        reading
        for sentence in _SENTENCES.split(mechanism.replace(_MASK, " "))
        for reading in _sentence(sentence, known)
    )


_MASK = "\0"
_SENTENCES = re.compile(r"[;\n]|[.!?]\s+")
_CLAUSES = re.compile(r",\s|\s+and\s+")
_TOKENS = re.compile(r"[\w'\u2019-]+|[=<>~≤≥!]+")
_REASON = re.compile(
    r",?\s*\b(so that|because|since|in order to|to (?:make|keep|avoid|ensure|get)|which)\b",
    re.IGNORECASE,
)
"""Begins what says why, not what is set."""

_NEGATION = re.compile(
    r"\b(no|not|never|none|neither|nor|non|without|off|disabled|false|except|unless|but|cannot|ignor\w+|\w+n['\u2019]t)\b",
    re.IGNORECASE,
)
_NUMBERED_SEED = re.compile(r"seed\w*\W[^()]*\d", re.IGNORECASE)
_FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a all also always an and are as both by enabled every everywhere exactly fixed in is its mode of on our plus"
        " run runs set sets setting settings that the their this through torch training true use used uses using via"
        " we were whole with",
    )
)
"""Words that neither limit a claim nor add to it."""


def _sentence(sentence: str, known: Facts) -> Iterator[Reading]:
    """The readings of one sentence: of what is recognised, and of the clauses in which nothing is."""
    reason = _REASON.search(sentence)
    rest = sentence[: reason.start()] if reason else sentence
    found: list[tuple[int, Reading]] = []
    for words, judge in ROWS:
        for match in words.finditer(rest):
            outcome, fact = judge(match, known)
            found.append((match.start(), Reading(claim=match[0], outcome=outcome, fact=fact)))
        rest = words.sub(lambda match: _MASK * len(match[0]), rest)
    if not found:
        if re.search(r"\w", sentence):
            yield Reading(claim=sentence.strip(), outcome="not shown", fact="")
        return
    place = 0
    for clause in _CLAUSES.split(rest):
        place = rest.index(clause, place)
        if _MASK not in clause and _unknown(clause):
            found.append((place, Reading(claim=clause.strip(), outcome="not shown", fact="")))
    # "which" can limit what it follows; a reason cannot, unless it denies something.
    limited = reason is not None and (
        reason[1].lower() == "which" or _NEGATION.search(sentence, reason.end()) is not None
    )
    # Of several numbered seeds, those that are not the run's can be of other runs.
    several = sum(bool(_NUMBERED_SEED.search(reading.claim)) for _, reading in found) > 1
    understood = not limited and not _unknown(rest)
    denied = _NEGATION.search(rest.replace(_MASK, " ")) is not None
    for _, reading in sorted(found, key=lambda each: each[0]):
        other = several and _NUMBERED_SEED.search(reading.claim) is not None
        if denied or (reading.outcome == "contradicted" and (other or not understood)):
            yield Reading(claim=reading.claim, outcome="not shown", fact="")
        else:
            yield reading


def _unknown(text: str) -> list[str]:
    """The words of ``text`` that may limit a claim."""
    words = (word.lower().removesuffix("'s").strip("-'\u2019") for word in _TOKENS.findall(text))
    return [word for word in words if word and word not in _FILLERS]


_WORKERS = ("num_workers", "dataloader_workers", "data_loader_workers", "dataloader_num_workers")
_NUMBER = r"(\d{1,4}|one|two|three|four|eight|(?:a )?single)"
_TO = r"(?:\s?[=:]\s?| is | are | set to | fixed to | fixed at | limited to )"
_OFF = r"(?:\s?=\s?false|:? (?:is |are )?(?:off|disabled|false|not used|not allowed))\b"
_TUNING = r"cudnn[ ._]?(?:benchmark|auto-?tun)\w*"
_CASTS = r"(?:amp|mixed[ -]precision|autocast)"
_LIBRARY = r"(?:python|numpy|np|torch|pytorch|cuda|gpu|cpu|tensorflow|tf|jax|all|global|fixed|random|constant|same)"
_PINNED = r"(?:(?:package )?versions?|packages?|dependenc(?:y|ies)|requirements)"
_HASHED = r"(?: (?:with|by) hash(?:es)?\b)?"
_UPPER = r"(?-i:\b(?P<name>[A-Z][A-Z0-9_]{2,}))"

_TABLE: tuple[tuple[Judge, tuple[str, ...]], ...] = (
    (
        facts.torch_algorithms,
        (r"\b(?:torch\.)?use_deterministic_algorithms(?:\(\s*(?:mode=)?true[^()]*\)|\b(?!\())",),
    ),
    (
        facts.operations,
        (r"(?:\b[\w.]{0,60}\.)?\benable_op_determinism\b(?:\(\))?", r"\bop determinism\b"),
    ),
    (
        facts.backend,
        (r"\btorch\.backends\.(?P<setting>\w[\w.]{0,60})\s?=\s?(?P<value>true|false)\b",),
    ),
    (
        facts.is_off(*facts.of_cudnn("benchmark")),
        (
            rf"\b(?:no|without) {_TUNING}",
            rf"\b{_TUNING}(?: mode)?{_OFF}",
            rf"\bdisabled? {_TUNING}",
        ),
    ),
    (
        facts.is_on(*facts.of_cudnn("deterministic")),
        (
            r"\bcudnn[ ._-](?:is )?deterministic\b(?:\s?=\s?true\b| (?:mode|algorithms|kernels|operations)\b)?",
            r"(?<![\w-])deterministic cudnn\b(?: algorithms| kernels)?",
        ),
    ),
    (
        facts.deterministic_algorithms,
        (
            (
                r"(?<![\w-])deterministic (?:torch |pytorch )?(?:algorithms?|mode|operations?|ops|kernels?)\b"
                r"(?:\s?[=:]\s?(?:true|on)\b)?"
            ),
            r"\b(?:py)?torch determinism\b",
        ),
    ),
    (
        facts.no_tf32,
        (r"\b(?:no|without) tf32\b", rf"\b(?:allow_)?tf32{_OFF}", r"\bdisabled? tf32\b"),
    ),
    (facts.no_casts, (rf"\b(?:no|without) {_CASTS}\b", rf"\b{_CASTS}{_OFF}")),
    (
        facts.matmul_precision,
        (r"\b(?:torch\.)?set_float32_matmul_precision\(['\"]?(?P<precision>\w+)['\"]?\)",),
    ),
    (facts.default_dtype, (r"\b(?:torch\.)?set_default_dtype\((?:torch\.)?(?P<dtype>\w+)\)",)),
    (facts.version, (r"\b(?P<package>[a-z][\w-]{0,60})\s?==\s?(?P<version>\d+\.\d[\w.+!-]*)",)),
    (
        facts.variable,
        (
            rf"{_UPPER}(?:\s?=\s?| is set to | set to )(?!=|\s)['\"`]?(?P<value>[^\s,;()'\"`]+)['\"`]?",
        ),
    ),
    (facts.variable_is_set, (r"(?-i:\b(?:[A-Z][A-Z0-9]*_[A-Z0-9_]+|PYTHONHASHSEED)\b)",)),
    (facts.threads, (r"\b(?:torch\.)?set_num_threads\((\d{1,4})\)",)),
    (
        facts.counts("threads_torch_inter_op", "torch_num_interop_threads", "num_interop_threads"),
        (
            r"\b(?:torch\.)?set_num_interop_threads\((\d{1,4})\)",
            rf"\b{_NUMBER}[ -]inter-?op threads?\b",
        ),
    ),
    (
        facts.threads,
        (
            rf"\b{_NUMBER}[ -](?:cpu |intra-op |torch |pytorch |compute )?thread(?:s|ed)?\b",
            rf"\b(?:number of |num_|n_)?threads?(?: count)?{_TO}{_NUMBER}\b",
        ),
    ),
    (facts.thread_counts, (r"\bthread counts?\b", r"\bnumber of threads\b")),
    (
        facts.counts(*_WORKERS, parameters=True),
        (
            rf"\bnum_workers{_TO}(\d{{1,4}})\b",
            rf"\b{_NUMBER} data[ -]?load(?:er|ing) (?:workers?|process(?:es)?)\b",
            rf"\bdata[ -]?loader workers?{_TO}{_NUMBER}\b",
            r"\b(?:no|zero|without) data[ -]?load(?:er|ing) workers?\b",
        ),
    ),
    (
        facts.hash_seed,
        (r"\bhash seed\b", r"\bhash randomi[sz]ation (?:is )?(?:off|disabled|fixed)\b"),
    ),
    (facts.seed, (r"\b[\w.]{0,60}seed\w*\((?P<number>[^()]{0,40})\)",)),
    (
        facts.seed,
        (
            rf"(?:\b{_LIBRARY}\b[\s,/&+]*(?:and\s+)?)*\bseed(?:s|ed|ing)?\b(?:(?:{_TO}|\s)(?P<number>\d{{1,18}})\b)?",
        ),
    ),
    (
        facts.lock,
        (
            rf"\b(?:pinned|locked) (?:dependency |software |library )?{_PINNED}\b{_HASHED}",
            rf"\b{_PINNED} (?:are |is )?(?:pinned|locked)\b{_HASHED}",
            r"\block[ -]?files?\b",
            r"\b\w{1,60}\.lock\b",
        ),
    ),
    (
        facts.image,
        (
            (
                r"\b(?:container|docker|oci) image(?: pinned)?(?: by| with)?(?: its)?(?: digest)?\b"
                r"(?: (?P<digest>sha256:[0-9a-f]{64})\b)?"
            ),
        ),
    ),
)

ROWS: tuple[tuple[re.Pattern[str], Judge], ...] = tuple(
    (re.compile("|".join(words), re.IGNORECASE), judge) for judge, words in _TABLE
)
"""Words of a claim and how they are held against the record. Of two rows that match, the first one reads the words."""
