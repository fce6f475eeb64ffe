"""A trained encoder on its device, in one process or several that share the blocks of each source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor, nn

from sslcli.config import Config, instantiate
from sslcli.errors import DataError
from sslcli.inference.encoder import TrainedEncoder, finetuned_encoder, open_trained
from sslcli.inference.features import ROWS, Block, FeatureExtractor
from sslcli.inference.inputs import InputRequest, Inputs, read_inputs
from sslcli.nn.dist import all_gather_object, broadcast_from_rank0, rank, world_size
from sslcli.runs import Record
from sslcli.runtime import device, processes, progress
from sslcli.runtime.device import Runtime
from sslcli.views.images import compiled
from sslcli.views.modality import modality

GROUP = 8  # blocks of each process that are exchanged at a time
Pool = Callable[[nn.Module], Callable[[Tensor], Tensor] | None]  # see FeatureExtractor.pool


@dataclass(frozen=True)
class Session:
    """An encoder that is ready to compute features, see `open_session`."""

    encoder: TrainedEncoder
    extractor: FeatureExtractor
    runtime: Runtime

    def blocks(self, inputs: Inputs, first: int = 0) -> Iterator[Block]:
        """The features of all samples from block `first` on, in order, on rank 0; inside `launch`, all processes compute them.

        The iteration must be finished, or `launch` left by an error."""
        total = math.ceil(len(inputs) / ROWS)
        if world_size() > 1:
            broadcast_from_rank0({"request": inputs.request.to_json(), "first": first, "is": inputs.fingerprint})
        with progress.task("samples", len(inputs)) as task:
            task.done = first * ROWS
            for block in self._shared_blocks(inputs, first, total):
                yield block
                task.done = min(len(inputs), (block.number + 1) * ROWS)

    def _shared_blocks(self, inputs: Inputs, first: int, total: int) -> Iterator[Block]:
        own = self.extractor.blocks(inputs.source, inputs.dataset, first + rank(), world_size())
        if world_size() == 1:
            yield from own
            return
        for _ in range(math.ceil((total - first) / (GROUP * world_size()))):
            group = [vars(block) for block in islice(own, GROUP)]
            gathered = [Block(**content) for part in all_gather_object(group) for content in part]
            yield from sorted(gathered, key=lambda block: block.number)

    @contextlib.contextmanager
    def launch(self, command: str, spec: str, values: Config, **options: object) -> Iterator[None]:
        """Start the other processes for the block, where `values` has several: each opens the same encoder with `open_session`, and
        computes its share until the block ends."""
        payload = {
            "command": command,
            "spec": spec,
            "values": {key: values[key] for key in ("device", "train")},
            "options": options,
            "folders": instantiate.trusted_folders(),
        }
        with processes.launch(self.runtime.process, self.runtime.device, payload, run_worker):
            yield
            if world_size() > 1:
                broadcast_from_rank0(None)


def open_session(
    spec: str, values: Config, batch_size: int = ROWS, pool: str | None = None, finetuned: bool = False
) -> Session:
    """The encoder that `spec` names, on the device of `values`, a resolved configuration with `device` and `train.devices`.

    batch_size, pool: see `FeatureExtractor`; `pool` by name, see `vectors/pooling.py`. finetuned: the backbone that `eval
    finetune` kept in the run instead. RequestError, TrainingError, MachineError."""
    from sslcli.inference.vectors.pooling import pooling
    from sslcli.inference.vectors.shared_space import SHARED, shared_encoder

    encoder = open_trained(spec)
    if pool == SHARED:
        encoder = shared_encoder(encoder)
    if finetuned:
        encoder = finetuned_encoder(encoder)
    process = processes.process_info(values["train"]["devices"], device.kind_of(values["device"]))
    kind = modality(encoder.preprocessor.kind)
    runtime = device.start(values["device"], channels_last=kind.channels_last, process=process)
    runtime.native = compiled.configure(values["device"].get("native", "auto"), runtime.device, kind.native)
    runtime.place(encoder.module)
    extractor = FeatureExtractor(
        encoder.module,
        runtime.device,
        runtime.precision,
        runtime.channels_last,
        runtime.workers,
        runtime.threads,
        batch_size,
        pooling(encoder.module, pool),
        windows=pool not in ("tokens", "items"),
    )
    return Session(encoder, extractor, runtime)


def run_worker(job: Record) -> None:
    """Another process: computes its share of all features that rank 0 asks for."""
    instantiate.trust_folders(job.get("folders", []))
    session = open_session(job["spec"], job["values"], **job["options"])
    processes.join_group(session.runtime.device)
    known: dict[str, Inputs] = {}
    while (task := broadcast_from_rank0(None)) is not None:
        request = InputRequest.from_json(task["request"])
        key = repr(request)
        if key not in known:
            known[key] = read_inputs(session.encoder, request)
        if known[key].fingerprint != task["is"]:
            raise DataError(
                f"the samples are not those of rank 0: {known[key].fingerprint}, there {task['is']}",
                "every machine must read the same files",
            )
        for _ in session._shared_blocks(known[key], task["first"], math.ceil(len(known[key]) / ROWS)):
            pass
