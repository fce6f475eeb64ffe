"""From YAML to objects: the one file where a `_target_` becomes a class.

The list is closed. A target is one that a YAML file of sslcli or of an installed plug-in names for that group, an optimizer of
`torch.optim`, or a class or function of a module in a folder given with `--config-dir` on this command line. The configuration
of a run can therefore not choose any other function to be called. Hydra's `instantiate` is not used.
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

from sslcli.config import registry, typecheck
from sslcli.errors import MachineError, RequestError, listing, nearest
from sslcli.runtime.resources import PHYSICAL_MEMORY

HOUSE_KEYS = {  # keys of a YAML that are read by the house and are no arguments, besides the facts of registry.FACT_KEYS
    "": {"_target_"},
    "method": {"plan"},
    "optimizer": {"lr_batch"},
}
MOST_PARTS = 100_000  # modules inside each other count more than once
_folders: list[Path] = []  # given with --config-dir: the user handed them over


def trust_folder(folder: Path) -> None:
    """Lets YAML name classes of modules that lie in `folder`. Appended to sys.path, so that nothing is shadowed."""
    folder = folder.resolve()
    if folder not in _folders:
        _folders.append(folder)
        sys.path.append(str(folder))


def trust_folders(folders: Iterable[str]) -> None:
    """`trust_folder` of each, in a process that is to build what another process built."""
    for folder in folders:
        trust_folder(Path(folder))


def trusted_folders() -> list[str]:
    """Those of this process, for another one that is to build the same."""
    return [str(f) for f in _folders]


def resolve(group: str, target: str) -> Callable[..., Any]:
    """The class or function that a dotted name means in a YAML of `group`. RequestError if there is none or it is not allowed."""
    if not isinstance(target, str) or "." not in target or not all(p.isidentifier() for p in target.split(".")):
        raise RequestError(f"`{group}._target_: {target}` is not the dotted name of a class")
    target = registry.current_name(target)
    module_name, _, name = target.rpartition(".")
    choices, folder = registry.targets(group), _folder_of(module_name)
    optimizer = group == "optimizer" and module_name == "torch.optim"
    if not (folder or optimizer or module_name in {t.rpartition(".")[0] for t in choices}):
        raise RequestError(
            f"`{group}._target_: {target}` is not allowed: no {group} of sslcli or of a plug-in is in `{module_name}`",
            f"`sslcli list` shows the choices; a {group} of your own lies in a folder: --config-dir FOLDER",
        )
    module = _import(target, module_name)
    found = getattr(module, name, None)
    if found is None:
        public = {n: v for n, v in vars(module).items() if not n.startswith("_")}
        close = nearest(name, [n for n, v in public.items() if isinstance(v, type)]) or nearest(name, public)
        raise RequestError(f"`{module_name}` has no `{name}`", f"did you mean `{close}`?" if close else None)
    if not callable(found) or not (
        target in choices or (optimizer and _is_optimizer(found)) or (folder and _lies_in(folder, found))
    ):
        raise RequestError(f"`{group}._target_: {target}` is not one of the allowed classes and functions")
    return found


def _import(target: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and e.name.split(".")[0] != module_name.split(".")[0] and not module_name.startswith(e.name):
            raise MachineError(f"{target} needs the package `{e.name}`", f"pip install {e.name}") from None
        raise RequestError(f"there is no module `{module_name}` (for `{target}`)") from None
    except Exception as e:  # a user's module, run for the first time
        last = traceback.extract_tb(e.__traceback__)[-1]
        at = f"{getattr(e, 'filename', None) or last.filename}, line {getattr(e, 'lineno', None) or last.lineno}"
        raise RequestError(f"`{module_name}` cannot be imported: {type(e).__name__}: {e} ({at})") from e


def _folder_of(module_name: str) -> Path | None:
    """The folder of --config-dir that holds a module."""
    parts = module_name.split(".")
    files = (f.joinpath(*parts) for f in _folders)
    found = (f for f in files if f.with_suffix(".py").is_file() or (f / "__init__.py").is_file())
    return next(((f.parents[len(parts) - 1]) for f in found), None)


def _lies_in(folder: Path, found: Any) -> bool:
    """Whether a class or function is defined in a module of `folder`, and not merely imported there."""
    origin = getattr(sys.modules.get(getattr(found, "__module__", "") or ""), "__file__", None)
    return origin is not None and Path(origin).resolve().is_relative_to(folder)


def _is_optimizer(found: Any) -> bool:
    from torch.optim import Optimizer

    return isinstance(found, type) and issubclass(found, Optimizer) and found is not Optimizer


def arguments(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """The YAML's keys that are arguments of its target."""
    house = {key for keys in (HOUSE_KEYS, registry.FACT_KEYS) for name in ("", group) for key in keys.get(name, ())}
    return {str(k): v for k, v in node.items() if k not in house}  # YAML has keys that are no text


