"""sslcli data audit on planted faults, and dataset.exclude."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from sslcli.audit.copies import exact_copies, near_copies
from sslcli.audit.labels import wrong_labels
from sslcli.audit.pool import pool_of
from sslcli.builders import load_dataset
from sslcli.config import compose
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import DataError, RequestError
from sslcli.training.configuration import resolve
from sslcli.views.copies import NearCopies
from sslcli.views.modality import modality
from tests.conftest import SMOKE, Result

SIDE, COUNT = 72, 20
SHORT = [*SMOKE, "train.steps=2", "train.eval_every=0"]


def photo(seed: int) -> Image.Image:
    """A picture with contrast at all scales, unlike any other."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for n in (3, 9, 27)
    ]
    mean = sum(np.asarray(layer, np.float32) for layer in layers) / len(layers)
    return Image.fromarray(mean.astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with two classes, and one fault of each kind."""
    root = tmp_path_factory.mktemp("audit") / "photos"
    for split, first in (("train", 0), ("val", 100)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(COUNT):
                photo(first + i + 50 * (label == "dog")).save(root / split / label / f"{i}.png")
    train = root / "train"
    (train / "cat" / "same.png").write_bytes((train / "cat" / "0.png").read_bytes())
    photo(1).save(train / "cat" / "encoded.jpg", quality=50)
    photo(2).crop((3, 0, SIDE, SIDE - 3)).save(train / "cat" / "cropped.png")
    ImageOps.mirror(photo(3)).save(train / "dog" / "mirrored.png")
    (train / "dog" / "leak.png").write_bytes((root / "val" / "dog" / "5.png").read_bytes())
    Image.new("RGB", (SIDE, SIDE), (90, 20, 20)).save(train / "dog" / "plain.png")
    Image.fromarray((np.asarray(photo(999)) // 8).astype(np.uint8)).save(train / "dog" / "night.png")
    (train / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (train / "cat" / "empty.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def audited(folder: Path) -> Iterator[tuple[Path, list[dict[str, str]], Any]]:
    """The files of an audit, its rows, and what --json printed."""
    from sslcli.cli import main

    out = folder.parent / "audit.csv"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[Any] = []
        patch.setattr("sslcli.console.out_json", lines.append)
        patch.setenv("SSLCLI_JSON", "1")
        assert (
            main(
                [
                    "data",
                    "audit",
                    "dataset=image_folder",
                    f"dataset.path={folder}",
                    "dataset.image_size=64",
                    f"out={out}",
                    "--json",
                ]
            )
            == 0
        )
    with open(out, encoding="utf-8") as file:
        yield out, list(csv.DictReader(file)), lines[0]


def found(rows: list[dict[str, str]], issue: str) -> dict[str, tuple[str, str]]:
    return {row["path"]: (row["partner"], row["suggestion"]) for row in rows if row["issue"] == issue}


def test_planted_copies_are_found(audited: tuple[Path, list[dict[str, str]], Any]) -> None:
    _, rows, _ = audited
    assert found(rows, "exact_copy") == {"train/cat/same.png": ("train/cat/0.png", "exclude")}
    assert found(rows, "exact_copy_across_splits") == {"train/dog/leak.png": ("val/dog/5.png", "exclude")}
    near = found(rows, "near_copy")
    assert near.pop("train/dog/mirrored.png") == ("train/cat/3.png", "check; the labels differ: dog, cat")
    assert near == {
        "train/cat/encoded.jpg": ("train/cat/1.png", "exclude"),
        "train/cat/cropped.png": ("train/cat/2.png", "exclude"),
    }
    assert not found(rows, "near_copy_across_splits")


def test_planted_defects_are_found(audited: tuple[Path, list[dict[str, str]], Any]) -> None:
    _, rows, _ = audited
    assert list(found(rows, "one_color")) == ["train/dog/plain.png"]
    assert list(found(rows, "dark")) == ["train/dog/night.png"]
    unreadable = found(rows, "unreadable")
    assert list(unreadable) == ["train/cat/empty.png", "train/dog/broken.png"]
    assert unreadable["train/cat/empty.png"] == ("", "exclude; the file is empty")
    assert all(suggestion.startswith("exclude; ") for _, suggestion in unreadable.values())
    assert not found(rows, "wrong_label")  # the classes are random, and the probe knows that it cannot tell


def test_summary_and_page(audited: tuple[Path, list[dict[str, str]], Any]) -> None:
    out, rows, summary = audited
    assert sum(summary["issues"].values()) == len(rows)
    assert summary["samples"] == 4 * COUNT + 8
    assert any("labels were not judged" in note for note in summary["notes"])
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page
    assert page.count("<article") == len(rows)
    assert page.count("<img") == sum(1 + bool(row["partner"]) for row in rows if row["issue"] != "unreadable")


def test_exclusion_leaves_out_what_is_suggested(folder: Path, audited: tuple[Path, list[dict[str, str]], Any]) -> None:
    out, rows, _ = audited
    words = ["dataset=image_folder", f"dataset.path={folder}", "dataset.image_size=64", "dataset.max_bad_fraction=1"]
    whole = load_dataset(resolve(compose.compose("pretrain", words)))
    part = load_dataset(resolve(compose.compose("pretrain", [*words, f"dataset.exclude={out}"])))
    assert part.test is not None
    assert whole.test is not None
    names = {name for source in (whole.train, whole.test) for name in source.names or ()}
    left = {name for source in (part.train, part.test) for name in source.names or ()}
    suggested = {row["path"] for row in rows if row["suggestion"].startswith("exclude")}
    assert names - left == suggested - {"train/cat/empty.png"}  # which is no sample
    assert not any("of no sample there" in note for note in part.notes)
    assert part.fingerprint != whole.fingerprint
    assert part.details["excluded"] == {"train": 6, "test": 0}
    assert part.other_paths == {"exclude": str(out)}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, RequestError, "cannot be read"),
        ("name\nnowhere.png\n", DataError, "has no sample nowhere.png"),
        ("issue\ndark\n", DataError, "the header of"),
        ("path\n" + "\n".join(f"test/{i}" for i in range(360)), DataError, "leaves no sample in the split test"),
    ],
)
def test_unusable_exclusions(tmp_path: Path, content: str | None, error: type[Exception], message: str) -> None:
    file = tmp_path / "list.csv"
    if content is not None:
        file.write_text(content)
    cfg = resolve(compose.compose("pretrain", ["dataset=digits", f"dataset.exclude={file}"]))
    with pytest.raises(error, match=message):
        load_dataset(cfg)


def test_excluded_samples_stay_out_of_a_run(cli: Callable[..., Result], tmp_path: Path) -> None:
    """The key is part of the run: an evaluation reads the same samples."""
    file = tmp_path / "list.csv"
    file.write_text("path\n" + "\n".join(f"train/{i}" for i in range(0, 1400, 2)) + "\n")
    run = cli("pretrain", *SHORT, f"dataset.exclude={file}")
    assert run.code == 0, run.err
    record = json.loads((tmp_path / run.last / "status.json").read_text())["data"]
    assert record["samples"]["train"] == 1437 - 700
    file.write_text("path\ntrain/0\n")
    changed = cli("eval", "knn", f"run={run.last}")
    assert changed.code == 7
    assert "not those that" in changed.err


def test_refused_requests(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "audit.csv").write_text("mine")
    exists = cli("data", "audit", "dataset=digits")
    assert exists.code == 2
    assert "out=audit.csv exists" in exists.err
    nowhere = cli("data", "audit", "dataset=digits", "out=a.csv", "run=no-such-run")
    assert nowhere.code == 2
    assert not (tmp_path / "a.csv").exists()


def test_a_wrong_label_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of digits, of which a known fiftieth is wrong."""
    from sslcli.audit.audit import audit
    from sslcli.evals.base.features import EvalData

    dataset = load_dataset(resolve(compose.compose("pretrain", ["dataset=digits"])))
    labels = dataset.train.labels
    assert labels is not None
    wrong = torch.arange(7, len(labels), 50)
    dataset.train.labels = labels.clone()
    dataset.train.labels[wrong] = (labels[wrong] + 1 + wrong % 9) % 10
    result = audit(EvalData(dataset), None, 0)
    flagged = {f.sample: f.suggestion for f in result.findings if f.issue == "wrong_label"}
    hits = [i for i in wrong.tolist() if i in flagged]
    assert len(hits) / len(wrong) > 0.8
    assert len(hits) / len(flagged) > 0.6
    right = sum(flagged[i] == f"relabel: {dataset.classes[int(labels[i])]}" for i in hits)
    assert right / len(hits) > 0.9
    assert not {"near_copy", "near_copy_across_splits"} & set(
        result.counts()
    )  # of images of 8 x 8 pixels nobody can tell


@pytest.mark.parametrize(
    ("count", "grouped", "why"), [(3, False, "fewer than 5 labeled samples"), (40, True, "all are of one group")]
)
def test_labels_that_cannot_be_judged_are_right(count: int, grouped: bool, why: str) -> None:
    """A rare class, and one of a single group, which no other fold shows, leave the others judged and are no wrong labels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 60 + [1] * 60 + [2] * count)
    x = torch.randn(len(y), 8, generator=generator)
    x[torch.arange(len(y)), y] += 6
    wrong = [0, 30, 60, 90]
    y[wrong] = 1 - y[wrong]
    source = SimpleNamespace(groups=torch.where(y == 2, 99, torch.arange(len(y)) % 20) if grouped else None)
    pool: Any = SimpleNamespace(labels=y, source=source, class_name="abc".__getitem__)
    found, notes = wrong_labels(pool, torch.arange(len(y)), x, 0)
    flagged = {f.sample for f in found}
    assert len(flagged) >= 3  # a confident probability is at least the mean one of its class
    assert flagged <= set(wrong)
    assert notes == [f"labels of 1 class (c) were not judged: {why}"]


def test_report_shows_the_audit_of_a_run(cli: Callable[..., Result], tmp_path: Path) -> None:
    run = cli("pretrain", *SHORT).last
    audited = cli("data", "audit", f"run={run}", "device=cpu")
    assert audited.code == 0, audited.err
    assert "outliers and labels are judged by features of the backbone" in audited.err
    assert audited.last == "audit.csv"
    page = Path(cli("runs", "report", run).last).read_text(encoding="utf-8")
    assert "Audit of digits" in page
    assert re.search(r"samples</th><td[^>]*>(<span>)?1,?797<", page)
    (tmp_path / run / "summaries" / "audit.json").write_text('{"title": 3, "numbers": {"a": "<b>"}}')
    assert "Audit of digits" not in Path(cli("runs", "report", run).last).read_text(encoding="utf-8")


def test_audit_finds_the_data_of_a_run_elsewhere(
    cli: Callable[..., Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working folder, and after the data moved: the paths are those that the run recorded, or dataset.path."""
    (tmp_path / "photos").symlink_to(folder)
    words = ["dataset=image_folder", "dataset.path=photos", "dataset.image_size=32", "dataset.max_bad_fraction=0.1"]
    trained = cli("pretrain", *SHORT, *words)
    assert trained.code == 0, trained.err
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run = f"run={tmp_path / trained.last}"
    first = cli("data", "audit", run, "device=cpu")
    assert first.code == 0, first.err
    (tmp_path / "photos").unlink()
    gone = cli("data", "audit", run, "out=b.csv", "device=cpu")
    assert gone.code == 7
    moved = cli("data", "audit", run, f"dataset.path={folder}", "out=b.csv", "device=cpu")
    assert moved.code == 0, moved.err
    assert Path("audit.csv").read_text() == Path("b.csv").read_text()


def shape(kind: str, figure: tuple[int, ...], ground: tuple[int, ...], seed: int, shift: int = 0) -> Image.Image:
    """A shape in one color on another, with noise: its edges are all of its details."""
    image = Image.new("RGB", (SIDE, SIDE), ground)
    draw = ImageDraw.Draw(image)
    box = (20 + shift, 20, 50 + shift, 50)
    draw.ellipse(box, fill=figure) if kind == "circle" else draw.rectangle(box, fill=figure)
    noise = np.random.default_rng(seed).normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def test_shapes_of_other_colors_are_not_excluded(cli: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    shape("square", (60, 90, 220), (10, 10, 10), 0).save(folder / "a.png")
    shape("square", (190, 200, 240), (60, 20, 20), 1, shift=1).save(folder / "b.png")
    shape("circle", (220, 60, 60), (20, 20, 60), 2).save(folder / "c.png")
    shape("circle", (220, 60, 60), (20, 20, 60), 2).save(folder / "c.jpg", quality=60)
    darker = shape("circle", (220, 60, 60), (20, 20, 60), 2).point(lambda value: int(value * 0.7))
    darker.save(folder / "d.png")
    for i in range(10):
        photo(i).save(folder / f"photo{i}.png")
    words = ["dataset=image_folder", f"dataset.path={folder}", "dataset.image_size=64", "dataset.holdout=0"]
    done = cli("data", "audit", *words, "out=shapes.csv")
    assert done.code == 0, done.err
    assert f"next  sslcli pretrain {shlex.join(words)} dataset.exclude=shapes.csv\n" in done.err
    with open("shapes.csv", encoding="utf-8") as file:
        near = found(list(csv.DictReader(file)), "near_copy")
    assert near.pop("b.png") == ("a.png", "check; the colors differ")
    assert {name: suggestion for name, (_, suggestion) in near.items()} == {"c.png": "exclude", "d.png": "exclude"}


def test_one_of_each_confirmed_pair_is_kept() -> None:
    """0 and 1 are similar, 1 and 2 are confirmed copies: only one of these is left out."""

    class Rule(NearCopies):
        candidate, threshold, note, doubt = 0.5, 0.5, "", "the colors differ"

        def describe(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a * b).sum(dim=1)

        def confirmed(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a * b).sum(dim=1) > 0.95

    angles = torch.tensor([0.0, 0.7, 0.75])
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    pool = pool_of(Dataset("toy", "table", (2,), ArraySource(x), None))
    result = near_copies(pool, Rule(), torch.arange(3), x, lambda ids: x[ids])
    assert {f.sample: (f.partner, f.suggestion) for f in result} == {
        2: (1, "exclude"),
        1: (0, "check; the colors differ"),
    }


@pytest.mark.parametrize(
    ("kind", "ids", "suggestion"),
    [
        ("table", None, "exclude"),
        ("table", "customer", "check; the identifiers differ"),
        ("interactions", None, "check; users of few events can have equal histories"),
    ],
)
def test_equal_samples_that_may_be_different_things_are_not_left_out(
    kind: str, ids: str | None, suggestion: str
) -> None:
    """Two customers of the same values, and two users of the same short history."""
    x = torch.tensor([[1, 2], [3, 4], [1, 2]])
    data = Dataset("toy", kind, (2,), ArraySource(x), None, id=ids)
    found = exact_copies(pool_of(data), torch.arange(3), modality(kind).doubts_copies(data))
    assert [(f.sample, f.partner, f.issue, f.suggestion) for f in found] == [(2, 0, "exact_copy", suggestion)]
