"""Images in tar shards, by the webdataset convention: `000001.jpg` beside `000001.cls` or `000001.json`.

The headers of a shard are read once, and the location of each image is stored in an index ($SSLCLI_DATA/tar-index) that is
valid while the size and the modification time of the shard do not change. From then on an image is one read at its offset,
so everything is as for a folder: the seeded order, resume, held-out splits, unreadable samples. Compressed shards are not
supported, because they have no such offsets.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.folders.contents import FileList
from sslcli.data.images import decode
from sslcli.data.images.options import MAX_SIZE, ImageOptions
from sslcli.data.sources.image_dataset import build_dataset
from sslcli.data.sources.tar_files.contents import read_contents
from sslcli.data.sources.tar_files.index import read_indices
from sslcli.data.sources.tar_files.shards import TarShards, TarSource, find_shards
from sslcli.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from sslcli.data.images.encoded import Decoder


def tar(
    path: str | None = None,
    name: str = "tar",
    image_size: int | None = None,
    channels: int | str = "auto",
    label: str | None = "auto",
    holdout: float | str = "auto",
    split_seed: int = 0,
    resident: bool | str = "auto",
    range: Any = "auto",
    max_bad_fraction: float = 0.01,
    max_pixels: int = decode.MAX_PIXELS,
    splits: Any = "auto",
    pretrain_on: str = "unlabelled",  # the behavior of runs older than this key
    max_size: int = MAX_SIZE,
    cache: int | None = None,
    group: str = "none",  # the behavior of runs older than this key
) -> Dataset:
    """A data set of the images in uncompressed tar files. The settings are those of `image_folder`, except:

    `path`: a tar file, a folder of them, or a pattern with {0000..0099}, {a,b} or *. Shards named train*, val*, test* (or in
    folders of these names) are splits, as are such folders inside the shards.
    `label`: auto reads the .cls file of a sample, else the entry label, class or cls of its .json, else its class folder in
    the shard (top or parent, as for folders); none; or the name of a .json entry or of an extension.
    `group`: sample keeps images that share a label (`7.left.jpg`, `7.right.jpg`, `7.cls`) on one side of any split; none.

    Raises RequestError for paths and values, DataError for shards that are corrupt or hold no image.
    """
    options = ImageOptions(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size, cache,
    )  # fmt: skip
    paths = find_shards(path)
    notes: list[str] = []
    shards = TarShards([os.path.abspath(p) for p in paths])
    if group not in ("sample", "none"):
        raise RequestError(f"dataset.group: expected sample or none, got {escape(str(group))}", "dataset.group=sample")
    contents = read_contents(shards, read_indices(shards, label), options, notes, group == "sample")

    def source(files: FileList, labels: Tensor | None, decoder: Decoder, max_bad_fraction: float) -> TarSource:
        return TarSource(shards, files, labels, decoder, max_bad_fraction)

    return build_dataset(contents, options, notes, source, shards.read)
