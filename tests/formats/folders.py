"""Small folders in Hugging Face's layout, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = (
    "the",
    "capital",
    "of",
    "france",
    "is",
    "paris",
    "##s",
    "berlin",
    "german",
    "##y",
    "good",
    "bad",
    "film",
    "not",
    "very",
)
MARKS, LETTERS = (",", ".", "!", "'", "caf", "nai", "##ve"), "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = list(dict.fromkeys((*SPECIAL, *WORDS, *MARKS, *LETTERS, *(f"##{c}" for c in LETTERS))))
TEXTS = ["The capital of France is Paris.", "Not a very good film, not a bad film!", "  naïve Café's   reviews ", "x"]
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForPreTraining"],
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 24,
    "hidden_act": "gelu",
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def weights(seed: int = 0, prefix: str = "bert.", heads: bool = True, **changes: Any) -> dict[str, Tensor]:
    """Random weights under the published names, written down here once more."""
    c = {**CONFIG, **changes}
    d, hidden, g = c["hidden_size"], c["intermediate_size"], torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (c["vocab_size"], d),
        "embeddings.position_embeddings.weight": (c["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (2, d),
    }
    linear = {"pooler.dense": (d, d)} if heads else {}
    norms = ["embeddings.LayerNorm"]
    for i in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        linear |= {f"{layer}.attention.self.{name}": (d, d) for name in ("query", "key", "value")}
        linear |= {f"{layer}.attention.output.dense": (d, d)}
        linear |= {f"{layer}.intermediate.dense": (hidden, d), f"{layer}.output.dense": (d, hidden)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    shapes |= {f"{name}.{part}": (d,) for name in norms for part in ("weight", "bias")}
    named = {prefix + name: shape for name, shape in shapes.items()}
    if heads:
        named |= {"cls.predictions.bias": (c["vocab_size"],), "cls.predictions.transform.dense.weight": (d, d)}
        named |= {
            f"cls.predictions.transform.{name}": (d,) for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")
        }
        named |= {"cls.seq_relationship.weight": (2, d), "cls.seq_relationship.bias": (2,)}
    return {name: 0.3 * torch.randn(shape, generator=g) for name, shape in named.items()}


def write_folder(folder: Path, sentences: dict[str, Any] | None = None, seed: int = 0, **config: Any) -> Path:
    """A folder with vocab.txt. `sentences`: the content of 1_Pooling/config.json of sentence-transformers, `config`: changed keys
    of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**CONFIG, **config})
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    save_file(weights(seed, **config), folder / "model.safetensors", {"format": "pt"})
    if sentences is not None:
        modules = ["", "1_Pooling", "2_Normalize"]
        kinds = ["Transformer", "Pooling", "Normalize"]
        paths = zip(modules, kinds, strict=True)
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(paths)
        ]
        write_json(folder / "modules.json", listed)
        write_json(folder / "1_Pooling" / "config.json", sentences)
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    return folder


MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}  # as version 6 writes it
