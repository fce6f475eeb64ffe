"""Masked language modeling by a hand-written loop and by the Trainer of transformers, for benchmarks/text.py.

Both have `turn(steps)`: train so many steps, and return the present tokens and the seconds of all but the first WARMUP; and
`padding`, the share of computed tokens that are padding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WARMUP = 2  # steps of a turn that are not counted
LR, DECAY, CLIP, DROPOUT = 1e-3, 0.01, 1.0, 0.1
WIDTH, DEPTH, HEADS = 256, 4, 4  # of bert_micro

Clock = Callable[[], float]
Documents = list[Tensor]  # [CLS] content [SEP], int64


def mask(x: Tensor, values: Any) -> tuple[Tensor, Tensor]:
    """15 % of the content, of which 80 % are masked, 10 % random and 10 % kept; labels are -100 elsewhere."""
    where = (torch.rand(x.shape) < 0.15) & ~torch.isin(x, torch.tensor(values.special))
    labels, kind = x.masked_fill(~where, -100), torch.rand(x.shape)
    out = torch.where(where & (kind < 0.8), values.mask, x)
    return torch.where(where & (kind >= 0.8) & (kind < 0.9), torch.randint_like(x, 5, values.size), out), labels


class HandWritten:
    """A careful loop in PyTorch: batches as long as their longest sample, fused attention, logits of masked tokens alone, fused
    AdamW."""

    def __init__(self, texts: Documents, values: Any, length: int, batch: int, clock: Clock):
        self.texts, self.values, self.batch, self.clock = texts, values, batch, clock
        torch.manual_seed(0)
        self.net = Network(values.size, length)
        groups = [
            {"params": [p for p in self.net.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in self.net.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, LR, fused=True)
        self.batches = self.stream()
        self.computed = self.present = 0

    def stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            order = torch.randperm(len(self.texts)).tolist()
            for start in range(0, len(order) - self.batch + 1, self.batch):
                rows = [self.texts[i] for i in order[start : start + self.batch]]
                yield mask(nn.utils.rnn.pad_sequence(rows, batch_first=True), self.values)

    def turn(self, steps: int) -> tuple[int, float]:
        for _ in range(WARMUP):
            self.step()
        before, start = self.present, self.clock()
        for _ in range(steps - WARMUP):
            self.step()
        return self.present - before, self.clock() - start

    def step(self) -> None:
        x, labels = next(self.batches)
        loss = self.net(x, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimizer.step()
        loss.item()  # logged
        self.present += int((x != 0).sum())
        self.computed += x.numel()

    @property
    def padding(self) -> float:
        return 1 - self.present / self.computed


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, h: Tensor, keys: Tensor) -> Tensor:
        b, n, d = h.shape
        q, k, v = self.qkv(h).view(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, keys, dropout_p=DROPOUT).transpose(1, 2).reshape(b, n, d)
        h = self.norm1(h + F.dropout(self.out(a), DROPOUT))
        return self.norm2(h + F.dropout(self.down(F.gelu(self.up(h))), DROPOUT))


class Network(nn.Module):
    """BERT with its head."""

    def __init__(self, size: int, length: int):
        super().__init__()
        self.words, self.places = nn.Embedding(size, WIDTH, padding_idx=0), nn.Embedding(length, WIDTH)
        self.segments, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, 1e-12)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.dense, self.norm2 = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, 1e-12)
        self.bias = nn.Parameter(torch.zeros(size))
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.words(x) + self.places.weight[: x.shape[1]] + self.segments.weight[0]
        h, keys = F.dropout(self.norm(h), DROPOUT), (x != 0)[:, None, None]
        for block in self.blocks:
            h = block(h, keys)
        where = labels != -100
        h = self.norm2(F.gelu(self.dense(h[where])))
        return F.cross_entropy(F.linear(h, self.words.weight, self.bias), labels[where])


class HuggingFace:
    """`Trainer` with `BertForMaskedLM`, and a collator that pads a batch to its longest sample."""

    def __init__(self, texts: Documents, values: Any, length: int, batch: int, clock: Clock):
        from transformers import BertConfig, BertForMaskedLM

        self.data, self.values, self.batch, self.clock = [{"input_ids": t} for t in texts], values, batch, clock
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
        sizes |= {"intermediate_size": 4 * WIDTH, "max_position_embeddings": length, "vocab_size": values.size}
        self.model = BertForMaskedLM(BertConfig(**sizes))
        self.present: list[int] = []  # of each batch
        self.computed = 0

    def collate(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        x, labels = mask(nn.utils.rnn.pad_sequence([r["input_ids"] for r in rows], batch_first=True), self.values)
        self.present.append(int((x != 0).sum()))
        self.computed += x.numel()
        return {"input_ids": x, "attention_mask": (x != 0).long(), "labels": labels}

    def turn(self, steps: int) -> tuple[int, float]:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        ends: list[float] = []

        class Record(TrainerCallback):
            def on_step_end(callback, *args: Any, **kwargs: Any) -> None:
                ends.append(self.clock())

        before = len(self.present)
        with tempfile.TemporaryDirectory() as folder:
            options = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=self.batch,
                learning_rate=LR,
                weight_decay=DECAY,
                max_grad_norm=CLIP,
                lr_scheduler_type="constant",
                use_cpu=True,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_drop_last=True,
            )
            data: Any = self.data
            Trainer(self.model, options, self.collate, train_dataset=data, callbacks=[Record()]).train()
        return sum(self.present[before + WARMUP : before + steps]), ends[-1] - ends[WARMUP - 1]

    @property
    def padding(self) -> float:
        return 1 - sum(self.present) / self.computed
