from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.folders import headers
from sslcli.data.inspect import format_rows, inspect, require_readable
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.split import split
from sslcli.errors import DataError, RequestError

from .conftest import make_image


def say(dataset) -> str:
    return "\n".join(dataset.notes)


def test_class_folders(make_folder):
    d = image_folder(str(make_folder({"cat": 10, "dog": 5})))
    assert d.classes == ("cat", "dog")
    assert (len(d.train), len(d.test)) == (12, 3)
    assert d.shape == (3, 20, 20)  # all 24 x 20: the short side
    assert d.train.resident.tensor.shape == (12, 3, 20, 24)
    assert d.train.resident.tensor.dtype == torch.uint8
    assert torch.bincount(d.test.labels).tolist() == [2, 1]
    for source in (d.train, d.test):
        for label, name in zip(source.labels.tolist(), source.names, strict=True):
            assert name.startswith(d.classes[label] + "/")
    assert "class folders: 15 images of 2 classes" in say(d)
    assert "stratified by class" in say(d)


def test_resident_pixels_are_the_files_pixels(make_folder):
    root = make_folder({"a": 3, "b": 3})
    d = image_folder(str(root), holdout=0)
    assert d.test is None
    for i, name in enumerate(d.train.names):
        pixels = np.asarray(Image.open(root / name))
        assert np.array_equal(d.train.resident.tensor[i].permute(1, 2, 0).numpy(), pixels)
    x = d.train.resident.tensor.double() / 255
    assert np.allclose(d.values.mean, x.mean((0, 2, 3)).tolist(), atol=1e-9)
    assert np.allclose(d.values.std, x.std((0, 2, 3), correction=0).tolist(), atol=1e-9)


def test_flat_has_no_labels(make_folder):
    d = image_folder(str(make_folder({"": 10})))
    assert (d.classes, d.train.labels, len(d.train), d.test) == ((), None, 10, None)
    assert "flat folder of 10 images, no labels" in say(d)
    assert "nothing is held out" in say(d)
    old = image_folder(d.details["root"], holdout=0.2)  # as the configuration of a run made before says
    kept, held = split(10, 0.2)
    assert [old.train.names[i] for i in range(8)] == [d.train.names[i] for i in kept]
    assert [old.test.names[i] for i in range(2)] == [d.train.names[i] for i in held]


def test_nested_takes_the_top_folders_as_classes(make_folder):
    d = image_folder(str(make_folder({"cat/2020/may": 3, "cat": 1, "dog/x": 4})), holdout=0)
    assert d.classes == ("cat", "dog")
    assert torch.bincount(d.train.labels).tolist() == [4, 4]
    assert "nested class folders: 8 images of 2 classes (the top folders)" in say(d)


def test_single_folders_are_descended_into(make_folder):
    d = image_folder(str(make_folder({"archive/images/cat": 3, "archive/images/dog": 3})), holdout=0)
    assert d.classes == ("cat", "dog")


def test_images_beside_class_folders_have_no_label(make_folder):
    d = image_folder(str(make_folder({"": 3, "cat": 3, "dog": 3})), holdout=0)
    assert Counter(d.train.labels.tolist()) == {-1: 3, 0: 3, 1: 3}
    assert "3 images beside them without label" in say(d)


def test_split_folders(make_folder):
    spec = {"train/cat": 4, "train/dog": 4, "Val/cat": 2, "Val/dog": 2, "test/cat": 1, "unlabeled": 5}
    d = image_folder(str(make_folder(spec)))
    assert (len(d.train), len(d.test), len(d.unlabelled)) == (8, 1, 5)
    assert d.pretrain is d.unlabelled
    assert d.unlabelled.labels is None
    assert "val: 4 images not used" in say(d)
    assert "splits by folder" in say(d)


def test_val_is_the_held_out_split_without_a_test(make_folder):
    d = image_folder(str(make_folder({"train/cat": 4, "train/dog": 4, "validation/cat": 2, "validation/dog": 3})))
    assert (len(d.train), len(d.test)) == (8, 5)


def test_class_named_train_among_other_classes(make_folder):
    d = image_folder(str(make_folder({"train": 3, "plane": 3, "car": 3})), holdout=0)
    assert d.classes == ("car", "plane", "train")


def test_single_class_is_noted(make_folder):
    d = image_folder(str(make_folder({"only": 4})))
    assert d.classes == ("only",)
    assert "only one class" in say(d)


def test_list_txt(make_folder, tmp_path):
    make_folder({"a": 6})
    (tmp_path / "list.txt").write_text("photos/a/000.png\n\nphotos/a/003.png\r\nphotos/a/000.png\nphotos/a/nope.png\n")
    d = image_folder(str(tmp_path / "list.txt"), holdout=0)
    assert list(d.train.names) == ["photos/a/000.png", "photos/a/003.png"]
    assert "1 unreadable sample left out: photos/a/nope.png (No such file or directory)" in say(d)
    assert "1 repeated line" in say(d)
    assert "2 images, no labels" in say(d)


def test_list_csv_with_labels_splits_groups(make_folder, tmp_path):
    make_folder({"a": 12})
    lines = ["path,label,split,who"] + [
        f"photos/a/{i:03d}.png,{'xyz'[i % 3]},{'test' if i > 8 else ''},p{i}" for i in range(12)
    ]
    (tmp_path / "list.csv").write_text("\ufeff" + "\n".join(lines))
    d = image_folder(str(tmp_path / "list.csv"))
    assert d.classes == ("x", "y", "z")
    assert (len(d.train), len(d.test)) == (9, 3)
    other = image_folder(str(tmp_path / "list.csv"), label="who", holdout=0)
    assert len(other.classes) == 12
    assert image_folder(str(tmp_path / "list.csv"), label="none").classes == ()


