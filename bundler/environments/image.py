"""A container image as the software of a re-run: the very image that the bundle declares, unpacked, never started.

No container runtime is asked: the sandbox shows the unpacked root file system, so an image needs no service, no
registry and no rights, and what confines the training is the same for every environment.
"""

from __future__ import annotations

import platform
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from bundler.environments.model import Runtime
from bundler.errors import EnvironmentNotRecreatableError, OutputError, SourceError, quoted
from bundler.images import identify
from bundler.images.unpack import Unpacked, unpack
from bundler.records import Scalar
from bundler.spec import ImageIdentity

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a container runtime looks for programs if the image does not say."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
"""``uname -m`` → the name that images use."""

SANDBOX_OWN = frozenset(
    {"HOME", "TMPDIR", "USER", "LOGNAME", "HOSTNAME", "PWD", "OLDPWD", "TERM", "SHLVL", "_"}
)
"""Variables of an image that say where and as whom it runs, which in a sandbox is somewhere else."""

_MAX_VARIABLES = 1_000
_MAX_LINKS = 40


def prepare(
    path: Path, images: tuple[ImageIdentity, ...], place: Path, *, python: str = "python3"
) -> Runtime:
    """Unpack the image at ``path``, which must be one of ``images``, into the folder ``place``, which is made.

    ``path`` is an OCI layout (folder or tar) or what ``docker save`` wrote; of several images in it, the declared one
    is taken. ``python`` is a name, looked up in the ``PATH`` of the image, or an absolute path in it. Every byte is
    held against its digest, twice. Raises :class:`bundler.errors.EnvironmentNotRecreatableError` for another image,
    another processor architecture, an image that cannot be unpacked or one without that interpreter; ``place`` is left
    for the caller to remove.
    """
    identity = _declared_one(path, images)
    _check_platform(identity)
    _make_empty(place)
    unpacked = unpack(path, identity, place)
    variables = dict(_variables(unpacked.configuration))
    found = _find(place, python, variables.get("PATH", _PATH))
    return Runtime(
        mode="image",
        python=found,
        interpreter=None,
        root=place,
        environment={"PATH": _PATH} | variables,
        facts=_facts(identity, unpacked),
    )


