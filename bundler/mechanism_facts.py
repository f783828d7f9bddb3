"""What was recorded of a run, found by the several names that facts have, and how a claim is held against it.

The judges are called by :mod:`bundler.mechanisms` for the words that they understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bundler.placeholders import REDACTED
from bundler.records import Scalar

Outcome = Literal["shown", "contradicted", "not shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is known of a run.

    ``environment`` are the facts recorded while it ran, ``variables`` what the training specification sets. ``locked``:
    the bundle lists the packages; ``hashed``: each with a hash. ``images`` are the digests of its container images.
    """

    environment: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    locked: bool = False
    hashed: bool = False
    images: frozenset[str] = frozenset()


class Facts:
    """The recorded facts, found by any of the names that they have."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self._environment = _by_key(recorded.environment)
        self._parameters = _by_key(recorded.parameters)

    def of(self, *names: str, parameters: bool = False) -> dict[str, Scalar]:
        """The facts with these names, in lower case and with ``_`` for every sign between words."""
        places = [self._environment, *([self._parameters] if parameters else [])]
        return dict(place[name] for place in places for name in names if name in place)

    def variable(self, name: str) -> dict[str, Scalar]:
        """The recorded environment variable ``name``, under whatever heading."""
        found = self.recorded.environment.items()
        return {key: value for key, value in found if key.rpartition(".")[2] == name}


Judgement: TypeAlias = tuple[Outcome, str]
"""The outcome and the fact that it rests on."""

Judge: TypeAlias = Callable[[re.Match[str], Facts], Judgement]

_NOTHING: Judgement = ("not shown", "")


def _by_key(facts: Mapping[str, Scalar]) -> dict[str, tuple[str, Scalar]]:
    known = {}
    for name, value in facts.items():
        if not (isinstance(value, str) and REDACTED in value):
            known[_key(name)] = (name, value)
    return known


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _held(found: Mapping[str, Scalar], test: Callable[[Scalar], bool | None]) -> Judgement:
    """Hold facts against a claim; one that ``test`` cannot judge (``None``) and ones that disagree show nothing."""
    judged = {name: held for name, value in found.items() if (held := test(value)) is not None}
    if not judged or len({*judged.values()}) > 1:
        return _NOTHING
    name, held = next(iter(judged.items()))
    return ("shown" if held else "contradicted"), _words(name, found[name])


def _shown(found: Mapping[str, Scalar]) -> Judgement:
    """That the first of these facts is there is the whole claim."""
    return next((("shown", _words(*each)) for each in found.items()), _NOTHING)


def _words(name: str, value: Scalar) -> str:
    return f"{name} = {value if isinstance(value, str) else str(value).lower()}"


def _truth(value: Scalar) -> bool | None:
    return _TRUTH.get(str(value).lower())


_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _number(text: object) -> int | None:
    """The whole number that a word or a recorded value says."""
    word = str(text).lower().removeprefix("a ")
    return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else _NUMBERS.get(word)


_NUMBERS = {"no": 0, "zero": 0, "one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "eight": 8}


def _claimed(match: re.Match[str]) -> int | None:
    """The number in the words of the claim; where there is none, they say that there are no such things."""
    return _number(next((each for each in match.groups() if each), "no"))


def is_on(*names: str) -> Judge:
    """A claim that a switch, known by any of ``names``, is on."""
    return lambda _, facts: _held(facts.of(*names), _truth)


def is_off(*names: str) -> Judge:
    """A claim that a switch, known by any of ``names``, is off."""
    return lambda _, facts: _held(facts.of(*names), _is_false)


def _is_false(value: Scalar) -> bool | None:
    truth = _truth(value)
    return None if truth is None else not truth


def counts(*names: str, parameters: bool = False) -> Judge:
    """A claim of a number of things: the one group of the words that matched, or none of them."""

    def judge(match: re.Match[str], facts: Facts) -> Judgement:
        wanted = _claimed(match)
        found = facts.of(*names, parameters=parameters)
        numbers = {name: value for name, value in found.items() if _number(value) is not None}
        return _held(numbers, lambda value: _number(value) == wanted)

    return judge


def of_cudnn(setting: str) -> tuple[str, ...]:
    """The names of a setting of cuDNN."""
    places = ("determinism_torch_cudnn_", "cudnn_", "torch_cudnn_", "torch_backends_cudnn_")
    return tuple(f"{place}{setting}" for place in places)


_ALGORITHMS = is_on(
    *(
        f"{place}deterministic_algorithms"
        for place in ("", "torch_", "determinism_torch_", "use_", "torch_use_")
    )
)


def torch_algorithms(match: re.Match[str], facts: Facts) -> Judgement:
    """torch.use_deterministic_algorithms. With ``warn_only`` it is set, and forbids nothing."""
    outcome, fact = _ALGORITHMS(match, facts)
    warns = facts.of("determinism_torch_deterministic_warn_only", "deterministic_warn_only")
    if outcome == "shown" and any(map(_truth, warns.values())) and "warn_only" not in match[0]:
        return _NOTHING
    return outcome, fact


def deterministic_algorithms(match: re.Match[str], facts: Facts) -> Judgement:
    """Deterministic algorithms, of torch or another library: the words do not say which one is meant."""
    of_torch = torch_algorithms(match, facts)
    if of_torch[0] == "shown":
        return of_torch
    others = (operations(match, facts), is_on(*of_cudnn("deterministic"))(match, facts))
    if all(outcome != "shown" for outcome, _ in others):
        return of_torch
    return others[0] if others[0][0] == "shown" and not of_torch[1] else _NOTHING


def operations(_: re.Match[str], facts: Facts) -> Judgement:
    """TensorFlow's switch, as a variable or as the provider's own fact, or XLA's."""
    for name, value in facts.variable("XLA_FLAGS").items():
        if re.search(r"--xla_gpu_deterministic_ops(=true|=1|\s|$)", str(value)):
            return "shown", _words(name, value)
    own = facts.of("op_determinism", "tf_op_determinism", "enable_op_determinism")
    return _held({**facts.variable("TF_DETERMINISTIC_OPS"), **own}, _truth)


