"""What is taken out of every text: home folders, the account's name in paths, credentials in addresses."""

from __future__ import annotations

import getpass
import os
import re

# The twin of what bundler.redaction has: this package can import nothing of the other. A test holds them together.
_P = r"(?:/|\\/|%(?:25)?2[Ff]){1,4}"
_S = r"(?:[/\\]|%(?:25)?(?:2[Ff]|5[Cc])){1,4}"
_NAME = r"(?:(?!%(?:25)?(?:2[Ff]|5[Cc]))[^\s/\\:;,'\"`<>|()\[\]{}&?#*=])+"
_HOME = re.compile(
    # Where a path begins: not in a longer one, but after an escape (%20, \n) and after -I.
    r"(?:(?<![\w.~/\\-])(?!(?<=:)//)|(?<=://)|(?<=%[0-9A-Fa-f]{2})(?<!2[Ff])(?<!5[Cc])"
    r"|(?<=\\[nrt])|(?<=[\s\"'=]-[A-Za-z]))(?:"
    rf"{_P}(?:(?:var|usr|private{_P}var){_P}"
    rf"|(?:mnt|export|gpfs|lustre|nfs|net|srv|vol|volumes?){_P}(?:[\w.-]{{1,64}}{_P})?)?"
    rf"(?:home|Users){_P}{_NAME}"
    rf"|{_P}(?:var{_P})?root(?![\w.-])"
    rf"|{_P}(?:(?:mnt|cygdrive){_P})?[A-Za-z]{_P}(?i:users){_P}{_NAME}"
    rf"|(?:{_S})?[A-Za-z](?::|%3[Aa]){_S}(?i:users|documents\ and\ settings){_S}{_NAME}"
    # A name of several words: only where the path goes on after them.
    rf"(?:(?:\ [^\s/\\:;,'\"<>|]{{1,64}}){{1,2}}(?=\\))?"
    rf"|[/\\]{{2,4}}[\w.-]{{1,64}}{_S}(?:[\w.$-]{{1,64}}{_S})?(?i:home|users){_S}{_NAME}"
    r"|(?P<host>(?i:s?ftp|ssh|scp|rsync|smb|nfs|file|hdfs)://[^\s/]{1,255}/)"
    rf"(?:home|Users)/{_NAME})"
)


def without_homes(text: str) -> str:
    """``text`` with ``~`` for every home folder, whoever's it is."""
    return _HOME.sub(r"\g<host>~", text)


class Privacy:
    """Knows the account that runs the training, so as to leave it out."""

    def __init__(self) -> None:
        own = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where nobody has one
        # Some containers have the home "/".
        known = len(own) > 1 and own != "~"
        self._own = re.compile(rf"(?<![\w.~-]){re.escape(own)}(?![\w.-])") if known else None
        self.user = _user()
        # A role is no person.
        person = self.user and self.user != "root"
        self._person = (
            re.compile(rf"(?<=[/\\]){re.escape(self.user)}(?=[/\\]|$)") if person else None
        )

    def cleaned(self, text: str, *, account: bool = True) -> str:
        """``text`` with homes as ``~`` and, in paths, the account as ``USER``; an address keeps its ``account``."""
        if self._own is not None:
            text = self._own.sub("~", text)
        text = without_homes(text)
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
        # As git and ssh write it: person@machine:path. An image has a digest behind its @, and git is nobody.
        before, at, after = address.partition("@")
        person = at and "/" not in before and before != "git"
        return after if person and ":" in after and "sha256:" not in after else address
    authority, slash, path = rest.partition("/")
    bare = f"{authority.rpartition('@')[2]}{slash}{path}"
    return f"{scheme}://{re.split('[?#]', bare, maxsplit=1)[0]}"
