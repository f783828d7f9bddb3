"""Signed, re-executable evidence bundles for model development and selection.

Provider side: :mod:`bundler.build`. Verifier side: :mod:`bundler.verify`. The way data takes through
the modules is written down in ARCHITECTURE.md.
"""

__version__ = "0.1.0"

SOFTWARE = f"aisdp-bundler {__version__}"
"""How this program names itself in bundles and reports."""
