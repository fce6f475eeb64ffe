"""The code blocks of the documents, and how a page is run.

A block in a document is one of these:

- `sh`: a command a line. `sslcli` commands are composed in every page, and run in the pages that run.
- `python`: run in order, in one namespace, in the pages that run.
- any language after a line "`some/file`:": the content of that file, which the pages that run write first.
- marked: `<!-- not run: REASON -->` stands before it.
- `text`: output or a layout, no code.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(p for p in sorted(DOCS.rglob("*.md")) if not {"_build", "generated"} & set(p.relative_to(DOCS).parts)),
]
RUN = [
    *sorted((DOCS / "tutorials").glob("[!i]*.md")),
    *sorted((DOCS / "guides").glob("add_a*.md")),
    *(DOCS / "guides" / name for name in ("audio.md", "frames.md", "interactions.md", "pairs.md", "series.md")),
]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?(?:`(?P<file>[\w./-]+)`:\n\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

# What makes a command of a page short, where it is run.
SHORT = {
    "pretrain": ["experiment=smoke", "device=cpu", "device.threads=1"],
    "eval labels": ["evaluator.supervised=false", "evaluator.seeds=2"],
    "eval cluster": ["evaluator.k_max=4", "evaluator.baselines=false"],
    "eval finetune": ["evaluator.epochs=1", "evaluator.min_steps=4"],
    "eval quality": ["evaluator.groups=20", "evaluator.views=2"],
    "eval anomaly": ["evaluator.scores=[knn]"],
}
LENGTH = ("train.budget=", "train.epochs=", "seeds=")  # keys of a page that a short run leaves out
EPOCHS = ('{"epochs": 30}', '{"epochs": 1}')  # in Python


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    file: str | None
    reason: str | None  # why it is not run

    @property
    def lines(self) -> list[str]:
        """The commands of a `sh` block, without remarks."""
        lines = (re.split(r"(?:^|\s\s)#", line)[0].strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["language"], m["text"], m["file"], m["reason"]) for m in found]


def command_of(line: str) -> tuple[str | None, list[str]]:
    """The variable that a line assigns, and the words of its `sslcli` command; no words for another command."""
    assigned = re.fullmatch(r"(\w+)=\$\((.*)\)", line)
    words = shlex.split(assigned[2] if assigned else line)
    return (assigned[1] if assigned else None), words[1:] if words[:1] == ["sslcli"] else []


def run_page(page: Path, cli: Callable[..., Any]) -> None:
    """Writes the files of a page, and runs its Python and its commands in order; each must end with exit code 0."""
    variables: dict[str, str] = {}
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.reason:
            continue
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text.replace(*EPOCHS), str(page), "exec"), names)
        elif block.language == "sh":
            for line in block.lines:
                variable, words = command_of(re.sub(r"\$(\w+)", lambda m: variables[m[1]], line))
                result = cli(*(w for w in words if not w.startswith(LENGTH)), *short(words))
                assert result.code == 0, (line, result.err)
                if variable:
                    variables[variable] = result.last


def short(words: list[str]) -> list[str]:
    return SHORT.get(words[0], []) + SHORT.get(" ".join(words[:2]), [])
