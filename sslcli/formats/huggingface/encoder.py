"""`init=hf:FOLDER`: an encoder in Hugging Face's layout of BERT, also of sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from sslcli.config import Config
from sslcli.config.overrides import override_keys
from sslcli.data.text.preprocessor import WINDOWS, TextPreprocessor
from sslcli.errors import RequestError
from sslcli.formats.huggingface.config import read_config
from sslcli.formats.huggingface.files import CONFIG, exists, read_optional
from sslcli.formats.huggingface.heads import find_heads, has_predictions, load_heads
from sslcli.formats.huggingface.pooling import MODULES, read_sentences
from sslcli.formats.huggingface.tokenizer import longest_input, read_tokenizer
from sslcli.formats.huggingface.weights import Tensors, find_files, load_backbone, read_weights
from sslcli.formats.pretrained import PretrainedEncoder, with_backbone
from sslcli.methods.base import Method
from sslcli.methods.mlm import MLM
from sslcli.runs import Record
from sslcli.runs.encoder import build_backbone

TOKENIZER_KEYS = ("tokenizer", "vocabulary", "lowercase")  # of a data set
FREE = frozenset({"dropout", "pool", "causal"})  # keys of the backbone that its weights do not determine


class HuggingFaceFolder(PretrainedEncoder):
    """Vocabulary, tokenizer, sizes and, for a folder of sentence-transformers, pooling and length follow the folder."""

    scheme = "hf"
    usage = "hf:FOLDER"

    def __init__(self, name: str, download: bool = False):
        super().__init__(name)
        self.folder = Path(name).expanduser()
        self.sizes = read_config(self.folder)
        self.sentences = read_sentences(self.folder)
        find_files(self.folder)
        self._tensors: Tensors | None = None

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        return exists(folder, MODULES) or (exists(folder, CONFIG) and "model_type" in read_optional(folder, CONFIG))

    def resolved(self) -> str:
        return f"{self.scheme}:{os.path.abspath(self.folder)}"

    @property
    def length(self) -> int:
        """The longest input in tokens that the folder names."""
        own = self.sentences.length if self.sentences is not None else None
        limits = [own, longest_input(self.folder), self.sizes.positions]
        return min(limit for limit in limits if limit is not None)

    def backbone(self, pool: str = "mean") -> Config:
        return self.sizes.backbone(self.sentences.pool if self.sentences is not None else pool)

    def tensors(self) -> Tensors:
        """The weights, read when they are first asked for."""
        if self._tensors is None:
            self._tensors = read_weights(self.folder)
        return self._tensors

    # ------------------------------------------------------------------------------------------------------ configuration

    def configure(self, values: Config, overrides: Sequence[str]) -> Config:
        pool = values["backbone"].get("pool")
        node = self.backbone(pool if pool in ("mean", "cls") else "mean")
        values = with_backbone(values, overrides, node, FREE, self)
        return {**values, "dataset": self._dataset(values["dataset"], override_keys(list(overrides)))}

    def _dataset(self, node: Config, given: list[str]) -> Config:
        """The node of the data set with the length of the folder, unless the request has a shorter one."""
        if chosen := [key for key in TOKENIZER_KEYS if f"dataset.{key}" in given]:
            raise RequestError(
                f"dataset.{chosen[0]}={node.get(chosen[0])} contradicts init={self.spec}, whose tokenizer is used",
                "leave it out: the tokenizer follows the pretrained encoder",
            )
        length = node.get("max_length")
        if not isinstance(length, int):
            return node
        if "dataset.max_length" in given and length > self.sizes.positions:
            raise RequestError(
                f"dataset.max_length={length} contradicts init={self.spec}, which has {self.sizes.positions} positions",
                f"dataset.max_length={self.sizes.positions}, or less",
            )
        if "dataset.max_length" not in given:
            length = self.length if self.sentences is not None else min(length, self.length)
        return {**node, "max_length": length}

    def preprocessor(self, dataset: Config) -> TextPreprocessor:
        length = dataset.get("max_length")
        own = read_tokenizer(self.folder, length if isinstance(length, int) else self.length, self.sizes)
        return replace(own, windows=dataset.get("windows") or WINDOWS)

    # ------------------------------------------------------------------------------------------------------------ weights

    def load(self, backbone: nn.Module) -> str:
        note, sizes = load_backbone(backbone, self.tensors(), self.spec), self.sizes
        if sizes.attention_dropout != sizes.dropout:
            note += f"; dropout {sizes.dropout:g} of attention too, where the folder has {sizes.attention_dropout:g}"
        return note

    def load_heads(self, method: Method) -> str:
        heads = find_heads(method, method.backbone)
        return load_heads(heads, self.tensors(), self.spec) if heads.parts() else ""

    def method(self, backbone: nn.Module) -> Method | None:
        """Masked language modeling, where the folder has the head that predicts tokens."""
        if not has_predictions(self.tensors()):
            return None
        method = MLM(backbone)
        load_heads(find_heads(method, backbone), self.tensors(), self.spec)
        return method.eval()

    def open(self, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Record, TextPreprocessor]:
        length = {} if shape is None else {"max_length": shape[0]}
        preprocessor, node = self.preprocessor({"windows": 1, **length}), self.backbone()  # the start, as transformers
        backbone = build_backbone(node, preprocessor.shape, preprocessor.values)
        self.load(backbone)
        info = {
            "format": 2,
            "backbone": node,
            "input_shape": list(preprocessor.shape),
            "values": preprocessor.values.to_json(),
            "modality": preprocessor.kind,
            "dataset": self.folder.resolve().name,
            "method": self.scheme,
            "step": 0,
            "dim": backbone.dim,
        }
        return backbone, info, preprocessor
