"""The code of README.md of an export, run on raw samples of every kind of data, and compared with `sslcli embed` and `predict`."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sslcli.data.standalone.guides import GUIDES
from tests.conftest import SMOKE, Result
from tests.data.audio.sounds import sine, write

SMALL = "backbone.width=16 backbone.depth=1 backbone.heads=2"
RUNS = {
    "image": f"method=mae dataset=arrays dataset.path=images.npz backbone=vit_micro {SMALL} backbone.patch=4 backbone.pool=cls",
    "pairs": "method=simclr dataset=shapes dataset.samples=116 dataset.test_samples=58 dataset.size=16 backbone.width=8",
    "frames": f"method=mae dataset=frames dataset.path=clips.npz backbone=clip_vit {SMALL} backbone.patch=8",
    "series": f"method=mae dataset=series dataset.path=waves.npz backbone=vit_micro {SMALL} backbone.patch=8",
    "table": f"method=mae dataset=table dataset.path=people.csv dataset.decimal=comma dataset.delimiter=semicolon "
    f"backbone=ft_transformer {SMALL}",
    "value": f"method=mae dataset=table dataset.path=people.csv dataset.decimal=comma dataset.delimiter=semicolon "
    f"dataset.label=age dataset.task=value dataset.drop=[class] backbone=ft_transformer {SMALL}",
    "text": f"method=mlm dataset=text_table dataset.path=films.csv dataset.max_length=12 dataset.windows=3 {SMALL}",
    "words": f"method=mlm dataset=text_table dataset.path=films.csv dataset.max_length=12 dataset.windows=1 "
    f"dataset.tokenizer=words {SMALL}",
    "audio": f"method=mae dataset=tones dataset.samples=60 backbone=vit_micro {SMALL} backbone.patch=8",
    "interactions": f"method=bert4rec dataset=sessions dataset.users=60 dataset.items=18 {SMALL}",
}
TOLERANCE = {"image": 0.05, "pairs": 0.05, "audio": 0.02}  # of outputs: images are resized by another filter


def write_training_data(folder: Path) -> None:
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    waves = np.sin(np.linspace(0, 6, 32) * (1 + y)[:, None, None]) + 0.1 * rng.normal(size=(60, 2, 32))
    np.savez(folder / "waves.npz", x=(50 + 9 * waves).astype(np.float32), y=y)
    images = rng.integers(0, 100, (60, 3, 16, 16)) + 60 * y[:, None, None, None]
    np.savez(folder / "images.npz", x=images.astype(np.uint8), y=y)
    clips = rng.integers(0, 100, (60, 4, 16, 16)) + 60 * y[:, None, None, None]
    np.savez(folder / "clips.npz", x=clips.astype(np.uint8), y=y)
    words = (("good", "fine", "great"), ("bad", "poor", "dull"), ("odd", "long", "loud"))
    lines = [f"a {words[c][rng.integers(3)]} film number {rng.integers(9)},{c}" for c in y.tolist()]
    (folder / "films.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    jobs = ("cook", "nurse", "`judge`", "")
    rows = [f"{i % 7},5;{jobs[i % 4]};{'' if i % 9 == 0 else i};{c}" for i, c in enumerate(y.tolist())]
    (folder / "people.csv").write_text("hours;job;age;class\n" + "\n".join(rows) + "\n")


def raw_images(folder: Path) -> tuple[list[str], Any]:
    gradient = np.add.outer(np.arange(60), np.arange(90))[..., None] * np.array([1.0, 0.5, 1.2])
    Image.fromarray(gradient.astype(np.uint8)).save(folder / "a.jpg", quality=95)
    Image.fromarray(np.dstack([gradient, gradient[..., 0]]).astype(np.uint8)).save(folder / "b.png")
    return ["a.jpg", "b.png"], ["a.jpg", "b.png"]


def raw_frames(folder: Path) -> tuple[list[str], Any]:
    clips = np.random.default_rng(1).integers(0, 256, (3, 4, 16, 16), dtype=np.uint8)
    np.savez(folder / "new.npz", x=clips)
    return ["new.npz"], list(clips)


def raw_series(folder: Path) -> tuple[list[str], Any]:
    series = np.random.default_rng(1).normal(50, 9, (3, 2, 32)).astype(np.float32)
    series[1, 0, 3:9] = np.nan
    np.savez(folder / "new.npz", x=series)
    return ["new.npz"], series


def raw_rows(folder: Path) -> tuple[list[str], Any]:
    (folder / "new.csv").write_text("job;age;hours\ncook;44;3,5\nunknown;;-1,25\n`judge`;?;2\n")
    with (folder / "new.csv").open(newline="") as file:
        return ["new.csv"], list(csv.DictReader(file, delimiter=";"))


def raw_texts(folder: Path) -> tuple[list[str], Any]:
    texts = ["A good film, really.", "bad", "a great film number 3 " * 4, "a long, odd, unknown film " * 20]
    (folder / "new.txt").write_text("\n".join(texts) + "\n")
    return ["new.txt"], [text.strip() for text in texts]


def raw_clips(folder: Path) -> tuple[list[str], Any]:
    write(folder / "a.wav", sine(0.4, 8000, 300))
    write(folder / "b.wav", np.stack([sine(0.9, 44_100, 700), sine(0.9, 44_100, 1700)], axis=1), 44_100)
    return ["a.wav", "b.wav"], ["a.wav", "b.wav"]


def raw_histories(folder: Path) -> tuple[list[str], Any]:
    items = json.loads((folder / "runs" / "interactions" / "preprocessor" / "items.json").read_text())["items"]
    histories = [items[:3], [*items[4:9], *items[4:9], *items, items[0]]]
    rows = [f"{user},{item},{t}" for user, history in enumerate(histories) for t, item in enumerate(history)]
    (folder / "new.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return ["new.csv"], histories


RAW: dict[str, Callable[[Path], tuple[list[str], Any]]] = {
    "image": raw_images,
    "pairs": raw_images,
    "frames": raw_frames,
    "series": raw_series,
    "table": raw_rows,
    "value": raw_rows,
    "text": raw_texts,
    "words": raw_texts,
    "audio": raw_clips,
    "interactions": raw_histories,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with the runs, each with the classifier of a probe."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("raw")
    write_training_data(folder)
    with contextlib.chdir(folder):
        for name, words in RUNS.items():
            typed = [w for w in SMOKE if not w.startswith("backbone.")]
            more = ["train.batch_size=16", "train.steps=2", "train.devices=1", f"hydra.run.dir=runs/{name}"]
            assert main(["pretrain", *shlex.split(words), *typed, *more]) == 0, name
            if name != "interactions":  # whose samples have no labels
                labels = [] if name == "value" else ["labels=2/class"]
                assert main(["eval", "probe", f"run=runs/{name}", *labels, "evaluator.baselines=false"]) == 0, name
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def snippet(folder: Path) -> str:
    """The code of README.md."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return found


