from __future__ import annotations

import os
import re
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset, Source
from sslcli.data.folders.contents import FileList
from sslcli.data.images.encoded import Decoder
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.loading.loader import Loader
from sslcli.data.loading.workers import TIMEOUT_SECONDS
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.sources.image_folder import image_folder
from sslcli.errors import DataError, MachineError, RequestError
from sslcli.rng import Draw
from sslcli.views import Views, clean

from .conftest import make_image

RECIPE = {"global": {"random_resized_crop": {"scale": [0.2, 1.0]}, "horizontal_flip": {"p": 0.5}}}


class Plain:
    """Views of the contract that show what they were given: mean colour, and one random number."""

    kinds = ["global", "global"]

    def _views(self, means, draw: Draw):
        return [torch.stack([means, draw.of_view(v).uniform("test")], 1) for v in range(2)]

    def __call__(self, raw, draw):
        return self._views(raw.flatten(1).float().mean(1), draw)

    def frames(self, images, draw):
        return [torch.tensor([float(np.asarray(i).mean()) for i in images])]

    def finish(self, frames, draw):
        return self._views(frames[0], draw)


class Strict(Plain):
    def frames(self, images, draw):
        raise DataError("no view can be made", "try something else")


def resident(n: int = 40) -> Dataset:
    x = torch.randint(0, 256, (n, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset("r", "image", (3, 10, 10), ArraySource(x, torch.arange(n) % 3), None)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp("streamed")
    for i in range(40):
        folder = root / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        make_image(i, 30 + i % 5, 34).save(folder / f"{i:02d}.jpg")
    return image_folder(str(root), image_size=16, holdout=0)


def seen(loader: Loader, n: int, step: int = 0) -> list[tuple]:
    stream = loader.stream(step)
    out = [(b.ids.tolist(), [v.numpy().tobytes() for v in b.views]) for b in islice(stream, n)]
    stream.close()
    return out


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_an_epoch_visits_each_sample_once(kind, streamed):
    d = resident() if kind == "resident" else streamed
    loader = Loader(d.train, Plain(), batch_size=9, seed=0)
    assert loader.steps_per_epoch == 4
    epochs = [seen(loader, 4, start) for start in (0, 4)]
    orders = [[i for ids, _ in e for i in ids] for e in epochs]
    assert all(len(set(o)) == 36 for o in orders)
    assert orders[0] != orders[1]
    assert seen(loader, 8) == epochs[0] + epochs[1]
    assert seen(Loader(d.train, Plain(), batch_size=9, seed=1), 4) != epochs[0]


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_views_do_not_depend_on_the_batch(kind, streamed):
    d = resident() if kind == "resident" else streamed
    views = Views({"global": 2}, RECIPE, d)

    def by_id(**kw):
        loader = Loader(d.train, views, seed=3, **kw)
        batches = islice(loader.stream(), loader.steps_per_epoch * kw.get("accumulate", 1))
        return {int(i): v[k].numpy().tobytes() for b in batches for v in b.views[1:] for k, i in enumerate(b.ids)}

    whole = by_id(batch_size=40)
    assert len(whole) == 40
    for kw in ({"batch_size": 10}, {"batch_size": 8}, {"batch_size": 40, "accumulate": 4}, {"batch_size": 1}):
        assert by_id(**kw) == whole


def test_batches_do_not_depend_on_workers_or_resume(streamed):
    views = Views({"global": 2}, RECIPE, streamed)
    runs = {w: seen(Loader(streamed.train, views, batch_size=8, seed=0, workers=w), 12) for w in (0, 1, 4)}
    assert runs[0] == runs[1] == runs[4]
    for workers in (0, 1):
        assert seen(Loader(streamed.train, views, batch_size=8, seed=0, workers=workers), 4, step=7) == runs[0][7:11]


def test_global_random_state_is_unchanged(streamed):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    seen(Loader(streamed.train, Plain(), batch_size=8, seed=0, workers=1), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_global_batch_is_divided_among_processes(kind, streamed):
    d = resident() if kind == "resident" else streamed
    whole = [i for ids, _ in seen(Loader(d.train, Plain(), batch_size=12, seed=0), 3) for i in ids]
    parts = {}
    for rank in range(2):
        loader = Loader(d.train, Plain(), batch_size=12, seed=0, accumulate=3, rank=rank, world_size=2)
        for n, (ids, _) in enumerate(seen(loader, 9)):
            parts[n // 3, n % 3, rank] = ids
    assert [i for key in sorted(parts) for i in parts[key]] == whole
    assert all(len(ids) == 2 for ids in parts.values())


def test_labels_only_on_request(streamed):
    for d in (resident(), streamed):
        assert next(Loader(d.train, Plain(), batch_size=8, seed=0).stream()).labels is None
        batch = next(Loader(d.train, Plain(), batch_size=8, seed=0, labels=True).stream())
        assert torch.equal(batch.labels, d.train.labels[batch.ids])
    with pytest.raises(RequestError, match="labels"):
        Loader(ArraySource(torch.zeros(9, 1, 4, 4)), Plain(), batch_size=8, seed=0, labels=True)


@pytest.mark.parametrize(
    ("kw", "reason", "hint"),
    [
        ({"batch_size": 41}, "larger than the training split", "train.batch_size="),
        ({"batch_size": 0}, "at least 1", ""),
        ({"batch_size": 10, "accumulate": 3}, "not divisible", "train.batch_size=9"),
        ({"batch_size": 8, "workers": -1}, "device.workers", ""),
    ],
)
def test_wrong_requests(kw, reason, hint):
    with pytest.raises(RequestError, match=reason) as error:
        Loader(resident().train, Plain(), seed=0, **kw)
    assert hint in (error.value.hint or "")
    if "=" in hint:
        batch = int(re.findall(r"\d+", error.value.hint)[0])
        Loader(resident().train, Plain(), seed=0, **{**kw, "batch_size": batch})


class Slow(Source):
    def __len__(self):
        return 8

    def read(self, index):
        time.sleep(0.02)
        return make_image(index, 8, 8)


def test_waiting_is_measured():
    loader = Loader(Slow(), Plain(), batch_size=4, seed=0)
    seen(loader, 2)
    assert 0.16 <= loader.wait < 2
    assert loader.wait == 0


# ------------------------------------------------------------------------------------------------ unreadable samples


@pytest.fixture
def with_bad(tmp_path: Path) -> Dataset:
    for i in range(40):
        make_image(i, 30 + i % 3, 30).save(tmp_path / f"{i:02d}.jpg")
    d = image_folder(str(tmp_path), image_size=16, holdout=0, max_bad_fraction=0.05)
    for i in (7, 20):
        (tmp_path / f"{i:02d}.jpg").write_text("broken since")
    return d


def test_replacements_do_not_depend_on_workers(with_bad):
    runs = {}
    for workers in (0, 2):
        loader = Loader(with_bad.train, Plain(), batch_size=8, seed=0, workers=workers)
        runs[workers] = seen(loader, 5)
        assert sorted(loader.bad) == [(f"{i:02d}.jpg", "not an image that Pillow can read") for i in (7, 20)]
    assert runs[0] == runs[2]
    used = [i for ids, _ in runs[0] for i in ids]
    assert len(used) == 40
    assert not {7, 20} & set(used)


def test_too_many_unreadable_stop_the_run(with_bad):
    root = Path(with_bad.train.paths[0]).parent
    (root / "30.jpg").unlink()
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"3 of 40 samples cannot be read, more than 5\.0%") as error:
            seen(Loader(with_bad.train, Plain(), batch_size=8, seed=0, workers=workers), 5)
        assert "max_bad_fraction" in error.value.hint


def test_all_unreadable_stop_at_once(tmp_path):
    files = FileList()
    for name in "abcdefgh":
        files.add(str(tmp_path / "gone.png"), name, 1, None)
    source = ImageFiles(files, None, Decoder(), 1.0)
    with pytest.raises(DataError, match="in a row cannot be read"):
        seen(Loader(source, Plain(), batch_size=4, seed=0), 1)


def test_evaluation_leaves_unreadable_out(with_bad):
    for workers in (0, 2):
        bad: list = []
        got = list(iterate_batches(with_bad.train, clean(with_bad), batch_size=8, workers=workers, bad=bad))
        ids = torch.cat([i for i, _ in got]).tolist()
        assert ids == [i for i in range(40) if i not in (7, 20)]
        assert all(len(i) == len(x) for i, x in got)
        assert sorted(name for name, _ in bad) == ["07.jpg", "20.jpg"]


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_evaluation_in_order(kind, streamed):
    d = resident() if kind == "resident" else streamed
    whole = torch.cat([x for _, x in iterate_batches(d.train, clean(d), batch_size=16)])
    assert whole.shape == (40, *d.shape)
    some = torch.tensor([3, 39, 0])
    ((ids, x),) = iterate_batches(d.train, clean(d), batch_size=16, ids=some)
    assert torch.equal(ids, some)
    assert torch.equal(x, whole[some])


# ------------------------------------------------------------------------------------------------ workers that fail


def test_worker_error_keeps_its_type(streamed):
    with pytest.raises(DataError) as error:
        seen(Loader(streamed.train, Strict(), batch_size=8, seed=0, workers=1), 1)
    assert (error.value.message, error.value.hint) == ("no view can be made", "try something else")


class Dies(Plain):
    def frames(self, images, draw):
        os._exit(9)


def test_dead_worker_raises_machine_error(streamed):
    began = time.monotonic()
    with pytest.raises(MachineError, match="died") as error:
        seen(Loader(streamed.train, Dies(), batch_size=8, seed=0, workers=1), 1)
    assert "device.workers=0" in error.value.hint
    assert time.monotonic() - began < TIMEOUT_SECONDS / 4  # long before the limit for a batch that never comes


def test_workers_end_with_the_stream(streamed):
    import multiprocessing

    stream = Loader(streamed.train, Plain(), batch_size=8, seed=0, workers=2).stream()
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


def test_next_epoch_order_is_computed_in_advance(monkeypatch):
    from sslcli.data.loading import loader

    made: list[int] = []
    monkeypatch.setattr(loader, "order", lambda seed, epoch, n: made.append(epoch) or torch.tensor([seed, epoch, n]))
    orders = loader.EpochOrder(7, 10)
    assert [orders(e).tolist() for e in (0, 0, 1, 2, 0)] == [[7, e, 10] for e in (0, 0, 1, 2, 0)]
    orders.executor.shutdown()
    assert made == [0, 1, 2, 3, 0, 1]
