"""Placeholders that a clone, a download or a copy leaves in place of the data are described."""

from __future__ import annotations

import pytest

from sslcli.data.images import decode
from sslcli.data.sources.arrays import arrays
from sslcli.errors import DataError

LEFT = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n": "git lfs pull",
    b"\n<!DOCTYPE html><html>404</html>": "a web page",
    b"<HTML><body>sign in</body>": "a web page",
    bytes(2000): "filled with zero bytes",
}


@pytest.mark.parametrize(("content", "messages"), LEFT.items(), ids=LEFT.values())
def test_placeholder_files_are_described(content, messages, tmp_path):
    for name in ("a.png", "a.npy", "a.npz", "a.pt"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=messages):
            decode.load(str(path)) if name == "a.png" else arrays(str(path))
    with pytest.raises(decode.BadImage, match=messages):
        decode.load(content)


def test_text_file_named_npy_is_refused(tmp_path):
    (tmp_path / "a.npy").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"is not an \.npy file"):
        arrays(str(tmp_path / "a.npy"))
