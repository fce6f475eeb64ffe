"""Sequences of tokens and small networks of BERT's layout for tests, with Hugging Face's models of the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslcli.backbones.bert import BERT
from sslcli.nn.bert_layers import PredictionHead
from sslcli.nn.values import Tokens

VALUES = Tokens(40, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))
L = 24


def texts(lengths: tuple[int, ...] = (24, 10, 7, 17, 3), pairs: bool = False) -> Tensor:
    """[CLS] tokens [SEP] padding; with `pairs`, the fourth token is a separator too."""
    x = VALUES.random(len(lengths), (L,), torch.Generator().manual_seed(sum(lengths)))
    x[:, 0] = 2
    for row, n in zip(x, lengths, strict=True):
        row[n - 1] = 3
        row[n:] = 0
        if pairs and n > 5:
            row[3] = 3
    return x


def network(**options) -> BERT:
    torch.manual_seed(0)
    return BERT((L,), values=VALUES, **{"width": 16, "depth": 2, "heads": 2, **options}).eval()


def trained(**options) -> BERT:
    """Weights far from those at the start, so that attention differs between tokens."""
    net = network(**options)
    shake(net)
    return net


def transformers() -> Any:
    return pytest.importorskip("transformers")


def config(net: BERT, **options) -> Any:
    """The configuration of Hugging Face's models."""
    return transformers().BertConfig(
        vocab_size=net.embeddings.word_embeddings.num_embeddings,
        hidden_size=net.dim,
        num_hidden_layers=len(net.layers),
        num_attention_heads=net.sizes.heads,
        intermediate_size=4 * net.dim,
        max_position_embeddings=net.max_positions,
        attn_implementation="eager",
        **options,
    )


def hugging_face(net: BERT) -> Any:
    """Hugging Face's `BertModel` with the weights of `net`: the keys are the same."""
    model = transformers().BertModel(config(net), add_pooling_layer=False)
    model = model.to(net.embeddings.LayerNorm.weight.dtype).eval()
    model.load_state_dict(net.state_dict())
    return model


def copy_head(head: PredictionHead, predictions: Any) -> None:
    """Copy a head of masked language modeling into Hugging Face's `BertLMPredictionHead`."""
    predictions.transform.load_state_dict({k: v for k, v in head.state_dict().items() if k != "bias"})
    predictions.bias.data.copy_(head.bias)


def shake(module: nn.Module, seed: int = 1, size: float = 0.3) -> None:
    """Move the weights of a module away from those at the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator))
