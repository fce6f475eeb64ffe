"""Errors and notes for bad inputs at the level of folders; test_decode.py covers the level of images.

The exit code is the error's own; the command line only prints it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sslcli.data.folders.paths import require_folder
from sslcli.data.inspect import format_rows, inspect, require_readable
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.series import series
from sslcli.errors import DataError, RequestError, SslError

from .conftest import make_image


def two_classes(root: Path, n: int = 4) -> Path:
    for c in ("cat", "dog"):
        (root / c).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            make_image(i + ord(c[0]) * 100).save(root / c / f"{i}.png")
    return root


# ------------------------------------------------------------------------------------------------ refused, with a hint


def _missing(root: Path) -> str:  # 16
    (two_classes(root) / "photos").mkdir()
    return str(root / "fotos")


def _missing_deep(root: Path) -> str:  # 16
    two_classes(root)
    return str(root / "no" / "such" / "place")


def _file(root: Path) -> str:  # 17
    return str(two_classes(root) / "cat" / "0.png")


def _empty(root: Path) -> str:  # 18
    root.mkdir()
    return str(root)


def _only_folders(root: Path) -> str:  # 18
    (root / "a" / "b").mkdir(parents=True)
    (root / "c").mkdir()
    return str(root)


def _other_files(root: Path) -> str:  # 18
    root.mkdir()
    for i in range(3):
        (root / f"{i}.txt").write_text("x")
    (root / "v.mp4").write_text("x")
    return str(root)


def _array_files(root: Path) -> str:  # 18
    root.mkdir()
    (root / "x.npy").write_bytes(b"x")
    return str(root)


def _zero_bytes(root: Path) -> str:  # 18, 30
    root.mkdir()
    for i in range(3):
        (root / f"{i}.jpg").touch()
    return str(root)


def _all_broken(root: Path) -> str:  # 31
    root.mkdir()
    for i in range(3):
        (root / f"{i}.jpg").write_text("<html>")
    return str(root)


def _too_many_broken(root: Path) -> str:
    two_classes(root, 20)
    for i in range(2):
        (root / "cat" / f"bad{i}.jpg").write_text("<html>")
    return str(root)


def _list_of_nothing(root: Path) -> str:
    root.mkdir()
    (root / "list.txt").write_text("a.jpg\nb.jpg\n")
    return str(root / "list.txt")


def _empty_list(root: Path) -> str:
    root.mkdir()
    (root / "list.txt").write_text("\n\n")
    return str(root / "list.txt")


def _csv_without_header(root: Path) -> str:
    two_classes(root)
    (root / "list.csv").write_text("cat/0.png,cat\n")
    return str(root / "list.csv")


def _ragged_csv(root: Path) -> str:
    two_classes(root)
    (root / "list.csv").write_text("path,label\ncat/0.png,cat\ncat/1.png\n")
    return str(root / "list.csv")


def _no_path(root: Path) -> str:
    return ""


REFUSED: list[tuple[Callable[[Path], str], type[SslError], str, str]] = [
    (_missing, RequestError, "does not exist", "did you mean dataset.path="),
    (_missing_deep, RequestError, "does not exist", "it holds cat, dog"),
    (_file, RequestError, "is a file", "did you mean dataset.path="),
    (_empty, DataError, "it is empty", "dataset.path=FOLDER"),
    (_only_folders, DataError, "3 folders below it", "dataset.path=FOLDER"),
    (_other_files, DataError, "3 .txt, 1 .mp4", "dataset.path=FOLDER"),
    (_array_files, DataError, "1 .npy", "dataset=arrays"),
    (_zero_bytes, DataError, "3 files of zero bytes", "dataset.path=FOLDER"),
    (_all_broken, DataError, "none of 3 sampled images can be read", "data inspect"),
    (_too_many_broken, DataError, "2 of 42 samples cannot be read, more than 1.0%", "max_bad_fraction"),
    (_list_of_nothing, DataError, "none of the 2 files", "relative to the folder of the list"),
    (_empty_list, DataError, "names no file", "one path per line"),
    (_csv_without_header, DataError, "no column named path", "path,label"),
    (_ragged_csv, DataError, "line 3", "correct that line"),
    (_no_path, RequestError, "dataset.path is missing", "dataset.path="),
]


@pytest.mark.parametrize(("make", "kind", "sentence", "hint"), REFUSED, ids=[r[0].__name__.strip("_") for r in REFUSED])
def test_refused(make, kind, sentence, hint, tmp_path):
    path = make(tmp_path / "root")
    with pytest.raises(SslError) as error:
        image_folder(path)
    assert type(error.value) is kind
    assert error.value.code == (2 if kind is RequestError else 7)
    assert sentence in error.value.message
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize("build", [arrays, series])
def test_missing_path_of_the_others(build, tmp_path):
    (tmp_path / "recordings.npz").touch()
    with pytest.raises(RequestError, match="does not exist") as error:
        build(str(tmp_path / "recording.npz"))
    assert f"did you mean dataset.path={tmp_path}/recordings.npz" in error.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": 100000},
        {"channels": 2},
        {"resident": "maybe"},
        {"holdout": 1.0},
        {"holdout": -0.1},
        {"max_bad_fraction": 2},
        {"range": "wide"},
        {"label": "column"},
    ],
    ids=str,
)
def test_wrong_values(wrong, tmp_path):
    with pytest.raises(RequestError) as error:
        image_folder(str(two_classes(tmp_path)), **wrong)
    assert f"dataset.{next(iter(wrong))}" in error.value.message


# ----------------------------------------------------------------------------------------------- gone on with, and said


def _one_denied_folder(root: Path, monkeypatch) -> None:  # 19
    (root / "secret").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # chmod stops nobody who is root


def _loops(root: Path, monkeypatch) -> None:  # 20
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "dog" / "up").symlink_to(root)
    (root / "aaa").symlink_to(root / "dog")
    (root / "parent").symlink_to(root.parent)


def _dangling(root: Path, monkeypatch) -> None:  # 21
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")


def _special(root: Path, monkeypatch) -> None:  # 22
    os.mkfifo(root / "cat" / "fifo.png")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(root / "cat")  # the name of a socket is short
        s.bind("s.png")
        os.chdir(here)


def _ignored(root: Path, monkeypatch) -> None:  # 23
    for name in (".DS_Store", "._0.jpg", "Thumbs.db", "logo.svg", "readme.txt"):
        (root / "cat" / name).write_text("x")
    (root / ".git").mkdir()
    make_image(1).save(root / ".git" / "x.png")


def _zero_byte_file(root: Path, monkeypatch) -> None:  # 30, at index time
    (root / "cat" / "void.png").touch()


def _empty_class(root: Path, monkeypatch) -> None:  # 26
    (root / "zebra").mkdir()
    (root / "fish").mkdir()
    (root / "fish" / "notes.txt").write_text("none yet")


GONE_ON = [
    (_one_denied_folder, "1 folder cannot be read"),
    (_loops, "4 repeated folder links"),
    (_dangling, "2 dangling links"),
    (_special, "3 special files"),
    (_ignored, "2 other files, 4 hidden files"),
    (_zero_byte_file, "1 unreadable sample left out"),
    (_empty_class, "warning: 2 folders without images, no classes: fish, zebra"),
]


@pytest.mark.parametrize(("add", "note"), GONE_ON, ids=[g[0].__name__.strip("_") for g in GONE_ON])
def test_tolerated_inputs(add, note, tmp_path, monkeypatch):
    root = two_classes(tmp_path / "root")
    add(root, monkeypatch)
    d = image_folder(str(root), holdout=0)
    assert len(d.train) == 8
    assert d.classes == ("cat", "dog")
    assert note in "\n".join(d.notes)
    assert note.split(": ")[-1].split(",")[0] in "\n".join(text for _, text in format_rows(inspect(d)))


def test_24_upper_case_extensions(tmp_path):
    root = two_classes(tmp_path)
    make_image(50).save(root / "cat" / "A.PNG")
    make_image(51).save(root / "cat" / "b.JpEg", format="JPEG")
    assert len(image_folder(str(root), holdout=0).train) == 10


STRANGE = [
    b"new\nline",
    b"quote'\"",
    b"<script>alert(1)</script>"[:24].replace(b"/", b"_"),
    b"\xff\xfe not utf-8",
    b"-rf",
    b"[red]x[",
    b"\x1b[31mred",
    b"n" * 250,
    "häß 猫".encode(),
    b" space ",
]


@pytest.mark.parametrize("resident", [True, False])
def test_unusual_file_names_are_read_and_escaped(resident, tmp_path):
    root = os.fsencode(two_classes(tmp_path / "root"))
    for i, name in enumerate(STRANGE):
        os.makedirs(os.path.join(root, name))
        make_image(i + 60).save(os.fsdecode(os.path.join(root, name, name + b".png")))
    (tmp_path / "root" / "empty\x1b[31m\udcff").mkdir()
    d = image_folder(os.fsdecode(root), resident=resident, holdout=0)
    assert len(d.train) == 8 + len(STRANGE)
    assert len(d.classes) == 2 + len(STRANGE)
    for i in range(len(d.train)):
        d.train.read(i)
    printed = [*d.notes, *(text for row in format_rows(inspect(d, strict=True)) for text in row)]
    assert all(line.isprintable() for line in printed)
    "\n".join(printed).encode("utf-8")  # no surrogate is left
    listed = tmp_path / "root" / "list.txt"
    one_line = [n for n in d.train.names if "\n" not in n]
    listed.write_bytes(b"\n".join(os.fsencode(n) for n in one_line))
    assert len(image_folder(str(listed), holdout=0).train) == len(one_line)


def test_single_class_adds_note(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(4):
        make_image(i).save(tmp_path / "cat" / f"{i}.png")
    assert "only one class (cat): supervised evaluations are not possible" in image_folder(str(tmp_path)).notes


def test_classes_of_one_sample_stay_in_train(tmp_path):
    root = two_classes(tmp_path, 1)
    d = image_folder(str(root))
    assert len(d.train) == 2


@pytest.mark.parametrize("resident", [True, False])
def test_same_image_in_train_and_test_warns(resident, tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val", 2)  # the first two of each class again
    for i in range(3):
        make_image(900 + i).save(tmp_path / "val" / "cat" / f"new{i}.png")
    d = image_folder(str(tmp_path), resident=resident)
    assert "warning: 4 test images also in train (same bytes): metrics will be too optimistic" in d.notes
    assert inspect(d, strict=True)["duplicates"]["in train and test"] == 4


def test_deleted_file_is_unreadable_and_new_file_is_ignored(tmp_path):
    root = two_classes(tmp_path)
    d = image_folder(str(root), resident=False, holdout=0)
    (root / "cat" / "0.png").unlink()
    make_image(1).save(root / "cat" / "new.png")
    assert len(d.train) == 8
    with pytest.raises(DataError, match="No such file"):
        d.train.read(0)
    assert isinstance(d.train.read(1), Image.Image)
    assert image_folder(str(root), resident=False, holdout=0).fingerprint != d.fingerprint


@pytest.mark.parametrize("resident", [True, False])
def test_unreadable_files_are_reported_and_replaced(resident, tmp_path):
    root = two_classes(tmp_path, 10)
    whole = (root / "cat" / "0.png").read_bytes()
    (root / "cat" / "cut.png").write_bytes(whole[:-60])
    d = image_folder(str(root), holdout=0, resident=resident)
    assert len(d.train) == 21
    assert d.train.labels.tolist() == [0] * 11 + [1] * 10
    report = inspect(d, strict=True)
    assert [b["name"] for b in report["bad"]] == ["cat/cut.png"]
    assert list(report["reasons"].values()) == [{"count": 1, "examples": ["cat/cut.png"]}]
    with pytest.raises(DataError, match="1 of 21 samples cannot be read"):
        require_readable(inspect(d, strict=True, limit=0))
    if resident:  # all were decoded: it is known at once
        note = next(n for n in d.notes if n.startswith("warning: 1 unreadable sample: cat/cut.png ("))
        assert note.endswith("; counted, replaced by another sample in training, left out of evaluations")
        assert not any("sample left out" in n for n in d.notes)
        with pytest.raises(DataError, match="1 of 21 samples cannot be read"):
            image_folder(str(root), holdout=0, max_bad_fraction=0)


def test_hint_with_a_space_can_be_pasted(tmp_path):
    (tmp_path / "my imgs" / "a").mkdir(parents=True)
    with pytest.raises(RequestError) as error:
        require_folder(str(tmp_path / "my imgz"), "a folder")
    assert error.value.hint == f"did you mean 'dataset.path={tmp_path}/my imgs' ?"
