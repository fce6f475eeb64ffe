"""Packs: the same samples as the folder, corruption detected, and identical bytes after interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data import notify
from sslcli.data.dataset import Dataset
from sslcli.data.images import decode
from sslcli.data.images.crop import crop_and_resize, to_array
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.loading.loader import Loader
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files import journal as pack_journal
from sslcli.data.sources.pack_files import writer as pack_writer
from sslcli.data.sources.pack_files.manifest import INDEX, MANIFEST, NAMES, RECORD, manifest_hash
from sslcli.data.sources.pack_files.writer import write_pack
from sslcli.errors import DataError, RequestError, StorageError
from sslcli.rng import Draw
from sslcli.views import Views, clean
from tests.data.conftest import make_image

RECIPE = {"global": {"random_resized_crop": {"scale": [0.2, 1.0], "interpolation": "bicubic"}, "horizontal_flip": {}}}


def photos(root: Path, n: int = 10, one_size: bool = False) -> Path:
    """JPEGs of many sizes in two classes, a third split without labels, and a PNG with transparency among them."""
    for k, folder in enumerate(("train/cat", "train/dog", "val/cat", "val/dog", "unlabelled")):
        (root / folder).mkdir(parents=True)
        for i in range(n if k < 2 else n // 2):
            width, height = (60, 48) if one_size else (40 + 7 * i, 60 + 3 * k)
            make_image(100 * k + i, width, height).save(root / folder / f"{i:02d}.jpg", quality=85)
    if not one_size:
        make_image(7, 50, 44, "RGBA").save(root / "train" / "dog" / "über all.png")
    return root


def folder(root: Path, **keys: object) -> Dataset:
    return image_folder(str(root), image_size=32, resident=False, **keys)  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


def seen(dataset: Dataset, workers: int = 0) -> list[torch.Tensor]:
    views = Views({"global": 2}, RECIPE, dataset)
    loader = Loader(dataset.pretrain, views, batch_size=4, seed=3, workers=workers)
    stream = loader.stream()
    out = [v for _ in range(3) for v in next(stream).views]
    stream.close()
    return out


def splits(d: Dataset) -> dict[str, object]:
    return {"train": d.train, "test": d.test, "unlabelled": d.unlabelled}


def test_encoded_pack_matches_folder(tmp_path):
    files = folder(photos(tmp_path / "photos"))
    assert write_pack(files, tmp_path / "p.pack")
    packed = pack(str(tmp_path / "p.pack"))
    same = ("shape", "classes", "values", "fingerprint", "modality")
    assert {k: getattr(files, k) for k in same} == {k: getattr(packed, k) for k in same}
    for a, b in zip(splits(files).values(), splits(packed).values(), strict=True):
        assert list(a.names) == list(b.names)
        assert a.names[-1] == b.names[-1]
        assert (a.labels is None) == (b.labels is None)
        assert a.labels is None or torch.equal(a.labels, b.labels)
        assert list(a.sizes) == list(b.sizes)
        for (i, x), (j, y) in zip(
            iterate_batches(a, clean(files), batch_size=4), iterate_batches(b, clean(packed), batch_size=4), strict=True
        ):
            assert torch.equal(i, j)
            assert torch.equal(x, y)
    assert all(map(torch.equal, seen(files), seen(packed)))


def test_workers_reopen_pack_by_path(tmp_path):
    write_pack(folder(photos(tmp_path / "photos")), tmp_path / "p.pack", "raw", 40)
    packed = pack(str(tmp_path / "p.pack"))
    parcel = pickle.dumps(packed.train)
    assert len(parcel) < 1000
    assert torch.equal(pickle.loads(parcel).labels, packed.train.labels)
    assert all(map(torch.equal, seen(packed), seen(packed, workers=2)))


def test_raw_pack_matches_decoded_files(tmp_path):
    files = folder(photos(tmp_path / "photos"))
    write_pack(files, tmp_path / "p.pack", "raw")
    packed = pack(str(tmp_path / "p.pack"))
    for i in range(len(files.train)):
        array = packed.train.read(i)
        assert isinstance(array.base, np.ndarray)  # a view of the map, no copy
        assert np.array_equal(array, to_array(decode.load(files.train.paths[i])))
    assert packed.shape == files.shape
    assert packed.fingerprint != files.fingerprint
    assert "raw pixels, in the original size" in packed.notes[0]


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_resized(tmp_path, form):
    files = folder(photos(tmp_path / "photos"))
    write_pack(files, tmp_path / "p.pack", form, 44)
    packed = pack(str(tmp_path / "p.pack"), resident=False)
    for i, path in enumerate(files.train.paths):
        old, new = decode.load(path), to_array(packed.train.read(i))
        short = min(old.size)
        assert min(new.shape[:2]) == min(short, 44)
        if short <= 44:  # never enlarged, nor encoded once more
            assert np.array_equal(new, to_array(old))
        else:
            assert abs(new.shape[1] / new.shape[0] - old.width / old.height) < 0.03
            want = np.asarray(old.resize((new.shape[1], new.shape[0]), Image.Resampling.BICUBIC), float)
            assert np.abs(new - want).mean() < (0.01 if form == "raw" else 4)
    assert pack(str(tmp_path / "p.pack")).shape == (3, 32, 32)
    write_pack(image_folder(str(tmp_path / "photos"), resident=False), tmp_path / "q.pack", form, 44)
    assert pack(str(tmp_path / "q.pack")).shape == (3, 44, 44)  # no view is larger than what was kept


@pytest.mark.parametrize("form", ["raw", "jpeg"])
def test_pack_of_one_size_is_resident(tmp_path, form):
    root = photos(tmp_path / "photos", one_size=True)
    write_pack(image_folder(str(root), resident=False), tmp_path / "p.pack", form)
    files, packed = image_folder(str(root)), pack(str(tmp_path / "p.pack"))
    assert torch.equal(files.train.resident.tensor, packed.train.resident.tensor)
    assert (files.values.mean, files.values.std, files.shape) == (packed.values.mean, packed.values.std, packed.shape)
    assert packed.details["resident"]
    assert pack(str(tmp_path / "p.pack"), resident=False).train.resident is None


def test_packing_twice_and_other_settings(tmp_path):
    files, out = folder(photos(tmp_path / "photos")), tmp_path / "p.pack"
    assert write_pack(files, out)
    before = contents(out)
    assert not write_pack(files, out)
    assert contents(out) == before
    for other in ((files, out, "raw"), (files, out, "jpeg", 40), (folder(tmp_path / "photos", label="none"), out)):
        with pytest.raises(RequestError, match="other images, or with other settings") as caught:
            write_pack(*other)
        assert caught.value.hint


# --------------------------------------------------------------------------------------------------------- broken off


class Killed(BaseException):
    pass


def broken_off(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[..., None]:
    """Makes the writing of sample `at` the last thing that happens: nothing is flushed or noted after it."""
    real = pack_journal.PackWriter.add

    def add(self: pack_journal.PackWriter, *args: object) -> None:
        if self.position == at:
            raise Killed
        real(self, *args)

    monkeypatch.setattr(pack_journal.PackWriter, "add", add)
    return lambda: monkeypatch.setattr(pack_journal.PackWriter, "add", real)


@pytest.fixture
def small(monkeypatch):
    """Shards of few samples, and the journal every four."""
    monkeypatch.setattr(pack_journal, "SHARD_BYTES", 9000)
    monkeypatch.setattr(pack_journal, "ENTRY_SAMPLES", 4)


@pytest.mark.parametrize("at", [0, 2, 9, 17, 31, 35])
@pytest.mark.parametrize("harm", ["none", "torn"])
def test_interrupted_packing_gives_identical_bytes(tmp_path, monkeypatch, small, at, harm):
    files = folder(photos(tmp_path / "photos"))
    write_pack(files, tmp_path / "whole.pack")
    assert len(contents(tmp_path / "whole.pack")) > 5  # several shards
    again = broken_off(monkeypatch, at)
    with pytest.raises(Killed):
        write_pack(files, tmp_path / "p.pack")
    again()
    part = tmp_path / "p.pack.part"
    assert not (tmp_path / "p.pack").exists()
    with pytest.raises(RequestError, match="is not a finished pack"):
        pack(str(part))
    if harm == "torn":  # more than the journal knows, and half a line of it
        last = max(part.glob("shard-*"), default=part / "shard-00000.bin")
        last.write_bytes((last.read_bytes() if last.exists() else b"") + b"rest")
        with open(part / pack_journal.JOURNAL, "ab") as file:
            file.write(b'{"position": 99, "reco')
    made, messages = [], []
    notify.set_hooks(log=messages.append)
    real = pack_writer.PackTask.encode
    monkeypatch.setattr(pack_writer.PackTask, "encode", lambda self, i: made.append(i) or real(self, i))
    write_pack(files, tmp_path / "p.pack")
    notify.set_hooks()
    assert contents(tmp_path / "p.pack") == contents(tmp_path / "whole.pack")
    assert len(made) == 36 - at // 4 * 4  # what was noted is not done again
    assert any("resuming after" in line for line in messages) == (at >= 4)
    assert not part.exists()


def test_interrupted_before_renaming(tmp_path, monkeypatch):
    files = folder(photos(tmp_path / "photos"))
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda *a: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write_pack(files, tmp_path / "p.pack")
    monkeypatch.setattr(os, "rename", real)
    monkeypatch.setattr(pack_writer.PackTask, "encode", None)
    write_pack(files, tmp_path / "p.pack")
    assert len(pack(str(tmp_path / "p.pack")).train) == 21


def test_journal_of_another_task_is_discarded(tmp_path, monkeypatch, small):
    files = folder(photos(tmp_path / "photos"))
    write_pack(files, tmp_path / "whole.pack", "raw", 40)
    again = broken_off(monkeypatch, 13)
    with pytest.raises(Killed):
        write_pack(files, tmp_path / "p.pack")
    again()
    write_pack(files, tmp_path / "p.pack", "raw", 40)
    assert contents(tmp_path / "p.pack") == contents(tmp_path / "whole.pack")


def test_truncated_shard_restarts_packing(tmp_path, monkeypatch, small):
    files = folder(photos(tmp_path / "photos"))
    write_pack(files, tmp_path / "whole.pack")
    again = broken_off(monkeypatch, 20)
    with pytest.raises(Killed):
        write_pack(files, tmp_path / "p.pack")
    again()
    last = max((tmp_path / "p.pack.part").glob("shard-*"))
    last.write_bytes(last.read_bytes()[:10])
    write_pack(files, tmp_path / "p.pack")
    assert contents(tmp_path / "p.pack") == contents(tmp_path / "whole.pack")


def test_no_room(tmp_path, monkeypatch):
    files = folder(photos(tmp_path / "photos"))
    usage = pack_writer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match="are free"):
        write_pack(files, tmp_path / "p.pack")


# ------------------------------------------------------------------------------------------------------------ damaged


def test_unreadable_files_are_left_out_and_listed(tmp_path):
    root = photos(tmp_path / "photos")
    (root / "train" / "cat" / "00.jpg").write_bytes(b"no picture")
    cut_off = root / "val" / "dog" / "01.jpg"
    cut_off.write_bytes(cut_off.read_bytes()[:300])
    files = folder(root, max_bad_fraction=0.06)
    files.train.max_bad_fraction = 0.02
    with pytest.raises(DataError, match="2 of 36 samples cannot be read") as caught:
        write_pack(files, tmp_path / "p.pack")
    assert "dataset.max_bad_fraction=0.06" in caught.value.hint
    write_pack(folder(root, max_bad_fraction=0.06), tmp_path / "p.pack")  # goes on
    packed = pack(str(tmp_path / "p.pack"))
    assert sorted(packed.train.pack.manifest["left_out"]) == ["train/cat/00.jpg", "val/dog/01.jpg"]
    assert (len(packed.train), len(packed.test)) == (20, 9)
    assert "2 unreadable files left out when it was written" in packed.notes
    assert torch.bincount(packed.train.labels).tolist() == [9, 11]


def damaged(tmp_path: Path, form: str = "jpeg") -> Path:
    write_pack(folder(photos(tmp_path / "photos")), tmp_path / "p.pack", form)
    return tmp_path / "p.pack"


def _cut_shard(out: Path) -> None:
    shard = out / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])


def _no_shard(out: Path) -> None:
    (out / "shard-00000.bin").unlink()


def _flip(name: str) -> Callable[[Path], None]:
    def harm(out: Path) -> None:
        content = bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)

    return harm


def _resigned(out: Path) -> None:
    """Somebody's own: every sum is right, and a record points behind its shard."""
    index = np.fromfile(out / INDEX, dtype=RECORD)
    index["offset"][3] = 1 << 40
    index.tofile(out / INDEX)
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["files"][INDEX]["sha256"] = hashlib.sha256(index.tobytes()).hexdigest()
    manifest["sha256"] = manifest_hash(manifest)
    (out / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("harm", [_cut_shard, _no_shard, _flip(INDEX), _flip(NAMES), _flip(MANIFEST), _resigned])
def test_corrupt_pack_is_refused_when_opened(tmp_path, harm):
    out = damaged(tmp_path)
    harm(out)
    with pytest.raises(DataError) as caught:
        pack(str(out))
    assert "write it again" in caught.value.hint


def test_flipped_bit_of_encoded_image_is_unreadable(tmp_path):
    out = damaged(tmp_path)
    _flip("shard-00000.bin")(out)
    d = pack(str(out), max_bad_fraction=1.0)
    reasons = []
    for source in splits(d).values():
        for i in range(len(source)):
            try:
                source.read(i)
            except decode.BadImage as error:
                reasons.append(error.message)
    assert reasons == ["corrupt in the pack: its CRC-32 does not match"]


@pytest.mark.parametrize("form", ["jpeg", "raw"])
def test_strict_inspection_finds_flipped_bits(tmp_path, cli, form):
    photos(Path("photos"))
    run = cli("data", "pack", "dataset=image_folder", "dataset.path=photos", "out=p.pack", f"format={form}")
    assert (run.code, run.out.strip().splitlines()[-1]) == (0, "p.pack")
    words = ("data", "inspect", "dataset=pack", "dataset.path=p.pack", "dataset.resident=false", "--strict")
    assert cli(*words).code == 0
    _flip("shard-00000.bin")(Path("p.pack"))
    run = cli(*words)
    assert run.code == 7
    assert "does not match its SHA-256" in run.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "out is not given"),
        (("out=nowhere/p.pack",), 2, "no folder"),
        (("out=photos",), 2, "is not a pack"),
        (("out=p.pack", "format=png"), 2, "jpeg or raw"),
        (("out=p.pack", "size=-3"), 2, "an integer from 8"),
        (("out=p.pack", "quality=x"), 2, "an integer from 1"),
        (("out=p.pack", "dataset.channels=4", "size=32"), 2, "format=raw"),
    ],
)
def test_wrong_requests(cli, words, code, says):
    photos(Path("photos"), n=4)
    run = cli("data", "pack", "dataset=image_folder", "dataset.path=photos", *words)
    assert (run.code, says in run.err) == (code, True), run.err
    assert not Path("p.pack").exists()


