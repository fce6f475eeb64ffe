"""A folder of .txt files, each of them one document: splits and classes by the names of folders, as of images."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.folders.layout import LABEL_RULES, Layout, detect_layout
from sslcli.data.folders.nouns import reword
from sslcli.data.folders.scan import FolderListing, scan
from sslcli.data.folders.split_names import exact_split, parse_split
from sslcli.data.tables.find import COMPRESSED, stem
from sslcli.data.text.readers.collector import Collector
from sslcli.errors import DataError, RequestError, SslError, listing

ENDINGS = (".txt", ".text")
UNITS = ("auto", "line", "file")


def is_text_name(name: str) -> bool:
    return stem(name, ENDINGS) is not None


def has_split_files(folder: str) -> bool:
    """Whether a folder has a file named train, such as train.txt: its files then hold a document on each line."""
    try:
        names = [stem(e.name, ENDINGS) for e in os.scandir(folder) if e.is_file()]
    except OSError as error:
        raise DataError(f"{escape(folder)} cannot be read: {error.strerror}") from error
    return any((parse_split(name) or ("",))[0] == "train" for name in names if name is not None)


def read_folder(root: str, label: str | None, collector: Collector, notes: list[str]) -> None:
    """Add each file below `root` as a document. label: a rule of `dataset.label` of folders. DataError where there is no file."""
    if label not in (*LABEL_RULES, None):
        raise RequestError(
            f"dataset.label: expected {', '.join(LABEL_RULES)} for a folder, got {escape(label)}", "dataset.label=top"
        )
    folder = scan(root, is_text_name)
    if not folder.files:
        raise _no_files_error(folder)
    found: list[str] = []
    try:
        layout = detect_layout([path for path, _ in folder.files], folder.folders, root, label, "auto", found)
    except SslError as error:
        raise type(error)(_of_documents(error.message), None) from None
    notes += map(_of_documents, [*found, *folder.notes()])
    _move_unlabelled(layout, notes)
    parts: dict[str, list[int]] = {}
    for i, kind in enumerate(layout.kinds):
        if kind is not None:
            parts.setdefault(kind, []).append(i)
    if "train" not in parts and "unlabelled" in parts:
        parts["train"] = parts.pop("unlabelled")
    for kind, ids in parts.items():
        paths = [folder.files[i][0] for i in ids]
        places = [os.path.join(root, *path) for path in paths]
        collector.read_files(places, ["/".join(path) for path in paths], [layout.classes[i] for i in ids], kind)


def _move_unlabelled(layout: Layout, notes: list[str]) -> None:
    """A folder such as `unsup` among the classes of train holds the unlabeled split (as in Maas et al., ACL 2011)."""
    names = {c for c, kind in zip(layout.classes, layout.kinds, strict=True) if c is not None and kind == "train"}
    moved = {name for name in names if exact_split(name) == "unlabelled"}
    if not moved or moved == names:
        return
    for i, name in enumerate(layout.classes):
        if name in moved and layout.kinds[i] == "train":
            layout.classes[i], layout.kinds[i] = None, "unlabelled"
    notes.append(f"{listing((escape(name) + '/' for name in sorted(moved)), 3)} read as the unlabeled split")


def _of_documents(sentence: str) -> str:
    """A note or error about folders, whose reader speaks of images."""
    return reword(sentence, "document")


def _no_files_error(folder: FolderListing) -> DataError:
    other = ", ".join(f"{n:,} {ending}" for ending, n in folder.ignored.most_common(5))
    sentence = f"no text file ({', '.join(ENDINGS)}; also {', '.join(COMPRESSED)}) in {escape(folder.root)}"
    tables = any(ending in (".csv", ".tsv", ".jsonl", ".parquet") for ending in folder.ignored)
    return DataError(
        sentence + (f"; it contains {other}" if other else "; it is empty"),
        "dataset=text_table reads tables" if tables else None,
    )


def split_files(paths: Sequence[str]) -> dict[str, list[str]]:
    """Files with a document on each line by their split, which their names say; without one named train, all are of it."""
    out: dict[str, list[str]] = {}
    for path in paths:
        parsed = parse_split(stem(os.path.basename(path), ENDINGS) or "")
        out.setdefault(parsed[0] if parsed else "train", []).append(path)
    return out if "train" in out else {"train": list(paths)}
