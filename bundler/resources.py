"""Schemas and templates, found the same way in a wheel, an editable install and a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Return the folder ``schemas`` or ``site_templates``. A wheel carries them inside the package."""
    packaged = _PACKAGE / "_resources" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def schemas() -> dict[str, bytes]:
    """Return file name → bytes of every schema."""
    return {file.name: file.read_bytes() for file in sorted(folder("schemas").glob("*.json"))}
