"""Claimed mechanisms against recorded facts: what is shown, what is contradicted, and what nobody may misread."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.checks import Evidence
from bundler.checks.mechanisms import claimed_mechanisms
from bundler.evidence import intact_files, read_contents
from bundler.mechanism_facts import Recorded
from bundler.mechanisms import LONGEST, examine
from bundler.spec import ImageIdentity
from bundler.storage import open_bag
from tests import tiny

DIGEST = "sha256:" + "ab" * 32

EXAMPLE = Recorded(
    environment={
        "python": "3.11.7",
        "threads": 1,
        "deterministic_algorithms": True,
        "cpu_settings.ATEN_CPU_CAPABILITY": "default",
        "cpu_settings.MKL_CBWR": "COMPATIBLE",
        "versions.torch": "2.13.0+cpu",
        "cuda": None,
    },
    parameters={"seed": "42", "num_workers": "0", "split_seed": 7},
    variables={"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    seed=42,
    locked=True,
)
"""A provider's own words, with everything set."""

CAPTURED = Recorded(
    environment={
        "determinism.torch.deterministic_algorithms": True,
        "determinism.torch.deterministic_warn_only": False,
        "determinism.torch.cudnn.deterministic": True,
        "determinism.torch.cudnn.benchmark": False,
        "determinism.torch.cudnn.allow_tf32": False,
        "determinism.torch.matmul.allow_tf32": False,
        "determinism.torch.float32_matmul_precision": "highest",
        "determinism.torch.default_dtype": "torch.float32",
        "determinism.torch.autocast.cpu": False,
        "determinism.torch.autocast.cuda": False,
        "determinism.CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "determinism.PYTHONHASHSEED": "0",
        "determinism.TF_DETERMINISTIC_OPS": "1",
        "determinism.XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_dump_to=…",
        "threads.OMP_NUM_THREADS": "4",
        "threads.torch_intra_op": 4,
        "threads.torch_inter_op": 2,
        "packages.numpy": "2.4.6",
        "gpu.source": "torch",
        "amp": "no",
    },
    seed=42,
    locked=True,
    hashed=True,
    images=frozenset({DIGEST}),
)
"""What `bundler capture` writes, and a fact of the provider's own, with everything set."""

LOOSE = Recorded(
    environment={
        "determinism.torch.deterministic_algorithms": False,
        "determinism.torch.cudnn.deterministic": False,
        "determinism.torch.cudnn.benchmark": True,
        "determinism.torch.cudnn.allow_tf32": True,
        "determinism.torch.matmul.allow_tf32": True,
        "determinism.torch.float32_matmul_precision": "high",
        "determinism.torch.default_dtype": "torch.float64",
        "determinism.torch.autocast.cuda": "torch.bfloat16",
        "determinism.CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "determinism.PYTHONHASHSEED": "random",
        "determinism.ATEN_CPU_CAPABILITY": "avx512",
        "determinism.TF_DETERMINISTIC_OPS": "0",
        "threads.OMP_NUM_THREADS": "8",
        "threads.torch_intra_op": 8,
        "threads.torch_inter_op": 4,
        "packages.torch": "2.1.0",
        "num_workers": 6,
        "gpu.source": "torch",
    },
    seed=7,
)
"""The same facts with everything the other way round: what is claimed in plain words is contradicted."""


def outcomes(mechanism, recorded):
    return [reading.outcome for reading in examine(mechanism, recorded)]


SHOWN_BY_THE_EXAMPLE = [
    "python, numpy and torch seeds",
    "seeds",
    "fixed seeds",
    "seed 42",
    "seed=42",
    "torch.manual_seed(42)",
    "np.random.seed(seed)",
    "seed_everything(42)",
    "one seed for the split, 7",
    "torch.use_deterministic_algorithms(True)",
    "deterministic algorithms",
    "PyTorch's deterministic algorithms",
    "deterministic mode",
    "one thread",
    "a single thread",
    "single-threaded",
    "1 CPU thread",
    "threads: 1",
    "thread count: 1",
    "thread counts",
    "number of threads set to one",
    "torch.set_num_threads(1)",
    "OMP_NUM_THREADS=1",
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY is set to default",
    "MKL_CBWR = COMPATIBLE.",
    "MKL_CBWR=compatible",
    "MKL_CBWR",
    "MKL_CBWR set, so that other CPUs do not round differently",
    "hash seed",
    "torch==2.13.0",
    "torch == 2.13.0+cpu",
    "python==3.11.7",
    "num_workers=0",
    "no data loader workers",
    "zero data-loading workers",
    "pinned versions",
    "package versions are pinned",
    "a lock file",
    "uv.lock",
]

