"""Documents are listed with their labels and marks, as a drawing and as a table of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from sslcli.evals.artefacts.sample_grid import Columns
from sslcli.evals.artefacts.sample_sheets import RIGHT, WRONG, Cell, Row, Sheet
from sslcli.evals.artefacts.tables import Table, tables_of
from sslcli.views.contact_sheet import sheet
from sslcli.views.preview import prose
from sslcli.views.preview.base import Text, draw_text

EVIL = "<script>alert(1)</script>"
UNUSUAL = ["", "שלום עולם, مرحبا", "🎉 👩‍👧 emoji", "a\x00b\x1b[31mc\u202ed\udcff", "w" * 100_000, EVIL, "one " * 5000]


@dataclass(frozen=True)
class Document(Text):
    """A text that is read; with `weights`, a word for each."""

    weights: tuple[float, ...] | None = None

    prose = True

    def words(self) -> list[tuple[str, float]] | None:
        return None if self.weights is None else list(zip(self.content.split(), self.weights, strict=False))

    def image(self, width: int, height: int) -> Image.Image:
        return draw_text(self.text(), width, height)


def size_and_colors(path: Path) -> tuple[tuple[int, int], set[str]]:
    with Image.open(path) as image:
        return image.size, {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 24)}


def test_sheet_of_documents_is_a_list(tmp_path):
    rows = [
        Row(
            "sport",
            "1 of 2 of the same class",
            [Cell(Document(f"text {i}"), m) for i, m in enumerate(("", "right", "wrong"))],
        )
    ]
    drawn = Sheet("neighbors", rows, "c", ("query", "nearest first"), 1, ("of the same class", "of another class"))
    assert drawn.table() == {
        "columns": ["", "sample", ""],
        "rows": [
            "sport: 1 of 2 of the same class",
            ["query", "text 0", ""],
            ["nearest first", "text 1", "of the same class"],
            ["", "text 2", "of another class"],
        ],
    }
    drawn.save(tmp_path / "s.png")
    (width, height), colors = size_and_colors(tmp_path / "s.png")
    assert width == 2 * prose.MARGIN + prose.LABEL + prose.TEXT
    assert height < 250
    assert {RIGHT, WRONG} <= colors


def test_sheets_of_other_samples_are_no_tables():
    rows = [Row("a", "b", [Cell(Text("seen"))])]
    assert Sheet("t", rows, "c").table() is None
    assert Columns([[Text("seen")]], ["source"], "c").table() is None
    assert tables_of({"a.png": Sheet("t", rows, "c"), "b.csv": Table(("x",), [(1,)])}) == {
        "b.csv": {"columns": ["x"], "rows": [[1]]}
    }


@pytest.mark.parametrize("text", UNUSUAL, ids=range(len(UNUSUAL)))
def test_unusual_documents_are_drawn(tmp_path, text):
    drawn = Sheet("t" * 500, [Row(text, text, [Cell(Document(text), "wrong")])], "c")
    drawn.save(tmp_path / "s.png")
    (width, height), _ = size_and_colors(tmp_path / "s.png")
    assert width < 1000
    assert height < 220
    ((shown, _),) = [row for row in drawn.table()["rows"] if isinstance(row, list)]
    assert len(shown) <= prose.LONGEST + 40


def test_columns_and_contact_sheets_list_documents(tmp_path):
    rows = [[Document("the source", None), Document("the words that count", (0.1, 0.9, 0.0, 1.0))]] * 2
    columns = Columns(rows, ["source", "attention"], "c")
    assert columns.table()["rows"][:3] == [
        "sample 1",
        ["source", "the source"],
        ["attention", {"words": [["the", 0.1], ["words", 0.9], ["that", 0.0], ["count", 1.0]]}],
    ]
    columns.save(tmp_path / "c.png")
    sheet(tmp_path / "s.png", rows)
    with Image.open(tmp_path / "s.png") as image:
        assert image.info["Software"] == "sslcli"
        assert image.width == size_and_colors(tmp_path / "c.png")[0][0] - prose.LABEL + 12  # there are no labels
