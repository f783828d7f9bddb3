"""Running untrusted training code, and knowing what confined it.

:func:`find` picks the strongest sandbox that works here and refuses rather than run without one;
:meth:`Sandbox.isolation` measures it from the inside; :meth:`Sandbox.run` runs one :class:`Job`;
:func:`collect` reads what it left. The reasons are in docs/adr/0006-sandbox.md.
"""

from __future__ import annotations

from collections.abc import Callable

from bundler.errors import SandboxUnavailableError
from bundler.sandbox.bubblewrap import Bubblewrap
from bundler.sandbox.model import (
    Isolation,
    Job,
    Limits,
    Mount,
    Outcome,
    Preference,
    Probe,
    Sandbox,
)
from bundler.sandbox.output import Collected, collect
from bundler.sandbox.sandlock import Sandlock
from bundler.sandbox.unconfined import Unconfined

__all__ = [
    "Collected",
    "Isolation",
    "Job",
    "Limits",
    "Mount",
    "Outcome",
    "Preference",
    "Probe",
    "Sandbox",
    "collect",
    "find",
]


def find(preference: Preference = "auto", *, trusted: bool = False) -> Sandbox:
    """Return the sandbox to use: ``auto`` means bubblewrap, else sandlock, else refuse.

    ``none`` runs without a sandbox and demands ``trusted``, which only a person may say;
    ``trusted`` alone never weakens ``auto``. Raises
    :class:`bundler.errors.SandboxUnavailableError` listing what was tried, why it does not work and
    what to do.
    """
    if preference == "none":
        if not trusted:
            raise SandboxUnavailableError(
                "running without a sandbox needs the explicit statement that the code is trusted",
                remedy="Add --i-trust-this-code, or choose a sandbox.",
            )
        return Unconfined()
    kinds: dict[str, Callable[[], Sandbox]] = {"bubblewrap": Bubblewrap, "sandlock": Sandlock}
    tried: list[SandboxUnavailableError] = []
    for name in kinds if preference == "auto" else [preference]:
        try:
            return kinds[name]()
        except SandboxUnavailableError as error:
            tried.append(error)
    raise SandboxUnavailableError(
        "no sandbox works here, so nothing of the bundle was executed; tried "
        + "; ".join(error.message for error in tried),
        remedy=" ".join(f"({i}) {error.remedy}" for i, error in enumerate(tried, 1)),
    )
