"""sslcli embed RUN [FILES...]: the features of files or of a data set, in a file."""

from __future__ import annotations

from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command import Command
from sslcli.cli.command_table import COMMANDS
from sslcli.config import Config
from sslcli.console import escape
from sslcli.errors import RequestError, command, listing, nearest, target

LISTED = 5  # unreadable files that are printed
ALLOWED = ("dataset", "device")  # groups of keys that do not come from the run


def main(request: Request) -> int:
    options, overrides = split_options(request.overrides, COMMANDS["embed"].options)
    spec, files = encoder_and_files(request, COMMANDS["embed"])
    out = target(options.get("out", ""), "out=E.npz")
    refuse_dataset_keys("embed", request, spec, files, overrides)
    values = inference_values(request, overrides, "embed")
    batch_size = positive_integer("batch_size", options.get("batch_size", "64"))
    pool = options.get("pool")

    from sslcli.inference.embed import check_out, embed
    from sslcli.inference.inputs import ITEMS, InputRequest, read_inputs
    from sslcli.inference.session import open_session

    check_out(out)
    inputs_request = InputRequest.parse(
        files, values, overrides, ITEMS if pool == ITEMS else options.get("split", "all")
    )
    session = open_session(spec, values, batch_size, pool)
    inputs = read_inputs(session.encoder, inputs_request)
    console.rows(
        [
            ("what", f"{session.encoder.spec}, step {session.encoder.info.get('step', 0):,}"),
            ("data", f"{inputs.dataset.name}: {console.plural(len(inputs), 'sample')}"),
            ("where", session.runtime.describe()),
        ]
    )
    with session.launch("embed", session.encoder.spec, values, batch_size=batch_size, pool=pool):
        done = embed(session, inputs, out, pool)
    report_unreadable(done.unreadable)
    note = "complete already" if done.complete else f"written, {'x'.join(map(str, done.shape))} numbers each"
    console.say(f"{console.plural(done.samples, 'sample')} {note}")
    if console.flag(console.JSON):
        result = {"out": str(out), "samples": done.samples, "shape": list(done.shape), "resumed": done.resumed}
        console.out_json({**result, "encoder": session.encoder.sha256, "unreadable": done.unreadable})
    else:
        console.out(out)
    return 0


def encoder_and_files(request: Request, of: Command) -> tuple[str, list[str]]:
    """The encoder, which comes first, and the files. RequestError without an encoder."""
    if not request.positional:
        raise RequestError("missing argument: RUN", f"sslcli {of.name} {of.usage}; `latest` is the newest run")
    spec, *files = request.positional
    if Path(spec).expanduser().is_file():
        raise RequestError(
            f"{spec} is a file: the first argument is the encoder", f"sslcli {of.name} latest {spec} ..."
        )
    return spec, files


def refuse_dataset_keys(name: str, request: Request, spec: str, files: list[str], overrides: list[str]) -> None:
    """RequestError for keys of a data set beside files, with the command that reads the files by them."""
    from sslcli.config import registry
    from sslcli.config.overrides import override_keys
    from sslcli.runs import records
    from sslcli.runs.encoder import locate_encoder

    groups = [key.partition(".") for key in override_keys(overrides)]
    keys = {key for group, _, key in groups if group == "dataset"} - {"path"}
    if not files or not keys or "" in keys:  # dataset=NAME beside files is refused later
        return
    try:
        reader = {"path": "???", "modality": records.encoder(locate_encoder(spec)).get("modality")}
    except RequestError:  # no run: the encoder of another library, or a wrong name
        return
    nodes = {data: registry.describe(path, "dataset") for data, path in registry.choices("dataset").items()}
    readers = [data for data, node in nodes.items() if reader.items() <= node.items() and keys <= node.keys()]
    if readers:
        given = [f"dataset={readers[0]}", f"dataset.path={files[0]}", *request.overrides]
        first = next(override for override, (_, _, key) in zip(overrides, groups, strict=True) if key in keys)
        raise RequestError(
            f"{escape(first)}: files without dataset= are read as the training data were",
            ("one command for each file: " if len(files) > 1 else "") + command(name, spec, *given),
        )


def inference_values(request: Request, overrides: list[str], name: str) -> Config:
    """The resolved configuration with the data set and the device of the overrides. RequestError for keys of the run."""
    from sslcli.config import compose
    from sslcli.config.overrides import allow_data_path, override_keys
    from sslcli.training.configuration import resolve

    options = [option.name for option in COMMANDS[name].options]
    for override, key in zip(overrides, override_keys(overrides), strict=True):
        if key.split(".")[0] not in ALLOWED and key != "train.devices":
            close = nearest(key, [*options, *ALLOWED])
            raise RequestError(
                f"unexpected argument '{override}' of sslcli {name}",
                f"did you mean {close}=...?"
                if close
                else f"its keys: {listing([*options, *ALLOWED, 'train.devices'])}",
            )
    return resolve(compose.compose("eval", allow_data_path(["evaluator=quality", *overrides]), request.config_dirs))


def positive_integer(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise RequestError(f"{key}={text}: expected a positive integer", f"{key}=64")
    return int(text)


def report_unreadable(unreadable: dict[str, str]) -> None:
    """Warns of the samples that were left out, the first ones by name."""
    from sslcli.data.loading.bad_samples import format_examples
    from sslcli.data.user_files.samples import EMPTY

    if unreadable:
        noun = "sample" if EMPTY in unreadable.values() else "file"
        console.warn(f"{console.plural(len(unreadable), noun)} left out: {format_examples(unreadable, LISTED)}")
