"""`sslcli predict from=zeroshot`: a classifier of the names of classes, by a method that reads captions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sslcli import console
from sslcli.builders import load_dataset
from sslcli.classifier.model import Classifier
from sslcli.config import registry
from sslcli.console import escape
from sslcli.data.record import read_record
from sslcli.errors import RequestError, SslError, first_line
from sslcli.evals.zero_shot.class_vectors import class_vectors
from sslcli.evals.zero_shot.prompts import name_notes, prompts, unknown_names
from sslcli.inference.encoder import TrainedEncoder
from sslcli.inference.vectors.shared_space import SharedSpace
from sslcli.runs.run import Run

ZEROSHOT: Literal["zeroshot"] = "zeroshot"
CLASSES = "'classes=[red fox,snow owl]'"
EXAMPLES = {"classes": CLASSES, "templates": "'templates=[\"a photo of a {}.\"]'"}


@dataclass(frozen=True)
class ZeroShot:
    """classes: the text of each class, by its name; None for the classes of the run's data. templates: texts with {} for it."""

    templates: tuple[str, ...]
    classes: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, classes: str | None, templates: str | None) -> ZeroShot:
        """Of options: a list of classes, a mapping to their texts, or a .txt file with a class on each line; and a list of
        templates, or one. RequestError."""
        given = _texts("templates", templates) if templates is not None else default_templates()
        if isinstance(given, dict):
            raise RequestError(f"templates={templates}: expected a list of texts", EXAMPLES["templates"])
        if not given or any("{}" not in template for template in given):
            raise RequestError(f"templates={templates}: expected texts with {{}} for a class", EXAMPLES["templates"])
        return cls(tuple(given), None if classes is None else _classes(classes))


def default_templates() -> list[str]:
    """Those of eval zeroshot."""
    node = registry.describe(registry.choices("evaluator")[ZEROSHOT], "evaluator")
    return [str(template) for template in node["templates"]]


def _classes(text: str) -> dict[str, str]:
    if text.endswith(".txt"):
        path = os.path.expanduser(text)
        try:
            with open(path, encoding="utf-8-sig") as file:
                given: Any = [line.strip() for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"classes={escape(text)} cannot be read: {error}", CLASSES) from None
    else:
        given = _texts("classes", text)
    names = given if isinstance(given, dict) else {name: name for name in given}
    if len(names) < 2 or len(names) < len(given) or not all(name.strip() for pair in names.items() for name in pair):
        raise RequestError(f"classes={escape(text)}: expected two or more different names of classes", CLASSES)
    return names


def _texts(key: str, text: str) -> list[str] | dict[str, str]:
    """A list or mapping of texts in YAML; a text alone is a list of one."""
    import yaml

    try:  # BaseLoader makes texts of all values
        given = yaml.load(text, yaml.BaseLoader) if re.match(r"\s*[\[{][^}]", text) else [text]
    except yaml.YAMLError as error:
        raise RequestError(f"{key}={escape(text)}: not valid YAML: {first_line(error)}", EXAMPLES[key]) from None
    values = [*given, *given.values()] if isinstance(given, dict) else given
    if not isinstance(given, list | dict) or not all(isinstance(value, str) for value in values):
        raise RequestError(f"{key}={escape(text)}: expected texts", EXAMPLES[key])
    return given


def zero_shot_classifier(encoder: TrainedEncoder, settings: ZeroShot) -> Classifier:
    """The classifier of the vectors of classes on the unit vectors of an encoder with a shared space: the softmax of their cosine
    similarities times the scale that the method learned. RequestError for classes whose names the vocabulary has no word of."""
    space = encoder.module
    assert isinstance(space, SharedSpace), type(space)
    classes = settings.classes
    if classes is None:
        classes = {name: name for name in _own_classes(encoder.run)}
    names = list(classes.values())
    for note in name_notes(names, space.captions):
        console.warn(note, "'classes={class: text}' gives other names")
    if len(unknown_names(names, space.captions)) == len(names):
        raise RequestError("the vocabulary of this run has no word of the names of the classes", CLASSES)
    device = next(space.parameters()).device

    @torch.no_grad()
    def encode(x: Tensor) -> Tensor:
        return space.method.caption_vectors(x.to(device))

    weight = class_vectors(encode, prompts(names, settings.templates), space.captions)
    protocol = {"templates": list(settings.templates)}
    scale = space.method.similarity_scale()
    return Classifier(ZEROSHOT, weight, torch.zeros(len(names)), tuple(classes), None, 1 / scale, protocol=protocol)


def _own_classes(run: Run | None) -> Sequence[str]:
    """The classes of the data of a run. RequestError where there are none."""
    why = "its data have no classes"
    if run is not None:
        try:
            classes = load_dataset(run.valid_config, read_record(run), download=False).classes
            if len(classes) > 1:
                return classes
            why = f"its data have {'one class' if classes else 'no classes'}"
        except SslError as error:
            why = f"its data cannot be read: {error.message}"
    raise RequestError(f"from={ZEROSHOT} requires the names of classes; of the run, {why}", CLASSES)
