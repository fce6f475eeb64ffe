"""Views of text: windows, pairs of segments, and ops on tokens; as functions of the sample."""

from __future__ import annotations

import pytest
import torch

from sslcli.data.storage import RaggedBatch
from sslcli.errors import RequestError
from sslcli.rng import Draw
from sslcli.views import Views, clean
from tests.documents import COUNT, FIRST, LENGTH, VALUES, content, dataset

ROOM = LENGTH - 2
LONG = torch.arange(30, COUNT)  # documents that fill a view


def view(recipe: dict, ids: torch.Tensor = LONG, epoch: int = 0, seed: int = 0, length: int = LENGTH) -> torch.Tensor:
    data = dataset(length)
    raw = data.train.resident.batch(ids, torch.device("cpu"))
    (out,) = Views({"weak": 1}, {"weak": recipe}, data)(raw, Draw(seed, epoch, ids))
    assert out.dtype == torch.int64
    return out


def inner(row: torch.Tensor) -> list[int]:
    """The content of a view, whose class token, separator and padding are checked."""
    ids = row.tolist()
    assert ids[0] == VALUES.start
    last = len([i for i in ids if i != VALUES.pad]) - 1
    assert ids[last] == VALUES.separator
    assert set(ids[last + 1 :]) <= {VALUES.pad}
    return ids[1:last]


def test_clean_view_is_the_start_of_the_document():
    ids = torch.arange(COUNT)
    (out,) = clean(dataset())(dataset().train.resident.batch(ids, torch.device("cpu")), Draw(0, 0, ids))
    assert out.shape == (COUNT, LENGTH)
    for i, row in enumerate(out):
        assert inner(row) == content(i)[:ROOM].tolist()


def test_documents_read_one_at_a_time_have_the_same_views():
    data, ids = dataset(), torch.arange(COUNT)
    maker = Views({"weak": 1}, {"weak": {"span": {}, "delete": {}}}, data)
    (whole,) = maker(data.train.resident.batch(ids, torch.device("cpu")), Draw(0, 3, ids))
    view = maker._views[0]
    frame = view.frame([data.train.read(i) for i in range(COUNT)], Draw(0, 3, ids, 0))
    assert torch.equal(view.finish(frame, Draw(0, 3, ids, 0)), whole)


def test_span_is_a_window_at_any_place():
    starts = []
    for epoch in range(20):
        for i, row in zip(LONG.tolist(), view({"span": {}}, epoch=epoch), strict=True):
            ids = inner(row)
            assert len(ids) == ROOM
            assert ids == list(range(ids[0], ids[0] + ROOM))
            first = ids[0] - int(content(i)[0])
            assert 0 <= first <= i - ROOM
            starts.append(first / (i - ROOM))
    assert min(starts) == 0.0
    assert max(starts) == 1.0
    assert abs(sum(starts) / len(starts) - 0.5) < 0.05


def test_span_of_a_short_document_is_all_of_it():
    for i, row in zip(range(1, ROOM), view({"span": {}}, torch.arange(1, ROOM)), strict=True):
        assert inner(row) == content(i).tolist()


def test_an_empty_document_has_no_content():
    assert inner(view({"span": {}, "delete": {}, "swap": {}, "mask": {}, "cut": {}}, torch.tensor([0]))[0]) == []


def test_span_with_a_range_of_lengths():
    sizes = [len(inner(row)) for epoch in range(20) for row in view({"span": {"length": [0.5, 1.0]}}, epoch=epoch)]
    assert min(sizes) == 7
    assert max(sizes) == 14


