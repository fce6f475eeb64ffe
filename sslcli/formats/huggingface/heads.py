"""The heads of BERT's pretraining under their published names: of masked tokens, and of the next sentence with the pooler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from sslcli.backbones.bert import BERT
from sslcli.backbones.weights.matching import copy_into
from sslcli.console import escape
from sslcli.errors import listing
from sslcli.methods.base import Method
from sslcli.methods.bert import BERT as BertMethod
from sslcli.methods.electra import ELECTRA
from sslcli.methods.mlm import MLM
from sslcli.nn.bert_layers import PredictionHead
from sslcli.nn.sentence_pairs import NextSentence

PREDICTIONS = {  # names of sslcli -> published names
    "dense.weight": "cls.predictions.transform.dense.weight",
    "dense.bias": "cls.predictions.transform.dense.bias",
    "LayerNorm.weight": "cls.predictions.transform.LayerNorm.weight",
    "LayerNorm.bias": "cls.predictions.transform.LayerNorm.bias",
    "bias": "cls.predictions.bias",
}
NEXT_SENTENCE = {
    "pooler.weight": "pooler.dense.weight",
    "pooler.bias": "pooler.dense.bias",
    "classifier.weight": "cls.seq_relationship.weight",
    "classifier.bias": "cls.seq_relationship.bias",
}
DECODER = "cls.predictions.decoder.weight"  # the output layer, where it is stored beside the embedding
PREFIX = "bert."
Names = dict[str, str]
Head = TypeVar("Head", bound=nn.Module)


@dataclass(frozen=True)
class Heads:
    """The heads that a method has on its evaluated backbone."""

    predictions: PredictionHead | None = None
    next_sentence: NextSentence | None = None
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The class of transformers with these heads."""
        if self.predictions is None:
            return "BertModel" if self.next_sentence is None else "BertForNextSentencePrediction"
        return "BertForMaskedLM" if self.next_sentence is None else "BertForPreTraining"

    def describe(self) -> str:
        heads = ("masked tokens", self.predictions), ("next sentence, with the pooler", self.next_sentence)
        return " and ".join(name for name, head in heads if head is not None) or "none"

    def parts(self) -> list[tuple[nn.Module, Names]]:
        pairs = ((self.predictions, PREDICTIONS), (self.next_sentence, NEXT_SENTENCE))
        return [(head, names) for head, names in pairs if head is not None]

    def tensors(self, backbone: BERT) -> dict[str, Tensor]:
        """All weights by their published names. The class without heads, BertModel, has them without a prefix."""
        prefix = PREFIX if self.parts() else ""
        out = {prefix + name: value for name, value in backbone.state_dict().items()}
        for head, names in self.parts():
            state = head.state_dict()
            out |= {prefix + to if to.startswith("pooler") else to: state[name] for name, to in names.items()}
        bias, rows = out.get(PREDICTIONS["bias"]), backbone.embeddings.word_embeddings.num_embeddings
        if bias is not None and len(bias) < rows:  # rows beyond the vocabulary, which are never predicted
            out[PREDICTIONS["bias"]] = torch.cat([bias, bias.new_full((rows - len(bias),), float(bias.min()) - 100.0)])
        return out

    def outputs(self, tokens: Tensor) -> list[Tensor]:
        """What the heads compute from tokens (B, L, D)."""
        out = [] if self.predictions is None else [self.predictions(tokens)]
        return out if self.next_sentence is None else [*out, self.next_sentence(tokens[:, 0])]

    def read_again(self, tensors: Mapping[str, Tensor], backbone: BERT, spec: str) -> Heads:
        """Heads of the same kinds on another backbone, with weights from `tensors`."""
        size = backbone.values.size
        predictions = PredictionHead(backbone.dim, backbone.embeddings.word_embeddings, size)
        again = Heads(
            None if self.predictions is None else predictions,
            None if self.next_sentence is None else NextSentence(backbone.dim),
        )
        for head, names in again.parts():
            _load(head, names, tensors, spec)
        return again