def _make_empty(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        empty = not any(place.iterdir())
    except OSError as error:
        raise OutputError(
            f"the image cannot be unpacked to {place}: {error.strerror}",
            remedy="Give a folder that can be made.",
        ) from None
    if not empty:
        raise OutputError(f"{place} is not empty", remedy="Give an empty folder, or a new one.")


def _facts(identity: ImageIdentity, unpacked: Unpacked) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {
        "image.manifest_digest": identity.manifest_digest,
        "image.config_digest": identity.config_digest,
        "image.platform": identity.platform,
        "image.files": unpacked.files,
    }
    return facts | ({"image.special_files_left_out": unpacked.skipped} if unpacked.skipped else {})


def _declared_one(path: Path, images: tuple[ImageIdentity, ...]) -> ImageIdentity:
    """The image at ``path`` that the bundle declares, by any digest that names its bytes."""
    # The configuration names every layer by the digest of its content: it identifies an image as well as the manifest.
    wanted = {
        digest
        for each in images
        for digest in (each.manifest_digest, each.config_digest)
        if digest is not None
    }
    if not wanted:
        raise EnvironmentNotRecreatableError(
            "the bundle declares no container image by its digest, so none can be held against it",
            remedy="Verify with another environment, or ask the provider to name the image under images in bundle.yaml"
            " (repo@sha256:…) and to build again.",
        )
    seen: dict[str, None] = {}
    try:
        for found in _identities(path, sorted(wanted)):
            digests = (found.manifest_digest, found.index_digest, found.config_digest)
            if found.resolved and not wanted.isdisjoint(digests):
                return found
            named = [found.manifest_digest or found.config_digest]
            names = [*named, *(each.digest for each in found.manifests)]
            seen.update(dict.fromkeys(name for name in names if name))
    except SourceError as error:
        raise EnvironmentNotRecreatableError(error.message, remedy=error.remedy) from None
    declared = ", ".join(
        sorted({each.manifest_digest or each.config_digest or "" for each in images} - {""})
    )
    raise EnvironmentNotRecreatableError(
        f"{quoted(str(path), 200)} holds the image {', '.join(seen) or 'of no certain digest'}, and the bundle declares"
        f" {declared}",
        remedy="Give the declared image itself: `skopeo copy --preserve-digests docker://repo@sha256:… oci:FOLDER`.",
    )


def _identities(path: Path, wanted: list[str]) -> Iterator[ImageIdentity]:
    """What may be meant of ``path``: asked for by each digest, for this machine, and without any question."""
    here = f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"
    for digest in wanted:
        yield identify(path, reference=digest)
        yield identify(path, reference=digest, platform=here)
    yield identify(path)
    yield identify(path, platform=here)


def _check_platform(identity: ImageIdentity) -> None:
    machine = platform.machine()
    system, _, rest = (identity.platform or "unknown").partition("/")
    if system != "linux" or rest.partition("/")[0] != _ARCHITECTURES.get(machine):
        raise EnvironmentNotRecreatableError(
            f"the image is made for {quoted(identity.platform)}, and this machine is linux on {machine}",
            remedy="Verify on a machine of that architecture, or in another environment (locked, current).",
        )


def _variables(configuration: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The variables that the image sets, as a container would have them, but for those of :data:`SANDBOX_OWN`."""
    settings = configuration.get("config") or {}
    listed = settings.get("Env") if isinstance(settings, dict) else None
    listed = [] if listed is None else listed
    if not isinstance(listed, list) or len(listed) > _MAX_VARIABLES:
        _refuse("its configuration has no proper list of environment variables")
    for each in listed:
        name, equals, value = each.partition("=") if isinstance(each, str) else ("", "", "")
        if not name or "\0" in each:
            _refuse(f"its configuration sets an impossible variable: {quoted(each)}")
        if equals and name not in SANDBOX_OWN:
            yield name, value


def _find(root: Path, python: str, path: str) -> str:
    """The interpreter by its path inside; a link to it stays a link, since a virtual environment goes by that."""
    if python.startswith("/"):
        candidates = [PurePosixPath(python)]
    else:
        folders = [folder for folder in path.split(":") if folder.startswith("/")]
        names = [python, "python"] if python == "python3" else [python]
        candidates = [PurePosixPath(folder, name) for name in names for folder in folders]
    found = next((each for each in candidates if _is_program(root, each)), None)
    if found is None:
        where = "" if python.startswith("/") else f" in {quoted(path, 200)}"
        _refuse(f"it has no program {quoted(python)}{where}")
    return str(found)


def _is_program(root: Path, inside: PurePosixPath) -> bool:
    """Whether ``inside`` is a program in the root file system, whose links are followed as if it were ``/``."""
    place, links = root, 0
    pending = deque(inside.parts[1:])
    while pending:
        part = pending.popleft()
        if part in {"", ".", ".."}:
            place = place.parent if part == ".." and place != root else place
            continue
        try:
            mode = (place / part).lstat().st_mode
        except (OSError, ValueError):
            return False
        if stat.S_ISLNK(mode):
            target = str((place / part).readlink())
            links += 1
            if links > _MAX_LINKS:
                return False
            place = root if target.startswith("/") else place
            pending.extendleft(reversed(target.split("/")))
        else:
            place /= part
    mode = place.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _refuse(problem: str) -> NoReturn:
    raise EnvironmentNotRecreatableError(
        f"the image cannot be used: {problem}",
        remedy="Name the interpreter by its path in the image (--python), or ask the provider for the image that the"
        " training ran in.",
    )
