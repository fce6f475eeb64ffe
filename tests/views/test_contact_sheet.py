"""Contact sheets: size and colors of the PNG."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from sslcli.views import sheet
from sslcli.views.preview import Curves, Picture, Text


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.array(picture.convert("RGB"))


def test_images(tmp_path):
    red = torch.zeros(3, 8, 8, dtype=torch.uint8)
    red[0] = 200
    view = torch.full((3, 8, 8), 0.5)
    small = torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 4, 4)  # clipped to 0..1
    path = tmp_path / "new" / "sheet.png"
    sheet(path, [[Picture(red), Picture(view), Picture(small)]] * 2, ["source", "global", "local"])
    page = read(path)
    count = {c: int((page == np.array(c)).all(-1).sum()) for c in ((200, 0, 0), (128, 128, 128), (0, 128, 255))}
    assert count[200, 0, 0] == count[128, 128, 128] == 2 * 112 * 112  # enlarged fourteen times
    assert count[0, 128, 255] == 2 * 56 * 56  # to the same scale


def test_sheet_of_large_gray_and_multichannel_images(tmp_path):
    source = torch.randint(0, 256, (1, 500, 300), dtype=torch.uint8)
    sheet(tmp_path / "a.png", [[Picture(source), Picture(torch.zeros(1, 448, 448))]])
    page = read(tmp_path / "a.png")
    assert (page == 0).all(-1).sum() == 224 * 224
    assert max(page.shape) < 600
    for c in (2, 5):
        sheet(tmp_path / f"{c}.png", [[Picture(torch.rand(c, 9, 9))], [Picture(torch.rand(c, 9, 9))]])
        assert read(tmp_path / f"{c}.png").shape[0] > 200


def test_series(tmp_path):
    steps = torch.linspace(0, 6, 60)
    source = torch.stack([steps.sin(), steps.cos()])
    padded = source.clone()
    padded[:, 40:] = math.nan
    nothing = torch.full((2, 60), math.nan)
    rows = [[source, padded, source[:, :20]], [source, nothing]]
    sheet(tmp_path / "s.png", [[Curves(x) for x in row] for row in rows], ["source", "global", "local"])
    page = read(tmp_path / "s.png").astype(int)
    blue = (page[..., 2] > page[..., 0] + 60).sum(0)  # the first channel's line, by column of pixels
    third = page.shape[1] // 3
    assert blue[:third].sum() > 200
    assert blue[third : 2 * third].sum() > 50
    assert blue[2 * third + third // 2 :].sum() == 0  # a short view is drawn short


def test_kinds_with_text_alone_are_drawn(tmp_path):
    sheet(tmp_path / "t.png", [[Text("a first sample"), Text("a view <b>of it</b>")], [Text("")]], ["source", "view"])
    page = read(tmp_path / "t.png")
    assert (page < 90).all(-1).sum() > 200  # ink
    assert max(page.shape) < 700
