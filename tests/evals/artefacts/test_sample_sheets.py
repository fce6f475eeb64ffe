"""Sheets, figures and tables are readable for any input."""

from __future__ import annotations

import csv

import pytest
import torch
from PIL import Image

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.evals.artefacts.figures import Dots, Grid
from sslcli.evals.artefacts.sample_sheets import RIGHT, WRONG, Cell, Row, Sheet, thumbnails
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base.features import EvalData
from sslcli.nn.values import Continuous
from sslcli.views.preview import Curves, Picture, Preview, Text


def drawn(artefact, path) -> Image.Image:
    artefact.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left beside it
    with Image.open(path) as image:
        return image.convert("RGB")


def colors(image: Image.Image) -> dict[str, int]:
    counts = {f"#{r:02x}{g:02x}{b:02x}": n for n, (r, g, b) in image.getcolors(1 << 24)}
    return {mark: counts.get(color, 0) for mark, color in (("right", RIGHT), ("wrong", WRONG))}


SAMPLES: tuple[Preview, ...] = (
    *(Picture(torch.rand(s, generator=torch.manual_seed(0))) for s in ((1, 8, 8), (3, 32, 32), (4, 224, 90))),
    *(Curves(torch.rand(s, generator=torch.manual_seed(0))) for s in ((2, 50), (1, 5000), (1, 1))),
    Text("a sample in words"),
)


@pytest.mark.parametrize("x", SAMPLES, ids=lambda x: x.text())
def test_sheet_frames_marked_cells(tmp_path, x):
    plain = drawn(Sheet("t", [Row("a", "b", [Cell(x), Cell(x)])], "c"), tmp_path / "s.png")
    assert colors(plain) == {"right": 0, "wrong": 0}
    marked = drawn(Sheet("t", [Row("a", "b", [Cell(x, "right"), Cell(x, "wrong")])], "c"), tmp_path / "s.png")
    assert marked.size == plain.size
    assert all(n > 200 for n in colors(marked).values())
    # the wrong one is recognizable without color: its line is dashed and thicker
    assert colors(marked)["wrong"] != colors(marked)["right"]


def test_sheet_fits_texts_of_any_length_and_alphabet(tmp_path):
    cell = Cell(Picture(torch.rand(1, 8, 8)))
    rows = [Row("a very long name " * 20, "мн χψ \udcff $x_1$\n", [cell] * 3), Row("", "", [cell])]
    page = drawn(
        Sheet("t", rows, "c", ("one", "others"), 1, ("same", "another")),
        tmp_path / "s.png",
    )
    assert page.width < 900


def test_thumbnails_are_small_and_match_the_samples():
    x = torch.arange(2 * 64, dtype=torch.uint8).reshape(2, 1, 8, 8)
    source = ArraySource(x)
    data = EvalData(Dataset("d", "image", (1, 8, 8), source, None))
    found = thumbnails(data, "train", [1, 0, 1])
    assert sorted(found) == [0, 1]
    assert torch.equal(found[1].pixels, x[1])
    large = ArraySource(torch.full((1, 3, 300, 300), 77, dtype=torch.uint8))
    data = EvalData(Dataset("d", "image", (3, 300, 300), large, None, values=Continuous((0.5,) * 3, (0.5,) * 3)))
    small = thumbnails(data, "train", [0])[0].pixels
    assert small.shape == (3, 192, 192)
    assert set(small.unique().tolist()) == {77}


def test_series_image_keeps_extremes_and_gaps():
    x = torch.zeros(1, 1, 10_007)
    x[0, 0, 5000], x[0, 0, 7777] = 9.0, -4.0
    x[0, 0, 9000:] = torch.nan
    source = ArraySource(x)
    data = EvalData(Dataset("s", "series", (1, 10_007), source, None, values=Continuous((0.0,), (1.0,))))
    small = thumbnails(data, "train", [0])[0].values
    assert small.shape[1] <= 4 * Curves.cell[0]
    assert (float(small.nan_to_num(0.0).max()), float(small.nan_to_num(0.0).min())) == (9.0, -4.0)
    assert bool(small[0, -40:].isnan().all())
    assert not bool(small[0, : small.shape[1] // 2].isnan().any())


def test_series_image_of_missing_values_is_blank(tmp_path):
    page = drawn(Sheet("t", [Row("a", "b", [Cell(Curves(torch.full((1, 30), torch.nan)))])], "c"), tmp_path / "s.png")
    assert page.getpixel((page.width - 60, page.height - 60)) == (255, 255, 255)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (11, 10), (3, 60)])
def test_grid_is_saved(tmp_path, rows, columns):
    counts = torch.randint(0, 9, (rows, columns), generator=torch.manual_seed(0))
    counts[0] = 0  # an empty cluster
    names = [f"class ${i}" for i in range(columns)]
    page = drawn(Grid(counts, [f"cluster {i}" for i in range(rows)], names, "a title", "c"), tmp_path / "g.png")
    assert min(page.size) > 250
    assert max(page.size) < 2000


@pytest.mark.parametrize("n", [1, 100])
def test_dots_are_saved(tmp_path, n):
    g = torch.Generator().manual_seed(0)
    values = {
        kind: torch.rand(n, generator=g).tolist() for kind in ("this backbone", "raw inputs", "untrained backbone")
    }
    values["raw inputs"][0] = float("nan")
    page = drawn(Dots([f"class {i}" for i in range(n)], values, "AUROC", "c"), tmp_path / "d.png")
    assert 1000 < page.width < 1200
    assert page.height < 2000  # the lowest rows of many


def test_csv_table_is_readable(tmp_path):
    rows = [("train", 'a, "b"\n.png', 1), ("test", "\udcff.png", -1)]
    Csv(("split", "sample", "cluster"), rows, "c").save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [["split", "sample", "cluster"], ["train", 'a, "b"\\n.png', "1"], ["test", "\\udcff.png", "-1"]]
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("x")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\x1b]0;x\x07", "\uff1d1", "-inf"]
)
def test_csv_cells_are_not_formulas(tmp_path, text):
    Csv((text, "n"), [(text, -1.5), ("good", "-1e-05"), (None, -7)], "c").save(tmp_path / "a.csv")
    (head, n), (shown, number), *rest = csv.reader((tmp_path / "a.csv").read_text("utf-8").splitlines())
    assert (n, number, rest) == ("n", "-1.5", [["good", "-1e-05"], ["", "-7"]])  # numbers stay numbers
    for cell in (head, shown):
        assert cell[0] not in "=+-@\uff1d"
        assert cell.isprintable()
