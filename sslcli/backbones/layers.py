"""The layers of a backbone in their order, from the input on: for learning rates by layer, and for freezing the first of them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcli.errors import RequestError

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
    lists = [i for i, (_, module) in enumerate(row) if isinstance(module, _LISTS) and _with_parameters(module) > 1]
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


def _with_parameters(module: nn.Module) -> int:
    """The number of members with parameters: the classifier of a network may have lost its layers."""
    return sum(any(True for _ in child.parameters()) for child in module.children())


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


def layer_factors(backbone: nn.Module, decay: float) -> dict[str, float]:
    """Factors of the learning rate by the name of a parameter: `decay` ** (layers above it, with one for the head)."""
    row = layers(backbone)
    return {name: decay ** (len(row) - i) for i, names in enumerate(row) for name in names}


def freeze(backbone: nn.Module, count: int | str) -> None:
    """Freezes the first layer (the stem, or the patch embedding) and `count` layers after it, or `all` of them: neither their
    parameters nor their batch statistics change, and their dropout is off. `statistics`: the statistics of batch norm alone, in all
    layers, which then normalize the batches of training, too. RequestError where a count leaves no layer."""
    if count == "statistics":
        norms = [name for name, module in backbone.named_modules() if isinstance(module, _BatchNorm)]
        backbone.frozen = tuple(norms)  # type: ignore[assignment]
        backbone.train(backbone.training)
        return
    row = layers(backbone)
    if isinstance(count, str):
        count = len(row) - 1
    elif count + 1 >= len(row):
        raise RequestError(
            f"train.freeze={count}: {type(backbone).__name__} has {len(row) - 1} layers after the first, and one must train",
            f"train.freeze={len(row) - 2}, or less" if len(row) > 2 else "train.freeze=0",
        )
    frozen = {name for names in row[: count + 1] for name in names}
    for name, parameter in backbone.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    whole = [
        name
        for name, module in backbone.named_modules()
        if name and (own := [f"{name}.{p}" for p, _ in module.named_parameters()]) and frozen.issuperset(own)
    ]
    backbone.frozen = tuple(whole)  # type: ignore[assignment]
    backbone.train(backbone.training)
