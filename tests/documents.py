"""The documents, and the fenced blocks in them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
# THIRD_PARTY.md is generated.
DOCUMENTS: Final = tuple(
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("function/*.md")])
    if path.name != "THIRD_PARTY.md"
)
_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its document, its language ("" where none is given), and its text without indentation."""

    document: str
    language: str
    text: str


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(*documents: str) -> list[Block]:
    """The blocks of these documents, by default of all, in order."""
    return [
        Block(document, language, textwrap.dedent(text))
        for document in documents or DOCUMENTS
        for _, language, text in _BLOCK.findall(read(document))
    ]


def block(document: str, start: str) -> str:
    """The text of the only block of the document that begins so."""
    [found] = [each.text for each in blocks(document) if each.text.startswith(start)]
    return found
