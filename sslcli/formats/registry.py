"""The formats by name: a further one is a class, and an entry here."""

from __future__ import annotations

import re
from pathlib import Path

from sslcli.errors import RequestError, listing, nearest
from sslcli.formats.export import ExportFormat
from sslcli.formats.huggingface.encoder import HuggingFaceFolder
from sslcli.formats.huggingface.writer import HuggingFaceFormat, SentenceTransformersFormat
from sslcli.formats.own import SslcliFolder
from sslcli.formats.pretrained import PretrainedEncoder

READERS: dict[str, type[PretrainedEncoder]] = {reader.scheme: reader for reader in (HuggingFaceFolder,)}
FORMATS: dict[str, ExportFormat] = {
    form.name: form for form in (SslcliFolder(), HuggingFaceFormat(), SentenceTransformersFormat())
}
_SCHEME = re.compile(r"([A-Za-z][\w-]*):(.*)", re.DOTALL)


def pretrained(spec: object) -> PretrainedEncoder | None:
    """The encoder of a spec SCHEME:NAME; None for the spec of a run, a folder or a file.

    RequestError for an unknown scheme, and for a folder that belongs to a scheme which the spec lacks."""
    if not isinstance(spec, str):
        return None
    path, found = Path(spec).expanduser(), _SCHEME.fullmatch(spec)
    if found is not None and found[1] in READERS:
        return READERS[found[1]](found[2])
    if path.is_dir() and not (path / "encoder.json").exists() and not (path / "status.json").exists():
        for scheme, reader in READERS.items():
            if reader.recognizes(path):
                raise RequestError(f"{spec} is a folder in the format {reader.usage}", f"write {scheme}:{spec}")
    if found is not None and not path.exists() and "/" not in found[1]:
        close = nearest(found[1], READERS)
        usages = listing(reader.usage for reader in READERS.values())
        raise RequestError(
            f"unknown format '{found[1]}:' of a pretrained encoder: expected {usages}, or a run, folder or file",
            f"did you mean {close}:{found[2]}?" if close else None,
        )
    return None


def export_format(name: str) -> ExportFormat:
    """The format of `export format=NAME`. RequestError for an unknown one."""
    if name not in FORMATS:
        close = nearest(name, FORMATS)
        raise RequestError(
            f"format={name}: expected one of {', '.join(FORMATS)}", f"did you mean format={close}?" if close else None
        )
    return FORMATS[name]