def test_span_with_a_size_is_a_smaller_view():
    assert view({"span": {"size": 0.5}}).shape == (len(LONG), LENGTH // 2)


def test_pair_holds_two_segments_that_follow_one_another():
    for i, row in zip(LONG.tolist(), view({"pair": {}}), strict=True):
        ids = inner(row)
        at = ids.index(VALUES.separator)
        segments = ids[:at] + ids[at + 1 :]
        assert segments == list(range(segments[0], segments[0] + ROOM - 1))
        assert content(i)[0] <= segments[0]
        assert 0.25 < at / len(segments) < 0.75


def test_pair_of_short_documents():
    one, two, three = view({"pair": {}}, torch.tensor([1, 2, 3]))
    assert inner(one) == content(1).tolist()  # no second segment
    first, second = content(2).tolist()
    assert inner(two) == [first, VALUES.separator, second]
    assert sorted(set(inner(three)) - {VALUES.separator}) == content(3).tolist()
    assert inner(three).index(VALUES.separator) in (1, 2)


def test_delete_keeps_the_order_and_the_share():
    kept = 0
    for epoch in range(10):
        for i, row in zip(LONG.tolist(), view({"delete": {"share": 0.3}}, epoch=epoch), strict=True):
            ids = inner(row)
            assert ids == sorted(ids)
            assert set(ids) <= set(content(i)[:ROOM].tolist())
            kept += len(ids)
    assert abs(kept / (10 * len(LONG) * ROOM) - 0.7) < 0.03


def test_delete_leaves_one_token():
    for row in view({"delete": {"share": 1.0}}):
        assert len(inner(row)) == 1


def test_cut_removes_one_span():
    for i, row in zip(LONG.tolist(), view({"cut": {"share": 0.5}}), strict=True):
        ids, whole = inner(row), content(i)[:ROOM].tolist()
        assert len(ids) == 7
        removed = [t for t in whole if t not in ids]
        assert removed == list(range(removed[0], removed[0] + 7))
    assert all(len(inner(row)) == 1 for row in view({"cut": {"share": 1.0}}))


def test_swap_exchanges_neighbors():
    moved = 0
    for i, row in zip(LONG.tolist(), view({"swap": {"share": 0.4}}), strict=True):
        ids, whole = inner(row), content(i)[:ROOM].tolist()
        assert sorted(ids) == whole
        assert all(abs(a - b) <= 1 for a, b in zip(ids, whole, strict=True))
        moved += sum(a != b for a, b in zip(ids, whole, strict=True))
    assert (
        0.3 < moved / (len(LONG) * ROOM) < 0.45
    )  # the first or the last token has no partner in half of the documents
    both = {
        tuple(inner(row)) == tuple(content(2).tolist()[::-1])
        for row in view({"swap": {"share": 1.0}}, torch.full((40,), 2))
    }
    assert len(both) == 1  # the same sample has the same view


def test_mask_hides_the_share_and_no_special_token():
    masked = 0
    for row in view({"pair": {}, "mask": {"share": 0.25}}):
        ids = inner(row)
        assert ids.count(VALUES.separator) == 1
        masked += ids.count(VALUES.mask)
    assert abs(masked / (len(LONG) * (ROOM - 1)) - 0.25) < 0.06


def test_views_differ_between_epochs_and_seeds_only():
    recipe = {"span": {}, "delete": {}, "swap": {}, "mask": {}}
    first = view(recipe)
    assert torch.equal(first, view(recipe))
    assert not torch.equal(first, view(recipe, epoch=1))
    assert not torch.equal(first, view(recipe, seed=1))
    alone = torch.cat([view(recipe, ids) for ids in LONG.split(1)])
    assert torch.equal(first, alone)


def test_storage_on_another_device_is_cut_to_the_batch():
    """A batch with a storage of its own, as on a GPU, has the same views."""
    data = dataset()
    chosen = data.train.resident.select(LONG)
    (out,) = Views({"weak": 1}, {"weak": {"span": {}}}, data)(
        RaggedBatch(chosen, torch.arange(len(LONG))), Draw(0, 0, LONG)
    )
    assert torch.equal(out, view({"span": {}}))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"delete": {}, "span": {}}, "span must be the first op"),
        ({"span": {"length": 2.0}}, "span.length: expected"),
        ({"delete": {"share": -1}}, "delete.share: expected a number from 0 to 1"),
        ({"flip": {}}, "unknown op"),
        ({"random_crop": {}}, "requires data of modality"),
    ],
)
def test_invalid_recipes(recipe: dict, message: str):
    with pytest.raises(RequestError, match=message):
        view(recipe)


def test_first_ids_are_special():
    assert set(range(FIRST)) == {VALUES.pad, VALUES.mask, *VALUES.special}
