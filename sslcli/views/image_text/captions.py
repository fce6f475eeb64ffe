"""Captions as text encoders take them: (B, L) int64 ids, [CLS] content [SEP] and padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.image_text.captions import Captions
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.rng import Draw
from sslcli.views.text import add_special


class CaptionViews:
    """The captions of batches: the start of one caption of each sample, drawn anew in each epoch.

    captions: of the source of the samples."""

    def __init__(self, captions: Captions, preprocessor: TextPreprocessor, device: torch.device):
        self.captions, self.preprocessor = captions.to(device), preprocessor

    @torch.no_grad()
    def __call__(self, draw: Draw) -> Tensor:
        """(B, L) int64 of the samples of a draw."""
        return views_of(self.captions, self.captions.draw(draw), self.preprocessor)


def views_of(captions: Captions, which: Tensor, preprocessor: TextPreprocessor) -> Tensor:
    """The captions numbered `which` (k,) int64 as (k, L) int64."""
    room, values = preprocessor.max_length - 2, preprocessor.values
    content = captions.texts.gather(which, torch.zeros_like(which), room, values.pad).long()
    return add_special(content, values)


def encode_texts(texts: Sequence[str], preprocessor: TextPreprocessor) -> Tensor:
    """Texts as captions, (n, L) int64."""
    room, values = preprocessor.max_length - 2, preprocessor.values
    content = torch.full((len(texts), room), values.pad, dtype=torch.int64)
    for row, ids in zip(content, preprocessor.encode(list(texts)), strict=True):
        row[: len(ids)] = ids[:room]
    return add_special(content, values)
