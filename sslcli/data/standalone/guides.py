"""What README.md of an export says about its inputs: how raw samples become inputs, with code that runs in the folder.

`preprocess.py` of an export is the program of the kind of data; it reads the folder `preprocessor/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.data.dataset import Preprocessor
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.data.text.preprocessor import TextPreprocessor

PROGRAM = "preprocess.py"
MOST_COLUMNS = 24  # of a row that is shown


@dataclass(frozen=True)
class InputGuide:
    """program: the file in this folder. text: how samples become inputs, in sentences. samples: a Python expression of
    raw samples. comment: what they may be."""

    program: str
    text: str
    samples: str
    comment: str

    def code(self) -> bytes:
        """The content of preprocess.py."""
        return Path(__file__).with_name(f"{self.program}.py").read_bytes()


def guide(preprocessor: Preprocessor) -> InputGuide | None:
    """None for a kind of data without a program, such as that of a user."""
    found = GUIDES.get(preprocessor.kind)
    return None if found is None else found(preprocessor, preprocessor.to_json())


def _images(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    channels, height, width = preprocessor.shape
    text = (
        f"The largest centered part of an image with the proportions of an input is resized to {height} x {width} pixels with an "
        "antialiased bilinear filter, divided by 255, and normalized by the mean and the standard deviation of each channel "
        "(`values` in `preprocessor/preprocessor.json`)."
    )
    if preprocessor.kind == "pairs":
        text += " The encoder of captions is not exported; its tokenizer is in `preprocessor/`, too."
    samples = f"[np.zeros((480, 640, {channels}), np.uint8)]"
    return InputGuide("image", text, samples, f"paths, images of Pillow, or uint8 arrays (H, W, {channels})")


def _frames(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    channels, length, height, width = preprocessor.shape
    rate = "" if about.get("fps") is None else f" of a video ({about['fps']:g} per second)"
    text = (
        f"A clip is {length} frames{rate} of {height} x {width} pixels, divided by 255 and normalized by the mean and the "
        "standard deviation of each channel (`values` in `preprocessor/preprocessor.json`)."
    )
    if height == width:
        text += " Frames of another size are cropped to the largest centered square and resized."
    samples = f"[np.zeros(({length}, {height}, {width}, {channels}), np.uint8)]"
    return InputGuide("frames", text, samples, f"clips of {length} frames: paths, images of Pillow, or uint8 arrays")


def _series(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    channels, steps = preprocessor.shape
    whose = "each series by itself" if about.get("scale") == "sample" else "the training data"
    names = about.get("channels", [])
    text = (
        f"A series has {channels} channels{', in the order of `channels`' if names else ''} and at most {steps:,} steps, after "
        "which it is padded with NaN; a missing value is NaN as well. `Preprocessor.windows` divides longer recordings. Channels "
        f"are normalized by the mean and the standard deviation of {whose} (`preprocessor/preprocessor.json`)."
    )
    return InputGuide("series", text, f"np.zeros((2, {channels}, {steps}), np.float32)", "series (channels, steps)")


def _table(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    assert isinstance(preprocessor, TablePreprocessor)
    text = (
        "A row is a dictionary of values by the names of columns. Numbers are standardized by the mean and the standard deviation "
        "of their column, and NaN where one is missing. A category is its place in `categories` of its column, from 1, and 0 where "
        "it is missing or was not in training. The columns, in their order, are in `preprocessor/preprocessor.json`."
    )
    example = {c.name: c.categories[0] if c.categories else float(f"{c.mean:.4g}") for c in preprocessor.columns}
    samples = f"[{example!r}]"
    if len(example) > MOST_COLUMNS:
        samples = '[{column["name"]: None for column in preprocessor.columns}]'
    return InputGuide("table", text, samples, "rows; None is a missing value")


def _text(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    assert isinstance(preprocessor, TextPreprocessor)
    kind = about["tokenizer"]["kind"]
    how = {
        "bytes": "The bytes of a text in UTF-8 plus 5 are its tokens",
        "words": "A text is divided into words, whose ids are their lines in `preprocessor/vocabulary.txt`, from 0",
    }.get(kind, "A text is divided into tokens by `preprocessor/tokenizer.json`, which the package tokenizers reads")
    text = (
        f"{how}. An input has {preprocessor.max_length:,} ids: the token of the start, those of the text, the token of the end, "
        "and padding."
    )
    if preprocessor.windows > 1:
        text += (
            f" A longer text has up to {preprocessor.windows} consecutive windows, over which the outputs are averaged, as `sslcli "
            "embed` and `sslcli predict` do; `Preprocessor.encode` takes the first window alone."
        )
    return InputGuide("text", text, '["a text", "another text"]', "strings")


def _audio(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    mel, frames = about["mel"], about["frames"]
    text = (
        f"A clip is one channel of {mel['rate']:,} samples per second, of which the middle {(frames - 1) * mel['hop']:,} samples "
        "are taken, with silence after a shorter one. Its log-mel spectrogram has "
        f"{frames:,} frames, one every {mel['hop']:,} samples, of {mel['bands']} bands; windows have {mel['n_fft']:,} samples. It "
        "is normalized by the mean and the standard deviation of each band. `preprocessor/preprocessor.json` has all settings."
    )
    return InputGuide(
        "audio",
        text,
        f"[np.zeros({mel['rate']}, np.float32)]",
        f"paths of WAV files, or waves of {mel['rate']:,} samples per second in -1..1",
    )


def _interactions(preprocessor: Preprocessor, about: dict[str, Any]) -> InputGuide:
    assert isinstance(preprocessor, InteractionsPreprocessor)
    text = (
        f"A history is the names of items, the latest last, of which the last {preprocessor.max_length:,} are taken. The id of an "
        "item is its place in `items` of `preprocessor/items.json`, from 2; 0 is padding after the last item. Items that were not "
        "in training are left out."
    )
    return InputGuide("interactions", text, f"[{list(preprocessor.items[:2])!r}]", "histories of item names")


GUIDES: dict[str, Callable[[Preprocessor, dict[str, Any]], InputGuide]] = {
    "image": _images,
    "pairs": _images,
    "frames": _frames,
    "series": _series,
    "table": _table,
    "text": _text,
    "audio": _audio,
    "interactions": _interactions,
}
