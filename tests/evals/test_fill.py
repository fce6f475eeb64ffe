"""Masked-token prediction against loops over samples, its examples, and the answers to a user's text."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sslcli.config import instantiate
from sslcli.errors import RequestError
from sslcli.evals.base.evaluation import make_record
from sslcli.evals.base.features import EvalData
from sslcli.evals.fill import fill
from sslcli.evals.tokens.masking import choose, masked_batches
from sslcli.evals.tokens.scores import TokenScores, unigram
from sslcli.methods.base import Method
from sslcli.nn.values import Tokens
from sslcli.views.modality import modality
from tests.evals import toys
from tests.letters import spelling

VALUES = Tokens(29, mask=27, special=(27, 28))
LENGTH = spelling.LENGTH


class Table(Method):
    """Predicts one distribution for each place, whatever the word is."""

    def __init__(self, seed: int):
        super().__init__(torch.nn.Identity())
        self.logits = torch.randn(LENGTH, VALUES.size, generator=torch.Generator().manual_seed(seed)) * 2
        self.seen: list[Tensor] = []

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor:
        assert (x[where] == VALUES.mask).all()
        self.seen.append(x)
        return self.logits[torch.nonzero(where)[:, 1]]


@pytest.fixture
def data(monkeypatch) -> EvalData:
    monkeypatch.setattr(instantiate, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    instantiate.trust_folder(Path(spelling.__file__).parent)
    dataset = replace(spelling.load(), values=VALUES)
    return EvalData(
        dataset,
        pretraining=lambda: (Table(0), None),
        untrained_method=lambda: Table(1),
        untrained=lambda: torch.nn.Identity(),
    )


def by_hand(data: EvalData, log_p: Tensor, share: float) -> tuple[float, float, float]:
    """Accuracy, top 5 and perplexity of log-probabilities (L, V), token by token."""
    right, five, nats = [], [], []
    for _, x, where in masked_batches(data, VALUES, "test", torch.arange(40), share):
        for row, hidden in zip(x, where, strict=True):
            for place in range(LENGTH):
                if hidden[place]:
                    p = log_p[place]
                    right.append(p.argmax() == row[place])
                    five.append(row[place] in p.topk(5).indices)
                    nats.append(-p[row[place]].item())
    return sum(map(float, right)) / len(right), sum(map(float, five)) / len(five), math.exp(sum(nats) / len(nats))


def test_metrics_match_a_loop_over_tokens(data):
    result = fill(None, data, share=0.4)
    for prefix, seed in (("", 0), ("untrained.", 1)):
        expected = by_hand(data, Table(seed).logits.log_softmax(dim=1), 0.4)
        found = [result.metrics[prefix + name] for name in ("accuracy", "top5", "perplexity")]
        assert found == pytest.approx(expected, rel=1e-4)
    train = data.dataset.train.x.flatten().tolist()
    counts = torch.tensor([0.0 if i in (0, 27, 28) else train.count(i) + 1.0 for i in range(VALUES.size)])
    expected = by_hand(data, (counts / counts.sum()).log().expand(LENGTH, -1), 0.4)
    assert result.metrics["unigram.accuracy"] == pytest.approx(expected[0])
    assert result.metrics["unigram.perplexity"] == pytest.approx(expected[2], rel=1e-4)
    assert result.protocol["tokens"] == 40 * 2


def test_intervals_are_of_documents(data):
    result = fill(None, data, share=0.4)
    for name in ("accuracy", "perplexity", "unigram.top5"):
        low, high = result.intervals[f"{name}_ci95"]
        assert low < result.metrics[name] < high
    x = torch.arange(1, 5).repeat(30, 1)
    log_p = torch.eye(5)[x.flatten()].add(1e-3).log()
    log_p[:60] = log_p[:60].roll(1, dims=1)  # all tokens of one half of the documents are wrong
    scores = TokenScores()
    scores.add(log_p, x, torch.ones_like(x, dtype=torch.bool))
    metrics, intervals = scores.metrics()
    assert metrics["accuracy"] == pytest.approx(0.5)
    low, high = intervals["accuracy_ci95"]
    assert high - low == pytest.approx(
        2 * 1.959964 * 0.5 / math.sqrt(29)
    )  # as of 30 independent documents, not of 120 tokens


def test_choice_is_a_share_of_the_content():
    values = Tokens(40, mask=4, special=(0, 1, 2, 3, 4))
    x = torch.tensor([[2, *range(10, 30), 3, 0, 0], [2, 9, 3, *[0] * 21], [2, 3, *[0] * 22]])
    where = choose(x, torch.rand(3, 24, generator=torch.Generator().manual_seed(0)), 0.15, values)
    assert where.sum(dim=1).tolist() == [3, 1, 0]  # 15 % of 20, at least one, nothing in an empty document
    assert not where[x < 5].any()
    assert where[1, 1]


def test_hidden_tokens_do_not_depend_on_the_batch(data):
    other = EvalData(data.dataset, batch_size=7)
    first, second = (
        torch.cat([w for _, _, w in masked_batches(d, VALUES, "test", torch.arange(40), 0.3)]) for d in (data, other)
    )
    assert torch.equal(first, second)
    assert 0 < first.float().mean() < 0.5


def test_unigram_model_adds_one_to_each_token():
    log_p = unigram(iter([torch.tensor([[1, 1, 2, 0]]), torch.tensor([[1, 27, 0, 0]])]), VALUES)
    assert log_p.exp().sum().item() == pytest.approx(1.0)
    assert log_p[1].exp().item() == pytest.approx(4 / (26 + 4))
    assert log_p[0] == log_p[27] == -math.inf


def test_examples_are_a_table(data):
    result = fill(None, data)
    record = make_record(result, {})
    rows = record["tables"]["sentences.csv"]["rows"]
    assert len(rows) == 10
    words = set(spelling.spell(data.dataset.test.x))
    for text, token, *likely in rows:
        assert text.count("{") == 1  # the mask token, the letter after z
        assert text.replace("{", chr(96 + int(token))) in words
        assert len(likely) == 5
        assert all(0 < float(guess.split()[0]) < 1 for guess in likely)


def test_baselines_can_be_left_out(data):
    result = fill(None, data, baselines=False)
    assert set(result.metrics) == {"accuracy", "top5", "perplexity"}
    assert "baselines were not evaluated (evaluator.baselines=false)" in result.protocol["notes"]


def parse(self, text: str, dataset) -> Tensor:
    """Letters to ids; a view holds six of them."""
    ids = [27 if c == "_" else ord(c) - 96 for c in text.replace("[MASK]", "_")]
    return torch.tensor((ids + [0] * LENGTH)[:LENGTH])


def test_text_is_filled_in(data, monkeypatch):
    monkeypatch.setattr(type(modality("letters")), "parse", parse)
    result = fill(None, data, text=["ab[MASK]d", "[MASK]b[MASK]"])
    p = Table(0).logits.softmax(dim=1)
    assert [line.split("\t")[0] for line in result.answers] == ["1.1"] * 5 + ["2.1"] * 5 + ["2.2"] * 5
    for at, place in ((0, 2), (5, 0), (10, 2)):
        number, probability, token = result.answers[at].split("\t")
        assert probability == f"{float(p[place].max()):.4f}", number
        assert token == str(int(p[place].argmax()))
    assert result.metrics == {}
    assert [len(one["masks"]) for one in result.details["texts"]] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", r"there is no \[MASK\]"),
        ([], "text is empty"),
        (["[MASK]", "no"], "text=no"),
        ("abcdefg[MASK]", "beyond"),
    ],
)
def test_texts_without_a_mask_are_refused(data, monkeypatch, text, message):
    monkeypatch.setattr(type(modality("letters")), "parse", parse)
    with pytest.raises(RequestError, match=message):
        fill(None, data, text=text)


def test_methods_without_tokens_are_refused(data):
    blind = EvalData(data.dataset, pretraining=lambda: (Method(torch.nn.Identity()), None))
    with pytest.raises(RequestError, match="Method does not predict hidden tokens"):
        fill(None, blind)
    with pytest.raises(RequestError, match="an untrained backbone predicts no hidden tokens"):
        fill(None, EvalData(data.dataset))
    with pytest.raises(RequestError, match="images have none"):
        fill(None, EvalData(toys.dataset()))
    with pytest.raises(RequestError, match="share"):
        fill(None, data, share=1.0)
