"""The vector of each class in the space that images and texts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.views.image_text.captions import encode_texts

AT_ONCE = 256  # texts


def encode_in_parts(encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The unit vectors (T, P) float32 of texts (T, L), on the CPU. encode: of some of them."""
    return torch.cat([encode(part).float().cpu() for part in x.split(AT_ONCE)])


def class_vectors(
    encode: Callable[[Tensor], Tensor], texts: Sequence[Sequence[str]], preprocessor: TextPreprocessor
) -> Tensor:
    """(K, P) unit vectors, the means of the unit vectors of the texts of each class."""
    each = [encode_in_parts(encode, encode_texts(own, preprocessor)).mean(dim=0) for own in texts]
    return F.normalize(torch.stack(each), dim=1)