def backend(match: re.Match[str], facts: Facts) -> Judgement:
    """A setting of torch.backends by its own name."""
    name = _key(match["setting"])
    names = (f"determinism_torch_{name.removeprefix('cuda_')}", f"torch_backends_{name}", name)
    return (is_on if _truth(match["value"]) else is_off)(*names)(match, facts)


def no_tf32(match: re.Match[str], facts: Facts) -> Judgement:
    """No TF32 in products and convolutions. torch allows it in the latter by default, whatever the device."""
    override = facts.variable("NVIDIA_TF32_OVERRIDE")
    if override and all(str(value) == "0" for value in override.values()):
        return _shown(override)
    products = facts.of("determinism_torch_matmul_allow_tf32", "matmul_allow_tf32")
    on_gpu = facts.recorded.environment.get("gpu.source") == "torch"
    if on_gpu and not override and any(map(_truth, products.values())):
        return "contradicted", _shown(products)[1]
    convolutions = facts.of(*of_cudnn("allow_tf32"))
    both = {**products, **convolutions}
    if products and convolutions and all(map(_is_false, both.values())):
        return "shown", " and ".join(_words(*each) for each in both.items())
    return is_off("tf32", "allow_tf32", "torch_allow_tf32")(match, facts)


def variable(match: re.Match[str], facts: Facts) -> Judgement:
    """NAME=value: as recorded while the run ran, else as the training specification sets it."""
    name, wanted = match["name"], match["value"].rstrip(".").casefold()

    def same(recorded: Scalar) -> bool | None:
        text = str(recorded).casefold()
        truth = _truth(text)
        if text == wanted or (truth is not None and truth is _truth(wanted)):
            return True
        if name.endswith("FLAGS"):
            return True if wanted in text.split() else None
        # Capture leaves paths out.
        return None if "…" in text or REDACTED in text else False

    found = facts.variable(name)
    if found:
        return _held(found, same)
    specified = facts.recorded.variables.get(name)
    if specified is None or not same(specified):
        return _NOTHING
    return "shown", _words(f"training.environment.{name}", specified)


def variable_is_set(match: re.Match[str], facts: Facts) -> Judgement:
    """A variable that is named without a value is claimed to be set."""
    name, specified = match[0], facts.recorded.variables
    found = {key: value for key, value in facts.variable(name).items() if value is not None}
    if name in specified:
        found.setdefault(f"training.environment.{name}", specified[name])
    return _shown(found)


def version(match: re.Match[str], facts: Facts) -> Judgement:
    """PACKAGE==version. A local part (``+cpu``) counts where both the claim and the record have one."""
    package, wanted = _key(match["package"]), match["version"].rstrip(".")

    def same(recorded: Scalar) -> bool | None:
        if not isinstance(recorded, str):
            return None
        versions = [wanted, recorded]
        if not all("+" in each for each in versions):
            versions = [each.partition("+")[0] for each in versions]
        shorter, longer = sorted(versions, key=len)
        if shorter == longer:
            return True
        # 2.0 may be 2.0.0.
        return None if longer.startswith(f"{shorter}.") else False

    own = ("python",) if package == "python" else (f"{package}_version",)
    return _held(facts.of(f"packages_{package}", f"versions_{package}", *own), same)


_THREADS = (
    *("threads_torch_intra_op", "torch_threads", "torch_num_threads", "torch_get_num_threads"),
    "num_threads",
)


