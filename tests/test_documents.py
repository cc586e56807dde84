"""README, documents, units and configuration files: what they name exists, and what exists is named."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from broker.cli import main as broker
from common import errors
from common.command import INTERRUPTED
from common.config import Config, DataConfig, convert
from common.learning import seam
from common.plan import ModelChoice, Training
from common.yaml_text import parse
from coordinator.cli import main as coordinator
from coordinator.config import CoordinatorConfig
from device.cli import main as device
from device.config import DeviceConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
UNITS = sorted(ROOT.glob("systemd/*.service"))
CONFIGS = sorted(ROOT.glob("config/*.yaml"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
GROUPS: dict[str, click.Group] = {
    "fedpi-broker": broker,
    "fedpi-coordinator": coordinator,
    "fedpi-device": device,
}


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_to_files_that_exist(document: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", document.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)\)", prose)
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *UNITS, *CONFIGS], ids=names([*DOCUMENTS, *UNITS, *CONFIGS]))
def test_no_path_of_the_machine_it_was_written_on_is_left(path: Path) -> None:
    assert re.findall(r"(?<![\w./])/(?:work|tmp|root|mnt|Users)\b\S*", path.read_text(encoding="utf-8")) == []


# ---- commands -------------------------------------------------------------------------------


def commands_in(text: str) -> Iterator[list[str]]:
    """Find the commands of fedpi in code blocks, units and comments, as words; a pipe or comment ends one."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"(?:^|[ /=`])(fedpi-(?:broker|coordinator|device) [a-z][^`\n]*)", joined, re.MULTILINE):
        yield shlex.split(re.split(r"[;|&]", line)[0], comments=True)


def shown() -> list[tuple[str, list[str]]]:
    """Every complete command: those that stand in code blocks of documents, and those that units start."""
    found = []
    for path in DOCUMENTS:
        blocks = re.findall(r"^```\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found += [(path.name, words) for block in blocks for words in commands_in(block)]
    for path in UNITS:
        starts = re.findall(r"^ExecStart=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found += [(path.name, words) for start in starts for words in commands_in(start)]
    return found


@pytest.mark.parametrize(("where", "words"), shown(), ids=lambda value: value if isinstance(value, str) else value[1])
def test_a_command_that_is_shown_parses(where: str, words: list[str]) -> None:
    assert len(words) > 1, where
    command = GROUPS[words[0]].commands[words[1]]
    context = click.Context(command, info_name=words[1])
    given, _, _ = command.make_parser(context).parse_args(list(words[2:]))  # raises for what the command does not take
    missing = [p.name for p in command.params if p.required and given.get(p.name or "") is None]
    assert missing == [], f"{where}: {' '.join(words)}"


@pytest.mark.parametrize("path", [*DOCUMENTS, *CONFIGS], ids=names([*DOCUMENTS, *CONFIGS]))
def test_a_command_and_an_option_that_are_mentioned_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for group, subcommand in re.findall(r"(fedpi-(?:broker|coordinator|device)) ([a-z]+)(?=[ `.,;:|)\n])", text):
        assert subcommand in GROUPS[group].commands, f"{group} {subcommand}"
    known = {
        option
        for group in GROUPS.values()
        for c in group.commands.values()
        for p in c.params
        for option in (*p.opts, *p.secondary_opts)
    }
    foreign = {
        "--help",
        "--now",
        "--uninstall",
        "--purge",
        "--no-learning",
        "--roll-back",
        "--cafile",
        "--cert",
        "--key",
        "--no-deps",
        "--wheel-dir",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known | foreign


def test_documents_and_units_show_every_command_of_devices_and_coordinators() -> None:
    named = {(words[0], words[1]) for _, words in shown()}
    wanted = {(name, command) for name in ("fedpi-coordinator", "fedpi-device") for command in GROUPS[name].commands}
    assert wanted <= named


def test_targets_of_make_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


# ---- what must be told ----------------------------------------------------------------------


@pytest.mark.parametrize("path", [*CONFIGS, *UNITS], ids=names([*CONFIGS, *UNITS]))
def test_readme_names_every_configuration_and_unit(path: Path) -> None:
    assert f"({path.relative_to(ROOT)})" in README


def test_readme_explains_every_exit_code() -> None:
    below = README.split("## Exit codes", 1)[1]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", below, re.MULTILINE)}
    ours = {
        e.exit_code for e in errors.FedpiError.__subclasses__() if e is not errors.PeerError
    }  # never ends a command
    assert told == ours | {0, 1, 2, INTERRUPTED}


@pytest.mark.parametrize("unit", UNITS, ids=names(UNITS))
def test_a_wrong_configuration_does_not_start_a_unit_again(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    assert f"RestartPreventExitStatus={errors.ConfigError.exit_code}\n" in text
    assert "Restart=on-failure\n" in text
    assert "Requires=" not in text


# ---- the example of a model and a loader of one's own ---------------------------------------


@pytest.fixture(scope="module")
def example() -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_examples_functions_are_those_that_the_configuration_names(example: str) -> None:
    defined = {node.name for node in ast.parse(example).body if isinstance(node, ast.FunctionDef)}
    assert defined == set(re.findall(r"my_models:(\w+)", README))


@pytest.mark.tensorflow
def test_the_example_trains(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "rpi1.npz", images=images, labels=np.arange(24) % 2)
    choice = ModelChoice(name="tiny", options={"image_size": 32})
    learner = seam.build(choice, {"tiny": "my_models:tiny"})
    data = DataConfig(loader="my_models:from_npz", options={"file": str(tmp_path / "rpi1.npz")})
    site = seam.load(data, learner.image_size)
    trained = learner.train(
        learner.initial(0), site, Training(epochs=1, learning_rate=1e-3), lambda _epoch, _figures: None
    )
    assert trained.num_examples == len(site.train) == 18
    assert learner.predict(trained.weights, site.unseen.images).shape == (6,)


# ---- the tutorial's configurations ----------------------------------------------------------


def test_the_tutorials_lines_make_configurations() -> None:
    """Its lines take the place of those in the examples, as it says: the coordinator's `data` goes."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    schemas: tuple[tuple[str, type[Config]], ...] = (("coordinator", CoordinatorConfig), ("device", DeviceConfig))
    for (name, schema), block in zip(schemas, blocks, strict=True):
        lines = parse(block, "docs/tutorial.md").plain
        example = parse((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"), name).plain
        del example["data"]
        convert({**example, **lines}, schema, name)
