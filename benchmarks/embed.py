"""The speed of `sslcli embed` beside that of its backbone alone, on the same blocks in memory, in interleaved turns.

    python benchmarks/embed.py FOLDER [backbone=resnet18] [side=64] [images=2048] [threads=1] [workers=1] [turns=3]

FOLDER receives `images` PNG files. Both compute the same number of blocks with the same threads; `lost` is 1 - (embed / alone).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sslcli.config import registry
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.inference.encoder import TrainedEncoder
from sslcli.inference.features import ROWS, FeatureExtractor
from sslcli.inference.inputs import InputRequest, read_inputs
from sslcli.nn.values import Continuous
from sslcli.runs.encoder import build_backbone
from sslcli.runtime.thread_pool import ordered_map


def main() -> None:
    folder, *pairs = sys.argv[1:]
    given = {"backbone": "resnet18", "side": "64", "images": "2048", "threads": "1", "workers": "1", "turns": "3"}
    given |= dict(pair.split("=") for pair in pairs)
    side, n, threads, workers, turns = (int(given[key]) for key in ("side", "images", "threads", "workers", "turns"))
    write_images(Path(folder), n, side)
    own = ImagePreprocessor((3, side, side), Continuous((0.5,) * 3, (0.25,) * 3))
    node = registry.describe(registry.choices("backbone")[given["backbone"]], "backbone")
    module = build_backbone({k: v for k, v in node.items() if k != "summary"}, own.shape, own.values).eval()
    module = module.to(memory_format=torch.channels_last)
    encoder = TrainedEncoder("random", module, {"dim": module.dim}, own, "", None)
    inputs = read_inputs(encoder, InputRequest((folder,)))
    extractor = FeatureExtractor(module, torch.device("cpu"), "fp32", True, workers, threads)
    blocks = n // ROWS
    x = torch.randn(ROWS, *own.shape)

    def alone() -> None:
        torch.set_num_threads(1)
        for _ in ordered_map(extractor._compute, ((i, torch.arange(ROWS), x) for i in range(blocks)), threads, threads):
            pass

    def embed() -> None:
        for _ in extractor.blocks(inputs.source, inputs.dataset):
            pass

    times: dict[str, list[float]] = {"alone": [], "embed": []}
    for _ in range(turns + 1):
        for name, work in (("alone", alone), ("embed", embed)):
            start = time.process_time() if "cpu" in given else time.perf_counter()
            work()
            times[name].append(
                blocks * ROWS / ((time.process_time() if "cpu" in given else time.perf_counter()) - start)
            )
    speed = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(
        f"{given['backbone']} at {side}: alone {speed['alone']:,.0f} rows/s, embed {speed['embed']:,.0f} rows/s, ",
        end="",
    )
    print(f"lost {1 - speed['embed'] / speed['alone']:.1%} ({', '.join(f'{k}={v}' for k, v in given.items())})")


def write_images(folder: Path, n: int, side: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(0)
    for i in range(n):
        if not (path := folder / f"{i:06}.png").exists():
            Image.fromarray(g.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)


if __name__ == "__main__":
    main()