SHOWN_BY_CAPTURE = [
    "torch.use_deterministic_algorithms(mode=True)",
    "torch.backends.cudnn.deterministic = True",
    "cudnn.deterministic=True",
    "deterministic cuDNN",
    "cuDNN deterministic mode",
    "torch.backends.cudnn.benchmark=False",
    "cudnn.benchmark = False",
    "no cuDNN autotuning",
    "cuDNN benchmark off",
    "no TF32",
    "TF32 is off",
    "disabled TF32",
    "allow_tf32=False",
    "torch.backends.cuda.matmul.allow_tf32 = False",
    "CUBLAS_WORKSPACE_CONFIG=:4096:8",
    "CUBLAS_WORKSPACE_CONFIG",
    "`PYTHONHASHSEED=0`",
    "hash randomisation off",
    "tf.config.experimental.enable_op_determinism()",
    "TF_DETERMINISTIC_OPS=true",
    "XLA_FLAGS=--xla_gpu_deterministic_ops=true",
    "OMP_NUM_THREADS=4",
    "4 threads",
    "four intra-op threads",
    "torch.set_num_interop_threads(2)",
    "two inter-op threads",
    "no AMP",
    "mixed precision is off",
    'torch.set_float32_matmul_precision("highest")',
    "torch.set_default_dtype(torch.float32)",
    "numpy==2.4.6",
    "dependencies locked with hashes",
    "docker image pinned by digest",
    f"container image {DIGEST}",
]

CONTRADICTED_BY_LOOSE = [
    "deterministic algorithms",
    "we use deterministic algorithms everywhere",
    "torch.use_deterministic_algorithms(True)",
    "deterministic mode, because sums are then always in one order",
    "cudnn.deterministic=True",
    "torch.backends.cudnn.benchmark = False",
    "cuDNN benchmark is off",
    "no TF32",
    "torch.backends.cudnn.allow_tf32 = False",
    "no AMP",
    'torch.set_float32_matmul_precision("highest")',
    "torch.set_default_dtype(torch.float32)",
    "CUBLAS_WORKSPACE_CONFIG=:4096:8",
    "PYTHONHASHSEED=0",
    "ATEN_CPU_CAPABILITY=default",
    "TF_DETERMINISTIC_OPS=1",
    "enable_op_determinism",
    "OMP_NUM_THREADS=1",
    "one thread",
    "4 threads",
    "threads: 1",
    "single-threaded training",
    "torch.set_num_threads(1)",
    "one inter-op thread",
    "num_workers=0",
    "no data loader workers",
    "torch==2.13.0",
    "seed 42",
    "torch.manual_seed(42)",
]

NEVER_MISREAD = [
    "threads: 4 (data loading)",
    "4 threads for data loading",
    "4 threads, data loading",
    "at most 4 threads",
    "one or two threads",
    "one thread per worker",
    "one thread, which is enough for such data",
    "one thread because it is no slower",
    "deterministic algorithms are NOT used on the GPU",
    "deterministic algorithms, but not on the GPU",
    "deterministic algorithms where the library has them",
    "deterministic algorithms on the CPU",
    "no deterministic algorithms",
    "non-deterministic algorithms",
    "we don't use deterministic algorithms",
    "deterministic algorithms = False",
    "torch.use_deterministic_algorithms(False)",
    "TF32 in convolutions only",
    "no TF32 in the loss",
    "TF32",
    "cudnn.benchmark",
    "cudnn.benchmark=True",
    "cudnn.deterministic = False",
    "AMP",
    "no AMP in the loss",
    "CUBLAS_WORKSPACE_CONFIG=:4096:8 or :2:2",
    "OMP_NUM_THREADS=1 in the evaluation",
    "OMP_NUM_THREADS is not set",
    "torch==2.13.0 for the evaluation",
    "seeds: 1, 2, 3",
    "seed 0 for the split",
    "data loader workers: 2 for the validation",
    "sorted file lists",
    "AdamW(fused=True)",
    "a split under version control",
    "TODO",
    "mechanisms",
]


@pytest.mark.parametrize("mechanism", SHOWN_BY_THE_EXAMPLE)
def test_a_provider_s_own_facts_show_what_is_set(mechanism):
    assert "shown" in outcomes(mechanism, EXAMPLE)
    assert "contradicted" not in outcomes(mechanism, EXAMPLE)


@pytest.mark.parametrize("mechanism", SHOWN_BY_CAPTURE)
def test_captured_facts_show_what_is_set(mechanism):
    assert outcomes(mechanism, CAPTURED) == ["shown"]


