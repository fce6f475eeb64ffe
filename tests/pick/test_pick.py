"""`sslcli pick` on a folder of images.

1. The file that it writes, filled in, is read by `have=` and `labels=`, and those samples are not picked again.
2. Bad input is refused before anything is computed or written.
3. Tasks for Label Studio hold the samples themselves, and its export is read back.
4. The page labels by keys, undoes, keeps labels over a reload, and saves what `labels=` reads.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.browser import CHROMIUM, Browser
from sslcli.report.html.images import embedded, encode

COLORS = ((250, 20, 20), (20, 250, 20), (20, 20, 250))
FILES = 44


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Images of three colors; the color of image i is i % 3. Two have names that a spreadsheet takes for formulas."""
    g = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for i in range(FILES):
        name = {0: "=0.png", 1: "-a.png"}.get(i, f"{i:02}.png")
        pixels = np.clip(np.array(COLORS[i % 3]) + g.normal(0, 40, (16, 16, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> str:
    """The path of a run that was trained on the images."""
    from sslcli import api

    words: dict[str, object] = {"experiment": "smoke", "device": "cpu", "device.threads": 1, "backbone.width": 8}
    words |= {"dataset": "image_folder", "dataset.path": str(photos), "dataset.image_size": 16, "dataset.holdout": 0}
    words |= {"train.epochs": 1, "train.batch_size": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        return str(api.pretrain(**words).path.absolute())


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def color(name: str) -> str:
    number = {"./=0.png": 0, "./-a.png": 1}.get(name)
    return ("red", "green", "blue")[(int(name[:2]) if number is None else number) % 3]


def fill(file: Path) -> list[dict[str, str]]:
    """Labels all rows of a file."""
    rows = [{**row, "label": color(row["path"])} for row in read(file.read_text())]
    with file.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_filled_rows_are_labels(cli, run, photos, tmp_path):
    options = ["device=cpu", "device.threads=1"]
    result = cli("pick", run, "n=12", "out=pick.csv", *options)
    assert (result.code, result.last) == (0, "pick.csv"), result.err
    content = (tmp_path / "pick.csv").read_text()
    assert content.startswith("path,rank,stratum,reason,label\n")
    assert not re.search(r'(^|,)"?[=+@-]', content, re.MULTILINE)
    rows = read(content)
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 13)]
    assert {row["label"] for row in rows} == {""}
    assert {color(row["path"]) for row in rows[:6]} == {"red", "green", "blue"}
    fewer = cli("pick", run, "n=5", "--json", *options)
    assert json.loads(fewer.out)["picks"] == [
        {**row, "rank": int(row["rank"]), "stratum": int(row["stratum"])}
        for row in ({k: v for k, v in row.items() if k != "label"} for row in rows[:5])
    ]

    fill(tmp_path / "pick.csv")
    more = cli("pick", run, f"n={FILES - 12}", "have=pick.csv", "by=uncertain", *options)
    assert "12 samples with a label in pick.csv are not picked" in more.err
    assert {row["path"] for row in read(more.out)} == {
        f"./{p.name}" if p.name[0] in "=-" else p.name for p in photos.iterdir()
    } - {row["path"] for row in rows}
    assert " or " in read(more.out)[0]["reason"]
    files = cli("pick", run, str(photos), "n=3", "have=pick.csv", "by=kcenter", *options)
    assert all(Path(row["path"]).parent == photos for row in read(files.out))
    scores = cli("eval", "knn", f"run={run}", "labels=pick.csv", "evaluator.baselines=false", *options)
    assert scores.code == 0, scores.err
    summary = json.loads((Path(run) / "summaries" / "pick.json").read_text())
    assert (summary["file"], summary["numbers"]["picked by=typical"]) == ("pick.csv", 12)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["n=45"], 2, "n=45: there are 44 samples"),
        (["n=0"], 2, "n=0: expected"),
        (["n=x"], 2, "n=x: expected an integer"),
        (["by=typicl"], 2, "did you mean|by=typical"),
        (["by=uncertain", "n=2"], 2, "have="),
        (["have=none.csv", "n=2"], 2, "there is no such file"),
        (["have=unknown.csv", "n=2"], 7, "does not have"),
        (["out=there.csv", "n=2"], 2, "out=there.csv exists"),
        (["out=there.html", "n=2"], 2, ".csv file is written"),
        (["page=no/page.html", "n=2"], 2, "page=no/page.html: there is no folder"),
        (["format=labelstudio", "n=2"], 2, "out=tasks.json"),
        (["format=xml", "n=2"], 2, "unknown format"),
        (["nn=2"], 2, "did you mean n="),
    ],
)
def test_bad_input_is_refused(cli, run, tmp_path, words, code, message):
    (tmp_path / "there.csv").write_text("keep me")
    (tmp_path / "unknown.csv").write_text("path,label\nno such.png,a\n")
    result = cli("pick", run, "device=cpu", "device.threads=1", *words)
    assert (result.code, result.out) == (code, ""), result.err
    assert re.search(message, result.err), result.err
    assert (tmp_path / "there.csv").read_text() == "keep me"


