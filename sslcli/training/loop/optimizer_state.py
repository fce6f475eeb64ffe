"""The state of an optimizer as tensors by parameter name, for checkpoints that do not depend on the order of parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.errors import TrainingError
from sslcli.runs import Record
from sslcli.runs.checkpoint import ANOTHER


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> tuple[dict[str, Tensor], Record]:
    """The state of an optimizer: tensors by `parameter-name/slot`, and plain numbers. `names`: id(parameter) -> name."""
    tensors: dict[str, Tensor] = {}
    numbers: Record = {}
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            key = f"{names[id(parameter)]}/{slot}"
            if isinstance(value, Tensor):
                tensors[key] = full_tensor(value)
            elif value is not None:
                numbers[key] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor], numbers: Record
) -> None:
    """Loads the state into an optimizer of newly built parameters, in any order. TrainingError where it does not fit."""
    by_name = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    fused = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    for key, value in {**tensors, **numbers}.items():
        name, _, slot = key.rpartition("/")
        parameter = by_name.get(name)
        if parameter is None or not isinstance(value, (Tensor, int, float)):
            raise TrainingError(f"the checkpoint's optimizer state does not fit this model: {key}", ANOTHER)
        if hasattr(parameter, "device_mesh") and isinstance(value, Tensor) and value.shape == parameter.shape:
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
        elif isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # the parameter's memory format
        elif isinstance(value, Tensor) and parameter in fused:
            value = value.to(parameter.device)  # fused kernels keep the step count on the device
        optimizer.state[parameter][slot] = value


def full_tensor(x: Tensor) -> Tensor:
    """The complete tensor of a DTensor, gathered from all processes; any other tensor unchanged."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def parameter_names(module: nn.Module) -> dict[int, str]:
    """id(parameter) -> name."""
    return {id(p): n for n, p in module.named_parameters()}
