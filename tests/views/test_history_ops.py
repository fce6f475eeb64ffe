"""Ops and views of histories against slow references."""

from __future__ import annotations

import pytest
import torch

from sslcli.data.histories.sessions import sessions
from sslcli.data.storage import Ragged
from sslcli.rng import Draw
from sslcli.views import Views, previews
from sslcli.views.histories.ops import Crop, Mask, OneOf, Reorder
from sslcli.views.modality import modality
from sslcli.views.op import OpRandoms

LENGTHS = [12, 7, 3, 1, 0]


def samples() -> torch.Tensor:
    """(5, 12): different items, followed by padding."""
    x = torch.zeros(len(LENGTHS), 12, dtype=torch.int64)
    for row, n in zip(x, LENGTHS, strict=True):
        row[:n] = torch.arange(2, 2 + n)
    return x


def applied(op, x, seed=0):
    randoms = OpRandoms([op], Draw(seed, 0, torch.arange(len(x))), x.device)
    return randoms.run([op], x.clone(), slice(0, len(x)))


@pytest.mark.parametrize("seed", range(5))
def test_crop_is_a_contiguous_part(seed):
    for row, n in zip(applied(Crop(0.6), samples(), seed).tolist(), LENGTHS, strict=True):
        size = max(1, int(0.6 * n)) if n else 0
        assert row[size:] == [0] * (12 - size)
        assert row[:size] == list(range(row[0], row[0] + size))
        assert not size or 2 <= row[0] <= 2 + n - size


@pytest.mark.parametrize("seed", range(5))
def test_mask_hides_a_share(seed):
    x = samples()
    y = applied(Mask(0.3), x, seed)
    for before, after, n in zip(x.tolist(), y.tolist(), LENGTHS, strict=True):
        hidden = [b for b, a in zip(before, after, strict=True) if a != b]
        assert len(hidden) == (min(max(1, int(0.3 * n)), n - 1) if n else 0)  # something is left
        assert [a for b, a in zip(before, after, strict=True) if a != b] == [1] * len(hidden)


@pytest.mark.parametrize("seed", range(5))
def test_reorder_permutes_a_span(seed):
    x = samples()
    y = applied(Reorder(0.6), x, seed)
    for before, after, n in zip(x.tolist(), y.tolist(), LENGTHS, strict=True):
        assert sorted(before) == sorted(after)
        moved = [i for i in range(12) if before[i] != after[i]]
        assert not moved or moved[-1] - moved[0] < max(1, int(0.6 * n))
    assert seed or not torch.equal(x, y)


def test_starts_and_choices_are_uniform():
    x = torch.arange(2, 12).expand(6000, 10).contiguous()
    first = applied(Crop(0.6), x)[:, 0].bincount(minlength=7)[2:]
    assert len(first) == 5
    assert (first - 1200).abs().max() < 150
    y = applied(OneOf(), x)
    kinds = torch.stack([(y == 0).any(1), (y == 1).any(1), ((y == x).all(1) | ((y > 1).all(1) & (y != x).any(1)))])
    assert (kinds.sum(dim=1) - 2000).abs().max() < 200
    assert torch.equal(kinds.sum(dim=0), torch.ones(6000, dtype=torch.int64))


def test_views_take_the_last_items_or_a_window():
    data = sessions(users=30, max_length=6, holdout=0)
    storage = data.train.resident
    assert isinstance(storage, Ragged)
    ids = torch.arange(30)
    clean, weak = Views({"clean": 1, "weak": 1}, {"weak": {"window": {}}}, data)(
        storage.batch(ids, torch.device("cpu")), Draw(0, 0, ids)
    )
    moved = 0
    for i in range(30):
        items = storage[i].tolist()
        assert clean[i].tolist() == (items[-6:] + [0] * 6)[:6]
        window = [t for t in weak[i].tolist() if t]
        assert window in [items[j : j + 6] for j in range(max(1, len(items) - 5))]
        moved += window != items[-6:]
    assert moved > 10
    streamed = Views({"weak": 1}, {"weak": {"window": {}}}, data)
    draw = Draw(0, 0, ids)
    frames = streamed.frames([storage[i] for i in range(30)], draw)
    assert torch.equal(
        streamed.finish(frames, draw)[0],
        Views({"weak": 1}, {"weak": {"window": {}}}, data)(storage.batch(ids, torch.device("cpu")), draw)[0],
    )


def test_previews_show_titles():
    data = sessions(users=30, max_length=6)
    first, last = data.preprocessor.encode([["cook 1", "reader 20"]])[0].tolist()
    shown = previews(data, torch.tensor([[first, last, 1, 0, 0, 0]]))[0]
    assert shown.text() == "cook 1 · reader 20 · [MASK]"
    assert "reader 20" in shown.html()


def test_corruptions_keep_the_form():
    data = sessions(users=12, max_length=8)
    ids = torch.arange(8)
    x = Views({"clean": 1}, {}, data)(data.train.resident.batch(ids, torch.device("cpu")), Draw(0, 0, ids))[0]
    x[0, 3:] = 0
    for name, corruption in modality("interactions").corruptions(data).items():
        y = corruption(x, 4, [torch.Generator().manual_seed(i) for i in range(8)])
        assert y.shape == x.shape
        assert not torch.equal(x, y), name
        assert ((y[:, 1:] == 0) | (y[:, :-1] != 0)).all(), "padding at the end alone"
        assert (y < data.values.size).all()
        assert ((y != 0).sum(dim=1) >= 1).all()


def test_terms_of_groups_are_their_items():
    from sslcli.data import sessions

    data = sessions()
    kind = modality("interactions")
    groups = data.train.labels.clone()
    groups[::5] = -1
    terms = kind.terms(data.train, groups, data, 4)
    assert len(terms.of_groups) == len(data.classes)
    rows = [(i, data.train.read(i)) for i in range(len(data.train)) if groups[i] >= 0]
    for c, found in enumerate(terms.of_groups):
        assert found
        best = found[0][0]
        place = next(i for i in range(data.values.size) if kind.spell([i], data) == [best])
        inside = [float((x == place).float().mean()) for i, x in rows if groups[i] == c]
        outside = [float((x == place).float().mean()) for i, x in rows if groups[i] != c]
        assert sum(inside) / len(inside) > 1.2 * sum(outside) / max(1, len(outside))
