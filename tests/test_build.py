"""Objects from YAML: only allowed targets are built, and a misspelled argument is reported with the nearest one."""

from __future__ import annotations

import pytest

from sslcli.config import instantiate, registry
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
    "sslcli.runs.run.os.system",
    "sslcli.runs.run.shutil.rmtree",
    "torch.optim.torch.load",
    "sslcli.config.instantiate.importlib.import_module",
    "pickle.loads",
]


GROUPS = ("method", "backbone", "dataset", "optimizer", "schedule", "evaluator")


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_rejected(target):
    for group in GROUPS:
        with pytest.raises(RequestError):
            instantiate.resolve(group, target)


@pytest.mark.parametrize("target", ["sslcli.data.import_module", "sslcli.data.Any"])
def test_target_beside_factory_is_rejected(target):
    """The module occurs in YAML files; the requested attribute is not a choice."""
    with pytest.raises(RequestError, match="not one of the allowed classes and functions"):
        instantiate.resolve("dataset", target)


def test_target_of_other_group_is_rejected():
    assert instantiate.resolve("method", "sslcli.methods.simsiam.SimSiam")
    with pytest.raises(RequestError, match="not allowed"):
        instantiate.resolve("dataset", "sslcli.methods.simsiam.SimSiam")


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
def test_library_functions_are_rejected(group, target):
    with pytest.raises(RequestError, match="allowed"):
        instantiate.resolve(group, target)


def test_torch_optimizers_are_allowed():
    assert instantiate.resolve("optimizer", "torch.optim.RMSprop").__name__ == "RMSprop"


def test_every_choice_is_an_allowed_target():
    for group in GROUPS:
        assert all(callable(instantiate.resolve(group, target)) for target in registry.targets(group))


def test_misspelled_argument_gets_hint():
    with pytest.raises(RequestError) as caught:
        instantiate.resolve("method", "sslcli.methods.simsiam.SimSam")
    assert caught.value.hint == "did you mean `SimSiam`?"
    with pytest.raises(RequestError) as caught:
        instantiate.check(
            "method", {"_target_": "sslcli.methods.simsiam.SimSiam", "proj_dmi": 3, "plan": {}}, given=["backbone"]
        )
    assert "`method.proj_dmi` is not an argument of SimSiam" in caught.value.message
    assert caught.value.hint == "did you mean `method.proj_dim`?"


def test_missing_argument_is_reported():
    with pytest.raises(RequestError, match=r"missing value: optimizer.lr"):
        instantiate.check("optimizer", {"_target_": "sslcli.optim.LARS"}, given=["params"])


def test_only_config_dir_modules_are_trusted(tmp_path):
    (tmp_path / "my_own_method.py").write_text("def made(a=1):\n    return a + 1\n")
    with pytest.raises(RequestError, match="not allowed") as caught:
        instantiate.resolve("method", "my_own_method.made")
    assert "--config-dir" in (caught.value.hint or "")
    instantiate.trust_folder(tmp_path)
    assert instantiate.build("method", {"_target_": "my_own_method.made", "a": 4}) == 5
    with pytest.raises(RequestError):
        instantiate.resolve("method", "json.loads")


@pytest.mark.parametrize("old", registry.RENAMED)
def test_renamed_target_is_built_and_keeps_hash(old):
    group = "evaluator" if ".evals." in old else "dataset"
    new = registry.current_name(old)
    assert new in registry.targets(group)
    assert instantiate.resolve(group, old) is instantiate.resolve(group, new)
    assert registry.first_name(new) == old