def find_heads(method: Method | None, backbone: nn.Module) -> Heads:
    """The heads of a method, or of its tasks, that are on its evaluated backbone."""
    if method is None:
        return Heads(notes=("the run keeps no checkpoint of these weights: the backbone is exported without heads",))
    tasks = [m for m in method.modules() if isinstance(m, Method) and m.backbone is backbone]
    predictions = next((_head(m, PredictionHead) for m in tasks if isinstance(m, (MLM, BertMethod))), None)
    next_sentence = next((head for m in tasks if (head := _head(m, NextSentence)) is not None), None)
    others = [name for name, part in method.named_modules() if isinstance(part, BERT) and part is not backbone]
    notes = [f"the evaluated backbone is exported; the method has others too: {listing(others)}"] if others else []
    if any(isinstance(m, ELECTRA) for m in tasks):
        notes.append("the discriminator is exported; the generator is not")
    if predictions is None:
        notes.append("the folder has no head of masked tokens, because the method has none on this backbone")
    return Heads(predictions, next_sentence, tuple(notes))


def _head(task: Method, kind: type[Head]) -> Head | None:
    """The head of a kind that a task has."""
    return next((part for part in task.children() if isinstance(part, kind)), None)


def load_heads(heads: Heads, tensors: Mapping[str, Tensor], spec: str) -> str:
    """Loads heads that a folder has too. Returns a part of a sentence."""
    loaded, missing = [], []
    for head, names in heads.parts():
        kind = "masked tokens" if head is heads.predictions else "the next sentence"
        if head is heads.predictions and (reason := _untied(tensors)):
            missing.append(f"{kind} ({reason})")
        elif _load(head, names, tensors, spec):
            loaded.append(kind)
        else:
            missing.append(kind)
    text = f"; head of {' and of '.join(loaded)} loaded" if loaded else ""
    return text + (f"; head of {' and of '.join(missing)} randomly initialized" if missing else "")


def names_of_heads(tensors: Mapping[str, Tensor]) -> tuple[set[str], list[str]]:
    """The tensors that belong to heads, and the heads that are whole."""
    known = {_published(name): name for name in tensors}
    owned = {full for name, full in known.items() if name.startswith(("cls.", "pooler."))}
    heads = (("masked tokens", PREDICTIONS), ("the next sentence", NEXT_SENTENCE))
    return owned, [kind for kind, names in heads if known.keys() >= set(names.values())]


def has_predictions(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there is a whole head that predicts tokens, with the embedding as its output layer."""
    return {_published(name) for name in tensors} >= set(PREDICTIONS.values()) and not _untied(tensors)


def _load(head: nn.Module, names: Names, tensors: Mapping[str, Tensor], spec: str) -> bool:
    """Copies a head, if all of its tensors are there with its shapes."""
    by_name = {_published(name): value for name, value in tensors.items()}
    state, content = head.state_dict(), {}
    for own, name in names.items():
        value = by_name.get(name)
        if value is not None and name == PREDICTIONS["bias"]:
            value = value[: len(state[own])]  # of an embedding with more rows than the vocabulary
        if value is None or value.shape != state[own].shape:
            return False
        content[own] = value
    copy_into(head, content, f"{spec} ({escape(', '.join(names.values()))})")
    return True


def _published(name: str) -> str:
    """The name without what wraps a model."""
    for wrapper in ("module.", PREFIX):
        name = name.removeprefix(wrapper)
    return name


def _untied(tensors: Mapping[str, Tensor]) -> str:
    """Why the output layer does not share the embedding; "" where it does."""
    by_name = {_published(name): value for name, value in tensors.items()}
    output, embedding = by_name.get(DECODER), by_name.get("embeddings.word_embeddings.weight")
    if output is None or embedding is None or output is embedding:
        return ""
    same = output.shape == embedding.shape and torch.equal(output, embedding)
    return "" if same else f"{DECODER} is not the embedding, which the head of sslcli shares"
