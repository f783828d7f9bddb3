"""The software that a training is repeated with: this machine's, one recreated from the lock, or a container image.

:func:`prepare` provides it in the way that the verifier chose; docs/environments.md says what each way shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundler.environments import current, locked
from bundler.environments.current import Files
from bundler.environments.model import Mode, Runtime
from bundler.errors import EnvironmentNotRecreatableError
from bundler.spec import ImageIdentity, TrainingSpec


def prepare(  # noqa: PLR0913  # what each of three modes needs
    mode: Mode,
    *,
    python: Path,
    files: Files,
    spec: TrainingSpec,
    images: Sequence[ImageIdentity] = (),
    wheelhouse: Path | None = None,
    image: Path | None = None,
    place: Path,
) -> Runtime:
    """The software to repeat the training of ``spec`` with.

    ``files`` are those of the verified bundle and ``images`` the images that it declares; ``python`` is the verifier's
    interpreter, ``wheelhouse`` a folder of wheels (``locked``), ``image`` an image as a folder or archive (``image``).
    What has to be made is made in the empty folder ``place``. Nothing of the bundle is run. Raises
    :class:`EnvironmentNotRecreatableError` with what to do, :class:`bundler.errors.MalformedError` where a list in the
    bundle is not valid.
    """
    if mode == "current":
        return current.prepare(python=python, files=files, spec=spec)
    if mode == "locked":
        return locked.prepare(
            python=python, files=files, spec=spec, wheelhouse=wheelhouse, place=place
        )
    if image is None:
        raise EnvironmentNotRecreatableError(
            "no image was given to take the environment from",
            remedy="Give --image: an OCI layout, an archive of one, or a `docker save` archive.",
        )
    from bundler.environments import image as images_  # noqa: PLC0415  # only this mode needs it

    return images_.prepare(image, tuple(images), place, python="python3")