def threads(match: re.Match[str], facts: Facts) -> Judgement:
    """The number of threads in force. OMP_NUM_THREADS and a parameter can show it and not contradict it."""
    # Beside a number of cores, "threads" may be those of the processor.
    cores = any(re.search(r"(cores?|physical)$", name) for name in facts.recorded.environment)
    outcome, fact = counts(*_THREADS, *(() if cores else ("threads",)))(match, facts)
    if fact:
        # num_threads=4 can be a parameter of a library, such as LightGBM, which has threads of its own.
        own = outcome == "contradicted" and re.match(r"n(?:um)?_threads", match[0].lower())
        return _NOTHING if own else (outcome, fact)
    if facts.of(*_THREADS):  # they disagree
        return _NOTHING
    found = {**facts.variable("OMP_NUM_THREADS"), **facts.of("threads", parameters=True)}
    shown = _held(found, lambda value: _number(value) == _claimed(match))
    return shown if shown[0] == "shown" else _NOTHING


def thread_counts(_: re.Match[str], facts: Facts) -> Judgement:
    """The number of threads is recorded, whatever it is."""
    return _shown({**facts.of(*_THREADS, "threads"), **facts.variable("OMP_NUM_THREADS")})


def seed(match: re.Match[str], facts: Facts) -> Judgement:
    """A seed is recorded; a number in the claim is one of those recorded."""
    recorded, named = facts.recorded.seed, (match["number"] or "").strip()
    if recorded is None:
        return _NOTHING
    if not re.fullmatch(r"[0-9]{1,18}", named):
        return "shown", _words("seed", recorded)
    others = [*facts.recorded.environment.items(), *facts.recorded.parameters.items()]
    seeds = {"seed": recorded, **{name: value for name, value in others if _is_seed(name)}}
    for name, value in seeds.items():
        if str(value) == str(int(named)):
            return "shown", _words(name, value)
    # A library or a device can have a seed of its own that nobody recorded.
    return _NOTHING if _OWN_SEED.search(match[0]) else ("contradicted", _words("seed", recorded))


def _is_seed(name: str) -> bool:
    """Python's hash seed is none of the training's."""
    return "seed" in name.lower() and "hashseed" not in _key(name).replace("_", "")


_OWN_SEED = re.compile(
    r"\b(?:cuda|gpu|cpu)\b|\b(?:python|numpy|np|(?:py)?torch|tensorflow|tf|jax)\b[^.(]*seed",
    re.IGNORECASE,
)


def hash_seed(_: re.Match[str], facts: Facts) -> Judgement:
    """PYTHONHASHSEED is a number."""
    found = {**facts.recorded.variables, **facts.variable("PYTHONHASHSEED")}
    numbers = {
        name: value
        for name, value in found.items()
        if name.endswith("PYTHONHASHSEED") and _number(value) is not None
    }
    return _shown(numbers)


def matmul_precision(match: re.Match[str], facts: Facts) -> Judgement:
    """torch.set_float32_matmul_precision."""
    wanted = match["precision"].lower()
    names = ("determinism_torch_float32_matmul_precision", "float32_matmul_precision")
    return _held(facts.of(*names), lambda value: str(value) == wanted)


def default_dtype(match: re.Match[str], facts: Facts) -> Judgement:
    """torch.set_default_dtype."""
    wanted = match["dtype"].lower()
    found = facts.of("determinism_torch_default_dtype", "default_dtype", "torch_default_dtype")
    return _held(found, lambda value: str(value).removeprefix("torch.") == wanted)


def no_casts(match: re.Match[str], facts: Facts) -> Judgement:
    """No automatic casts. They are on where a type is recorded; off at that moment says nothing of later ones."""
    casts = facts.of("determinism_torch_autocast_cpu", "determinism_torch_autocast_cuda")
    on = {name: value for name, value in casts.items() if str(value).startswith("torch.")}
    if on:
        return "contradicted", _shown(on)[1]
    return is_off("amp", "use_amp", "mixed_precision", "autocast")(match, facts)


def lock(match: re.Match[str], facts: Facts) -> Judgement:
    """Versions are pinned: the bundle has the list."""
    if facts.recorded.hashed:
        return "shown", "the list of packages in the bundle, with hashes"
    if facts.recorded.locked and "hash" not in match[0].lower():
        return "shown", "the list of packages in the bundle"
    return _NOTHING


def image(match: re.Match[str], facts: Facts) -> Judgement:
    """A container image is identified, by the digest in the claim if there is one."""
    named = match["digest"]
    digests: Iterable[str] = sorted(facts.recorded.images)
    found = [each for each in digests if named is None or each == named.lower()]
    return ("shown", f"image {found[0]}") if found else _NOTHING
