"""Which container image a training ran in: read from the image itself, every byte of it hashed.

An OCI layout (folder or tar) and what ``docker save`` writes are read with the standard library alone; nothing is
unpacked, followed or executed.
"""

from bundler.images.identity import identify
from bundler.images.references import of_reference

__all__ = ["identify", "of_reference"]
