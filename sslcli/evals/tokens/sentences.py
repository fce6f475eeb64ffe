"""Texts with hidden tokens: those that a user asks for, and examples of the held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.errors import RequestError
from sslcli.evals.artefacts.tables import Table
from sslcli.evals.base.features import EvalData
from sslcli.evals.tokens.masking import predict
from sslcli.evals.tokens.scores import TOP
from sslcli.methods.base import Method
from sslcli.nn.values import Tokens
from sslcli.runs import Record
from sslcli.views import previews
from sslcli.views.modality import modality

MASK = "[MASK]"
CONTEXT = 15  # tokens on each side of a hidden one in the examples
EXAMPLE = 'text="The capital of France is [MASK]."'


@dataclass
class Answer:
    """A text, and of each hidden token the most likely tokens with their probabilities."""

    text: str
    masks: list[list[tuple[str, float]]]

    def lines(self, number: int) -> list[str]:
        """One line for each likely token: the number of the text and of the hidden token, probability, token."""
        return [
            f"{number}.{i}\t{p:.4f}\t{token}" for i, likely in enumerate(self.masks, start=1) for token, p in likely
        ]

    def record(self) -> Record:
        return {
            "text": self.text,
            "masks": [[{"token": token, "probability": p} for token, p in likely] for likely in self.masks],
        }


def check_texts(text: str | Sequence[str]) -> list[str]:
    """The texts of a request. RequestError for one without [MASK]."""
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise RequestError("text is empty", EXAMPLE)
    for one in texts:
        if not isinstance(one, str) or MASK not in one:
            raise RequestError(f"text={one}: there is no {MASK} to fill in", EXAMPLE)
    return texts


def answer(texts: list[str], method: Method, data: EvalData, values: Tokens) -> list[Answer]:
    """The most likely tokens of each [MASK]. RequestError where a text is too long for the network."""
    kind = modality(data.dataset.modality)
    answers = []
    for text in texts:
        x = kind.parse(text, data.dataset)[None].to(data.device)
        assert values.mask is not None, values
        where = x.eq(values.mask)
        if int(where.sum()) < text.count(MASK):
            raise RequestError(
                f"text={text[:60]}...: a {MASK} lies beyond the {x.shape[1]} tokens that this encoder reads",
                "shorten the text before it",
            )
        log_p = predict(method, data, values, x, where)
        assert log_p is not None
        answers.append(Answer(text, most_likely(log_p, data)))
    return answers


def most_likely(log_p: Tensor, data: EvalData) -> list[list[tuple[str, float]]]:
    """Of each row of log-probabilities (n, V) the five most likely tokens, with their probabilities."""
    kind = modality(data.dataset.modality)
    top, ids = log_p.topk(min(TOP, log_p.shape[1]), dim=1)
    return [
        list(zip(kind.spell(row, data.dataset), p, strict=True))
        for row, p in zip(ids.tolist(), top.exp().tolist(), strict=True)
    ]


def example(
    x: Tensor, at: int, method: Method, data: EvalData, values: Tokens
) -> tuple[str, str, list[tuple[str, float]]]:
    """Of the view x (L,) with its token `at` hidden: the text around it, the token, and the most likely ones."""
    where = torch.zeros_like(x, dtype=torch.bool)
    where[at] = True
    log_p = predict(method, data, values, x[None], where[None])
    assert log_p is not None
    near = values.hide(x, where)[max(0, at - CONTEXT) : at + CONTEXT + 1]
    (text,) = previews(data.dataset, near[None])
    (token,) = modality(data.dataset.modality).spell([int(x[at])], data.dataset)
    (likely,) = most_likely(log_p, data)
    return text.text(), token, likely


def table(rows: list[tuple[str, str, list[tuple[str, float]]]]) -> Table:
    """What `example` returns of several samples. Each guess has a cell: text from right to left would mix with others."""
    cells = [(text, token, *(f"{p:.3f} {guess}" for guess, p in likely)) for text, token, likely in rows]
    caption = f"{len(rows)} held-out samples, not chosen, one token of each hidden, and the most likely with their probability"
    ranks = [str(i + 1) for i in range(max((len(likely) for _, _, likely in rows), default=0))]
    return Table(("sample", "hidden", *ranks), cells, caption)
