"""What a provider declares: the system, why this run was selected, how to repeat it, and the gates.

These are the parts of ``data/bundle.json`` (:class:`Index`) and ``data/spec/training.json``
(:class:`TrainingSpec`). A declaration is never evidence by itself: each has a check that holds it
against the run records (:mod:`bundler.checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bundler.records import MetricRole, Scalar

BUNDLE_FORMAT: Final = "urn:aisdp-bundler:bundle:1"
TRAINING_FORMAT: Final = "urn:aisdp-bundler:training-spec:1"

BUNDLE_SCHEMAS = (
    "bundle-1.schema.json",
    "release-1.schema.json",
    "run-record-1.schema.json",
    "training-spec-1.schema.json",
    "wheels-1.schema.json",
)
"""The schemas that a bundle of format 1 carries and satisfies. Later formats have lists of their own."""

Comparator = Literal[">=", "<="]
Direction = Literal["maximise", "minimise"]
GapLevel = Literal["required", "recommended"]
ImageForm = Literal["oci-layout", "oci-archive", "docker-archive", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The AI system (Annex IV point 1(a)). ``annex_iii`` is its point of Annex III, such as ``5(b)``."""

    name: str
    version: str
    provider: str
    intended_purpose: str
    annex_iii: str | None = None
    responsible: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State of the log: number of records, SHA-256 of the last line, RFC 6962 Merkle root over all lines."""

    size: int
    head: str
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The bundle whose log this one extends: its version, SHA-256 of its tag manifest, its checkpoint."""

    version: str
    tag_manifest_sha256: str
    log: Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A metric held against a threshold."""

    metric: str
    comparator: Comparator
    threshold: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` satisfies the condition."""
        return value >= self.threshold if self.comparator == ">=" else value <= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A run that the provider takes out of the competition, and why. A human has to judge the reason."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSpec:
    """Why ``run`` was selected (Annex IV point 2(b)): the best ``metric`` among all eligible runs.

    ``eligible`` maps a fact (see :meth:`bundler.records.RunRecord.fact`) to its allowed values. Finished runs that
    satisfy it and the ``constraints`` compete. ``declared_at`` dates the criteria (Art. 9(8): prior defined).
    """

    run: str
    metric: str
    direction: Direction
    rationale: str
    declared_at: str | None = None
    constraints: tuple[Condition, ...] = ()
    eligible: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the rule looks at: the one that it orders by, then those of its constraints."""
        return tuple(dict.fromkeys((self.metric, *(each.metric for each in self.constraints))))


Statistic = Literal[
    "auc",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "specificity",
    "brier",
    "log_loss",
    "mae",
    "mse",
    "rmse",
    "r2",
]
"""The metrics that can be computed anew from per-example predictions (:mod:`bundler.predictions`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A CSV artefact with a line for each example of the hold-out.

    ``label`` and ``score`` are columns: the truth (0 or 1, or a number) and what the model gave for it (a probability,
    a score or a number). ``key`` is a column that names the example. An example counts as positive from a score of
    ``threshold`` on.
    """

    path: str
    label: str
    score: str
    key: str | None = None
    threshold: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What is known of the finite hold-out behind a metric, for the variance that it adds.

    - ``proportion``: a mean of N values in [0, 1]; p(1-p)/N is exact for proportions and an upper bound
      otherwise (Bhatia and Davis 2000), so it also serves Brier scores;
    - ``auc``: ``positives`` of the N rows are of the positive class (Hanley and McNeil 1982);
    - ``difference``: of two proportions over ``groups`` of rows, at their largest variance 1/4n;
    - ``predictions``: any other metric; the metric is ``statistic`` over the ``predictions`` of the selected run, and
      its variance is computed from them (DeLong et al. 1988 for the AUC, the bootstrap otherwise).

    N is the number of rows of the data set with role ``dataset_role`` as the runs recorded it. A proportion of only
    some of them, such as recall (of the positives) or precision, needs ``denominator``, the number of those.
    """

    kind: Literal["proportion", "auc", "difference", "predictions"]
    dataset_role: str
    denominator: int | None = None
    positives: int | None = None
    groups: tuple[int, ...] = ()
    predictions: Predictions | None = None
    statistic: Statistic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A validation gate: the pessimistic bound of the interval of ``metric`` against ``threshold``.

    Judged over the selected run and all its repetitions with other seeds, at one-sided ``confidence``.
    """

    name: str
    category: Literal["performance", "fairness", "robustness", "drift"]
    metric: str
    comparator: Comparator
    threshold: float
    confidence: float = 0.95
    sampling: Sampling | None = None
    requirement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate came to. ``bound`` is the pessimistic end of the interval; ``verdict`` follows from it.

    ``seed_variance`` and ``holdout_variance`` are the two parts of the squared standard error (``None``: unknown).
    """

    gate: str
    runs: int
    estimate: float | None
    bound: float | None
    seed_variance: float | None
    holdout_variance: float | None
    verdict: Literal["met", "not met", "inconclusive"]
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest absolute difference of a metric that still counts as the same result.

    Two-sided, unless only a declared value that is better than the re-runs' counts against it: then ``overstatement``
    says which way is better.
    """

    metric: str
    margin: float
    overstatement: Literal["higher is better", "lower is better"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducibilitySpec:
    """What repeating the training is declared to give: the same bits, or the same result within tolerances."""

    level: Literal["bitwise", "statistical"]
    mechanisms: tuple[str, ...] = ()
    factors_of_variation: tuple[str, ...] = ()
    tolerances: tuple[Tolerance, ...] = ()
    limitations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Evidence that is asked for (``point`` of Annex IV or of the reproducibility specification) and not shown."""

    level: GapLevel
    code: str
    point: str
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactMap:
    """Where the runs of this provider keep their facts: ``parameters.NAME``, ``tags.NAME`` or ``artefacts.PATH``.

    ``environment`` names a JSON artefact. ``metrics`` maps a role to patterns of metric names (``*`` and ``?``);
    a metric that matches none has the role ``other``. ``model`` is the path of the model artefact. ``finished_with`` is
    a metric that is logged at the very end: where no tracker records how a run ended, one that has it finished.
    ``data_rows`` says where the number of rows of the data with a role stands, for trackers that know no data sets.
    """

    seed: str = "parameters.seed"
    code_commit: str | None = None
    code_dirty: str | None = None
    data_version: str | None = None
    data_sha256: str | None = None
    environment: str | None = None
    model: str | None = None
    metrics: Mapping[MetricRole, tuple[str, ...]] = field(default_factory=dict)
    finished_with: str | None = None
    data_rows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer:
    """A layer as it lies in the image: digest and size (bytes) of the file, compressed or not."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformManifest:
    """One image of an index: its manifest, and the platform (``linux/arm64/v8``) and name that the index gives it."""

    digest: str
    platform: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIdentity:
    """The identity of a container image.

    ``manifest_digest`` is what a registry and ``repo@sha256:…`` know an image by; ``config_digest`` what
    ``docker images`` calls its id. They are never the same, and ``docker save`` keeps the second one only. An image of
    several platforms is also known by its ``index_digest``.
    ``supplied``: the bytes were there, and every blob has the digest and size that its parent says. ``resolved``:
    exactly one image is meant; ``reasons`` say why not, or what else to know. ``manifests`` are all images of the
    index.
    """

    form: ImageForm
    reference: str | None
    manifest_digest: str | None
    index_digest: str | None = None
    config_digest: str | None
    platform: str | None
    layers: tuple[ImageLayer, ...] = ()
    manifests: tuple[PlatformManifest, ...] = ()
    supplied: bool
    resolved: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """Personal data or a credential that was taken out of ``field`` in the records of ``runs`` runs."""

    kind: str
    field: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """``data/bundle.json``: what the bundle is about and what the provider declares.

    ``created`` is the time of the newest evidence in it (or SOURCE_DATE_EPOCH), not of a clock: identical
    inputs give an identical bundle.
    """

    format: Literal["urn:aisdp-bundler:bundle:1"]
    created: str
    software: str
    system: System
    selection: SelectionSpec
    reproducibility: ReproducibilitySpec
    gates: tuple[Gate, ...]
    gate_results: tuple[GateResult, ...]
    facts: FactMap
    log: Checkpoint
    previous: Predecessor | None
    training_spec: str | None
    gaps: tuple[Gap, ...]
    redactions: tuple[Redaction, ...] = ()
    images: tuple[ImageIdentity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that the training reads: its path in the bag and its SHA-256."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where the training leaves its record: an importer's name and a path below the output folder.

    ``tensors`` are the artefacts, in safetensors format, that are compared tensor by tensor. ``rename`` and
    ``histories`` say how the record was read: other names for parameters, tags and metrics (``metrics.val/auc`` →
    ``metrics.val_auc``), and patterns of artefacts that hold metric histories.
    """

    tracker: str
    location: str
    tensors: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    histories: tuple[str, ...] = ()
    predictions: Predictions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How to score the shipped model on the shipped hold-out, without any training.

    ``command`` may use the placeholders of the training command and ``{artefact.PATH}``, an artefact of the selected
    run that is in the bundle. It writes ``results`` below ``{out}``: a JSON object, metric name → number, by the names
    that the run's metrics have.
    """

    command: tuple[str, ...]
    results: str = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one training needs: processor cores, GPUs, and bytes of memory (``None``: unknown)."""

    cpus: int = 1
    gpus: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """A line of ``git ls-tree``: mode (100644, 100755, 120000 a link, 160000 a submodule), object id, path.

    Mode 040000 is a folder that is named and not listed.
    """

    mode: str
    id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTree:
    """What git says the code is: ``commit`` has at ``folder`` the tree ``tree``, which holds exactly ``entries``.

    ``at`` is where it lies below the code of the bag: empty, or the path of a submodule. ``above`` lists the folders
    above ``folder``, the root first, so that the tree of the whole commit can be computed.
    """

    commit: str
    folder: str
    tree: str
    entries: tuple[TreeEntry, ...]
    at: str = ""
    above: tuple[tuple[TreeEntry, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How to repeat the training of ``run``.

    ``command`` may use the placeholders ``{python}``, ``{seed}``, ``{out}``, ``{code}``, ``{input.NAME}`` and
    ``{parameter.NAME}``; they are replaced once, literally, and no shell sees the result. ``code`` is the folder
    in the bag that becomes the working directory, ``code_trees`` what git says it is; ``lock`` the list of packages, if
    any, ``wheels`` the list of their wheels with digests (`bundler capture-wheels`). ``evaluation`` scores the shipped
    model. ``facts`` and ``images`` are those of the index, so that the training can be repeated before anything with a
    result in it is opened. Times are seconds.
    """

    format: Literal["urn:aisdp-bundler:training-spec:1"]
    run: str
    seed: int
    command: tuple[str, ...]
    code: str
    parameters: Mapping[str, Scalar]
    environment: Mapping[str, str]
    inputs: tuple[Input, ...]
    outputs: Outputs
    lock: str | None = None
    expected_seconds: float | None = None
    code_trees: tuple[CodeTree, ...] = ()
    wheels: str | None = None
    evaluation: Evaluation | None = None
    resources: Resources = field(default_factory=Resources)
    facts: FactMap = field(default_factory=FactMap)
    images: tuple[ImageIdentity, ...] = ()