def without_facts(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """The YAML less the facts that only `group` states about its choices."""
    return {k: v for k, v in node.items() if k not in registry.FACT_KEYS.get(group, ())}


def check(group: str, node: dict[str, Any], given: Iterable[str] = ()) -> None:
    """Binds a YAML's keys to its target's signature; a typo is a RequestError with the nearest argument.

    `given` are the arguments that the house adds (a method's `backbone`)."""
    if "_target_" not in node:
        raise RequestError(f"`{group}` names no `_target_`", f"choose one: {group}=NAME")
    target = resolve(group, node["_target_"])
    parameters = _parameters(target)
    allowed = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in given
    ]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = arguments(group, node)
    for key, value in keys.items():
        if key.startswith("_"):
            raise RequestError(f"`{group}.{key}` is not allowed: of Hydra's own keys only `_target_` is read")
        if key not in allowed and not open_ended:
            close = nearest(key, allowed)
            raise RequestError(
                f"`{group}.{key}` is not an argument of {_name(target)} (has: {listing(allowed) or 'none'})",
                f"did you mean `{group}.{close}`?" if close else None,
            )
        if key in allowed and not typecheck.matches_type(value, kind := parameters[key].annotation):
            text = isinstance(value, (int, float)) and typecheck.matches_type("", kind)
            raise RequestError(
                f"`{group}.{key}={value}`: expected {typecheck.describe_type(kind)}, got `{value}`",
                f"if it is meant as text: '{group}.{key}=\"{value}\"'" if text else None,
            )
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in keys:
            raise RequestError(f"`{group}.{name}` must be given", f"add {group}.{name}=...")


def build(group: str, node: dict[str, Any], *args: Any, **given: Any) -> Any:
    """Calls a YAML's target with its keys and with what the house adds."""
    check(group, node, list(given) + _positional(group, node, args))
    try:
        with bounded(group) if group in ("backbone", "method") else contextlib.nullcontext():
            return resolve(group, node["_target_"])(*args, **arguments(group, node), **given)
    except (ValueError, RuntimeError) as e:  # how constructors, ours and torch's, refuse a value
        if "allocate memory" in str(e) or "out of memory" in str(e):
            raise MachineError(f"`{group}` does not fit into memory", f"smaller values of {group}") from e
        raise RequestError(f"`{group}`: {e}", f"`sslcli pretrain --cfg job` shows the values of {group}") from e


@contextlib.contextmanager
def bounded(group: str) -> Iterator[None]:
    """While a network is built, which the configuration of a run from elsewhere may have chosen: RequestError where it has
    too many parts, MachineError where its tensors are larger than the memory, before they are filled."""
    from torch.nn.modules import module

    parts = size = 0

    def part(owner: Any, name: str, inner: Any) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS:
            raise RequestError(f"`{group}` has more than {MOST_PARTS:,} parts", f"smaller values of {group}")

    def tensor(owner: Any, name: str, value: Any) -> None:
        nonlocal size
        if value is not None and value.device.type == "cpu":
            size += value.numel() * value.element_size()
        if size > PHYSICAL_MEMORY:
            raise MachineError(f"`{group}` does not fit into memory", f"smaller values of {group}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(module.register_module_module_registration_hook(part))
        stack.enter_context(module.register_module_parameter_registration_hook(tensor))
        stack.enter_context(module.register_module_buffer_registration_hook(tensor))
        yield


def partial(group: str, node: dict[str, Any], *given: str) -> Callable[..., Any]:
    """A YAML's target with its keys bound, to be called later with the arguments named in `given`."""
    check(group, node, given)
    return functools.partial(resolve(group, node["_target_"]), **arguments(group, node))


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a target, with annotations as types where they can be had."""
    try:
        return inspect.signature(target, eval_str=True).parameters
    except (NameError, AttributeError, TypeError, SyntaxError):  # a name that is only there for type checkers
        return inspect.signature(target).parameters


def _positional(group: str, node: dict[str, Any], args: tuple[Any, ...]) -> list[str]:
    return list(inspect.signature(resolve(group, node["_target_"])).parameters)[: len(args)]


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", str(target))
