"""Only classes of the closed list are built, and a typo in a YAML is told with the nearest argument."""

from __future__ import annotations

import pytest

from sslcli import build, config
from sslcli.errors import RequestError

HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pathlib.Path.write_text",
    "torch.load",
    "torch.hub.load",
    "torch.nn.os.system",
]
HOSTILE += [
    "sslcli.run.os.system",
    "sslcli.run.shutil.rmtree",
    "torch.optim.torch.load",
    "sslcli.build.importlib.import_module",
    "pickle.loads",
]


GROUPS = ("method", "backbone", "dataset", "optimizer", "schedule", "evaluator")


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused(target):
    for group in GROUPS:
        with pytest.raises(RequestError):
            build.resolve(group, target)


@pytest.mark.parametrize("target", ["sslcli.data.folder.os", "sslcli.data.folder.dataset_of"])
def test_target_beside_a_factory_is_refused(target):
    """The module is one that YAML files name; what is asked for in it is not a choice."""
    with pytest.raises(RequestError, match="not one of the allowed classes and functions"):
        build.resolve("dataset", target)


def test_target_of_another_group_is_refused():
    assert build.resolve("method", "sslcli.methods.simsiam.SimSiam")
    with pytest.raises(RequestError, match="not allowed"):
        build.resolve("dataset", "sslcli.methods.simsiam.SimSiam")


@pytest.mark.parametrize(
    "group, target",
    [
        ("dataset", "timm.models.load_state_dict"),
        ("dataset", "timm.create_model"),
        ("backbone", "timm.create_model"),
        ("backbone", "torchvision.models.resnet18"),
        ("backbone", "torchvision.models.get_model"),
        ("backbone", "torch.nn.Linear"),
        ("optimizer", "torch.optim.Optimizer"),
        ("optimizer", "torch.optim.lr_scheduler"),
        ("optimizer", "torch.optim.swa_utils.update_bn"),
    ],
)
def test_functions_of_libraries_are_refused(group, target):
    with pytest.raises(RequestError, match="allowed"):
        build.resolve(group, target)


def test_optimizers_of_torch_are_allowed():
    assert build.resolve("optimizer", "torch.optim.RMSprop").__name__ == "RMSprop"


def test_every_choice_is_allowed():
    for group in GROUPS:
        assert all(callable(build.resolve(group, target)) for target in config.targets(group))


def test_a_near_miss_gets_a_hint():
    with pytest.raises(RequestError) as caught:
        build.resolve("method", "sslcli.methods.simsiam.SimSam")
    assert caught.value.hint == "did you mean `SimSiam`?"
    with pytest.raises(RequestError) as caught:
        build.check(
            "method", {"_target_": "sslcli.methods.simsiam.SimSiam", "proj_dmi": 3, "plan": {}}, given=["backbone"]
        )
    assert "`method.proj_dmi` is not an argument of SimSiam" in caught.value.message
    assert caught.value.hint == "did you mean `method.proj_dim`?"


def test_a_missing_argument_is_told():
    with pytest.raises(RequestError, match=r"`optimizer.lr` must be given"):
        build.check("optimizer", {"_target_": "sslcli.optim.LARS"}, given=["params"])


def test_modules_of_a_config_dir_are_trusted_and_no_others(tmp_path):
    (tmp_path / "my_own_method.py").write_text("def made(a=1):\n    return a + 1\n")
    with pytest.raises(RequestError, match="not allowed") as caught:
        build.resolve("method", "my_own_method.made")
    assert "--config-dir" in (caught.value.hint or "")
    build.trust_folder(tmp_path)
    assert build.build("method", {"_target_": "my_own_method.made", "a": 4}) == 5
    with pytest.raises(RequestError):
        build.resolve("method", "json.loads")
