"""Which files of the code a training command starts: the code that was examined, or something else.

Nothing is run or expanded. What cannot be followed for certain counts as a problem: a reader then looks for himself.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bundler import launch_words as known

COMMAND: Literal["training-command-elsewhere"] = "training-command-elsewhere"
CODE: Literal["training-code-elsewhere"] = "training-code-elsewhere"

Code: TypeAlias = Literal["training-command-elsewhere", "training-code-elsewhere"]


def problems(
    command: Sequence[str],
    environment: Mapping[str, str],
    files: Collection[str],
    parameters: Mapping[str, object] | None = None,
) -> Iterator[tuple[Code, str]]:
    """Say why what ``command`` starts may not be the code.

    ``files`` are the paths below the code folder, ``parameters`` the values that placeholders in a shell's text get.
    """
    start = _Start(
        files=frozenset(files), parameters=parameters or {}, variables=list(environment.items())
    )
    try:
        if not _program(start, list(command), 0):
            yield COMMAND, "starts no file of the code"
    except _ElsewhereError as error:
        yield COMMAND, str(error)
    for reason in start.reasons:
        yield CODE, reason
    moved = start.outside or any(re.search(r"\bcd\b|chdir|^-C", word) for word in command)
    names = {name for name, value in start.variables if not _harmless(name, value, moved=moved)}
    if names:
        yield CODE, f"variables that can bring in other code: {', '.join(sorted(names))}"


class _ElsewhereError(Exception):
    """Something is started that is no file of the code, or that cannot be followed."""


@dataclass(kw_only=True)
class _Start:
    """Where the command is while it is followed: ``folder`` below the code, ``outside`` once it has left the code."""

    files: frozenset[str]
    parameters: Mapping[str, object]
    variables: list[tuple[str, str]]
    folder: str = ""
    outside: bool = False
    reasons: list[str] = field(default_factory=list)

    def path(self, word: str) -> str | None:
        """``word`` as a path below the code, ``""`` for the code itself; ``None`` if it lies elsewhere."""
        inside = word == "{code}" or word.startswith("{code}/")
        rest = word[len("{code}") :].lstrip("/") if inside else word
        if known.ODD.search(rest) or rest.startswith(("/", "~")) or not word:
            return None
        if not inside and self.outside:
            return None
        path = posixpath.normpath(posixpath.join("" if inside else self.folder, rest or "."))
        if path == ".." or path.startswith("../"):
            return None
        return "" if path == "." else path

    def is_file(self, word: str) -> bool:
        return self.path(word) in self.files

    def is_script(self, word: str) -> bool:
        """Whether Python finds a script there: a file, or a folder with ``__main__.py``."""
        path = self.path(word)
        return path is not None and not self.files.isdisjoint(
            {path, posixpath.join(path, "__main__.py")}
        )

    def is_module(self, name: str, *, folder: bool = True, paths: bool = True) -> bool:
        """Whether ``name`` is found below the working folder or, in the code, below an entry of PYTHONPATH."""
        if not re.fullmatch(r"\w+(\.\w+)*", name):
            return False
        places = ["."] if folder and not self.outside else []
        if paths:
            for key, value in self.variables:
                places += value.split(":") if key == "PYTHONPATH" else []
        base = name.replace(".", "/")
        return any(
            self.is_file(f"{place or '.'}/{base}{end}")
            for place in places
            for end in (".py", "/__main__.py")
        )


def _program(start: _Start, words: list[str], depth: int) -> bool:
    """Follow the words of one program. False: it starts no code at all. Raises :class:`_ElsewhereError`."""
    # Only a shell reads an assignment before a program; in a list of words it would be the program's name.
    while depth and words and known.ASSIGNMENT.fullmatch(words[0]):
        name, _, value = words.pop(0).partition("=")
        start.variables.append((name, value))
    if not words:
        return False
    if depth > known.MAX_DEPTH:
        raise _ElsewhereError("programs that start programs, too many to follow")
    if known.PYTHON.fullmatch(words[0]):
        return _python(start, words[1:], depth)
    if "/" in words[0] and start.is_file(words[0]):
        return True
    return _known_program(start, words, depth)


def _known_program(start: _Start, words: list[str], depth: int) -> bool:
    name, rest = words[0].removeprefix("/usr").removeprefix("/bin/"), words[1:]
    if name in known.SHELLS:
        return _shell(start, rest, depth)
    if name in known.INTERPRETERS:
        return _interpreter(start, rest)
    if name == "torchrun":
        return _torchrun(start, rest, depth)
    if name in known.SCRIPT_LAUNCHERS or rest[:1] == [known.SUB_COMMANDS.get(name)]:
        rest = rest[name in known.SUB_COMMANDS :]
        # `lightning run model train.py`, as it was called before it was `fabric run train.py`.
        return _launched(start, rest[rest[:1] == ["model"] and name in known.SUB_COMMANDS :], depth)
    if name in known.PROGRAM_LAUNCHERS:
        # mpirun starts several programs, with a colon between them.
        for each in _split(rest, {":"}):
            _launched(start, each, depth, program=name)
        return True
    raise _ElsewhereError(f"starts {words[0]!a}, which is no file of the code")


def _python(start: _Start, words: list[str], depth: int) -> bool:
    isolated = safe = False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--check-hash-based-pycs" and rest:
            rest.pop(0)
            continue
        if not word.startswith("-") or word == "-":
            return _script(start, word)
        for at, letter in enumerate(word[1:], 2):
            if letter in "WXmc":
                value = word[at:] or (rest.pop(0) if rest else "")
                if letter in "WX":
                    _option(start, letter, value)
                    break
                if letter == "c":
                    raise _ElsewhereError("Python runs words of the command (-c)")
                ignored = isolated or any(key == "PYTHONSAFEPATH" for key, _ in start.variables)
                found = start.is_module(value, folder=not (safe or ignored), paths=not isolated)
                return found or _module(start, value, rest, depth)
            if letter not in "bBdEiIOPqRsStuvx":
                raise _ElsewhereError(f"with Python's option {word!a} no script is run")
            isolated |= letter in "EI"
            safe |= letter in "IP"
    raise _ElsewhereError("Python is given no script")


def _script(start: _Start, word: str) -> bool:
    if word == "-" or not start.is_script(word):
        raise _ElsewhereError(f"Python's script is {word!a}, which is no file of the code")
    return True


def _option(start: _Start, letter: str, value: str) -> None:
    if letter == "X" and re.match(r"pycache_prefix|presite|.*\{", value):
        start.reasons.append(f"Python's option -X {value!a}")
    if letter == "W" and not _warnings_are_plain(value):
        start.reasons.append(f"Python's option -W {value!a}, which imports a module")


def _module(start: _Start, name: str, rest: list[str], depth: int) -> bool:
    if name in {"torch.distributed.run", "torch.distributed.launch"}:
        return _torchrun(start, rest, depth)
    if name == "accelerate.commands.accelerate_cli" and rest[:1] == ["launch"]:
        return _launched(start, rest[1:], depth)
    if name in known.LAUNCHING_MODULES:
        return _launched(start, rest, depth)
    raise _ElsewhereError(f"Python's module {name!a} is not in the code")


def _torchrun(start: _Start, words: list[str], depth: int) -> bool:
    """PyTorch's launcher, whose options are known: what stands behind them is a script, a module or a program."""
    flags: set[str] = set()
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, given, _ = word.partition("=")
        name = name.replace("_", "-")
        if name in known.TORCHRUN_FLAGS and not given:
            flags.add(name)
        elif name in known.TORCHRUN_VALUES or re.fullmatch(r"-[rt]\d+", word):
            # An option that is cut short would be understood by torchrun, and not by us.
            if not given and name in known.TORCHRUN_VALUES:
                rest = rest[1:]
        else:
            raise _ElsewhereError(f"torchrun's option {word!a} cannot be followed")
    if not rest:
        raise _ElsewhereError("a launcher is given nothing of the code to start")
    if "--no-python" in flags:
        return _program(start, rest, depth + 1)
    is_module = not flags.isdisjoint({"-m", "--module"})
    if not (start.is_module(rest[0]) if is_module else start.is_file(rest[0])):
        raise _ElsewhereError(f"a launcher starts {rest[0]!a}, which is no file of the code")
    return True


