"""Files that stand for another one, by their first bytes: what a clone, a download or a copy left instead of the data."""

from __future__ import annotations

HEAD = 512  # bytes that tell
LFS = b"version https://git-lfs"
NAMES = (
    (LFS, "a Git LFS pointer instead of the file: `git lfs pull` fetches it"),
    (b"<!doctype html", "a web page instead of the file: was the download refused?"),
    (b"<html", "a web page instead of the file: was the download refused?"),
)


def detect_placeholder(file: str | bytes) -> str | None:
    """What a file (its path, or its bytes) is, where it is none of its own. None for all others."""
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
        return "zero bytes only at its beginning: was a download or a copy broken off?"
    return next((what for sign, what in NAMES if start.startswith(sign)), None)
