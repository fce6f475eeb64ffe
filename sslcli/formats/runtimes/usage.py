"""The section "Use" of README.md of an export: what an input and an output are, and code that runs in the folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sslcli.data.dataset import Preprocessor
from sslcli.data.standalone.guides import InputGuide, guide
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.formats.huggingface.card import plain

MOST_CLASSES = 30  # that are listed


@dataclass(frozen=True)
class Runtime:
    """Python code of a runtime. load: opens the file of weights in the working folder. call: the output `{name}` of the inputs x,
    as a NumPy array."""

    imports: tuple[str, ...]
    load: str
    call: str


PROBABILITIES = """probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
probabilities /= probabilities.sum(axis=1, keepdims=True)
with open("metadata.json", encoding="utf-8") as file:
    classes = json.load(file)["classes"]
for row in probabilities:
    print(classes[row.argmax()], row.max())"""


def output_name(about: dict[str, Any]) -> str:
    """features, logits, or value: see `base.output`."""
    return next(iter(about["output"]))


def use(preprocessor: Preprocessor, about: dict[str, Any], dtype: torch.dtype, runtime: Runtime) -> list[str]:
    """Lines of Markdown. about: the content of metadata.json. dtype: of an input."""
    found, kind = guide(preprocessor), str(dtype).removeprefix("torch.")
    shape = ", ".join(map(str, about["input_shape"]))
    intro = f"An input is {kind} (N, {shape}). {describe_output(about)}"
    if found is None:
        text = [intro, "", "`preprocessor/` describes how inputs are made of raw samples."]
    else:
        program = "`preprocess.py` makes inputs of raw samples: it reads the folder `preprocessor/`, and does not need sslcli."
        text = [intro, "", f"{program} {found.text}"]
    return [*text, "", "Run in this folder:", "", "```python", *code(preprocessor, found, about, kind, runtime), "```"]


def describe_output(about: dict[str, Any]) -> str:
    """Sentences."""
    name = output_name(about)
    size = about["output"][name]
    if "tower" in about:
        other = "text" if about["tower"] == "image" else "image"
        return (
            f"The output is unit vectors (N, {size}) in the space that images and texts share: their dot products with those "
            f"of the other encoder (`sslcli export tower={other}`) are cosine similarities. For the probabilities of texts, "
            "multiply them by `scale` in `metadata.json` and take the softmax."
        )
    if name == "features":
        return f"The output is the features (N, {size})."
    if name == "value":
        return "The output is the predicted value (N, 1)."
    names = [plain(c) for c in about["classes"]]
    listed = f": {', '.join(names)}" if len(names) <= MOST_CLASSES else ""
    return (
        f"The output is the logits (N, {size}) of the classes in `metadata.json`, in their order{listed}. Their softmax is the "
        "calibrated probabilities."
    )


def code(
    preprocessor: Preprocessor, found: InputGuide | None, about: dict[str, Any], kind: str, runtime: Runtime
) -> list[str]:
    name = output_name(about)
    width = about["output"][name]
    shape = ", ".join(map(str, about["input_shape"]))
    # from the shape and type of an input where there is no program
    make = [f"x = np.zeros((2, {shape}), np.{kind})  # (N, {shape}) {kind}"]
    average = []
    local = []
    if found is not None:
        local = ["from preprocess import Preprocessor"]
        make = ["preprocessor = Preprocessor()", f"samples = {found.samples}  # {found.comment}"]
        if isinstance(preprocessor, TextPreprocessor) and preprocessor.windows > 1:
            make.append(f"x, counts = preprocessor.encode_windows(samples)  # (windows of all texts, {shape}) {kind}")
            average = [f"{name} = preprocessor.average({name}, x, counts)  # (N, {width})"]
        else:
            make.append(f"x = preprocessor.encode(samples)  # (N, {shape}) {kind}")
    needs_numpy = name == "logits" or any("np." in line for line in make)
    return [
        *(["import json", ""] if name == "logits" else []),
        *(["import numpy as np"] if needs_numpy else []),
        *runtime.imports,
        *local,
        "",
        *make,
        runtime.load,
        f"{runtime.call.format(name=name)}" + ("" if average else f"  # (N, {width})"),
        *average,
        *(PROBABILITIES.splitlines() if name == "logits" else []),
    ]
