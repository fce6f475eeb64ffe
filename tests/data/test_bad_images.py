"""Resident and streamed data treat unreadable files alike: the same ids, counts, limit and messages."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.images import decode
from sslcli.data.inspect import format_rows, inspect, require_readable
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.loading.loader import Loader
from sslcli.data.sources.image_folder import image_folder
from sslcli.errors import DataError, RequestError
from sslcli.views import Views, clean

from .bad_files import BAD, decode_in_child, encoded, make_folder, mutated
from .conftest import make_image

RECIPE = {"global": {"horizontal_flip": {"p": 0.5}}}


def test_number_of_bad_files():
    assert len(BAD) >= 30


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_files_fail_in_header_or_decoding(kind, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(BAD[kind]())
    with pytest.raises(decode.BadImage) as error:
        decode.load(str(path))
    assert error.value.message.isprintable()
    assert str(tmp_path) not in error.value.message


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("spoilt") / "images"
    return root, make_folder(root, 600, 0.1)


@pytest.fixture(scope="module")
def both(spoilt):
    root, _ = spoilt
    return {r: image_folder(str(root), resident=r, max_bad_fraction=0.2) for r in (True, False)}


def test_strict_inspection_counts_all_bad_files(spoilt, both):
    _, truth = spoilt
    for resident, d in both.items():
        assert (d.train.resident is not None) == resident
        report = json.loads(json.dumps(inspect(d, strict=True)))
        assert {b["name"] for b in report["bad"]} == set(truth)
        assert sum(r["count"] for r in report["reasons"].values()) == len(truth)
        assert report["limit"] == {"of": 600, "max_bad_fraction": 0.2, "exceeded": False}
        assert all(line.isprintable() for row in format_rows(report) for line in row)
        require_readable(report)
        with pytest.raises(DataError, match="60 of 600 samples cannot be read"):
            require_readable(inspect(d, strict=True, limit=0.01))
    reports = [inspect(d, strict=True) for d in both.values()]
    for key in ("bad", "reasons", "limit", "duplicates", "balance", "fingerprint", "classes"):
        assert reports[0][key] == reports[1][key], key


def test_replacements_are_the_same(both):
    unreadable, seen = {}, {}
    for resident, d in both.items():
        loader = Loader(d.train, Views({"global": 1}, RECIPE, d), batch_size=32, seed=3)
        with_gaps = [i for step in range(2 * loader.steps_per_epoch) for i in loader.ids(step)]
        batches = list(islice(loader.stream(), len(with_gaps)))
        seen[resident] = [b.ids.tolist() for b in batches]
        unreadable[resident] = dict(loader.bad)
        asked = [i.tolist() for i in with_gaps]
        assert asked != seen[resident]
        for a, b in zip(asked, seen[resident], strict=True):  # only what is unreadable is replaced
            assert all(i == j or d.train.name_of(i) in unreadable[resident] for i, j in zip(a, b, strict=True))
    assert seen[True] == seen[False]
    assert unreadable[True] == unreadable[False]
    assert len(unreadable[True]) > 30


def test_evaluation_skips_the_same_samples(both):
    found = {}
    for resident, d in both.items():
        bad: list[tuple[str, str]] = []
        got = list(iterate_batches(d.test, clean(d), batch_size=16, bad=bad))
        found[resident] = torch.cat([i for i, _ in got]).tolist(), sorted(bad)
    assert found[True] == found[False]
    assert len(found[True][0]) + len(found[True][1]) == len(both[True].test)


def test_bad_fraction_limit_at_start(spoilt):
    root, _ = spoilt
    for resident in (True, False):
        with pytest.raises(DataError, match=r"\d+ of 600 samples cannot be read, more than 1\.0%") as error:
            image_folder(str(root), resident=resident)
        assert error.value.code == 7
        assert "dataset.max_bad_fraction=" in error.value.hint


def test_bad_fraction_limit_in_training(tmp_path):
    """Valid headers with corrupt images: detected at once in resident data, and when decoded in streamed data."""
    for i in range(60):
        data = encoded(make_image(i, 64, 64), "PNG")
        (tmp_path / f"{i}.png").write_bytes(data if i % 10 else data[:-300])
    with pytest.raises(DataError, match=r"6 of 60 samples cannot be read, more than 1\.0%"):
        image_folder(str(tmp_path), holdout=0, resident=True)
    d = image_folder(str(tmp_path), holdout=0, resident=False)
    with pytest.raises(DataError, match=r"\d of 60 samples cannot be read, more than 1\.0%") as error:
        list(islice(Loader(d.train, Views({"global": 1}, RECIPE, d), batch_size=30, seed=0).stream(), 2))
    assert error.value.code == 7


def test_statistics_ignore_unreadable_samples(tmp_path):
    for i in range(20):
        Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / f"{i}.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "0.png").read_bytes()[:-30])
    for resident in (True, False):
        d = image_folder(str(tmp_path), holdout=0, resident=resident)
        assert np.allclose(d.values.mean, np.array([200, 100, 50]) / 255)
        assert len(d.train) == 21


def test_unreadable_samples_are_logged_in_training(tmp_path, messages):
    for i in range(40):
        make_image(i).save(tmp_path / f"{i:02d}.png")
    d = image_folder(str(tmp_path), holdout=0, resident=False, max_bad_fraction=0.5)
    for i in range(8):
        (tmp_path / f"{i:02d}.png").unlink()  # 29: gone while training
    loader = Loader(d.train, Views({"global": 1}, RECIPE, d), batch_size=8, seed=0)
    list(islice(loader.stream(), 10))
    assert len(loader.bad) == 8
    assert len(messages) == 5
    assert all("No such file or directory" in line for line in messages)


def test_file_without_permission_is_unreadable(tmp_path, monkeypatch):  # 19
    for i in range(30):
        make_image(i).save(tmp_path / f"{i}.png")
    real = Image.open

    def refuse(path, *args, **kw):
        if str(path).endswith("/7.png"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **kw)

    monkeypatch.setattr(Image, "open", refuse)  # chmod stops nobody who is root
    for resident in (True, False):
        d = image_folder(str(tmp_path), holdout=0, resident=resident)
        assert inspect(d, strict=True)["bad"] == [{"name": "7.png", "reason": "Permission denied"}]


@pytest.mark.parametrize("resident", [True, False])
def test_max_pixels(resident, tmp_path):  # 43
    for i in range(6):
        make_image(i, 64, 64).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"64 x 64 pixels exceed 4,000 \(dataset.max_pixels\)"):
        image_folder(str(tmp_path), resident=resident, max_pixels=4000)
    assert len(image_folder(str(tmp_path), resident=resident, holdout=0, max_pixels=4096).train) == 6
    with pytest.raises(RequestError, match="max_pixels"):
        image_folder(str(tmp_path), max_pixels=0)


def test_max_pixels_overrides_limit_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "x.png"
    path.write_bytes(encoded(make_image(0, 64, 64), "PNG"))
    assert decode.load(str(path)).size == (64, 64)


ODD = {  # what is no fault, and what is said of it
    "sixteen bits": (
        lambda: Image.fromarray(np.full((20, 24), 60_000, np.uint16)),
        "PNG",
        "of more than 8 bits per value",
    ),  # 39
    "floats": (
        lambda: Image.fromarray(np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)),
        "TIFF",
        "more than 8 bits",
    ),
    "transparent": (lambda: make_image(1, mode="RGBA"), "PNG", "with transparency"),  # 38
    "cmyk": (lambda: make_image(2, mode="CMYK"), "JPEG", "all 24x20"),  # 36
    "bilevel": (lambda: make_image(3, mode="1"), "PNG", "all 24x20"),  # 37
    "several frames": (lambda: make_image(4), "GIF", "with several frames"),  # 41
    "turned": (lambda: make_image(5, 20, 24), "JPEG", "all 24x20"),  # 42
}


@pytest.mark.parametrize("what", sorted(ODD))
def test_unusual_images_are_read_and_noted(what, tmp_path):
    make, kind, note = ODD[what]
    kw: dict = {"save_all": True, "append_images": [make_image(9)]} if kind == "GIF" else {}
    if what == "turned":
        kw["exif"] = Image.Exif()
        kw["exif"][0x0112] = 6
    (tmp_path / "odd.jpg").write_bytes(encoded(make(), kind, **kw))  # 32: the content decides
    for i in range(5):
        make_image(20 + i).save(tmp_path / f"{i}.png")
    one, other = (image_folder(str(tmp_path), holdout=0, resident=r, channels=3) for r in (True, False))
    assert one.notes == other.notes
    assert any(note in n for n in one.notes)
    assert inspect(one, strict=True)["bad"] == []
    i = list(one.train.names).index("odd.jpg")
    assert np.array_equal(one.train.read(i).permute(1, 2, 0).numpy(), np.asarray(other.train.read(i)))


def test_unsupported_formats_are_named(tmp_path):
    for i in range(3):
        make_image(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert any("3 .heic: not supported by the installed Pillow" in n for n in image_folder(str(tmp_path)).notes)
    for i in range(3):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(DataError) as error:
        image_folder(str(tmp_path))
    assert "convert them" in error.value.hint


# ------------------------------------------------------------------------------------------------ list files


LISTS = [  # 46, 50
    ("where;label\na.png;x\n", "no column named path", "path,label"),
    ("path,label,label\na.png,x,y\n", "two columns named label", "another name"),
    ("path,label\na.png,x\na.png,y\n", "line 3: a.png is already in line 2", "remove one"),
    ("path,split\na.png,train\na.png,test\n", "line 3: a.png is already in line 2", "remove one"),
    ("path,split\na.png,early\n", "as the split, got early", ""),
    ("path,label\n", "names no file", "one path per line"),
    ("", "header is empty", "path,label"),
    ('path,label\n"a.png,x\n', "is not a CSV file", ""),
    ("path,label\nnull\0.png,x\n", "none of the 1 file", "relative"),
]


@pytest.mark.parametrize(("text", "sentence", "hint"), LISTS, ids=range(len(LISTS)))
def test_invalid_list_files(text, sentence, hint, tmp_path):
    make_image(0).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_bytes(text.encode())
    with pytest.raises(DataError) as error:
        image_folder(str(tmp_path / "list.csv"))
    assert sentence in error.value.message
    assert hint in (error.value.hint or "")


def test_a_list_may_name_anything(tmp_path):
    """A FIFO, a device, a folder, nothing: unreadable samples, and no open that blocks."""
    for i in range(60):
        make_image(i).save(tmp_path / f"{i}.png")
    for name in ("one.png", "two.png"):
        os.mkfifo(tmp_path / name)
    names = [f"{i}.png" for i in range(60)] + ["one.png", "two.png", "/dev/zero", ".", "gone.png", "gone\0.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    for resident in (True, False):
        d = image_folder(str(tmp_path / "list.txt"), resident=resident, max_bad_fraction=0.2)
        report = inspect(d, strict=True)
        assert {b["name"] for b in report["bad"]} == set(names[60:])
        assert report["limit"]["of"] == 66
    with pytest.raises(DataError, match="6 of 66 samples cannot be read"):
        image_folder(str(tmp_path / "list.txt"))


# ------------------------------------------------------------------------------------------------ mutated files


def test_mutated_array_files_raise_data_error(tmp_path):
    """300 here, 2,000 in benchmarks/bad_folder.py: no crash, nothing but BadImage, no more than 2 s each."""
    paths = mutated(tmp_path / "m", int(os.environ.get("SSLCLI_MUTATIONS", "300")))
    results = decode_in_child(paths, timeout=60 + len(paths) / 5)
    assert len(results) == 2 * len(paths)
    counts = Counter(result for _, _, result, _ in results)
    assert set(counts) == {"good", "bad"}, counts
    assert min(counts.values()) > 30
    assert max(seconds for *_, seconds in results) < 2
    by_path: dict[str, dict[str, str]] = {}
    for path, what, result, _ in results:
        by_path.setdefault(path, {})[what] = result
    # a header is bad only where decoding is: else memory and workers would count differently
    assert not [p for p, r in by_path.items() if r["read_header"] == "bad" and r["load"] == "good"]