def test_photographs_on_the_page_are_jpeg_and_drawings_png():
    noise = np.random.default_rng(0).normal(128, 20, (300, 400, 3)).clip(0, 255).astype(np.uint8)
    for image, kind in ((noise, "jpeg"), (noise[:40, :40], "png"), (np.zeros((300, 400), np.uint8), "png")):
        uri, size = embedded(encode(Image.fromarray(image), "PNG"), heavy=20_000)
        assert uri.startswith(f"data:image/{kind};base64,")
        assert size == image.shape[1::-1]


def test_page_shows_whole_wide_and_tall_images(cli, run, tmp_path):
    """The views of the encoder are squares from the middle, which is gray here."""
    (tmp_path / "wide").mkdir()
    for i, (width, height) in enumerate([(96, 24), (24, 96), (16, 16)]):
        pixels = np.full((height, width, 3), 128, np.uint8)
        pixels[0, 0], pixels[-1, -1] = (255, 0, 0), (0, 0, 255)
        Image.fromarray(pixels).save(tmp_path / "wide" / f"{i}.png")
    options = ["n=3", "page=pick.html", "out=pick.csv", "device=cpu", "device.threads=1"]
    result = cli("pick", run, "wide", *options)
    assert result.code == 0, result.err
    page = (tmp_path / "pick.html").read_text()
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"[^>]* width="(\d+)" height="(\d+)"', page)
    shapes = set()
    for content, width, height in found:
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
        assert drawn.shape[:2] == (int(height), int(width))
        assert (drawn[0, 0].argmax(), drawn[-1, -1].argmax()) == (0, 2)
        shapes.add(int(width) / int(height))
    assert shapes == {4.0, 0.25, 1.0}
    assert "width: auto; height: auto; max-height" in page  # a limited height does not change the ratio


def test_tasks_for_label_studio(cli, run, tmp_path):
    options = ["device=cpu", "device.threads=1", "by=cover", "n=6"]
    assert cli("pick", run, "format=labelstudio", "out=tasks.json", *options).code == 0
    tasks = [task["data"] for task in json.loads((tmp_path / "tasks.json").read_text())]
    assert [task["rank"] for task in tasks] == [1, 2, 3, 4, 5, 6]
    kind, _, content = tasks[0]["image"].partition(",")
    assert kind == "data:image/png;base64"
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    assert ("red", "green", "blue")[drawn.mean(axis=(0, 1)).argmax()] == color(tasks[0]["file"])

    export = ["image,file,id,label,annotator"]  # the columns of Label Studio's export as CSV
    export += [f"data,{task['file']},{i},{color(task['file'])},1" for i, task in enumerate(tasks, start=101)]
    (tmp_path / "export.csv").write_text("\n".join(export) + "\n")
    more = cli("pick", run, "have=export.csv", *options)
    assert more.code == 0, more.err
    assert not {row["path"] for row in read(more.out)} & {task["file"] for task in tasks}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_page_labels_by_keys(cli, run, tmp_path):
    (tmp_path / "labels").mkdir()
    options = ["device=cpu", "device.threads=1", "n=5"]
    (tmp_path / "have.csv").write_text("path,label\n02.png,blue\n03.png,red\n")
    assert cli("pick", run, "have=have.csv", "page=pick.html", *options).code == 0
    order = [row["path"] for row in read(cli("pick", run, "have=have.csv", *options).out)]
    with Browser(tmp_path / "pick.html", tmp_path) as page:
        page.downloads_to(tmp_path / "labels")
        assert page.eval("document.querySelector('#progress').textContent") == "Sample 1 of 5; 0 labeled"
        page.press("1", "2", "1")  # blue, red, blue
        page.press("u", "2")  # red
        page.press("ArrowRight")
        page.eval("document.querySelector('#classes input').focus()")
        page.press("g", "1", "Enter", "3")  # a new class of two letters, for the last sample
        assert page.eval("document.querySelector('#progress').textContent") == "Sample 4 of 5; 4 labeled"
        page.press("ArrowLeft", "Delete", "ArrowRight")
        assert page.eval("document.querySelectorAll('#strip .done').length") == 3
        assert page.eval("[...document.querySelectorAll('article')].filter(a => !a.hidden).length") == 1
        page.press("s")
        saved = tmp_path / "labels" / "labels.csv"
        end = time.monotonic() + 60
        while not saved.is_file():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert page.errors == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests)
    rows = [("02.png", "blue"), ("03.png", "red"), (order[0], "blue"), (order[1], "red"), (order[4], "g1")]
    assert saved.read_text() == "path,label\n" + "".join(f"{name},{label}\n" for name, label in rows)
    assert cli("pick", run, f"have={saved}", "device=cpu", "device.threads=1", "n=2").code == 0
