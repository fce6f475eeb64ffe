"""Explanations of text: which tokens can be deleted, occlusion by words, and the words that count most."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sslcli.backbones.bag import Bag
from sslcli.backbones.bert import BERT
from sslcli.data import capitals
from sslcli.data.subset import Subset
from sslcli.errors import RequestError
from sslcli.evals.artefacts.tables import tables_of
from sslcli.evals.base.features import EvalData
from sslcli.evals.explain import MAX_OCCLUDED, explain, make_maps
from sslcli.evals.metrics import attribution_maps
from sslcli.evals.metrics.part_weights import PartWeights
from sslcli.nn.words import pack_flags
from sslcli.views import previews
from sslcli.views.modality import modality
from sslcli.views.preview.words import Words
from tests import documents

TEXT = modality("text")


@pytest.fixture(scope="module")
def data() -> EvalData:
    """600 and 60 sentences of the five topics that are about one fact."""
    whole = capitals()
    overview = whole.classes.index("overview")
    ids = [torch.nonzero(s.labels != overview)[:n, 0] for s, n in ((whole.train, 600), (whole.test, 60))]
    parts = [Subset(s, i, s.labels[i]) for s, i in zip((whole.train, whole.test), ids, strict=True)]
    return EvalData(replace(whole, train=parts[0], test=parts[1]))


def bag(data: EvalData) -> Bag:
    torch.manual_seed(0)
    return Bag(data.dataset.shape, width=32, values=data.dataset.values).eval()


def view(*ids: int, length: int = 12) -> Tensor:
    return torch.tensor([[2, *ids, 3, *[0] * (length - 2 - len(ids))]])


def test_special_tokens_are_never_deleted():
    x, values = view(10, 11, 1, 4), documents.VALUES
    assert TEXT.removable(x, values).nonzero()[:, 1].tolist() == [1, 2, 3, 4]
    assert TEXT.delete(x, torch.ones_like(x, dtype=torch.bool), values)[0].tolist() == [2, 0, 0, 0, 0, 3, *[0] * 6]
    assert TEXT.delete(x, torch.arange(12)[None] == 2, values)[0, :6].tolist() == [2, 10, 0, 1, 4, 3]
    assert torch.equal(TEXT.insertion_base(x, values), TEXT.delete(x, torch.tensor(True), values))


def test_spans_are_words():
    continues = torch.zeros(documents.VALUES.size, dtype=torch.bool)
    continues[20:30] = True
    values = replace(documents.VALUES, continues=pack_flags(continues))
    x = view(10, 20, 11, 12, 21, 22)
    assert TEXT.spans(x, values, 9)[0].tolist() == [-1, 0, 0, 1, 2, 2, 2, *[-1] * 5]
    assert TEXT.spans(x, values, 2)[0, 1:7].tolist() == [0, 0, 0, 1, 1, 1]  # three words in two groups
    long = view(*range(30, 430), length=500)
    assert TEXT.spans(long, values, MAX_OCCLUDED).max() == MAX_OCCLUDED - 1
    assert (TEXT.spans(view(), values, 9) == -1).all()  # an empty document


def test_curves_delete_removable_places_only():
    x = torch.tensor([[9.0, 4, 1, 2, 0, 0], [9, 5, 7, 1, 2, 3]])
    removable = torch.tensor([[False, True, True, True, False, False], [False, True, True, True, True, True]])
    blank = torch.where(removable, 0.0, x)
    gone, back = attribution_maps.deletion_insertion_curves(
        lambda z: z.sum(dim=1), x, torch.where(removable, x, 99.0), blank, blank, 3, removable
    )
    assert gone.tolist() == [[16, 12, 10, 9], [27, 15, 12, 9]]  # a third of 3, and of 5, rounded
    assert back.tolist() == [[9, 13, 15, 16], [9, 21, 24, 27]]


def test_occlusion_is_what_a_word_changes(data):
    """The score without each word, from documents that are made without it."""
    network = bag(data)
    maps = make_maps(network, data)

    class Score:
        def target(self, x: Tensor) -> Tensor:
            return x[:, 0]

        def score(self, z: Tensor, target: Tensor) -> Tensor:
            return z.sum(dim=1)

    x = next(iter(data.batches("test", torch.arange(5))))[1]
    found = maps(x, Score())[:, 0]
    for row, weights in zip(x, found, strict=True):
        for place, token in enumerate(row.tolist()):
            without = row.clone()
            if token > 4:
                without[place] = 0
            expected = network(row[None]).sum() - network(without[None]).sum()
            assert weights[place].item() == pytest.approx(expected.item(), abs=1e-4)
    assert maps.tokens(x).shape == (5, 24, 32)
    empty = torch.tensor([[2, 3, *[0] * 22]])
    assert (maps(empty, Score()) == 0).all()


@pytest.mark.parametrize("kind", ["bag", "bert"])
def test_explanations_of_text(data, kind, tmp_path):
    torch.manual_seed(0)
    shape, values = data.dataset.shape, data.dataset.values
    network = bag(data) if kind == "bag" else BERT(shape, width=16, depth=1, heads=2, values=values).eval()
    result = explain(network, data, samples=40)
    assert result.protocol["deleted"] == "becomes padding"
    if kind == "bag":
        assert result.metrics["deletion"] < result.metrics["random.deletion"]
        assert result.metrics["insertion"] > result.metrics["random.insertion"]
    tables = tables_of(result.artefacts)
    assert {name for row in tables["words.csv"]["rows"] for name in row[:1]} <= set(data.dataset.classes)
    shown = [row for row in tables["maps.png"]["rows"] if isinstance(row, list)]
    assert len(shown) == 8
    for (cell,) in shown:
        words, weights = zip(*cell["words"], strict=True)
        assert "[CLS]" not in words
        assert (min(weights), max(weights)) == (0, 1)
    result.artefacts["maps.png"].save(tmp_path / "maps.png")


class Keywords(torch.nn.Module):
    """How often some words occur."""

    dim = 5

    def __init__(self, ids: Tensor):
        super().__init__()
        self.ids = ids

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :, None] == self.ids).float().sum(dim=1)


def test_words_that_count_most_are_listed(data):
    words = ("capital", "language", "europe", "money", "river")
    ids = data.dataset.preprocessor.tokenizer.encode([" ".join(words)])[0]
    result = explain(Keywords(torch.from_numpy(ids).long()), data, samples=60, baselines=False)
    rows = tables_of(result.artefacts)["words.csv"]["rows"]
    first = {row[0]: row[1] for row in reversed(rows)}
    assert first["capital"] == "capital"
    assert {row[1] for row in rows} <= set(words)  # no other word changes anything
    assert all(row[3] >= 3 for row in rows)


def test_occlusion_of_a_transformer_can_be_requested(data):
    torch.manual_seed(0)
    network = BERT(data.dataset.shape, width=16, depth=1, heads=2, values=data.dataset.values).eval()
    result = explain(network, data, samples=20, attribution="occlusion", baselines=False)
    assert result.protocol["map"].startswith("loss of score")
    assert result.metrics["deletion"] < result.metrics["random.deletion"]
    with pytest.raises(RequestError, match=r"attribution=gradients"):
        explain(network, data, attribution="gradients")


def test_part_weights_are_means_over_samples():
    def words(*pieces: str, begins: tuple[bool, ...] | None = None) -> Words:
        return Words("", pieces, begins or (True,) * len(pieces), tuple(range(1, 1 + len(pieces))))

    weights = PartWeights()
    first = words("good", "fil", "m", begins=(True, True, False))
    weights.add([first, words("good", "good")], torch.tensor([[9.0, 3, 1, 0], [9, 1, -1, 9]]), ["a", "a"])
    assert first.parts(torch.tensor([9.0, 3, 1, 0.5])) == [("good", 3), ("film", 1.5)]
    assert words("␣fine", "w" * 99).parts(torch.ones(3)) == [("fine", 1), ("w" * 40, 1)]
    table = weights.table("x")
    assert [row[:3] for row in table.rows] == [("a", "good", 0.75), ("a", "film", 0.5)]
    assert PartWeights().table("x") is None


def test_previews_of_other_samples_have_no_parts():
    from tests.evals import toys

    dataset = toys.dataset()
    sample = previews(dataset, torch.zeros(1, *dataset.shape))[0]
    assert sample.parts(torch.zeros(8, 8)) is None
    assert sample.words() is None