@pytest.mark.parametrize("mechanism", CONTRADICTED_BY_LOOSE)
def test_a_claim_in_plain_words_is_contradicted_by_a_fact_that_says_otherwise(mechanism):
    readings = examine(mechanism, LOOSE)
    assert [reading.outcome for reading in readings] == ["contradicted"]
    name = readings[0].fact.partition(" = ")[0]
    assert name in {*LOOSE.environment, "seed"}


@pytest.mark.parametrize("mechanism", NEVER_MISREAD)
def test_a_sentence_that_limits_or_denies_is_never_contradicted(mechanism):
    for recorded in (EXAMPLE, CAPTURED, LOOSE):
        assert "contradicted" not in outcomes(mechanism, recorded)


def test_several_numbered_seeds_can_be_those_of_other_runs():
    one = Recorded(seed=1)
    assert outcomes("Runs with seed 11 and seed 12", one) == ["not shown"] * 2
    assert outcomes("seed 42, seed 1 and seed 2", one) == ["not shown", "shown", "not shown"]
    assert outcomes("torch.manual_seed(42), random.seed(7)", one) == ["not shown"] * 2
    assert outcomes("seeds and seed 42", one) == ["shown", "contradicted"]
    assert outcomes("seed 42", one) == ["contradicted"]


@pytest.mark.parametrize(
    "mechanism",
    [
        "cuda seed 1",
        "GPU seed: 1",
        "numpy seed is 1",
        "python, numpy, torch seed 1",
        "torch.cuda.manual_seed_all(1)",
    ],
)
def test_a_library_or_a_device_can_have_a_seed_of_its_own(mechanism):
    assert outcomes(mechanism, Recorded(seed=42)) == ["not shown"]
    assert outcomes(mechanism, Recorded(seed=1)) == ["shown"]
    assert outcomes("torch.manual_seed(1)", Recorded(seed=42)) == ["contradicted"]


@pytest.mark.parametrize(
    "name", ["PYTHONHASHSEED", "determinism.PYTHONHASHSEED", "hash_seed", "env.python_hash_seed"]
)
def test_the_hash_seed_is_not_the_seed_of_the_training(name):
    recorded = Recorded(environment={name: "0"}, seed=42)
    assert outcomes("seed 0", recorded) == ["contradicted"]
    assert outcomes("seed 0", Recorded(environment={"split_seed": "0"}, seed=42)) == ["shown"]


@pytest.mark.parametrize("mechanism", ["num_threads=4", "n_threads: 4", "num_threads = 4"])
def test_a_parameter_of_a_library_is_not_the_number_of_threads_of_torch(mechanism):
    torch = {"threads.torch_intra_op": 8}
    assert outcomes(mechanism, Recorded(environment=torch)) == ["not shown"]
    assert outcomes(mechanism, Recorded(environment={"threads.torch_intra_op": 4})) == ["shown"]
    assert outcomes("torch.set_num_threads(4)", Recorded(environment=torch)) == ["contradicted"]


@pytest.mark.parametrize(
    ("claimed", "recorded", "outcome"),
    [
        ("2.1.2+cu118", "2.1.2", "shown"),
        ("2.1.2", "2.1.2+cu118", "shown"),
        ("2.1.2+cu118", "2.1.2+cu118", "shown"),
        ("2.1.2+cu118", "2.1.2+cpu", "contradicted"),
        ("2.1.3+cu118", "2.1.2", "contradicted"),
        ("2.1.3", "2.1.2+cu118", "contradicted"),
        ("2.1+cu118", "2.1.2", "not shown"),
        ("2.1.2", "2.1", "not shown"),
    ],
)
def test_a_local_version_counts_where_both_have_one(claimed, recorded, outcome):
    environment = {"packages.torch": recorded}
    assert outcomes(f"torch=={claimed}", Recorded(environment=environment)) == [outcome]


@pytest.mark.parametrize(
    "mechanism",
    [
        "deterministic algorithms are NOT used on the GPU",
        "no deterministic algorithms",
        "deterministic algorithms = False",
        "cudnn.deterministic = False",
        "torch.use_deterministic_algorithms(False)",
    ],
)
def test_what_is_denied_is_not_shown_by_the_opposite(mechanism):
    assert set(outcomes(mechanism, CAPTURED)) == {"not shown"}


def test_a_sentence_is_read_part_by_part_in_its_order():
    text = (
        "python, numpy and torch seeds; a seeded generator for the order of the batches;"
        " torch.use_deterministic_algorithms(True), one thread, sorted files"
    )
    assert [(each.claim, each.outcome) for each in examine(text, EXAMPLE)] == [
        ("python, numpy and torch seeds", "shown"),
        ("seeded", "shown"),
        ("torch.use_deterministic_algorithms(True)", "shown"),
        ("one thread", "shown"),
        ("sorted files", "not shown"),
    ]


