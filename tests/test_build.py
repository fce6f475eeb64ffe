"""Only trusted classes are built, and a typo in a YAML is told with the nearest argument."""

from __future__ import annotations

import pytest

from sslcli import build
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


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused(target):
    with pytest.raises(RequestError):
        build.resolve(target)


def test_an_alias_of_a_foreign_function_is_refused():
    with pytest.raises(RequestError, match="not a class or function of a trusted package"):
        build.resolve("sslcli.data.files.Path")


@pytest.mark.parametrize(
    "target", ["torch.optim.SGD", "torch.nn.Linear", "torchvision.models.resnet18", "sslcli.methods.simsiam.SimSiam"]
)
def test_trusted_targets_resolve(target):
    assert callable(build.resolve(target))


def test_a_near_miss_gets_a_hint():
    with pytest.raises(RequestError) as caught:
        build.resolve("sslcli.methods.simsiam.SimSam")
    assert caught.value.hint == "did you mean `SimSiam`?"
    with pytest.raises(RequestError) as caught:
        build.check(
            "method", {"_target_": "sslcli.methods.simsiam.SimSiam", "proj_dmi": 3, "plan": {}}, given=["backbone"]
        )
    assert "`method.proj_dmi` is not an argument of SimSiam" in caught.value.message
    assert caught.value.hint == "did you mean `method.proj_dim`?"


def test_a_missing_argument_is_told():
    with pytest.raises(RequestError, match=r"`backbone.out_features` must be given"):
        build.check("backbone", {"_target_": "torch.nn.Linear", "in_features": 3})


def test_modules_of_a_config_dir_are_trusted_and_no_others(tmp_path):
    (tmp_path / "my_own_method.py").write_text("def made(a=1):\n    return a + 1\n")
    with pytest.raises(RequestError, match="not from a trusted package") as caught:
        build.resolve("my_own_method.made")
    assert "--config-dir" in (caught.value.hint or "")
    build.trust_folder(tmp_path)
    assert build.build("method", {"_target_": "my_own_method.made", "a": 4}) == 5
    with pytest.raises(RequestError):
        build.resolve("json.loads")
