"""`dataset.cache`: images of any size are decoded once, as squares in memory, and views are made of these."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sslcli.data.images import headers
from sslcli.data.images.crop import center_box
from sslcli.data.loading.loader import Loader
from sslcli.data.sources.image_folder import image_folder
from sslcli.data.sources.pack import pack
from sslcli.data.sources.pack_files.writer import write_pack
from sslcli.data.sources.tar import tar
from sslcli.errors import RequestError
from sslcli.views import Views
from tests.data.conftest import make_image
from tests.data.test_pack import RECIPE
from tests.data.test_tar import write

SIZES = ((30, 20), (17, 40), (24, 24), (12, 9))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images of four sizes in two classes."""
    monkeypatch.setenv("SSLCLI_DATA", str(tmp_path / "data"))
    for c in ("cat", "dog"):
        (tmp_path / "photos" / c).mkdir(parents=True)
        for i in range(10):
            make_image(i + 100 * ord(c[0]), *SIZES[i % 4]).save(tmp_path / "photos" / c / f"{i}.png")
    return tmp_path / "photos"


def test_center_box_is_the_largest_of_its_aspect():
    assert center_box((20, 30, 3), 1) == (5, 0, 25, 20)
    assert center_box((40, 17), 1) == (0, 11, 17, 28)
    assert center_box((10, 10), 2) == (0, 2, 10, 7)
    assert center_box((5, 5), 1) == (0, 0, 5, 5)


def test_cached_images_are_resized_squares(photos):
    data = image_folder(str(photos), holdout=0, cache=16)
    assert data.shape == (3, 16, 16)
    cached = data.train.resident.tensor
    assert cached.shape == (20, 3, 16, 16)
    for i in range(20):
        image = np.asarray(Image.open(photos / data.train.name_of(i)).convert("RGB"))
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = torch.tensor(image[top : top + side, left : left + side]).permute(2, 0, 1)[None]
        expected = square if side == 16 else F.interpolate(square, (16, 16), mode="bicubic", antialias=True)
        assert torch.equal(cached[i], expected[0])
    assert any("cached in memory as 16x16 pixels (15.4 kB)" in note for note in data.notes)


def test_views_are_those_of_a_folder_of_the_cached_images(photos, tmp_path):
    data = image_folder(str(photos), cache=16, image_size=12)
    small = tmp_path / "small"
    for source in (data.train, data.test):
        for i in range(len(source)):
            path = small / source.name_of(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.resident.tensor[i].permute(1, 2, 0).numpy()).save(path)
    plain = image_folder(str(small), image_size=12)
    assert plain.values == data.values

    def views(of):
        loader = Loader(of.train, Views({"global": 2}, RECIPE, of), batch_size=8, seed=0)
        return [view for batch in itertools.islice(loader.stream(), 4) for view in batch.views]

    for a, b in zip(views(data), views(plain), strict=True):
        assert torch.equal(a, b)


def test_packs_and_shards_have_the_same_cache(photos, tmp_path):
    data = image_folder(str(photos), holdout=0, cache=16)
    write_pack(image_folder(str(photos), holdout=0), tmp_path / "photos.pack")
    packed = pack(str(tmp_path / "photos.pack"), cache=16)
    assert packed.shape == (3, 16, 16)
    assert torch.equal(packed.train.resident.tensor, data.train.resident.tensor)
    members = {str(path.relative_to(photos)): path.read_bytes() for path in sorted(photos.rglob("*.png"))}
    sharded = tar(str(write(tmp_path / "shard.tar", members)), holdout=0, cache=16)
    assert sorted(x.sum().item() for x in sharded.train.resident.tensor) == sorted(
        x.sum().item() for x in data.train.resident.tensor
    )


def test_unreadable_images_are_listed(photos):
    (photos / "cat" / "0.png").write_bytes((photos / "cat" / "0.png").read_bytes()[:200])
    data = image_folder(str(photos), holdout=0, cache=16, max_bad_fraction=0.2)
    assert [data.train.name_of(i) for i in data.train.bad] == ["cat/0.png"]
    assert data.train.resident.tensor[next(iter(data.train.bad))].sum() == 0


def test_wrong_settings_are_refused(photos, monkeypatch):
    with pytest.raises(RequestError, match=r"dataset\.cache: expected an integer in 4\.\.4096, got 2"):
        image_folder(str(photos), cache=2)
    with pytest.raises(RequestError, match=r"dataset\.resident=false forbids"):
        image_folder(str(photos), cache=16, resident=False)
    monkeypatch.setattr(headers, "free_memory", lambda: 20_000)
    with pytest.raises(RequestError, match=r"dataset\.cache=16 takes 15\.4 kB for 20 images, more than half") as error:
        image_folder(str(photos), holdout=0, cache=16)
    assert error.value.hint == "dataset.cache=12, or dataset.resident=true"
    assert image_folder(str(photos), holdout=0, cache=12).train.resident.nbytes == 20 * 3 * 12 * 12
    assert image_folder(str(photos), holdout=0, cache=16, resident=True).train.resident.nbytes == 20 * 3 * 16 * 16
