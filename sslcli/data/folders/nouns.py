"""Sentences about folders, whose readers speak of images, for samples of other kinds."""

from __future__ import annotations

import re


def reword(sentence: str, noun: str) -> str:
    """The sentence with `noun`, such as `document`, in place of `image`."""
    return re.sub(r"\bimage(s?)\b", rf"{noun}\1", sentence)