def _launched(start: _Start, words: list[str], depth: int, program: str = "") -> bool:
    """Look through the options of a launcher for what it starts; ``program``: one that starts programs."""
    module, option, values = False, "", 0
    for at, word in enumerate(words):
        if values or known.VALUE.fullmatch(option):
            values, option = max(values - 1, 0), ""
            continue
        if word.startswith("-") and word != "-":
            values = 2 * (word in known.PAIRS)
            if program == "env" and re.match(r"-S|-C|--split|--chdir", word):
                raise _ElsewhereError(f"env's {word!a} cannot be followed")
            module |= word in {"-m", "--module"} and not program
            option = "" if "=" in word or word in known.FLAGS else word
            continue
        if program == "env" and known.ASSIGNMENT.fullmatch(word):
            name, _, value = word.partition("=")
            start.variables.append((name, value))
        elif start.is_module(word) if module else not program and start.is_file(word):
            return True
        elif _starts(start, word):
            return _program(start, words[at:], depth + 1)
        elif option and not re.search(r"[{/]|\.\w*[A-Za-z]", word):
            pass
        elif not (program == "timeout" and re.fullmatch(r"[\d.]+[smhd]?", word)):
            raise _ElsewhereError(f"a launcher starts {word!a}, which is no file of the code")
        option = ""
    raise _ElsewhereError("a launcher is given nothing of the code to start")


def _starts(start: _Start, word: str) -> bool:
    programs = (
        known.SHELLS
        | known.INTERPRETERS
        | known.SCRIPT_LAUNCHERS
        | known.PROGRAM_LAUNCHERS
        | {*known.SUB_COMMANDS}
    )
    return bool(
        known.PYTHON.fullmatch(word) or word in programs or ("/" in word and start.is_file(word))
    )


