"""What is taken out of every text: home folders, the account's name in paths, credentials in addresses."""

from __future__ import annotations

import getpass
import os
import re

_HOMES = r"(?:/home|/Users|/var/home|[A-Za-z]:\\Users)[/\\][^/\\\s:;,='\"]+"


class Privacy:
    """Knows the account that runs the training, so as to leave it out."""

    def __init__(self) -> None:
        own = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where nobody has one
        homes = [_HOMES]
        # Some containers have the home "/".
        if len(own) > 1 and own != "~":
            homes.insert(0, re.escape(own))
        self._home = re.compile(rf"(?<![\w.~-])(?:{'|'.join(homes)})(?![\w.-])")
        self.user = _user()
        # A role is no person.
        person = self.user and self.user != "root"
        self._person = (
            re.compile(rf"(?<=[/\\]){re.escape(self.user)}(?=[/\\]|$)") if person else None
        )

    def cleaned(self, text: str, *, account: bool = True) -> str:
        """``text`` with homes as ``~`` and, in paths, the account as ``USER``; an address keeps its ``account``."""
        text = self._home.sub("~", text)
        if account and self._person is not None:
            text = self._person.sub("USER", text)
        return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # An account without an entry, as in many containers; Windows has no module pwd.
        return ""


def without_credentials(address: str) -> str:
    """``address`` without user, password, query and fragment."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        # As git and ssh write it: person@machine:path. An image has a digest behind its @.
        before, at, after = address.partition("@")
        return (
            after
            if at and "/" not in before and ":" in after and "sha256:" not in after
            else address
        )
    authority, slash, path = rest.partition("/")
    bare = f"{authority.rpartition('@')[2]}{slash}{path}"
    return f"{scheme}://{re.split('[?#]', bare, maxsplit=1)[0]}"
