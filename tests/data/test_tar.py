"""Tar shards: the same samples, order and splits as a folder; corrupt shards are refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from sslcli.data.dataset import Dataset
from sslcli.data.images.decode import BadImage
from sslcli.data.loading.loader import Loader
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files.writer import write_pack
from sslcli.data.sources.tar import tar
from sslcli.data.sources.tar_files import index as tar_index
from sslcli.data.sources.tar_files import shards as tar_shards
from sslcli.data.sources.tar_files.shards import expand_braces
from sslcli.errors import DataError, RequestError
from sslcli.views import Views
from tests.data.conftest import make_image
from tests.data.test_pack import RECIPE


@pytest.fixture(autouse=True)
def index_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_DATA", str(tmp_path / "data"))


def encoded(seed: int, width: int = 24, height: int = 20) -> bytes:
    out = io.BytesIO()
    make_image(seed, width, height).save(out, "PNG")
    return out.getvalue()


def write(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as file:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    return path


def samples(start: int, n: int, label: str = "cls") -> dict[str, bytes]:
    """Keys of six digits; ten or two classes in turn."""
    out: dict[str, bytes] = {}
    for i in range(start, start + n):
        out[f"{i:06d}.png"] = encoded(i)
        if label == "cls":
            out[f"{i:06d}.cls"] = str(i % 11).encode()
        elif label == "json":
            out[f"{i:06d}.json"] = json.dumps({"label": i % 2, "who": f"p{i % 3}", "caption": "words"}).encode()
    return out


def shards(root: Path, label: str = "cls", count: int = 3, each: int = 8) -> Path:
    for s in range(count):
        write(root / f"s-{s:02d}.tar", samples(s * each, each, label))
    return root


def opened(path: object, **keys: object) -> Dataset:
    return tar(str(path), **({"resident": False, "image_size": 16} | keys))  # type: ignore[arg-type]


def pixels_of(source, i):
    return source.read(i).tobytes()


def test_numeric_cls_labels_are_sorted_by_value(tmp_path):
    d = opened(shards(tmp_path / "t"), holdout=0)
    assert d.classes == tuple(map(str, range(11)))
    assert d.train.labels.tolist() == [i % 11 for i in range(24)]
    assert d.train.names[9] == "s-01.tar/000009.png"
    assert pixels_of(d.train, 9) == make_image(9).tobytes()
    assert any("3 tar files: 24 images, 11 classes" in n for n in d.notes)


def test_tar_label_sources(tmp_path):
    root = shards(tmp_path / "j", "json")
    assert opened(root, holdout=0).classes == ("0", "1")
    assert opened(root, holdout=0, label="who").classes == ("p0", "p1", "p2")
    assert opened(root, holdout=0, label="none").train.labels is None
    plain = opened(shards(tmp_path / "n", "none"), holdout=0)
    assert plain.train.labels is None
    assert plain.classes == ()
    members = {f"./{c}/{i}.jpg.png": encoded(i) for i, c in enumerate(["cat", "dog"] * 4)}
    assert opened(write(tmp_path / "f.tar", members), holdout=0).classes == ("cat", "dog")
    texts = {f"{i}.{e}": c for i in range(6) for e, c in (("png", encoded(i)), ("txt", b"ab"[i % 2 : i % 2 + 1]))}
    worded = write(tmp_path / "w.tar", texts)
    assert opened(worded, holdout=0).classes == ()
    assert opened(worded, holdout=0, label="txt").classes == ("a", "b")
    with pytest.raises(RequestError, match="no sample has"):
        opened(root, label="whom")


def test_views_are_those_of_the_folder(tmp_path):
    for split, start in (("train", 0), ("val", 100)):
        for i in range(start, start + 10):
            (tmp_path / "d" / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "d" / split / "ab"[i % 2] / f"{i:03d}.png").write_bytes(encoded(i, 30 + i % 3, 20))
    for split in ("train", "val"):
        names = sorted((tmp_path / "d" / split).rglob("*.png"))
        write(
            tmp_path / "t" / f"{split}-0.tar",
            {str(p.relative_to(tmp_path / "d" / split)): p.read_bytes() for p in names},
        )
    files, tarred = image_folder(str(tmp_path / "d"), resident=False, image_size=16), opened(tmp_path / "t")
    for key in ("shape", "classes", "values"):
        assert getattr(files, key) == getattr(tarred, key)
    assert len(tarred.test) == 10
    batches = []
    for d, workers in ((files, 0), (tarred, 0), (tarred, 2)):
        assert torch.equal(d.train.labels, files.train.labels)
        stream = Loader(d.pretrain, Views({"global": 2}, RECIPE, d), batch_size=4, seed=3, workers=workers).stream()
        batches.append([v for _ in range(3) for v in next(stream).views])
        stream.close()
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))


def test_tar_can_be_packed_and_resident(tmp_path):
    d = opened(shards(tmp_path / "t"))
    assert write_pack(d, tmp_path / "p.pack")
    packed = pack(str(tmp_path / "p.pack"))
    assert list(packed.train.names) == list(d.train.names)
    assert torch.equal(packed.train.labels, d.train.labels)
    assert packed.fingerprint == d.fingerprint
    inside = tar(str(tmp_path / "t"))
    assert inside.train.resident is not None
    assert inside.train.digest(3) == d.train.digest(3) == packed.train.digest(3)


def test_tar_index_is_cached_until_shard_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", samples(0, 6))
    first = opened(path, holdout=0)
    passes = []
    real = tar_index._read_headers
    monkeypatch.setattr(tar_index, "_read_headers", lambda *a: passes.append(a) or real(*a))
    again = opened(path, holdout=0)
    assert not passes
    assert list(again.train.names) == list(first.train.names)
    assert torch.equal(again.train.labels, first.train.labels)
    write(path, samples(0, 7))
    assert len(opened(path, holdout=0).train) == 7
    assert len(passes) == 1
    with pytest.raises(BadImage, match="changed"):
        first.train.read(0)
    for index in (tmp_path / "data" / "tar-index").iterdir():  # foreign or truncated
        index.write_text('{"samples": [["x.png", 1, 99999999, null]], "ignored": {}}')
    assert len(opened(path, holdout=0).train) == 7


def test_index_that_cannot_be_cached_warns(tmp_path, messages, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLCLI_DATA", str(tmp_path / "file"))
    assert len(opened(write(tmp_path / "a.tar", samples(0, 6)), holdout=0).train) == 6
    assert any("cannot be cached" in line for line in messages)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_formats_long_names_and_ignored_members(tmp_path, form):
    long = "/".join(["folder" * 8] * 3) + "/x.png"
    path = write(tmp_path / "a.tar", {long: encoded(1), "y.png": encoded(2), "y.npy": b"1", "z.png": b""}, form)
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    d = opened(path, holdout=0, label="none")
    assert list(d.train.names) == [f"a.tar/{long}", "a.tar/y.png"]
    assert d.details["ignored"] == {".npy": 1, "image of zero bytes": 1, "link or special": 1}


def test_patterns(tmp_path):
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    root = shards(tmp_path / "t")
    for pattern, n in (
        ("s-{00..01}.tar", 16),
        ("s-0[12].tar", 16),
        ("s-{00,02}.tar", 16),
        ("*.tar", 24),
        ("s-01.tar", 8),
    ):
        assert len(opened(root / pattern, holdout=0).train) == n, pattern
    cases = {
        "s-{00..04}.tar": "2 shards of 5",
        "t-*.tar": "no file",
        "s-{3..1}.tar": "neither a range",
        "s-{0}.tar": "neither a range",
    }
    for wrong, words in (cases | {"s-{0..999999999}.tar": "more than"}).items():
        with pytest.raises(RequestError, match=words):
            opened(root / wrong)


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar"])
def test_compressed_shards_raise_error_with_hint(tmp_path, ending):
    plain = write(tmp_path / "plain.tar", samples(0, 3))
    packed = tmp_path / "t" / f"a{ending}"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (packed, packed.parent):
        with pytest.raises(RequestError, match="is compressed") as error:
            opened(path)
        assert f"gunzip -k {packed}" in error.value.hint


def test_corrupt_shards_are_named(tmp_path):
    root = shards(tmp_path / "t")
    whole = (root / "s-01.tar").read_bytes()
    second = whole.index(b"000008.cls")
    for broken in (
        whole[:1500],
        whole[: second + 300],
        b"no tar at all" * 100,
        whole[:second] + b"\1" * 512 + whole[second + 512 :],
    ):
        (root / "s-01.tar").write_bytes(broken)
        with pytest.raises(DataError, match=r"1 tar file of 3 cannot be read: .*s-01\.tar"):
            opened(root)
    (root / "s-01.tar").write_bytes(b"")
    with pytest.raises(DataError, match="zero bytes"):
        opened(root)
    write(root / "s-01.tar", {"readme.md": b"x"})
    for name in ("s-00.tar", "s-02.tar"):
        os.unlink(root / name)
    with pytest.raises(DataError, match=r"no image in 1 tar file; it contains: 1 \.md"):
        opened(root)
    with pytest.raises(RequestError, match="no tar file"):
        opened(tmp_path / "data")


def test_corrupt_image_in_tar_is_unreadable(tmp_path):
    members = samples(0, 9) | {"000099.png": b"not a picture"}
    d = opened(write(tmp_path / "a.tar", members), holdout=0, max_bad_fraction=0.5)
    with pytest.raises(BadImage):
        d.train.read(9)
    assert d.details["bad"].keys() == {"a.tar/000099.png"}


def test_more_shards_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_shards, "MAX_OPEN", 1)
    d = opened(shards(tmp_path / "t"), holdout=0)
    for i in (0, 23, 8, 1):
        assert pixels_of(d.train, i) == make_image(i).tobytes()
    assert len(d.train.shards._open) == 1
    there = pickle.loads(pickle.dumps(d.train))
    assert not there.shards._open
    assert pixels_of(there, 8) == make_image(8).tobytes()


def test_tar_on_the_command_line(cli, tmp_path):
    shards(tmp_path / "t")
    found = cli("data", "inspect", "dataset=tar", 'dataset.path="t/s-{00..02}.tar"', "--strict", "--json")
    assert found.code == 0, found.err
    assert sum(s["samples"] for s in json.loads(found.out)["splits"].values()) == 24
    packed = cli("data", "pack", "dataset=tar", "dataset.path=t", "out=p.pack")
    assert packed.code == 0, packed.err
    words = [
        "device=cpu",
        "backbone=convnet",
        "train.steps=2",
        "train.epochs=null",
        "train.batch_size=8",
        "dataset.image_size=16",
    ]
    assert cli("pretrain", "dataset=tar", "dataset.path=t", *words).code == 0
    wrong = cli("pretrain", "dataset=webdataset", "dataset.path=t")
    assert wrong.code == 2
    assert "did you mean `tar`" in wrong.err


def test_base_names_with_dots_keep_their_labels(tmp_path):
    members = {}
    for i in range(4):
        members |= {f"track.{i}.png": encoded(i), f"track.{i}.cls": str(i % 2).encode()}
    members |= {"b/1.left.png": encoded(9), "b/1.right.PNG": encoded(8), "b/1.json": b'{"label": "both"}'}
    d = tar(str(write(tmp_path / "s.tar", members)), holdout=0, splits="none")
    by_name = dict(zip((n.partition("/")[2] for n in d.train.names), d.train.labels.tolist(), strict=True))
    assert [d.classes[by_name[f"track.{i}.png"]] for i in range(4)] == ["0", "1", "0", "1"]
    assert d.classes[by_name["b/1.left.png"]] == d.classes[by_name["b/1.right.PNG"]] == "both"


def test_tar_labels_without_image_are_counted(tmp_path):
    words = ["cat", "dog", "NA", "cat"]
    members = {f"{i}.{e}": encoded(i) if e == "png" else words[i].encode() for i in range(4) for e in ("png", "cls")}
    d = tar(str(write(tmp_path / "s.tar", members | {"9.cls": b"cat", "8.x.cls": b"dog"})), holdout=0)
    assert d.classes == ("cat", "dog")
    assert d.train.labels.tolist() == [0, 1, -1, 0]
    assert any("2 label without an image" in n for n in d.notes)
    assert any("1 label read as missing (1 x NA" in n for n in d.notes)
    assert tar(str(tmp_path / "s.tar"), label="cls", holdout=0).classes == ("cat", "dog")


def test_labels_of_json_are_read_in_every_type(tmp_path):
    values = ['{"Label": 1.0}', '{"label": "2"}', '{"label": 1}', '{"label": NaN}', '{"label": null}']
    members = {
        f"{i}.{e}": encoded(i) if e == "png" else v.encode() for i, v in enumerate(values) for e in ("png", "json")
    }
    d = tar(str(write(tmp_path / "s.tar", members | {"0.jpg": encoded(7)})), holdout=0)
    by_name = dict(zip((n.rpartition("/")[2] for n in d.train.names), d.train.labels.tolist(), strict=True))
    assert d.classes == ("1", "2")
    assert [by_name[f"{i}.png"] for i in range(5)] == [0, 1, 0, -1, -1]
    assert any("1 sample with several images" in n for n in d.notes)


def test_images_of_one_sample_are_in_one_split(tmp_path):
    """As views of two cameras: with the left one in train and the right one in test, the test would be no test."""
    sides = {f"{i:03d}.{side}.png": encoded(2 * i + k) for i in range(40) for k, side in enumerate(("left", "right"))}
    members = dict(sorted({**sides, **{f"{i:03d}.cls": str(i % 2).encode() for i in range(40)}}.items()))
    d = opened(write(tmp_path / "a.tar", members), group="sample")
    train, test = ({name.split("/")[1][:3] for name in part.names} for part in (d.train, d.test))
    assert (len(d.train) + len(d.test), train & test) == (80, set())
    assert len(test) == 8
    assert any("40 samples with several images" in n and "in one split" in n for n in d.notes)
    masks = {name.replace("right", "left.mask"): content for name, content in members.items()}
    assert not any("several pictures" in n for n in opened(write(tmp_path / "m.tar", masks), group="sample").notes)
    with pytest.raises(RequestError, match="sample or none"):
        opened(tmp_path / "a.tar", group="patient")
