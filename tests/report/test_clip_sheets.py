"""Sheets of samples that play: what a report shows of them, how much of it, and what of damaged or hostile files."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcli.report import evaluations
from sslcli.report.html.clip_sheets import ClipBudget, read_clip_sheet
from sslcli.report.run_contents import CaptionedImage
from sslcli.runs.files import replace_file
from sslcli.views.preview.base import Preview, Text, to_png
from sslcli.views.preview.clip_sheet import ClipSheet, clip_sheet
from sslcli.views.preview.film import Film
from sslcli.views.preview.prose import Entry, Group, Mark
from sslcli.views.preview.spectrogram import Spectrogram
from tests.report.html_page import Page

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
MARKS = {"right": Mark("of the same class", "", False), "wrong": Mark("of another class", "", True)}


def sound(samples: int = 400) -> Spectrogram:
    return Spectrogram(torch.rand(8, 20), 0.5, clip=torch.arange(samples, dtype=torch.int16), rate=800)


def film(frames: int = 3) -> Film:
    return Film(torch.randint(0, 256, (1, frames, 16, 16), dtype=torch.uint8))


def groups(*samples: Preview) -> list[Group]:
    marks = ["", "right", "wrong"]
    return [Group("a title", "about it", [Entry("", sample, marks[i % 3]) for i, sample in enumerate(samples)])]


def page_of(path: Path, caption: str = "a caption") -> Page:
    sheet = read_clip_sheet(path, caption)
    assert sheet is not None
    return Page(sheet.html)


def tags(page: Page, name: str) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in page.tags if tag == name]


def content(uri: str | None) -> bytes:
    assert uri is not None
    return base64.b64decode(uri.partition("base64,")[2])


def test_sounds_play_below_their_drawings(tmp_path):
    one = sound()
    ClipSheet(groups(one, sound(), sound()), MARKS, "").save(tmp_path / "s.zip")
    page = page_of(tmp_path / "s.zip")
    assert len(tags(page, "img")) == len(tags(page, "audio")) == 3
    with wave.open(io.BytesIO(content(tags(page, "audio")[0]["src"]))) as file:
        assert file.getframerate() == 800
        assert file.readframes(400) == one.clip.numpy().tobytes()
    assert [figure.get("class") for figure in tags(page, "figure")] == [None, "right", "wrong"]
    for words in ("a title about it", "of the same class of another class", "A caption."):
        assert words in page.text


def test_films_are_animated_pictures(tmp_path):
    ClipSheet(groups(film(5), Text("words")), MARKS, "").save(tmp_path / "f.zip")
    page = page_of(tmp_path / "f.zip")
    animated, drawn = tags(page, "img")
    with Image.open(io.BytesIO(content(animated["src"]))) as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 5)
    assert (drawn["src"] or "").startswith("data:image/png")
    assert drawn["alt"] == "words"


def test_equal_samples_have_equal_files(tmp_path):
    torch.manual_seed(0)
    shown = groups(sound(), film())
    for name in ("a.zip", "b.zip"):
        ClipSheet(shown, {}, "").save(tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_samples_without_sound_or_motion_have_no_sheet():
    assert clip_sheet(groups(Text("t"), sound()), {}, "") is not None
    assert clip_sheet(groups(Text("t"), Spectrogram(torch.rand(8, 20), 0.5)), {}, "") is None


def test_clips_beyond_the_bound_are_drawn_and_counted(tmp_path):
    ClipSheet(groups(*(sound(400) for _ in range(5))), MARKS, "").save(tmp_path / "s.zip", most=2 * 900)
    page = page_of(tmp_path / "s.zip")
    assert len(tags(page, "img")) == 5
    assert len(tags(page, "audio")) == 2
    assert "Of 3 samples only the drawing is shown" in page.text


def test_page_has_a_bound(tmp_path):
    """The first sheet takes the room; of the second there is the drawing, and a sentence."""
    shown = []
    for name in ("a", "b"):
        ClipSheet(groups(sound()), MARKS, "").save(tmp_path / f"{name}.zip")
        (tmp_path / f"{name}.png").write_bytes(to_png(Image.new("RGB", (40, 20), "red")))
        shown.append(CaptionedImage(tmp_path / f"{name}.png", name, tmp_path / f"{name}.zip"))
    sheet = read_clip_sheet(tmp_path / "a.zip", "a")
    assert sheet is not None
    budget = ClipBudget(len(sheet.html))
    first, second = (evaluations.figure(png, budget) for png in shown)
    assert "<audio" in first
    assert "<audio" not in second
    assert "The clips are left out" in Page(second).text
    assert 'width="40"' in second


def test_strips_stand_beside_animated_pictures(tmp_path):
    (tmp_path / "f.png").write_bytes(to_png(Image.new("RGB", (40, 20), "red")))
    for samples, beside in (((film(),), True), ((sound(),), False)):
        ClipSheet(groups(*samples), {}, "", strips=True).save(tmp_path / "f.zip")
        png = CaptionedImage(tmp_path / "f.png", "caption", tmp_path / "f.zip")
        assert ('width="40"' in evaluations.figure(png, ClipBudget())) == beside


def archive(path: Path, table: object, files: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("sheet.json", table if isinstance(table, str) else json.dumps(table))
        for name, each in files.items():
            file.writestr(name, each)


def test_text_of_a_sheet_is_escaped(tmp_path):
    cells = [{"label": EVIL, "text": EVIL, "mark": "right"}, {"mark": EVIL, "text": [EVIL]}, EVIL, None]
    table = {"rows": [{"title": EVIL, "about": [EVIL], "cells": cells}, EVIL, {"cells": 3}], "marks": {"right": EVIL}}
    archive(tmp_path / "s.zip", table | {"left_out": EVIL}, {"1-1.png": to_png(Image.new("RGB", (4, 2)))})
    page = page_of(tmp_path / "s.zip", EVIL)
    assert not tags(page, "script")
    assert len(tags(page, "img")) == 1
    assert {name for _, attributes in page.tags for name in attributes if re.match("on", name)} == set()


@pytest.mark.parametrize("table", ["", "[]", "{", '{"rows": 3}', '{"rows": null, "marks": 1}'])
def test_invalid_table_is_no_sheet(tmp_path, table):
    archive(tmp_path / "s.zip", table, {})
    assert read_clip_sheet(tmp_path / "s.zip", "") is None


def test_invalid_media_are_not_shown(tmp_path):
    table = {"rows": [{"title": "t", "cells": [{"text": "t"}] * 4}]}
    huge = b"GIF89a" + b"\xff\xff\xff\xff" + b"\x00" * 20
    files = {"1-1.wav": b"RIFF" + b"\x00" * 40, "1-2.gif": huge, "1-3.gif": b"GIF", "1-4.png": b"\x89PNG\r\n\x1a\n" * 9}
    archive(tmp_path / "s.zip", table, files)
    page = page_of(tmp_path / "s.zip")
    assert not tags(page, "audio")
    assert not tags(page, "img")
    assert page.text.count("not readable") == 4


def test_archives_that_expand_are_not_read(tmp_path):
    table = {"rows": [{"cells": [{"text": "t"}]}]}
    archive(tmp_path / "s.zip", table, {"1-1.wav": b"\x00" * 1000}, zipfile.ZIP_DEFLATED)
    assert read_clip_sheet(tmp_path / "s.zip", "") is None
    replace_file(tmp_path, "s.zip", [b"PK\x05\x06" + b"\xff" * 18])
    assert read_clip_sheet(tmp_path / "s.zip", "") is None
    archive(tmp_path / "s.zip", table, {"1-1.wav": b"\x00" * 1_000_000})
    content = (tmp_path / "s.zip").read_bytes()
    size, claimed = (n.to_bytes(4, "little") for n in (1_000_000, 1_000_000_000))
    (tmp_path / "s.zip").write_bytes(content.replace(size, claimed))
    assert read_clip_sheet(tmp_path / "s.zip", "") is None


def test_links_are_not_followed(tmp_path):
    ClipSheet(groups(sound()), {}, "").save(tmp_path / "real.zip")
    (tmp_path / "s.zip").symlink_to(tmp_path / "real.zip")
    assert read_clip_sheet(tmp_path / "s.zip", "") is None
