"""The texts that stand for classes: their names in templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sslcli.console import escape, plural
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError, listing, nearest


def class_names(classes: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The name of each class: that of `names`, or its own. RequestError for names of other classes."""
    if other := next((name for name in names if name not in classes), None):
        close = nearest(other, list(classes))
        raise RequestError(
            f"evaluator.names: there is no class {escape(other)}",
            f"did you mean {escape(close)}?" if close else f"classes: {listing(map(escape, classes), 8)}",
        )
    return [names.get(name, name) for name in classes]


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """The texts of each class. RequestError for templates without {}, and without templates."""
    wrong = next((t for t in templates if "{}" not in t), None)
    if wrong is not None or not templates:
        raise RequestError(
            f"evaluator.templates: expected texts with {{}} for the name of a class, got {wrong or 'none'}",
            "'evaluator.templates=[\"a photo of a {}.\"]'",
        )
    return [[template.replace("{}", name) for template in templates] for name in names]


def unknown_names(names: Sequence[str], preprocessor: TextPreprocessor) -> list[str]:
    """The names of which the vocabulary has no word."""
    unknown = preprocessor.tokenizer.unknown
    encoded = zip(names, preprocessor.encode(list(names)), strict=True) if names else ()
    return [n for n, ids in encoded if not len(ids) or (unknown is not None and bool((ids == unknown).all()))]


def name_notes(names: Sequence[str], preprocessor: TextPreprocessor) -> list[str]:
    """Notes on classes whose names do not identify them."""
    notes = []
    if lost := unknown_names(names, preprocessor):
        which = plural(len(lost), "class", "classes")
        notes.append(f"the vocabulary has no word of the names of {which}: {listing(map(escape, lost), 6)}")
    if same := [name for name, count in Counter(names).items() if count > 1]:
        which = listing(map(escape, same), 6)
        notes.append(f"several classes have the same name, and zero-shot accuracy cannot distinguish them: {which}")
    return notes
