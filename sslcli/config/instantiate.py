"""Build objects from YAML: the only file where a `_target_` becomes a class.

Allowed targets are those that a YAML file of sslcli or of an installed plug-in names for the group, the optimizers of
`torch.optim`, and classes and functions of modules in a folder given with `--config-dir` on this command line. The configuration
of a run can therefore not call any other function. Hydra's `instantiate` is not used.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sslcli.config import Config, registry, typecheck
from sslcli.errors import MachineError, RequestError, listing, nearest
from sslcli.runtime.resources import PHYSICAL_MEMORY

FRAMEWORK_KEYS = {  # keys that sslcli reads and that are not arguments of the target, besides registry.FACT_KEYS
    "": {"_target_"},
    "method": {"plan"},
    "optimizer": {"lr_batch"},
    "dataset": {"exclude"},
}
MAX_MODULES = 100_000  # of a network; nested modules count more than once
_folders: list[Path] = []  # given with --config-dir


def trust_folder(folder: Path) -> None:
    """Allow YAML to name classes of modules in `folder`. It is appended to sys.path, so that it shadows nothing."""
    folder = folder.resolve()
    if folder not in _folders:
        _folders.append(folder)
        sys.path.append(str(folder))


def trust_folders(folders: Iterable[str]) -> None:
    """`trust_folder` for each, in a process that builds the same objects as rank 0."""
    for folder in folders:
        trust_folder(Path(folder))


def trusted_folders() -> list[str]:
    """The trusted folders of this process."""
    return [str(f) for f in _folders]


def resolve(group: str, target: str) -> Callable[..., Any]:
    """The class or function of a dotted name in a YAML of `group`. RequestError where it does not exist or is not allowed."""
    if not isinstance(target, str) or "." not in target or not all(p.isidentifier() for p in target.split(".")):
        raise RequestError(f"{group}._target_: expected the dotted name of a class, got '{target}'")
    target = registry.current_name(target)
    module_name, _, name = target.rpartition(".")
    choices, folder = registry.targets(group), _folder_of(module_name)
    optimizer = group == "optimizer" and module_name == "torch.optim"
    if not (folder or optimizer or module_name in {t.rpartition(".")[0] for t in choices}):
        raise RequestError(
            f"{group}._target_={target} is not allowed: no {group} of sslcli or of a plug-in is in `{module_name}`",
            "`sslcli list` shows the choices; --config-dir FOLDER adds your own",
        )
    module = _import(target, module_name)
    target_object = getattr(module, name, None)
    if target_object is None:
        public = {n: v for n, v in vars(module).items() if not n.startswith("_")}
        close = nearest(name, [n for n, v in public.items() if isinstance(v, type)]) or nearest(name, public)
        raise RequestError(f"module `{module_name}` has no `{name}`", f"did you mean `{close}`?" if close else None)
    is_allowed = (
        target in choices
        or (optimizer and _is_optimizer(target_object))
        or (folder and _is_defined_in(folder, target_object))
    )
    if not callable(target_object) or not is_allowed:
        raise RequestError(f"{group}._target_={target} is not one of the allowed classes and functions")
    return target_object


def _import(target: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and e.name.split(".")[0] != module_name.split(".")[0] and not module_name.startswith(e.name):
            raise MachineError(f"{target} needs the package `{e.name}`", f"pip install {e.name}") from None
        raise RequestError(f"no module `{module_name}` (for {target})") from None
    except Exception as e:  # an error in a user's module
        last = traceback.extract_tb(e.__traceback__)[-1]
        at = f"{getattr(e, 'filename', None) or last.filename}, line {getattr(e, 'lineno', None) or last.lineno}"
        raise RequestError(f"`{module_name}` cannot be imported: {type(e).__name__}: {e} ({at})") from e


def _folder_of(module_name: str) -> Path | None:
    """The folder of --config-dir that holds a module."""
    parts = module_name.split(".")
    files = (f.joinpath(*parts) for f in _folders)
    existing = (f for f in files if f.with_suffix(".py").is_file() or (f / "__init__.py").is_file())
    return next(((f.parents[len(parts) - 1]) for f in existing), None)


def _is_defined_in(folder: Path, target: object) -> bool:
    """Whether a class or function is defined in a module of `folder`, not only imported there."""
    origin = getattr(sys.modules.get(getattr(target, "__module__", "") or ""), "__file__", None)
    return origin is not None and Path(origin).resolve().is_relative_to(folder)


def _is_optimizer(target: object) -> bool:
    from torch.optim import Optimizer

    return isinstance(target, type) and issubclass(target, Optimizer) and target is not Optimizer


def arguments(group: str, node: Config) -> Config:
    """The keys of a YAML node that are arguments of its target."""
    others = {
        key for keys in (FRAMEWORK_KEYS, registry.FACT_KEYS) for name in ("", group) for key in keys.get(name, ())
    }
    return {str(k): v for k, v in node.items() if k not in others}  # YAML allows keys that are not strings


def without_facts(group: str, node: Config) -> Config:
    """A YAML node without the keys that describe the choices of `group`."""
    return {k: v for k, v in node.items() if k not in registry.FACT_KEYS.get(group, ())}


def default_arguments(group: str, node: Config) -> Config:
    """The default of each argument of the target of a YAML node, where it has one. RequestError."""
    parameters = _parameters(resolve(group, node["_target_"]))
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def check(group: str, node: Config, given: Iterable[str] = ()) -> None:
    """Bind the keys of a YAML node to the signature of its target. RequestError with the nearest argument as a hint.

    `given`: the arguments that sslcli adds (a method's `backbone`)."""
    if "_target_" not in node:
        raise RequestError(f"{group} has no `_target_`", f"choose one: {group}=NAME")
    target = resolve(group, node["_target_"])
    parameters = _parameters(target)
    allowed = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in given
    ]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = arguments(group, node)
    for key, value in keys.items():
        if key.startswith("_"):
            raise RequestError(f"`{group}.{key}` is not allowed: `_target_` is the only key of Hydra that is supported")
        if key not in allowed and not open_ended:
            close = nearest(key, allowed)
            raise RequestError(
                f"`{group}.{key}` is not an argument of {_name(target)} (has: {listing(allowed) or 'none'})",
                f"did you mean `{group}.{close}`?" if close else None,
            )
        if key in allowed and not typecheck.matches_type(value, kind := parameters[key].annotation):
            is_string = isinstance(value, (int, float)) and typecheck.matches_type("", kind)
            raise RequestError(
                f"{group}.{key}: expected {typecheck.describe_type(kind)}, got '{value}'",
                f"as a string: '{group}.{key}=\"{value}\"'" if is_string else None,
            )
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in keys:
            raise RequestError(f"missing value: {group}.{name}", f"add {group}.{name}=...")