def run_code(code: str, folder: Path, **names: Any) -> dict[str, Any]:
    """The variables of a program that runs in the folder of an export."""
    sys.modules.pop("preprocess", None)
    place = str(folder.resolve())
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [place, *sys.path])
        exec(compile(code, str(folder / "README.md"), "exec"), names)
    sys.modules.pop("preprocess", None)
    return names


def test_all_kinds_are_tested():
    assert set(GUIDES) <= set(RUNS) == set(RAW)


@pytest.mark.parametrize("kind", RUNS)
def test_features_of_raw_samples(kind, trained, tmp_path):
    done = trained("export", f"runs/{kind}", "format=torch_export", "out=out")
    assert done.code == 0, done.err
    about = json.loads(Path("out/metadata.json").read_text())
    code = snippet(Path("out"))
    example = run_code(code, Path("out"))
    assert example["x"].shape[1:] == tuple(about["input_shape"])
    assert example["features"].shape == (len(example["samples"]), about["output"]["features"])
    files, samples = RAW[kind](tmp_path)
    embedded = trained("embed", f"runs/{kind}", *files, "out=e.npz")
    assert embedded.code == 0, embedded.err
    with np.load("e.npz", allow_pickle=False) as file:
        expected = file["vector"]
    if kind in ("image", "pairs", "audio"):
        samples = [str(tmp_path / name) for name in samples]
    own = re.sub(r"^samples = .*$", "samples = given", code, flags=re.MULTILINE)
    found = run_code(own, Path("out"), given=samples)["features"]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE.get(kind, 1e-4))