def test_list_csv_groups_stay_together(make_folder, tmp_path):
    make_folder({"a": 12})
    (tmp_path / "g.csv").write_text("path,group\n" + "\n".join(f"photos/a/{i:03d}.png,g{i // 3}" for i in range(12)))
    d = image_folder(str(tmp_path / "g.csv"), holdout=0.25)
    group = lambda s: {int(n[-7:-4]) // 3 for n in s.names}  # noqa: E731
    assert not group(d.train) & group(d.test)
    assert "by group" in say(d)


def test_same_seed_same_split_and_fingerprint(make_folder):
    root = str(make_folder({"a": 20, "b": 20}))
    one, two, other = image_folder(root), image_folder(root), image_folder(root, split_seed=1)
    assert list(one.test.names) == list(two.test.names) != list(other.test.names)
    assert one.fingerprint == two.fingerprint == other.fingerprint
    assert one.fingerprint.startswith("40-")


def test_fingerprint_changes_with_the_files(make_folder):
    root = make_folder({"a": 4, "b": 4})
    before = image_folder(str(root)).fingerprint
    make_image(99).save(root / "b" / "new.png")
    assert image_folder(str(root)).fingerprint != before


def test_several_sizes_are_streamed(make_folder):
    root = make_folder({"a": 4, "b": 4})
    make_image(3, 300, 280).save(root / "a" / "large.png")
    d = image_folder(str(root), image_size=16)
    assert d.train.resident is None
    assert isinstance(d.train, ImageFiles)
    assert d.shape == (3, 16, 16)
    assert d.train.read(0).mode == "RGB"
    assert len(d.values.mean) == len(d.values.std) == 3
    assert "2 sizes, short side 20..280" in say(d)
    assert image_folder(str(root)).shape == (3, 224, 224)
    with pytest.raises(RequestError, match="one size"):
        image_folder(str(root), resident=True)


def test_resident_budget(make_folder, monkeypatch):
    root = str(make_folder({"a": 4, "b": 4}))
    monkeypatch.setattr(headers, "RESIDENT_BYTES", 8 * 20 * 24 * 3 - 1)
    assert image_folder(root).train.resident is None
    assert image_folder(root, resident=True).train.resident is not None
    monkeypatch.setattr(headers, "RESIDENT_BYTES", 8 * 20 * 24 * 3)
    assert image_folder(root).train.resident is not None
    assert image_folder(root, resident=False).train.resident is None


def test_gray_images_have_one_channel(make_folder, tmp_path):
    root = tmp_path / "grey"
    for c in "ab":
        (root / c).mkdir(parents=True)
        for i in range(4):
            make_image(i + ord(c), mode="L").save(root / c / f"{i}.png")
    assert image_folder(str(root)).shape[0] == 1
    assert image_folder(str(root), channels=3).train.resident.tensor.shape[1] == 3
    make_image(1).save(root / "a" / "colour.png")
    assert image_folder(str(root)).shape[0] == 3


def test_deep_alpha_and_animated_images_are_noted(tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100).save(root / "deep.png")
    make_image(1, 20, 20, "RGBA").save(root / "alpha.png")
    make_image(1, 20, 20).save(root / "film.gif", save_all=True, append_images=[make_image(2, 20, 20)])
    d = image_folder(str(root), holdout=0)
    for part in ("1 image of more than 8 bits per value", "1 image with transparency", "1 image with several frames"):
        assert part in say(d)


def test_inspect(make_folder, tmp_path):
    root = make_folder({"a": 5, "b": 5})
    (root / "b" / "x.txt").write_text("no image")
    make_image(77, 30, 30).save(root / "a" / "odd.jpg")
    data = (root / "a" / "odd.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(data[:-100])
    (root / "a" / "again.png").write_bytes((root / "a" / "000.png").read_bytes())
    d = image_folder(str(root), holdout=0, image_size=16)
    report = json.loads(json.dumps(inspect(d)))
    assert report["bad"] == []  # its header is whole: only decoding tells
    report = json.loads(json.dumps(inspect(d, strict=True)))
    assert [b["name"] for b in report["bad"]] == ["a/cut.jpg"]
    assert "truncated" in report["bad"][0]["reason"]
    assert report["duplicates"] == {"in train and test": 0, "within train": 1}
    assert report["balance"] == {"a": 8, "b": 5}
    assert report["splits"]["train"]["samples"] == 13
    text = "\n".join(f"{k}: {v}" for k, v in format_rows(report))
    assert "a/cut.jpg" in text
    assert "ignored: 1 other file" in text
    assert report["limit"] == {"of": 13, "max_bad_fraction": 0.01, "exceeded": False}
    require_readable(report)  # one of 13: no training would stop
    with pytest.raises(DataError, match="cut"):
        require_readable(inspect(d, strict=True, limit=0))


def test_photos(test_data, tmp_path):
    """3,000 real JPEGs as class folders, one flat folder, and a list file."""
    import zipfile

    with zipfile.ZipFile(test_data / "photos" / "imagenette224.zip") as z:
        names = [n for n in z.namelist() if n.startswith("val/") and n.endswith(".JPEG")][::3]
        z.extractall(tmp_path, names)
    flat = tmp_path / "flat"
    flat.mkdir()
    for n in names:
        os.link(tmp_path / n, flat / os.path.basename(n))
    (tmp_path / "list.txt").write_text("\n".join(names))
    by_class, one_flat, listed = (image_folder(str(tmp_path / p)) for p in ("val", "flat", "list.txt"))
    assert len(by_class.classes) == 10
    assert one_flat.classes == listed.classes == ()
    for d in (by_class, one_flat, listed):
        assert (len(d.train) + len(d.test), d.shape) == (len(names), (3, 224, 224))
        assert d.train.resident is not None