def test_two_facts_that_disagree_show_nothing():
    environment = {"threads.torch_intra_op": 1, "num_threads": 8, "OMP_NUM_THREADS": "1"}
    assert outcomes("one thread", Recorded(environment=environment)) == ["not shown"]


def test_the_threads_of_a_processor_are_not_those_of_the_training():
    environment = {"cpu_cores": 4, "threads": 8}
    assert outcomes("one thread", Recorded(environment=environment)) == ["not shown"]
    assert outcomes("one thread", Recorded(environment={"threads": 8})) == ["contradicted"]


def test_omp_num_threads_and_a_parameter_show_a_count_and_do_not_contradict_it():
    omp = Recorded(environment={"OMP_NUM_THREADS": "1"}, parameters={"threads": "1"})
    assert outcomes("one thread", omp) == ["shown"]
    assert outcomes("8 threads", omp) == ["not shown"]
    assert outcomes("number of threads", Recorded()) == ["not shown"]


def test_the_training_specification_shows_a_variable_and_does_not_contradict_it():
    recorded = Recorded(variables={"OMP_NUM_THREADS": "1"})
    assert outcomes("OMP_NUM_THREADS=1", recorded) == ["shown"]
    assert outcomes("OMP_NUM_THREADS=8", recorded) == ["not shown"]
    assert outcomes("OMP_NUM_THREADS", recorded) == ["shown"]


def test_what_the_run_recorded_counts_before_what_the_specification_sets():
    recorded = Recorded(
        environment={"threads.OMP_NUM_THREADS": "8"}, variables={"OMP_NUM_THREADS": "1"}
    )
    assert outcomes("OMP_NUM_THREADS=1", recorded) == ["contradicted"]


def test_a_mode_that_only_warns_is_shown_only_if_that_is_what_is_claimed():
    warns = replace(
        CAPTURED,
        environment={
            "determinism.torch.deterministic_algorithms": True,
            "determinism.torch.deterministic_warn_only": True,
        },
    )
    assert outcomes("torch.use_deterministic_algorithms(True)", warns) == ["not shown"]
    assert outcomes("torch.use_deterministic_algorithms(True, warn_only=True)", warns) == ["shown"]


def test_deterministic_algorithms_may_be_those_of_another_library():
    tensorflow = {"determinism.TF_DETERMINISTIC_OPS": "1"}
    assert outcomes("deterministic algorithms", Recorded(environment=tensorflow)) == ["shown"]
    both = {**tensorflow, "determinism.torch.deterministic_algorithms": False}
    assert outcomes("deterministic algorithms", Recorded(environment=both)) == ["not shown"]
    cudnn = {"cudnn_deterministic": True}
    assert outcomes("deterministic algorithms", Recorded(environment=cudnn)) == ["not shown"]


def test_tf32_is_off_for_all_by_the_driver_and_for_nobody_by_default():
    override = {"determinism.NVIDIA_TF32_OVERRIDE": "0", "determinism.torch.matmul.allow_tf32": True}  # fmt: skip
    assert outcomes("no TF32", Recorded(environment=override)) == ["shown"]
    default = {
        "determinism.torch.matmul.allow_tf32": False,
        "determinism.torch.cudnn.allow_tf32": True,
        "gpu.source": "torch",
    }
    assert outcomes("no TF32", Recorded(environment=default)) == ["not shown"]
    assert outcomes("no TF32", Recorded(environment={"tf32": True})) == ["contradicted"]


def test_a_value_that_was_left_out_or_taken_out_contradicts_nothing():
    environment = {
        "determinism.ONEDNN_JIT_PROFILE": "…",
        "determinism.XLA_FLAGS": "--xla_dump_to=…",
        "threads": "[redacted user-name]",
        "versions.torch": None,
    }
    for claim in ("ONEDNN_JIT_PROFILE=7", "XLA_FLAGS=--xla_cpu", "one thread", "torch==2.1"):
        assert outcomes(claim, Recorded(environment=environment)) == ["not shown"]


def test_a_longer_version_may_be_the_same_one():
    recorded = Recorded(environment={"packages.numpy": "2.0.0"})
    assert outcomes("numpy==2.0", recorded) == ["not shown"]
    assert outcomes("numpy==2.1", recorded) == ["contradicted"]


