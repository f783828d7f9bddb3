"""Lists of software versions: which packages, in which version, and whether each is pinned with a hash.

One model for the lock files of pip, uv, Poetry, PEP 751, Pipenv, conda, conda-lock and pixi. Nothing is resolved,
evaluated or fetched: what a file says is held against the question of the assessor, and nothing is guessed.
"""

from bundler.lockfiles.comparison import Difference, agrees, compare
from bundler.lockfiles.formats import parse
from bundler.lockfiles.model import Answer, Format, Lock, normalise
from bundler.lockfiles.requirements import parse_requirements

__all__ = [
    "Answer",
    "Difference",
    "Format",
    "Lock",
    "agrees",
    "compare",
    "normalise",
    "parse",
    "parse_requirements",
]
