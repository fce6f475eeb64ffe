"""`format=hf` and `format=sentence_transformers`: folders that transformers, and sentence-transformers, load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sslcli.backbones.bert import BERT
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError, command
from sslcli.formats.export import ExportFormat, TrainedModel, largest_difference
from sslcli.formats.huggingface.card import card
from sslcli.formats.huggingface.config import write_config
from sslcli.formats.huggingface.encoder import HuggingFaceFolder
from sslcli.formats.huggingface.files import CONFIG
from sslcli.formats.huggingface.heads import find_heads
from sslcli.formats.huggingface.pooling import LENGTH, MODULES, POOLING, sentence_files
from sslcli.formats.huggingface.tokenizer import TOKENIZER_FILES, write_tokenizer
from sslcli.formats.huggingface.weights import FILES
from sslcli.runs.files import make_folder, replace_file
from sslcli.runs.safetensors_file import safetensors

SAMPLES = 4  # that are compared


class HuggingFaceFormat(ExportFormat):
    """config.json, model.safetensors with the published names, the files of the tokenizer, and README.md."""

    name: ClassVar[str] = "hf"
    files: ClassVar[tuple[str, ...]] = (FILES[0], CONFIG, *TOKENIZER_FILES, "README.md")
    heads: ClassVar[bool] = True

    def check(self, model: TrainedModel) -> None:
        backbone = model.backbone
        if not isinstance(backbone, BERT) or not isinstance(model.preprocessor, TextPreprocessor):
            raise RequestError(
                f"format={self.name} writes encoders of text with a BERT backbone; that of {model.run.path} is "
                f"{type(backbone).__name__} of {model.preprocessor.kind}",
                "leave format out for weights and encoder.json",
            )
        if backbone.causal:
            raise RequestError(
                f"format={self.name} writes BERT, whose tokens attend to all others; the backbone of {model.run.path} is causal",
                "leave format out for weights and encoder.json",
            )

    def write(self, folder: Path, model: TrainedModel) -> list[str]:
        backbone, preprocessor = model.backbone, model.preprocessor
        assert isinstance(backbone, BERT)
        assert isinstance(preprocessor, TextPreprocessor)
        heads = find_heads(model.method, backbone)
        config = write_config(backbone, heads.architecture)
        _write(folder, CONFIG, json.dumps(config, indent=2) + "\n")
        replace_file(folder, FILES[0], safetensors(heads.tensors(backbone), {"format": "pt"}))
        for name, text in write_tokenizer(preprocessor).items():
            _write(folder, name, text)
        _write(folder, "README.md", card(model, heads, self.name))
        return list(heads.notes)

    @torch.no_grad()
    def largest_difference(self, folder: Path, model: TrainedModel) -> float:
        """Of features, tokens and the outputs of heads; infinite where the tokenizer gives other ids."""
        own, preprocessor = model.backbone, model.preprocessor
        assert isinstance(own, BERT)
        assert isinstance(preprocessor, TextPreprocessor)
        written = HuggingFaceFolder(str(folder))
        again, _, other = written.open()
        assert isinstance(again, BERT)
        if written.sentences is None:  # transformers has no pooling
            again.pool = own.pool
        texts = sample_texts(preprocessor)
        ids, ids_again = preprocessor.encode(texts), other.encode(texts)
        if any(a.tolist() != b.tolist() for a, b in zip(ids, ids_again, strict=True)):
            return float("inf")
        x = sample_inputs(own)
        tokens, tokens_again = own.eval().tokens(x), again.eval().tokens(x)
        pairs = [(own(x), again(x)), (tokens, tokens_again)]
        heads = find_heads(model.method, own)
        others = heads.read_again(written.tensors(), again, written.spec)
        pairs += zip(heads.outputs(tokens), others.outputs(tokens_again), strict=True)
        return max(largest_difference(a, b) for a, b in pairs)

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        architecture = find_heads(model.method, model.backbone).architecture
        return [
            f"transformers.{architecture}.from_pretrained({out!r})",
            command("pretrain", f"init=hf:{out}", "dataset=text_lines", "dataset.path=FILE"),
        ]


class SentenceTransformersFormat(HuggingFaceFormat):
    """The same, and the files by which sentence-transformers computes the features of the backbone."""

    name: ClassVar[str] = "sentence_transformers"
    files: ClassVar[tuple[str, ...]] = (*HuggingFaceFormat.files, MODULES, POOLING, LENGTH)

    def write(self, folder: Path, model: TrainedModel) -> list[str]:
        notes = super().write(folder, model)
        assert isinstance(model.backbone, BERT)
        assert isinstance(model.preprocessor, TextPreprocessor)
        files = sentence_files(model.backbone.pool, model.backbone.dim, model.preprocessor.max_length)
        for name, text in files.items():
            _write(folder, name, text)
        return notes

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        return [
            f"sentence_transformers.SentenceTransformer({out!r})",
            command("pretrain", f"init=hf:{out}", "dataset=text_lines", "dataset.path=FILE"),
        ]


def _write(folder: Path, name: str, text: str) -> None:
    inner, _, _ = name.rpartition("/")
    if inner:
        make_folder(folder, inner)
    replace_file(folder, name, text)


def sample_inputs(backbone: BERT) -> Tensor:
    """`SAMPLES` samples of random content (SAMPLES, L), always the same: one as long as a view, the others with padding, the last
    of two segments."""
    values, (length,) = backbone.values, backbone.input_shape
    x = values.random(SAMPLES, (length,), torch.Generator().manual_seed(0))
    for i, row in enumerate(x):
        end = max(2, length - i * (length // SAMPLES))
        row[end:] = values.pad
        if values.separator is not None:
            row[end - 1] = values.separator
            if i == SAMPLES - 1:
                row[end // 2] = values.separator
        if values.start is not None:
            row[0] = values.start
    return x


def sample_texts(preprocessor: TextPreprocessor) -> list[str]:
    """Texts whose ids are compared: of several scripts, with white space and marks, and words of the vocabulary."""
    size = preprocessor.values.size
    words = preprocessor.tokenizer.decode(range(size - min(size, 500), size))
    return [
        "The capital of France is Paris.",
        "  Tabs\tand\nlines, CAPITALS; naïve café -- don't (2,000)! ",
        "ΑΒΓ Привет мир 你好 🙂 שלום",
        "",
        words,
    ]
