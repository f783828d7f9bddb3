"""What decides whether a repetition can give the same bits: settings in force, threads, numerical libraries.

Only modules that the training has imported are asked, and only questions that change nothing: no initialisation of
CUDA, no draw of a random number.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .sheet import NotRecordedError, Sheet, imported, variables

THREADS = (
    r"(OMP|KMP|GOMP)_\w+"
    r"|(MKL|OPENBLAS|GOTO|BLIS|NUMEXPR|NUMBA|RAYON|TBB)(_\w+)?_NUM_THREADS"
    r"|MKL_DYNAMIC|NUMEXPR_MAX_THREADS|VECLIB_MAXIMUM_THREADS|POLARS_MAX_THREADS"
    r"|TF_NUM_(INTRAOP|INTEROP)_THREADS"
)

SETTINGS = (
    r"PYTHONHASHSEED|CUBLAS_WORKSPACE_CONFIG|CUBLASLT_WORKSPACE_SIZE|ATEN_CPU_CAPABILITY"
    r"|MKL_(CBWR|ENABLE_INSTRUCTIONS|DEBUG_CPU_TYPE)|(ONEDNN|DNNL)_\w+|OPENBLAS_CORETYPE|BLIS_ARCH_TYPE"
    r"|NPY_(DISABLE|ENABLE)_CPU_FEATURES|NUMBA_CPU_\w+|GLIBC_TUNABLES"
    r"|TF_(DETERMINISTIC_OPS|CUDNN_\w+|ENABLE_ONEDNN_OPTS|XLA_FLAGS)|XLA_FLAGS|XLA_PYTHON_\w+"
    r"|JAX_(ENABLE_X64|DEFAULT_MATMUL_PRECISION|DEFAULT_PRNG_IMPL|THREEFRY_PARTITIONABLE|PLATFORMS)"
    r"|NVIDIA_TF32_OVERRIDE|TORCH_(ALLOW_TF32_CUBLAS_OVERRIDE|COMPILE_DISABLE|BLAS_PREFER_\w+)"
    r"|TORCHDYNAMO_\w+|TORCHINDUCTOR_\w+|PYTORCH_(CUDA_)?ALLOC_CONF"
    r"|CUDA_(LAUNCH_BLOCKING|VISIBLE_DEVICES|DEVICE_ORDER|DEVICE_MAX_CONNECTIONS)|CUDNN_\w+|NCCL_\w+"
    r"|MIOPEN_\w+|ROCBLAS_\w+|HIP_VISIBLE_DEVICES|HSA_OVERRIDE_GFX_VERSION"
    r"|WORLD_SIZE|RANK|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|NODE_RANK"
    r"|OMPI_COMM_WORLD_(SIZE|RANK)|SLURM_(NTASKS|PROCID|NNODES)"
)

_TORCH: tuple[tuple[str, Callable[[Any], object]], ...] = (
    ("deterministic_algorithms", lambda t: t.are_deterministic_algorithms_enabled()),
    ("deterministic_warn_only", lambda t: t.is_deterministic_algorithms_warn_only_enabled()),
    ("fill_uninitialized_memory", lambda t: t.utils.deterministic.fill_uninitialized_memory),
    ("initial_seed", lambda t: t.initial_seed()),
    ("default_dtype", lambda t: str(t.get_default_dtype())),
    ("default_device", lambda t: str(t.get_default_device())),
    ("float32_matmul_precision", lambda t: t.get_float32_matmul_precision()),
    ("cpu_capability", lambda t: t.backends.cpu.get_cpu_capability()),
    ("mkl", lambda t: t.backends.mkl.is_available()),
    ("mkldnn.enabled", lambda t: t.backends.mkldnn.enabled),
    ("mkldnn.deterministic", lambda t: t.backends.mkldnn.deterministic),
    ("mkldnn.matmul_fp32_precision", lambda t: t.backends.mkldnn.matmul.fp32_precision),
    ("cudnn.enabled", lambda t: t.backends.cudnn.enabled),
    ("cudnn.deterministic", lambda t: t.backends.cudnn.deterministic),
    ("cudnn.benchmark", lambda t: t.backends.cudnn.benchmark),
    ("cudnn.allow_tf32", lambda t: t.backends.cudnn.allow_tf32),
    ("cudnn.conv_fp32_precision", lambda t: t.backends.cudnn.conv.fp32_precision),
    ("cudnn.rnn_fp32_precision", lambda t: t.backends.cudnn.rnn.fp32_precision),
    ("matmul.allow_tf32", lambda t: t.backends.cuda.matmul.allow_tf32),
    ("matmul.fp32_precision", lambda t: t.backends.cuda.matmul.fp32_precision),
    (
        "matmul.allow_fp16_reduced_precision_reduction",
        lambda t: t.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
    ),
    (
        "matmul.allow_bf16_reduced_precision_reduction",
        lambda t: t.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
    ),
    ("matmul.allow_fp16_accumulation", lambda t: t.backends.cuda.matmul.allow_fp16_accumulation),
    ("attention.flash", lambda t: t.backends.cuda.flash_sdp_enabled()),
    ("attention.memory_efficient", lambda t: t.backends.cuda.mem_efficient_sdp_enabled()),
    ("attention.math", lambda t: t.backends.cuda.math_sdp_enabled()),
    ("attention.cudnn", lambda t: t.backends.cuda.cudnn_sdp_enabled()),
    ("autocast.cpu", lambda t: _autocast(t, "cpu")),
    ("autocast.cuda", lambda t: _autocast(t, "cuda")),
)

_INDUCTOR = ("deterministic", "fallback_random", "max_autotune", "emulate_precision_casts")


def record(sheet: Sheet, seed: object = None) -> None:
    """Write down threads and settings; ``seed`` is what the caller says, a number or a mapping of them."""
    variables(sheet, "threads", THREADS)
    variables(sheet, "determinism", SETTINGS)
    sheet.put("determinism.hash_randomization", bool(sys.flags.hash_randomization))
    if seed is not None:
        sheet.record("determinism.seed", lambda: _seeds(seed))
    _record_torch(sheet)
    _record_libraries(sheet)


def _seeds(seed: object) -> object:
    if isinstance(seed, Mapping):
        return {str(name): _seeds(value) for name, value in seed.items()}
    return seed if isinstance(seed, str) else operator.index(seed)  # type: ignore[arg-type]  # any whole number


def _record_torch(sheet: Sheet) -> None:
    try:
        torch = imported("torch")
    except NotRecordedError as absent:
        sheet.missing("determinism.torch", str(absent))
        return
    for name, probe in _TORCH:
        sheet.record(f"determinism.torch.{name}", functools.partial(probe, torch))
    sheet.record("threads.torch_intra_op", torch.get_num_threads)
    sheet.record("threads.torch_inter_op", torch.get_num_interop_threads)
    if "torch.distributed" in sys.modules:
        sheet.record("determinism.torch.distributed", _distributed)
    if "torch._inductor.config" in sys.modules:
        sheet.record("determinism.torch.inductor", _inductor)


def _autocast(torch: Any, device: str) -> object:
    """The type that operations are cast to, or false."""
    enabled = torch.is_autocast_enabled(device)
    return str(torch.get_autocast_dtype(device)) if enabled else False


def _distributed() -> dict[str, object]:
    group = imported("torch.distributed")
    if not (group.is_available() and group.is_initialized()):
        return {"initialized": False}
    return {
        "initialized": True,
        "world_size": group.get_world_size(),
        "rank": group.get_rank(),
        "backend": str(group.get_backend()),
    }


def _inductor() -> dict[str, object]:
    config = imported("torch._inductor.config")
    return {name: bool(getattr(config, name)) for name in _INDUCTOR if hasattr(config, name)}


def _record_libraries(sheet: Sheet) -> None:
    """The numerical libraries behind numpy and scipy: as loaded if threadpoolctl knows, else as built."""
    if "numpy" in sys.modules:
        sheet.record("determinism.numpy", lambda: {"simd": _simd(imported("numpy"))})
    if "threadpoolctl" in sys.modules:
        sheet.record("threads.pools", _pools)
    else:
        sheet.record("threads.blas", _blas)


def _simd(numpy: Any) -> str:
    """The instruction sets that numpy uses here beyond its baseline."""
    return " ".join(sorted(numpy.show_config(mode="dicts")["SIMD Extensions"]["found"]))


def _blas() -> dict[str, str]:
    built = imported("numpy").show_config(mode="dicts")["Build Dependencies"]["blas"]
    names = {"library": "name", "version": "version", "configuration": "openblas configuration"}
    return {name: str(built[key]) for name, key in names.items() if built.get(key)}


def _pools() -> dict[str, object]:
    names = {
        "api": "user_api",
        "library": "internal_api",
        "version": "version",
        "threads": "num_threads",
        "layer": "threading_layer",
        "architecture": "architecture",
    }
    pools = [
        {name: pool[key] for name, key in names.items() if pool.get(key) is not None}
        for pool in imported("threadpoolctl").threadpool_info()
    ]
    # Sorted: libraries are loaded in any order.
    return {str(number): pool for number, pool in enumerate(sorted(pools, key=repr))}