def test_without_seed_lock_or_image_such_claims_are_the_provider_s_word():
    for claim in ("seeds", "pinned versions", "container image", "hash seed"):
        assert outcomes(claim, Recorded()) == ["not shown"]
    locked = Recorded(locked=True, images=frozenset({DIGEST}))
    assert outcomes("packages pinned with hashes", locked) == ["not shown"]
    assert outcomes(f"docker image sha256:{'cd' * 32}", locked) == ["not shown"]


def test_a_text_without_end_is_not_searched():
    assert outcomes("one thread, " * LONGEST, LOOSE) == ["not shown"]
    assert outcomes(" ;\n. ", LOOSE) == []


PHRASES = [*SHOWN_BY_THE_EXAMPLE, *SHOWN_BY_CAPTURE, *CONTRADICTED_BY_LOOSE]
WITHOUT_REASONS = [
    phrase for phrase in PHRASES if "because" not in phrase and "so that" not in phrase
]
VALUES = st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["0", "1", "true", "no", "x"])  # fmt: skip


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=20), VALUES, max_size=5))
def test_no_text_makes_it_fail_or_contradicts(text, environment):
    for recorded in (LOOSE, Recorded(environment=environment)):
        assert all(each.outcome != "contradicted" for each in examine(text.lower(), recorded))


@given(
    st.sampled_from(WITHOUT_REASONS),
    st.sampled_from(
        ["loading", "validation", "partly", "mostly", "maybe", "except", "search", "batch", "loss"]
    ),
    st.sampled_from(
        ["{phrase} {word}", "{word} {phrase}", "{phrase}, {word}", "{phrase} ({word})"]
    ),
)
def test_one_word_that_is_not_understood_is_enough_to_contradict_nothing(phrase, word, shape):
    text = shape.format(phrase=phrase.rstrip("."), word=word)
    found = outcomes(text, LOOSE)
    assert "contradicted" not in found


@given(st.sampled_from(PHRASES), st.dictionaries(st.sampled_from(list({**CAPTURED.environment, **LOOSE.environment})), VALUES))  # fmt: skip
def test_a_contradiction_names_a_fact_that_was_recorded(phrase, environment):
    for reading in examine(phrase, Recorded(environment=environment, seed=3)):
        if reading.outcome == "contradicted":
            assert reading.fact.partition(" = ")[0] in {*environment, "seed"}
        assert (reading.fact == "") == (reading.outcome == "not shown")


# --- the check ----------------------------------------------------------------------------------------------------


def findings(provider: tiny.Provider, target, **changes):
    provider.build(target)
    files = intact_files(open_bag(target))
    contents = read_contents(files)
    contents = replace(contents, index=replace(contents.index, **changes))
    evidence = Evidence(files=files, contents=contents, statement=None, schemas={})
    return list(claimed_mechanisms(evidence))


def test_a_claim_that_the_record_contradicts_is_an_error(provider, tmp_path):
    provider.config["reproducibility"]["mechanisms"] = ["seeds", "8 threads"]
    (found,) = findings(provider, tmp_path / "b")
    assert (found.code, found.severity) == ("mechanism-contradicted", "error")
    assert "'8 threads'" in found.message
    assert "'threads = 1'" in found.message


def test_claims_that_nothing_shows_are_one_note(provider, tmp_path):
    provider.config["reproducibility"]["mechanisms"] = [
        "seeds",
        "pinned versions",
        "sorted files, luck",
    ]
    (found,) = findings(provider, tmp_path / "b")
    assert (found.code, found.severity) == ("mechanism-not-shown", "note")
    assert "shows 1 of 3 claims" in found.message
    assert "'sorted files, luck'" in found.message


def test_everything_shown_is_worth_no_finding(provider, tmp_path):
    provider.config["reproducibility"]["mechanisms"] = ["seeds; one thread, container image"]
    image = ImageIdentity(
        form="reference",
        reference="r",
        manifest_digest=DIGEST,
        config_digest=None,
        platform=None,
        supplied=False,
        resolved=True,
    )
    assert findings(provider, tmp_path / "b", images=(image,)) == []
    unresolved = (replace(image, resolved=False),)
    assert [each.code for each in findings(provider, tmp_path / "c", images=unresolved)] == [
        "mechanism-not-shown"
    ]


def test_a_selected_run_that_is_not_there_is_for_another_check(provider, tmp_path):
    provider.build(tmp_path / "b")
    files = intact_files(open_bag(tmp_path / "b"))
    contents = read_contents(files)
    evidence = Evidence(
        files=files, contents=replace(contents, records=()), statement=None, schemas={}
    )
    assert list(claimed_mechanisms(evidence)) == []
