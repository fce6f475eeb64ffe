"""Masked language modeling: which tokens are hidden, by what they are replaced, and the loss of predicting them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision
from sslcli.nn.unpadding import round_up
from sslcli.nn.values import Tokens
from sslcli.nn.words import unpack_flags, word_starts

NO_TARGET = -100


class TokenMasking(nn.Module):
    """Hides a share of the tokens of each sample, as BERT (Devlin et al., NAACL 2019, Sec. 3.1 and Appendix A.1).

    Of a sample with n content tokens, max(1, n * `ratio`, rounded) are targets; padding and special tokens never are. With
    `whole_word`, words are chosen until there are that many tokens, and all tokens of a word are hidden. Of the targets a share
    `masked` becomes the mask token, a share `random` a random content token, and the others stay."""

    content: Tensor
    continues: Tensor
    is_content: Tensor

    def __init__(
        self,
        values: Tokens,
        ratio: float = 0.15,
        whole_word: bool = False,
        masked: float = 0.8,
        random: float = 0.1,
    ):
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1, got {ratio}")
        if values.mask is None:
            raise ValueError("masked language modeling needs a vocabulary with a mask token")
        if whole_word and not values.continues:
            raise ValueError(
                "whole_word=true has no effect: each token of this vocabulary is a word; dataset.tokenizer=wordpiece has parts"
            )
        self.values, self.ratio, self.whole_word, self.masked, self.random = values, ratio, whole_word, masked, random
        self.mask, self.markers = values.mask, {values.pad, *values.special}
        is_content = torch.ones(values.size, dtype=torch.bool)
        is_content[list({values.pad, values.mask, *values.special})] = False
        for name, table in (
            ("is_content", is_content),
            ("content", is_content.nonzero().flatten()),
            ("continues", unpack_flags(values.continues, values.size)),
        ):
            self.register_buffer(name, table, persistent=False)
        if not len(self.content):
            raise ValueError("the vocabulary has no content tokens")

    def forward(self, x: Tensor, uniform: Callable[[str, int], Tensor]) -> tuple[Tensor, Tensor]:
        """x (B, L) with replaced tokens, and which of them are targets (B, L). uniform: `batch.uniform`."""
        where = self.targets(x, uniform("mask", x.shape[1]))
        return self.replace(x, where, *(uniform(key, x.shape[1]) for key in ("replacement", "random token"))), where

    def targets(self, x: Tensor, scores: Tensor) -> Tensor:
        """(B, L) bool: the tokens to predict, those with the smallest `scores` (B, L)."""
        candidate = self.is_content[x]
        count = (candidate.sum(dim=1) * self.ratio + 0.5).floor().clamp(min=1)
        if self.whole_word:  # all tokens of a word have the score of its first one
            starts = word_starts(x, self.continues, self.markers)
            at = torch.arange(x.shape[1], device=x.device)
            first = torch.where(starts, at, 0).cummax(dim=1).values
            scores = scores.gather(1, first)
        rank = (scores + 2.0 * ~candidate).argsort(dim=1, stable=True).argsort(dim=1)
        if self.whole_word:
            rank = rank.gather(1, first)
        return candidate & (rank < count[:, None])

    def replace(self, x: Tensor, where: Tensor, kind: Tensor, token: Tensor) -> Tensor:
        """x (B, L) with tokens replaced at the targets `where`. kind, token: uniform random numbers (B, L)."""
        drawn = self.content[(token * len(self.content)).long().clamp(max=len(self.content) - 1)]
        replaced = torch.where(kind < self.masked, self.mask, torch.where(kind < self.masked + self.random, drawn, x))
        return torch.where(where, replaced, x)


def predict_targets(head: nn.Module, rows: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """`token_terms` of the predictions that `head` makes of rows (n, D), and their logits (n, V).

    The number n of hidden tokens differs from batch to batch. Rows without a target make it a multiple of 32, so that the memory of
    the largest tensors of a step has few different sizes, and is used again."""
    more = round_up(len(rows), 32) - len(rows)
    logits = head(F.pad(rows, (0, 0, 0, more)))
    return token_terms(logits, target), logits[: len(rows)]


@full_precision
def token_terms(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of logits (n, V) and targets (n,), and the accuracy, over all targets of the global batch; 0 without any.
    Further rows of the logits have no target."""
    count = all_reduce_mean(torch.tensor(float(len(target)), device=logits.device, dtype=logits.dtype)).clamp(min=1)
    target = F.pad(target, (0, len(logits) - len(target)), value=NO_TARGET)
    loss = F.cross_entropy(logits, target, reduction="sum", ignore_index=NO_TARGET) / count
    correct = (logits.detach().argmax(dim=1) == target).sum() / count
    return {"loss": loss, "accuracy": correct}


@full_precision
def perplexity(loss: Tensor) -> Tensor:
    """Of the targets of the global batch, from `token_terms` of this process."""
    return all_reduce_mean(loss).exp()


def metrics(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is logged of `token_terms`: accuracy and perplexity over masked tokens."""
    return {"mlm_acc": terms["accuracy"], "perplexity": perplexity(terms["loss"])}
