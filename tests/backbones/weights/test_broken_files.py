"""Files that are broken, or whose weights are those of another network: each has its answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.vit import ViT
from sslcli.backbones.weights import matching, reading
from sslcli.errors import DataError, RequestError, SslError

SHAPE = (3, 32, 32)


def vit(**options: object) -> ViT:
    return ViT(SHAPE, **{"width": 24, "depth": 2, "heads": 2, "patch": 8, "positions": "learned", **options})


VIT = vit().state_dict()
CONVNET = ConvNet(SHAPE, width=8).state_dict()


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def saved(content: object, name: str = "w.pth") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content, folder / name)
        return folder / name

    return write


def raw(content: bytes, name: str = "w.pth") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def cut(folder: Path) -> Path:
    save_file(VIT, folder / "w.safetensors")
    content = (folder / "w.safetensors").read_bytes()
    return raw(content[:-100], "cut.safetensors")(folder)


def cut_pickle(folder: Path) -> Path:
    content = saved(VIT)(folder).read_bytes()
    return raw(content[: len(content) // 2])(folder)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "w.pth")
    return folder / "w.pth"


def changed(**tensors: Tensor) -> dict[str, Tensor]:
    return {**VIT, **{key.replace("__", "."): value for key, value in tensors.items()}}


def renamed(old: str, new: str) -> dict[str, Tensor]:
    return {key.replace(old, new): value for key, value in VIT.items()}


CASES: dict[str, tuple[Callable[[Path], Path], type[SslError], str]] = {
    "no file": (lambda folder: folder / "w.pth", RequestError, "there is no such file"),
    "a folder": (lambda folder: folder, RequestError, "regular|is a folder|cannot be read"),
    "a pipe": (fifo, RequestError, "regular"),
    "empty": (raw(b""), DataError, "is not a file of weights"),
    "a web page": (raw(b"<!doctype html>"), DataError, "is not a file of weights|holds more than tensors"),
    "an LFS pointer": (
        raw(b"version https://git-lfs.github.com/spec/v1\n", "w.safetensors"),
        SslError,
        "w.safetensors",
    ),
    "cut off": (cut, SslError, "cut.safetensors"),
    "a cut-off pickle": (cut_pickle, DataError, "is not a file of weights"),
    "code": (saved({"state_dict": Evil()}), DataError, "reading it could run code"),
    "a whole module": (saved(nn.Linear(2, 2)), DataError, "reading it could run code"),
    "no tensors": (saved({"epoch": 3, "args": {"lr": 0.1}}), RequestError, "matches 0%"),
    "a list": (saved([torch.zeros(3)]), RequestError, "matches 0%"),
    "another architecture": (saved(CONVNET), RequestError, r"matches \d+%.*not in the file"),
    "another width": (saved(vit(width=48, heads=4).state_dict()), RequestError, r"in the file, .* here"),
    "fewer blocks": (saved(vit(depth=1).state_dict()), RequestError, "not in the file: blocks.1"),
    "more blocks": (saved(vit(depth=3).state_dict()), RequestError, "another network.*blocks.2"),
    "LayerScale": (saved(changed(blocks__0__ls1__gamma=torch.ones(24))), RequestError, "it has blocks.0.ls1.gamma"),
    "registers": (saved(changed(reg_token=torch.zeros(1, 4, 24))), RequestError, "it has reg_token"),
    "renamed": (saved(renamed("blocks", "blokcs")), RequestError, r"blocks\.0\.\S+ \(the file has blokcs"),
    "a grid that is no square": (
        saved(changed(pos_embed=torch.zeros(1, 16, 24))),
        RequestError,
        "pos_embed of another shape",
    ),
    "NaN": (saved(changed(norm__weight=torch.full((24,), torch.nan))), DataError, "NaN or Inf"),
    "integers": (saved(changed(norm__weight=torch.ones(24, dtype=torch.int8))), DataError, "quantized weights"),
}


@pytest.mark.parametrize("write, error, message", CASES.values(), ids=CASES)
def test_broken_file_has_an_answer(write, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone, path = vit(), str(write(tmp_path))
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(error, match=f"(?s){message}"):
        matching.load_into(backbone, reading.read(path), path)
    assert not Path("owned").exists()
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_memory_bound_is_checked_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    with pytest.raises(SslError, match="larger than the free memory"):
        reading.read(str(saved(VIT)(tmp_path)))