@pytest.mark.parametrize("kind", [kind for kind in RUNS if kind != "interactions"])
def test_predictions_for_raw_samples(kind, trained, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = trained("export", f"runs/{kind}", "format=onnx", "head=probe", "out=out")
    assert done.code == 0, done.err
    about = json.loads(Path("out/metadata.json").read_text())
    assert about["preprocessor"].items() <= json.loads(Path("out/preprocessor/preprocessor.json").read_text()).items()
    code = snippet(Path("out"))
    name = "value" if kind == "value" else "logits"
    assert len(run_code(code, Path("out"))[name])
    files, samples = RAW[kind](tmp_path)
    predicted = trained("predict", f"runs/{kind}", *files, "out=p.csv")
    assert predicted.code == 0, predicted.err
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if kind in ("image", "pairs", "audio"):
        samples = [str(tmp_path / path) for path in samples]
    own = re.sub(r"^samples = .*$", "samples = given", code, flags=re.MULTILINE)
    found = run_code(own, Path("out"), given=samples)
    assert len(rows) == len(found[name])
    if kind == "value":
        expected = [float(row["value"]) for row in rows]
        np.testing.assert_allclose(found["value"][:, 0], expected, rtol=1e-4)
        return
    places = [found["classes"].index(row["class"]) for row in rows]
    probabilities = found["probabilities"][range(len(rows)), places]
    expected = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE.get(kind, 1e-4))


def test_code_of_timm_runs(trained):
    done = trained("export", "runs/image", "format=timm", "head=probe", "out=out")
    assert done.code == 0, done.err
    found = run_code(snippet(Path("out")), Path("out"))
    assert found["logits"].shape == (1, 3)
    assert found["probabilities"].sum() == pytest.approx(1)


def test_readme_names_what_goes_in_and_comes_out(trained):
    for kind, head in (("table", "probe"), ("value", "probe"), ("words", "none")):
        done = trained("export", f"runs/{kind}", "format=torch_export", f"head={head}", f"out={kind}")
        assert done.code == 0, done.err
    table, value, words = (Path(kind, "README.md").read_text() for kind in ("table", "value", "words"))
    assert "float32 (N, 3)" in table
    assert "in their order: 0, 1, 2." in table
    assert "'job': '`judge`'" in table
    assert "The output is the predicted value (N, 1)." in value
    assert "int64 (N, 12)" in words
    assert "vocabulary.txt" in words
    assert Path("words/preprocessor/vocabulary.txt").read_text().startswith("[PAD]\n")
    columns = json.loads(Path("table/preprocessor/preprocessor.json").read_text())["columns"]
    assert columns[1]["categories"] == ["`judge`", "cook", "nurse"]
    assert "Inputs are as" not in table


def test_kind_without_a_program(trained, monkeypatch):
    """A kind of data of a user: the shape and the type of an input, and the preprocessor."""
    monkeypatch.setattr("sslcli.data.standalone.guides.GUIDES", {})
    done = trained("export", "runs/words", "format=torch_export", "out=out")
    assert done.code == 0, done.err
    assert not Path("out/preprocess.py").exists()
    assert Path("out/preprocessor/vocabulary.txt").exists()
    assert run_code(snippet(Path("out")), Path("out"))["features"].shape == (2, 16)
