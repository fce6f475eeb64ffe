"""The space that images and captions share: `pool=shared` of `sslcli embed`, and search by text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sslcli import builders
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError, TrainingError
from sslcli.inference.encoder import TrainedEncoder
from sslcli.methods.base import Method
from sslcli.runs import checkpoint
from sslcli.runs.find import resume_command
from sslcli.runs.safetensors_file import hash_tensors
from sslcli.views.image_text.captions import encode_texts

SHARED = "shared"


class SharedSpace(nn.Module):
    """A method that reads captions, as an encoder: clean samples (B, *shape) -> unit vectors (B, P)."""

    def __init__(self, method: Method, captions: TextPreprocessor):
        super().__init__()
        self.method, self.captions = method, captions

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.method.sample_vectors(x)
        assert vectors is not None, type(self.method)
        return vectors

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, P) float32 of texts, on the CPU. RequestError for a text without a known word."""
        for text in texts:
            (content,) = self.captions.encode([text])
            unknown = self.captions.tokenizer.unknown
            if not len(content) or (unknown is not None and bool((content == unknown).all())):
                raise RequestError(f"the vocabulary of this encoder has no word of the text '{text}'", "other words")
        device = next(self.parameters()).device
        return self.method.caption_vectors(encode_texts(texts, self.captions).to(device)).float().cpu()


def shared_encoder(encoder: TrainedEncoder) -> TrainedEncoder:
    """The encoder of the space that the method of a run shares with captions, from its newest checkpoint.

    RequestError where its method reads no captions, TrainingError without a checkpoint."""
    captions = encoder.preprocessor.captions if isinstance(encoder.preprocessor, PairsPreprocessor) else None
    if encoder.run is None or captions is None:
        raise RequestError(
            f"pool={SHARED}: {encoder.spec} is no run of a method that reads captions", "sslcli pretrain method=clip"
        )
    folder = encoder.run.path / "checkpoints"
    saved = next(
        (path for path in checkpoint.existing(folder) if checkpoint.step_of(path) == encoder.info["step"]), None
    )
    if saved is None:
        raise TrainingError(
            f"{encoder.run.path} has no checkpoint of its last step",
            f"{resume_command(encoder.run.path)} finishes the run and writes one",
        )
    method, _ = builders.load_checkpoint_method(encoder.run, saved)
    if not method.shares_space:
        raise RequestError(f"pool={SHARED}: {type(method).__name__} does not read captions", "method=clip or siglip")
    return replace(encoder, module=SharedSpace(method, captions), sha256=hash_tensors(method.state_dict()))
