"""Images with captions, from a manifest."""

from __future__ import annotations

from typing import Any

from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_path
from sslcli.data.image_text.build import CaptionOptions, require_different, with_captions
from sslcli.data.image_text.manifest import HINT, find_manifest, read_manifest
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.data.images import decode
from sslcli.data.images.duplicates import group_copies
from sslcli.data.images.options import MAX_SIZE, ImageOptions
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.sources.image_dataset import build_dataset
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.text.readers.rows import Format


def pairs(
    path: str | None = None,
    name: str = "pairs",
    image: str = "auto",
    text: str = "auto",
    label: str | None = "auto",
    image_size: int | None = None,
    channels: int | str = "auto",
    tokenizer: str = "auto",
    vocabulary: int = 8192,
    lowercase: bool | None = None,
    max_length: int = 64,
    holdout: float | str = 0.1,
    split_seed: int = 0,
    resident: bool | str = "auto",
    range: Any = "auto",
    max_bad_fraction: float = 0.01,
    max_pixels: int = decode.MAX_PIXELS,
    pretrain_on: str = "all",
    max_size: int = MAX_SIZE,
    cache: int | None = None,
    delimiter: str | None = None,
    like: ImagePreprocessor | None = None,
    like_captions: TextPreprocessor | None = None,
) -> Dataset:
    """A data set of the images that a manifest names, with their captions, of the modality "pairs".

    `path`: a table (CSV, TSV, JSON Lines, Parquet), or a folder with one named metadata, manifest or captions, with a row for each
    caption: the path of an image, relative to the table, a text, and optionally a label and a split. An image in several rows has
    several captions, of which training draws one in each epoch.
    `image`, `text`, `label`: the names of columns; auto by their usual names.
    `tokenizer`, `vocabulary`, `lowercase`, `max_length`, `delimiter`: of captions, as in `text_table`. All others: of images, as in
    `image_folder`.
    `like`: the preprocessor of an encoder, `like_captions`: that of an encoder of captions, to use instead of fitting one.

    RequestError for options; DataError for the contents of files, and where an image of the test split is in train too."""
    options = ImageOptions(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, "auto",
        pretrain_on, max_size, cache,
    )  # fmt: skip
    captions = CaptionOptions(tokenizer, vocabulary, lowercase, max_length)
    notes: list[str] = []
    place = find_manifest(require_path(path, HINT))
    manifest = read_manifest(place, image, text, label, Format(delimiter), notes)
    parts = manifest.contents.parts
    if not {"test", "val"} & parts.keys() and "train" in parts:
        group_copies(parts["train"], str, notes)
    require_different(parts)
    images = build_dataset(manifest.contents, options, notes)
    own = like.captions if isinstance(like, PairsPreprocessor) else None
    return with_captions(images, manifest.captions, captions, like_captions or own)
