"""config.json of Hugging Face's BERT: read with checks, and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.backbones.bert import BERT
from sslcli.config import Config, typecheck
from sslcli.console import escape
from sslcli.errors import DataError, RequestError
from sslcli.formats.huggingface.files import CONFIG, exists, read_object
from sslcli.nn.bert_layers import EPS

SUPPORTED = "supported is BERT: model_type bert, absolute positions, exact GELU, two segments, LayerNorm eps 1e-12"
MAX_SIZE = 1 << 24  # of a vocabulary, a width, a number of positions
MAX_DEPTH = 1000
SIZES = {  # keys of config.json, and the default of transformers' BertConfig
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
}
REQUIRED: Mapping[str, tuple[Any, ...]] = {  # other keys, and the values that are supported; the first is the default
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "type_vocab_size": (2,),
    "layer_norm_eps": (EPS,),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "embedding_size": (None,),  # of ALBERT and ELECTRA, where the embedding has a width of its own
}
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class BertSizes:
    """What config.json says about the network."""

    width: int
    depth: int
    heads: int
    hidden: int
    positions: int
    vocabulary: int
    dropout: float
    attention_dropout: float
    pad: int | None

    def backbone(self, pool: str) -> Config:
        """The node of a configuration that builds the network."""
        return {
            "_target_": f"{BERT.__module__}.{BERT.__qualname__}",
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "mlp_ratio": mlp_ratio(self.width, self.hidden),
            "max_positions": self.positions,
            "vocabulary": self.vocabulary,
            "dropout": self.dropout,
            "pool": pool,
            "causal": False,
        }


def mlp_ratio(width: int, hidden: int) -> float:
    """The ratio of which int(width * ratio) is `hidden`, despite rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def read_config(folder: Path) -> BertSizes:
    """The sizes in config.json. RequestError for a network that is not BERT, DataError for sizes that are not possible."""
    if not exists(folder, CONFIG):
        adapter = exists(folder, "adapter_config.json")
        raise RequestError(
            f"{escape(str(folder))} has no {CONFIG}"
            + (": it holds an adapter, whose base model is another folder" if adapter else ""),
            "hf:FOLDER is a folder that save_pretrained of transformers, or sentence-transformers, has written",
        )
    content = read_object(folder, CONFIG)
    path = escape(str(folder / CONFIG))
    for key, supported in REQUIRED.items():
        value = content.get(key, supported[0] if key != "model_type" else None)
        if value not in supported:
            raise RequestError(f"{path}: {key} {_text(value)} is not supported", SUPPORTED)
    width, depth, heads, hidden, positions, vocabulary = (
        _size(content.get(key, default), key, path) for key, default in SIZES.items()
    )
    dropout, attention_dropout = (_rate(content.get(key, 0.1), key, path) for key in RATES)
    pad = content.get("pad_token_id", 0)
    if not typecheck.matches_type(pad, int | None):
        raise DataError(f"{path}: pad_token_id {_text(pad)} is not an id")
    if width % heads:
        raise DataError(f"{path}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
    return BertSizes(width, depth, heads, hidden, positions, vocabulary, dropout, attention_dropout, pad)


def _size(value: object, key: str, path: str) -> int:
    most = MAX_DEPTH if key == "num_hidden_layers" else MAX_SIZE
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise DataError(f"{path}: {key} is {_text(value)}: expected an integer from 1 to {most:,}")
    return value


def _rate(value: object, key: str, path: str) -> float:
    if not typecheck.matches_type(value, float) or not 0 <= value < 1:  # type: ignore[operator]
        raise DataError(f"{path}: {key} is {_text(value)}: expected a number from 0 to below 1")
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    return escape(str(value))[:80]


def write_config(backbone: BERT, architecture: str) -> Config:
    """The content of config.json for a backbone; `architecture`: the class of transformers with its heads."""
    first, values = backbone.layers[0], backbone.values
    return {
        "architectures": [architecture],
        "model_type": "bert",
        "vocab_size": backbone.embeddings.word_embeddings.num_embeddings,
        "hidden_size": backbone.dim,
        "num_hidden_layers": len(backbone.layers),
        "num_attention_heads": first.attention["self"].heads,
        "intermediate_size": first.intermediate["dense"].out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": backbone.embeddings.dropout,
        "attention_probs_dropout_prob": backbone.embeddings.dropout,
        "max_position_embeddings": backbone.max_positions,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": EPS,
        "pad_token_id": values.pad,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
