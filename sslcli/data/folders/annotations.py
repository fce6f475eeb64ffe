"""Labels of a val or test folder from the annotation file beside its images."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from sslcli.console import escape, plural
from sslcli.data.folders.contents import FileList
from sslcli.data.folders.split_folders import PathParts, SplitRule

MAX_BYTES = 1 << 26  # larger annotation files are not read


def add_annotations(
    parts: Mapping[str, FileList], rules: Mapping[PathParts, SplitRule], root: str, notes: list[str]
) -> None:
    """Label a val or test split without class folders from the file beside its images, such as `val_annotations.txt` of Tiny
    ImageNet: a file name and a class in each line."""
    classes = {c for c in parts["train"].classes if c is not None} if "train" in parts else set()
    for kind in ("val", "test"):
        files = parts.get(kind)
        if not classes or files is None or any(c is not None for c in files.classes):
            continue
        for folder in (f for f, (k, _) in rules.items() if k == kind):
            path = os.path.join(root, *folder, f"{kind}_annotations.txt")
            pairs = _read_pairs(path)
            labels = [pairs.get(name.rpartition("/")[2]) for name in files.names]
            if any(c in classes for c in labels):
                files.classes = [c if c in classes else None for c in labels]
                n = sum(c is not None for c in files.classes)
                notes.append(f"{kind}: {plural(n, 'label')} from {escape(os.path.relpath(path, root))}")


def _read_pairs(path: str) -> dict[str, str]:
    """First column -> second column of a text file; {} where it cannot be read."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
            return {}
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.split("\t") if "\t" in line else line.split() for line in file]
    except OSError:
        return {}
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
