"""README and docs as data: their pages, code blocks, tables and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

README = ROOT / "README.md"

PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples/README.md"]

#: Stands on the line before a block that is to be read only.
SHOWN = "<!-- shown -->"

_BLOCK = re.compile(
    rf"^(?P<shown>{SHOWN}\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    shown: bool

    @property
    def file(self) -> str | None:
        """The name in a first line such as `# tasks.py`: the block is that file."""
        named = re.match(r"# ([\w/]+\.\w+)\n", self.text)
        return named[1] if named else None


def page(name: str) -> str:
    """The text of docs/*name*.md."""
    return (ROOT / f"docs/{name}.md").read_text()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found["language"], found["text"], bool(found["shown"]))
        for found in _BLOCK.finditer(text)
    ]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows of a page, without heads and rules."""
    found = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not re.match(r"\|\s*:?-", line):
            is_head = re.match(r"\|\s*:?-", following)
            if not is_head:
                found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def named_in_rows(text: str) -> list[str]:
    """The names in the first cells of all tables of a page that hold nothing but `a name`."""
    firsts = [cells[0] for cells in rows(text)]
    return [cell.strip("`") for cell in firsts if re.fullmatch(r"`[\w-]+`", cell)]


def links(text: str) -> list[tuple[str, str]]:
    """Words and target of every link to another file."""
    return [
        (words, target)
        for words, target in re.findall(r"\[([^\]]+)\]\(([^)#]+)[^)]*\)", text)
        if "://" not in target
    ]
