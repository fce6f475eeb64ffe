"""The formats by name: a further one is a class, and an entry here."""

from __future__ import annotations

import re
from pathlib import Path

from sslcli.backbones.weights import reading
from sslcli.console import escape
from sslcli.errors import RequestError, listing, nearest
from sslcli.formats import hub
from sslcli.formats.export import ExportFormat
from sslcli.formats.huggingface.encoder import HuggingFaceFolder
from sslcli.formats.huggingface.vision import HuggingFaceImages
from sslcli.formats.huggingface.writer import HuggingFaceFormat, SentenceTransformersFormat
from sslcli.formats.own import SslcliFolder
from sslcli.formats.pretrained import PretrainedEncoder
from sslcli.formats.runtimes.onnx import Onnx
from sslcli.formats.runtimes.timm import TimmFolder
from sslcli.formats.runtimes.torch_export import TorchExport
from sslcli.formats.timm_hub import TimmEncoder
from sslcli.formats.weights_file import WeightsFile

# the first that recognizes a folder reads it
FOLDERS: tuple[type[PretrainedEncoder], ...] = (HuggingFaceImages, HuggingFaceFolder)
READERS: dict[str, type[PretrainedEncoder]] = {reader.scheme: reader for reader in (TimmEncoder, HuggingFaceFolder)}
FORMATS: dict[str, ExportFormat] = {
    form.name: form
    for form in (
        SslcliFolder(),
        HuggingFaceFormat(),
        SentenceTransformersFormat(),
        TimmFolder(),
        TorchExport(),
        Onnx(),
    )
}
ALIASES = {"safetensors": SslcliFolder.name}
_SCHEME = re.compile(r"([A-Za-z][\w-]*):(.*)", re.DOTALL)


def pretrained(spec: object, download: bool = False) -> PretrainedEncoder | None:
    """The encoder of a spec SCHEME:NAME or of a file of weights; None for that of a run or an exported folder.

    `download`: whether weights that are not on this machine may be downloaded. RequestError for an unknown scheme, and for a folder
    that belongs to a scheme which the spec lacks."""
    if not isinstance(spec, str):
        return None
    path, found = Path(spec).expanduser(), _SCHEME.fullmatch(spec)
    if found is not None and found[1] == HuggingFaceFolder.scheme:
        folder = _hub_folder(found[2], download)
        reader = next((kind for kind in FOLDERS if kind.recognizes(folder)), HuggingFaceFolder)
        return reader(str(folder))
    if found is not None and found[1] in READERS:
        return READERS[found[1]](found[2], download)
    if reading.is_file(spec):
        return WeightsFile(spec)
    if path.is_dir() and not (path / "encoder.json").exists() and not (path / "status.json").exists():
        for kind in FOLDERS:
            if kind.recognizes(path):
                raise RequestError(f"{spec} is a folder in the format {kind.usage}", f"write {kind.scheme}:{spec}")
    if found is not None and not path.exists() and "/" not in found[1]:
        close = nearest(found[1], READERS)
        usages = listing(reader.usage for reader in READERS.values())
        raise RequestError(
            f"unknown format '{found[1]}:' of a pretrained encoder: expected {usages}, or a run, folder or file",
            f"did you mean {close}:{found[2]}?" if close else None,
        )
    return None


def _hub_folder(name: str, download: bool) -> Path:
    """The folder of `hf:NAME`: a folder of this path, or of a model of this name in the cache of the Hub. RequestError."""
    if not name:
        raise RequestError("init=hf: names no folder", "init=hf:FOLDER, the folder with config.json")
    folder = Path(name).expanduser()
    if folder.exists():
        if not folder.is_dir():
            raise RequestError(f"init=hf:{escape(name)} is a file", "init=hf:FOLDER, the folder with config.json")
        return folder
    if (found := hub.locate(name, download)) is not None:
        return found
    hint = "init=hf:FOLDER, the folder with config.json"
    if hub.is_name(name):
        hint = f"for the model of the Hub: {hub.download_hint(name)}"
    raise RequestError(
        f"init=hf:{escape(name)}: there is no such folder, nor such a model in the cache of the Hub", hint
    )


def export_format(name: str) -> ExportFormat:
    """The format of `export format=NAME`. RequestError for an unknown one."""
    name = ALIASES.get(name, name)
    if name not in FORMATS:
        close = nearest(name, FORMATS)
        raise RequestError(
            f"format={name}: expected one of {', '.join(FORMATS)}", f"did you mean format={close}?" if close else None
        )
    return FORMATS[name]
