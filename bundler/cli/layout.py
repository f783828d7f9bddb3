"""Words on a terminal: a coloured lead, wrapped lines with a hanging indent, and nothing that could steer it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Block:
    """Some words after a coloured lead, wrapped: the first line begins at ``start``, the others at ``hang``."""

    lead: str
    words: str
    style: str
    start: int = 0
    hang: int = 2

    def lines(self, console: Console, longest: int | None = None) -> list[Text]:
        """The lines, ``longest`` at most; what is cut ends with an ellipsis."""
        words = Text(shown_text(self.words), style=self.style if self.style == "dim" else "")
        lead = Text(self.lead, style=self.style)
        beside = self.start + lead.cell_len == self.hang
        text = words if beside else lead + words
        room = max(console.width - self.hang, 10)
        lines = list(text.wrap(console, room, overflow="fold"))
        for line in lines:
            line.rstrip()
        if longest is not None and len(lines) > longest:
            del lines[longest:]
            lines[-1].truncate(room - 2)
            lines[-1].append(" …")
        margin, first = Text(" " * self.hang), Text(" " * self.start)
        return [
            (margin if number else first + lead if beside else first) + line
            for number, line in enumerate(lines)
        ]


Group = list[Block]
"""What is wrong, and what to do about it."""


def say(console: Console, *blocks: Block, longest: int | None = None) -> None:
    """Print blocks, each ``longest`` lines at most."""
    for block in blocks:
        print_lines(console, block.lines(console, longest))


def print_lines(console: Console, lines: Iterable[Text]) -> None:
    """Print lines that are broken already."""
    for line in lines:
        console.print(line, soft_wrap=True)


def remedy(words: str, start: int = 2) -> Block:
    """What to do about something."""
    return Block("→ ", words, "dim", start, start + 2)


def shown_text(text: str) -> str:
    """Text from a bundle for a terminal: printable characters only, so that it cannot steer it."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
