"""Recognize files that a clone, a download or a copy left in place of the data, by their first bytes."""

from __future__ import annotations

HEAD = 512  # bytes read
LFS = b"version https://git-lfs"
NAMES = (
    (LFS, "a Git LFS pointer instead of the file: run `git lfs pull`"),
    (b"<!doctype html", "a web page instead of the file: the download was probably refused"),
    (b"<html", "a web page instead of the file: the download was probably refused"),
)


def detect_placeholder(file: str | bytes) -> str | None:
    """Describe a placeholder (given by its path or its bytes); None for any other file."""
    try:
        if isinstance(file, str):
            with open(file, "rb") as content:
                head = content.read(HEAD)
        else:
            head = file[:HEAD]
    except OSError:
        return None
    start = head.lstrip().lower()
    if len(head) == HEAD and not any(head):
        return "filled with zero bytes: a download or a copy was probably interrupted"
    return next((what for sign, what in NAMES if start.startswith(sign)), None)