def _interpreter(start: _Start, words: list[str]) -> bool:
    for word in words:
        if start.is_file(word):
            return True
        if not known.PLAIN_OPTION.fullmatch(word):
            raise _ElsewhereError(f"an interpreter is given {word!a}, which is no file of the code")
    raise _ElsewhereError("an interpreter is given no script")


def _shell(start: _Start, words: list[str], depth: int) -> bool:
    text, rest = False, list(words)
    while rest and re.match(r"[-+].", rest[0]):
        word = rest.pop(0)
        if word == "--":
            break
        if word in {"--login", "--norc", "--noprofile", "--posix"}:
            continue
        if word.startswith("--") or not re.fullmatch(r"[-+][abefhlmnuvxoOcBCEHPT]+", word):
            raise _ElsewhereError(f"the shell's option {word!a} cannot be followed")
        text |= word[0] == "-" and "c" in word
        if word[-1] in "oO" and rest:
            rest.pop(0)
    if not rest:
        raise _ElsewhereError("the shell is given no script")
    if text:
        return _shell_text(start, rest[0], depth)
    if not start.is_file(rest[0]):
        raise _ElsewhereError(f"the shell's script is {rest[0]!a}, which is no file of the code")
    return True


def _shell_text(start: _Start, text: str, depth: int) -> bool:
    for name, value in start.parameters.items():
        if f"{{parameter.{name}}}" in text and not re.fullmatch(r"[\w.,:=+@%/-]*", str(value)):
            raise _ElsewhereError(
                f"the shell reads the value of the parameter {name!a} as commands"
            )
    text = known.KNOWN_OUTPUT.sub("0", text.replace("\\\n", " "))
    if "$(" in text or "`" in text or "<(" in text:
        raise _ElsewhereError("the shell runs a command within a command")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=known.PUNCTUATION)
    # A comment would hide what follows in one reader and not in another: `#` is a word like any.
    lexer.commenters, lexer.whitespace, lexer.whitespace_split = "", " \t", True
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise _ElsewhereError(f"the shell's text cannot be read: {error}") from error
    ends = {token for token in tokens if token and not token.strip(";&|()\n")}
    runs = False
    for words in _split(tokens, ends):
        runs |= _simple(start, words, depth + 1)
    return runs


def _split(words: list[str], ends: Collection[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word in ends:
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _simple(start: _Start, tokens: list[str], depth: int) -> bool:
    """One simple command of a shell. True: it starts code of the code folder."""
    words = _without_redirections(start, tokens)
    while words and words[0] in known.PREFIXES:
        words = words[1:]
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first == "cd":
        target = next((word for word in rest if word != "--"), "~")
        path = start.path(target)
        # Whether a later `cd` leads back, nobody can say without running it.
        start.outside |= path is None
        start.folder = path or ""
        return False
    if first == "export":
        for word in rest:
            name, _, value = word.partition("=")
            start.variables.append((name, value))
        return False
    if first in {"cp", "mv", "ln", "tee"}:
        targets = [word for word in rest if not word.startswith("-")]
        for word in targets if first == "tee" else targets[-1:]:
            _written(start, word)
        return False
    if first in {".", "source"} and rest and "/" in rest[0] and start.is_file(rest[0]):
        return True
    if first in known.HARMLESS_COMMANDS:
        return False
    return _program(start, words, depth)


def _without_redirections(start: _Start, tokens: list[str]) -> list[str]:
    words: list[str] = []
    rest = iter(tokens)
    for token in rest:
        if not token or token.strip(known.PUNCTUATION):
            words.append(token)
            continue
        if words and words[-1].isdigit():
            words.pop()
        target = next(rest, "")
        if token not in {">", ">>", "<", ">&", "<&", "&>", "&>>", ">|"}:
            raise _ElsewhereError(f"the shell's {token!a} cannot be followed")
        if ">" in token and not target.isdigit():
            _written(start, target)
    return words


def _written(start: _Start, word: str) -> None:
    """What the shell writes must not become code."""
    end = posixpath.splitext(word)[1]
    bare = end == "" and word.startswith("{out}/")
    if word != "/dev/null" and (start.is_file(word) or not (bare or end in known.DATA)):
        raise _ElsewhereError(f"the shell writes {word!a}, which may become code")


def _harmless(name: str, value: str, *, moved: bool) -> bool:
    """Whether a variable cannot bring in code from elsewhere; ``moved``: the working folder may not be the code."""
    if name in known.HARMLESS:
        return True
    if name == "PYTHONWARNINGS":
        return all(_warnings_are_plain(each) for each in value.split(","))
    if name in known.SEARCH_PATHS:
        here = _Start(files=frozenset(), parameters={}, variables=[], outside=moved)
        return all(here.path(each or ".") is not None for each in value.split(":"))
    if name == "HOME":
        return bool(re.fullmatch(r"\{out\}(/[\w-][\w.-]*)*|/tmp(/[\w-]+)*", value))
    return not known.LOADS.fullmatch(name)


def _warnings_are_plain(value: str) -> bool:
    """A category with a dot, the third field, is imported."""
    fields = value.split(":")
    return "{" not in value and "." not in "".join(fields[2:3])
