"""SASRec and BERT4Rec: losses against slow formulas, what a prediction depends on, and scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.bert import BERT
from sslcli.batch import Batch
from sslcli.errors import RequestError
from sslcli.methods.autoregressive import Autoregressive
from sslcli.methods.bert4rec import BERT4Rec
from sslcli.methods.multitask import MultiTask
from sslcli.methods.sasrec import SASRec
from sslcli.nn.next_item import leave_room
from sslcli.nn.values import Tokens
from sslcli.rng import Draw

VALUES = Tokens(20, pad=0, mask=1, special=(0, 1))


def network(causal: bool, pool: str = "mean") -> BERT:
    torch.manual_seed(0)
    return BERT((6,), 16, 2, 2, dropout=0.0, causal=causal, pool=pool, values=VALUES)


def batch(x: torch.Tensor) -> Batch:
    return Batch([x], ["weak"], Draw(0, 0, torch.arange(len(x))))


X = torch.tensor([[2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0], [11, 0, 0, 0, 0, 0], [12, 12, 13, 14, 15, 0]])


@pytest.mark.parametrize("causal", [True, False])
def test_sasrec_loss_is_that_of_every_prefix(causal):
    """As RecBole's SASRec with loss_type CE, one sample for each prefix: the output at its last item times the embeddings."""
    method = SASRec(network(causal)).eval()
    losses = []
    for row in X.tolist():
        items = [i for i in row if i]
        for n in range(1, len(items)):
            prefix = torch.tensor([items[:n]])
            attend = None if causal else torch.ones(n, n, dtype=torch.bool).tril()
            h = method.backbone.tokens(prefix, attend=attend)[0, -1]
            logits = method.backbone.token_embedding.weight[2:] @ h
            losses.append(F.cross_entropy(logits[None], torch.tensor([items[n] - 2])).item())
    out = method(batch(X))
    assert out["loss"].item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert out["perplexity"].item() == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_sasrec_scores_depend_on_history_alone():
    method = SASRec(network(True)).eval()
    scores = method.next_scores(X)
    assert scores.shape == (4, 20)
    assert scores[:, :2].eq(-math.inf).all()
    short = torch.tensor([[8, 9, 10, 0, 0, 0]])
    assert torch.allclose(method.next_scores(short)[0], scores[1], atol=1e-5)
    full = torch.tensor([[3, 4, 5, 6, 7, 0]])  # a full view leaves its first item out, whose place the next item takes
    assert torch.allclose(method.next_scores(full)[0], scores[0], atol=1e-5)
    h = method.backbone.tokens(short[:, :3])[0, -1]
    assert torch.allclose(scores[1, 2:], method.backbone.token_embedding.weight[2:] @ h, atol=1e-5)


def test_leave_room():
    x, count = leave_room(X, VALUES)
    assert x[0].tolist() == [3, 4, 5, 6, 7, 0]
    assert torch.equal(x[1:], X[1:])
    assert count.tolist() == [5, 3, 1, 5]


def test_bert4rec_hides_the_last_item_in_half_of_the_samples():
    method = BERT4Rec(network(False), mask_ratio=0.2, last=0.5)
    x = X.repeat(500, 1)
    where = method.hidden(x, batch(x))
    lengths = (x != 0).sum(dim=1)
    last_alone = (where.sum(dim=1) == 1) & where[torch.arange(len(x)), lengths - 1]
    assert (where.sum(dim=1) >= 1).all()
    assert not (where & (x == 0)).any()
    long = lengths == 6  # of 6 items 1 is hidden anywhere: the last one in 1/2 + 1/2 * 1/6
    assert last_alone[long].float().mean().item() == pytest.approx(7 / 12, abs=0.07)
    assert BERT4Rec(network(False), last=1.0).hidden(X, batch(X)).nonzero()[:, 1].tolist() == [5, 2, 0, 4]


def test_bert4rec_loss_and_scores():
    method = BERT4Rec(network(False), last=1.0).eval()
    hidden = X.clone()
    at = [5, 2, 0, 4]
    losses = []
    for i, place in enumerate(at):
        hidden[i, place] = 1
        n = int((X[i] != 0).sum())
        logits = method.head(method.backbone.tokens(hidden[i : i + 1, :n])[0, place])
        losses.append(F.cross_entropy(logits[None], X[i, place][None]).item())
    assert method(batch(X))["loss"].item() == pytest.approx(sum(losses) / 4, abs=1e-5)
    after = torch.tensor([[8, 9, 10, 1]])
    expected = method.head(method.backbone.tokens(after)[0, 3])
    scores = method.next_scores(X)
    assert torch.allclose(scores[1, 2:], expected[2:], atol=1e-5)
    assert scores[:, :2].eq(-math.inf).all()


def test_backbones_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="from both sides"):
        BERT4Rec(network(True))
    with pytest.raises(ValueError, match="last must be"):
        BERT4Rec(network(False), last=1.5)
    with pytest.raises(RequestError, match="expected mean, cls, last"):
        network(True, "first")


def test_last_pooling_and_its_attention():
    net = network(True, "last").eval()
    z = net(X)
    tokens = net.tokens(X)
    assert torch.equal(z, torch.stack([tokens[i, n - 1] for i, n in enumerate([6, 3, 1, 5])]))
    received = net.attention(X)
    assert received.shape == (4, 2, 6)
    assert torch.allclose(received.sum(dim=2), torch.ones(4, 2), atol=1e-5)
    assert received[2, :, 0].tolist() == pytest.approx([1.0, 1.0])


def test_tasks_score_the_next_item():
    net = network(True, "last")
    method = MultiTask(net, {"sasrec": SASRec(net)}).eval()
    assert torch.equal(method.next_scores(X), method.tasks["sasrec"].next_scores(X))


def test_autoregressive_scores_are_its_prediction():
    method = Autoregressive(network(False), prefix="random").eval()
    scores = method.next_scores(X)
    history = torch.tensor([[8, 9, 10, 0, 0, 0]])
    expected = method.next(history, torch.tensor([3]))[0, 2]
    assert torch.allclose(scores[1, 2:], expected[2:], atol=1e-5)
    assert scores[:, :2].eq(-math.inf).all()
