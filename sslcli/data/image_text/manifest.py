"""Manifests: tables whose rows name an image file and give a caption, and optionally a label and a split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from sslcli.console import escape, plural
from sslcli.data.files.csv_table import PATHS, SPLITS, normalize_name
from sslcli.data.files.file_names import FileLookup
from sslcli.data.files.label_text import LabelParser, normalize_numbers
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.paths import require_regular
from sslcli.data.folders.split_names import exact_split
from sslcli.data.tables.cells import PLAIN
from sslcli.data.tables.label import choose_label, require_column
from sslcli.data.text.readers.rows import Format, RowFile, cell_text, open_rows
from sslcli.errors import DataError, RequestError, listing

TEXTS = ("text", "caption", "captions", "texts", "description", "sentence", "title", "alt", "alttext", "prompt")
HINT = "a table with the columns image and text (.csv, .tsv, .jsonl, .parquet), a row for each caption"
NAMES = ("metadata", "manifest", "captions")  # of a manifest in a folder
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet", ".txt")


def find_manifest(path: str) -> str:
    """The manifest that a path names: the file itself, or the one in a folder. RequestError where there is none or several."""
    if not os.path.isdir(path):
        return require_regular(path)
    found = [
        name for name in sorted(os.listdir(path)) if os.path.splitext(name.lower()) in set(product(NAMES, ENDINGS))
    ]
    if len(found) != 1:
        what = f"several manifests: {listing(map(escape, found), 4)}" if found else f"no file named {', '.join(NAMES)}"
        raise RequestError(f"the folder {escape(path)} has {what}", f"dataset.path=FILE, {HINT}")
    return require_regular(os.path.join(path, found[0]))


@dataclass
class Manifest:
    """Images, each once, by split, and the captions of each by the name of the image in the manifest."""

    contents: FolderContents
    captions: dict[str, list[str]]


@dataclass(frozen=True)
class _Columns:
    image: str
    text: str
    label: str | None
    split: str | None


@dataclass
class _Image:
    line: int
    path: str
    size: int
    label: str | None
    split: str
    captions: list[str] = field(default_factory=list)


def read_manifest(path: str, image: str, text: str, label: str | None, form: Format, notes: list[str]) -> Manifest:
    """The images and captions of a table. Relative paths are relative to its folder. An image in several rows has several captions;
    a cell of JSON Lines or Parquet may be a list of them. Images without a caption are left out and counted.

    image, text, label: names of columns, or auto. RequestError where there is no such column, DataError for rows that contradict
    one another and where nothing is left."""
    file = open_rows(path, form)
    columns = _choose_columns(file, image, text, label, notes)
    base, what = os.path.dirname(os.path.abspath(path)), file.what
    lookup = FileLookup(base)
    images: dict[str, _Image] = {}
    names: dict[str, str] = {}  # by full path, the name in the manifest
    missing: dict[str, str] = {}
    empty = repeated = 0
    for line, name, cells, cls, split in _rows(file, columns):
        try:
            full, size = lookup.find(name)
        except DataError as error:
            raise DataError(f"{what}, line {line}: {error.message}", error.hint) from error
        except (OSError, ValueError) as error:
            missing[name] = getattr(error, "strerror", None) or str(error)
            continue
        key = os.path.normpath(full)
        own = images.setdefault(key, _Image(line, full, size, cls, split))
        names.setdefault(key, name)
        if (own.label, own.split) != (cls, split):
            raise DataError(
                f"{what}, line {line}: {escape(name)} is already in line {own.line}, with another label or split",
                "an image has one label and is in one split: correct one of the two rows",
            )
        for caption in cells:
            caption = caption.strip()
            if not caption:
                empty += 1
            elif caption in own.captions:
                repeated += 1
            else:
                own.captions.append(caption)
    parts, bare = _parts(images, names)
    _require(what, base, parts, missing, bare)
    notes += lookup.notes()
    counts = [len(own.captions) for own in images.values() if own.captions]
    most = f", at most {max(counts)} an image" if max(counts) > 1 else ""
    notes.append(f"manifest: {plural(len(counts), 'image')}, {plural(sum(counts), 'caption')}{most}")
    for number, noun in ((empty, "empty caption"), (repeated, "repeated caption"), (bare, "image without a caption")):
        if number:
            words = (
                f"{number:,} images without a caption"
                if noun.startswith("image") and number > 1
                else plural(number, noun)
            )
            notes.append(f"{words} left out")
    details = {"layout": "manifest", "missing": list(missing), "captions": sum(counts)}
    contents = FolderContents(base, parts, details, missing, by_value=True, split_in_fingerprint=True)
    return Manifest(contents, {names[full]: own.captions for full, own in images.items() if own.captions})


def _choose_columns(file: RowFile, image: str, text: str, label: str | None, notes: list[str]) -> _Columns:
    def chosen(key: str, name: str, words: Sequence[str]) -> str:
        if name != "auto":
            return require_column(name, file.columns, file.what, key)
        found = [c for word in words for c in file.columns if normalize_name(c) == word]
        if not found:
            raise RequestError(
                f"{file.what} has no column named {', '.join(words[:5])}: dataset.{key}=NAME selects another one",
                f"its columns: {listing(map(escape, file.columns), 12)}; expected {HINT}",
            )
        return found[0]

    pictures, captions = chosen("image", image, PATHS), chosen("text", text, TEXTS)
    if pictures == captions:
        raise RequestError(f"dataset.image and dataset.text are the same column, {escape(captions)}", HINT)
    split = next((c for c in file.columns if normalize_name(c) in SPLITS), None)
    rest = [c for c in file.columns if c not in (pictures, captions, split)]
    labels = choose_label(label, rest, file.what, notes)
    shown = "" if labels is None else f"; label: {escape(labels)}"
    notes.append(f"column of images: {escape(pictures)}; of captions: {escape(captions)}{shown}")
    return _Columns(pictures, captions, labels, split)


def _rows(file: RowFile, columns: _Columns) -> Iterator[tuple[int, str, list[str], str | None, str]]:
    """The line, the name of the image, its captions, label and split of each row."""
    names = {c for c in (columns.image, columns.text, columns.label, columns.split) if c is not None}
    lines: list[int] = []
    images: list[str] = []
    texts: list[list[str]] = []
    labels: list[object] = []
    splits: list[str] = []
    for numbers, block in file.blocks(names):
        lines += numbers.tolist()
        for line, cell, caption in zip(numbers.tolist(), block[columns.image], block[columns.text], strict=True):
            images.append(_text(file, line, columns.image, cell))
            cells = caption if isinstance(caption, list | tuple) else [caption]
            texts.append([_text(file, line, columns.text, one) if one is not None else "" for one in cells])
        labels += [None] * len(numbers) if columns.label is None else list(block[columns.label])
        for line, cell in zip(
            numbers.tolist(), block[columns.split] if columns.split else [""] * len(numbers), strict=True
        ):
            word = (cell_text(cell) or "").strip() or "train"
            split = exact_split(word)
            if split is None:
                raise DataError(
                    f"{file.what}, line {line}: expected one of train, val, test, unlabelled as the split, got {escape(word)}",
                    "give the column another name if it is none of splits",
                )
            splits.append(split)
    written = [text for cells in texts for text in cells if text.strip()]
    if written and all(PLAIN.fullmatch(text.strip()) for text in written):
        raise DataError(
            f"{file.what}: the column {escape(columns.text)} holds numbers, where captions are expected",
            f"dataset.text=NAME selects another one of {listing(map(escape, file.columns), 12)}",
        )
    parser = LabelParser()
    classes = normalize_numbers([parser.label(cell_text(cell)) for cell in labels])
    return zip(lines, images, texts, classes, splits, strict=True)


def _text(file: RowFile, line: int, column: str, cell: object) -> str:
    if not isinstance(cell, str):
        what = "is empty" if cell is None else f"is {type(cell).__name__}, not a string"
        raise DataError(f"{file.what}, line {line}: the cell of {escape(column)} {what}", HINT)
    return cell


def _parts(images: dict[str, _Image], names: dict[str, str]) -> tuple[dict[str, FileList], int]:
    """The images of each split, and how many have no caption."""
    parts: dict[str, FileList] = {}
    bare = 0
    for full, own in images.items():
        if not own.captions:
            bare += 1
            continue
        parts.setdefault(own.split, FileList()).add(own.path, names[full], own.size, own.label)
    return parts, bare


def _require(what: str, base: str, parts: dict[str, FileList], missing: dict[str, str], bare: int) -> None:
    if any(map(len, parts.values())):
        if not {"train", "unlabelled"} & parts.keys():
            raise DataError(
                f"{what} has no row of the split train, only of {', '.join(sorted(parts))}", "write train into its rows"
            )
        return
    if missing:
        name = next(iter(missing))
        raise DataError(
            f"none of the {plural(len(missing), 'file')} named in {what} exists, such as {escape(os.path.join(base, name))}",
            "addresses are not read: download the images, and name their files"
            if "://" in name
            else f"relative paths are relative to the folder of the manifest, {escape(base)}",
        )
    if bare:
        raise DataError(f"{what}: none of {plural(bare, 'image')} has a caption", HINT)
    raise DataError(f"{what} names no image", HINT)
