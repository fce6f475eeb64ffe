"""Layer-wise learning rate decay: the rate decreases from the head towards the input.

Layer-wise decay as in BEiT (Bao et al., ICLR 2022, arXiv:2106.08254) and MAE's fine-tuning: the head learns at the full
rate, the layer below it at `decay` times that, the next at `decay` squared, ...
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sslcli.optim import parameter_groups

_LISTS = (nn.Sequential, nn.ModuleList)


def layers(backbone: nn.Module) -> list[list[str]]:
    """The names of a backbone's parameters, layer by layer from the input on.

    One rule for all: the backbone is a row of modules in the order of their registration. A module with over half of
    all parameters that is no list (`Sequential`, `ModuleList`) is replaced by its members, again and again; then, where
    the row has exactly one list, that too. Tables of embeddings do not count, because vocabularies have any size. Each
    module of the row is a layer; one with vectors only (a norm) belongs to the layer before it, and parameters outside all
    modules (class token, positions) to the first. So the layers are the blocks of a ViT (after the patch embedding) or of
    BERT (after all embeddings), the stages of a ResNet (after the stem), the units of a convnet.
    """
    total = _size(backbone)
    row = _members("", backbone)
    while (i := _opens(row, total)) is not None:
        row[i : i + 1] = _members(*row[i])
    lists = [i for i, (_, module) in enumerate(row) if isinstance(module, _LISTS) and len(module) > 1]
    if len(lists) == 1:
        row[lists[0] : lists[0] + 1] = _members(*row[lists[0]])

    layer_names: list[list[str]] = []
    for name, module in row:
        parameters = {f"{name}.{p}": value for p, value in module.named_parameters()}
        if not parameters:
            continue
        if layer_names and all(value.ndim < 2 for value in parameters.values()):
            layer_names[-1] += parameters
        else:
            layer_names.append(list(parameters))
    assigned = {name for layer in layer_names for name in layer}
    unassigned = [name for name, _ in backbone.named_parameters() if name not in assigned]
    if unassigned:
        layer_names = [[*unassigned, *(layer_names[0] if layer_names else [])], *layer_names[1:]]
    return layer_names


def _members(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{prefix}.{name}" if prefix else name, child) for name, child in module.named_children()]


def _opens(row: list[tuple[str, nn.Module]], total: int) -> int | None:
    """The place of a module that is most of the backbone, has members, and is no list of its own."""
    for i, (_, module) in enumerate(row):
        if isinstance(module, _LISTS) and len(module) > 1:
            continue
        if any(True for _ in module.children()) and 2 * _size(module) > total:
            return i
    return None


def _size(module: nn.Module) -> int:
    """Parameters without those of tables of embeddings."""
    tables = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return sum(p.numel() for p in module.parameters() if id(p) not in tables)


def groups(backbone: nn.Module, head: nn.Module, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer, each with its `factor` of the learning rate: `decay` ** (layers above it)."""
    row = layers(backbone)
    factor = {f"0.{name}": decay ** (len(row) - i) for i, names in enumerate(row) for name in names}
    by_key: dict[tuple[float, float], dict[str, Any]] = {}
    for group in parameter_groups(nn.Sequential(backbone, head), weight_decay):
        for name, p in zip(group["param_names"], group["params"], strict=True):
            key = factor.get(name, 1.0), group["weight_decay"]
            by_key.setdefault(key, {"params": [], "factor": key[0], "weight_decay": key[1]})["params"].append(p)
    return [by_key[key] for key in sorted(by_key)]