def takes(group: str, node: Config, argument: str) -> bool:
    """Whether the target of a YAML node has an argument of this name. RequestError."""
    return "_target_" in node and argument in inspect.signature(resolve(group, node["_target_"])).parameters


def build(group: str, node: Config, *args: Any, **given: Any) -> Any:
    """Call the target of a YAML node with its keys and the arguments that sslcli adds. RequestError, MachineError."""
    check(group, node, list(given) + _positional(group, node, args))
    try:
        with bounded(group) if group in ("backbone", "method") else contextlib.nullcontext():
            return resolve(group, node["_target_"])(*args, **arguments(group, node), **given)
    except (ValueError, RuntimeError) as e:  # constructors refuse values with these
        if "allocate memory" in str(e) or "out of memory" in str(e):
            raise MachineError(f"{group} does not fit into memory", f"use smaller values of {group}") from e
        raise RequestError(f"{group}: {e}", f"`sslcli pretrain --cfg job` shows the values of {group}") from e


@contextlib.contextmanager
def bounded(group: str) -> Iterator[None]:
    """Limit the size of a network while it is built, since the configuration may come from a run of others.

    RequestError above `MAX_MODULES`, MachineError where its tensors exceed the memory, before they are filled."""
    from torch.nn.modules import module

    count = size = 0

    def add_module(owner: object, name: str, inner: object) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            raise RequestError(f"{group} has more than {MAX_MODULES:,} modules", f"use smaller values of {group}")

    def add_tensor(owner: Any, name: str, value: Any) -> None:
        nonlocal size
        if value is not None and value.device.type == "cpu":
            size += value.numel() * value.element_size()
        if size > PHYSICAL_MEMORY:
            raise MachineError(f"{group} does not fit into memory", f"use smaller values of {group}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(module.register_module_module_registration_hook(add_module))
        stack.enter_context(module.register_module_parameter_registration_hook(add_tensor))
        stack.enter_context(module.register_module_buffer_registration_hook(add_tensor))
        yield


def partial(group: str, node: Config, *given: str) -> Callable[..., Any]:
    """The target of a YAML node with its keys bound, to be called later with the arguments named in `given`."""
    check(group, node, given)
    return functools.partial(resolve(group, node["_target_"]), **arguments(group, node))


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a target, with annotations as types where these can be evaluated."""
    try:
        return inspect.signature(target, eval_str=True).parameters
    except (NameError, AttributeError, TypeError, SyntaxError):  # a name that exists only for type checkers
        return inspect.signature(target).parameters


def _positional(group: str, node: Config, args: tuple[Any, ...]) -> list[str]:
    return list(inspect.signature(resolve(group, node["_target_"])).parameters)[: len(args)]


def _name(target: object) -> str:
    return getattr(target, "__qualname__", str(target))