def test_resident_data_set_cannot_be_packed(cli):
    run = cli("data", "pack", "dataset=digits", "out=p.pack")
    assert (run.code, "cannot be packed" in run.err) == (2, True)


def test_trains_on_a_pack(cli):
    from tests.conftest import SMOKE

    photos(Path("photos"))
    assert (
        cli("data", "pack", "dataset=image_folder", "dataset.path=photos", "out=p.pack", "size=32", "format=raw").code
        == 0
    )
    run = cli(
        "pretrain",
        *SMOKE,
        "backbone=convnet",
        "dataset=pack",
        "dataset.path=p.pack",
        "train.batch_size=4",
        "device.workers=0",
    )
    assert run.code == 0, run.err


def test_crop_without_resizing_is_exact():
    array = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    made = crop_and_resize(array, (4, 2, 14, 12), (10, 10), "bicubic")
    assert np.array_equal(made.permute(1, 2, 0).numpy(), array[2:12, 4:14])
    assert to_array(array[..., 0]).shape == (20, 30, 1)


def test_crop_and_resize_is_close_to_pillow():
    image = make_image(3, 90, 70)
    for name, filter_, far in (("bilinear", Image.Resampling.BILINEAR, 1), ("bicubic", Image.Resampling.BICUBIC, 4)):
        got = crop_and_resize(to_array(image), (10, 5, 80, 65), (32, 32), name).permute(1, 2, 0).numpy().astype(int)
        want = np.asarray(image.crop((10, 5, 80, 65)).resize((32, 32), filter_)).astype(int)
        assert np.abs(got - want).max() <= far


def test_split_is_a_pure_function(tmp_path):
    """The same samples cut one by one or together, and in any thread count, are the same bits."""
    d = folder(photos(tmp_path / "photos"))
    views, ids = Views({"global": 2}, RECIPE, d), torch.arange(6)
    together = views.frames([d.train.read(i) for i in range(6)], Draw(0, 0, ids))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for i in range(6):
            alone = views.frames([d.train.read(i)], Draw(0, 0, ids[i : i + 1]))
            assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["dataset=wine"], "these are tables of numbers and categories"),
        (["dataset=series", "dataset.path=s.npz"], "these are time series"),
        (["dataset=capitals"], "these are text"),
        (["dataset=digits"], "its images are no files"),
    ],
)
def test_other_data_than_image_files_are_refused(cli, tmp_path, words, kind):
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).normal(size=(20, 2, 16)).astype(np.float32))
    refused = cli("data", "pack", *words, "out=x.pack")
    assert refused.code == 2
    assert f"cannot be packed: a pack holds image files, and {kind}" in refused.err
    assert "train on it as it is: its " in refused.err
    assert not list(tmp_path.glob("x.pack*"))
