"""What every command line owes its user: a sentence, an exit code, plain text in a pipe, a quick --help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import broker.cli
import coordinator.cli
import device.cli
from common import command
from common.command import PATH, console, listed, option_value, print_json, table
from common.errors import ConfigError, DataError, FedpiError, LinkError, PeerError, WorkError

ROOT = Path(__file__).parents[2]


@click.group(cls=command.Commands)
def main() -> None:
    pass


@main.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@main.command()
def bug() -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("kind", [FedpiError, ConfigError, DataError, LinkError, WorkError, PeerError])
def test_expected_error_is_one_sentence_and_its_exit_code(kind: type[FedpiError]) -> None:
    @main.command("fail")
    def fail() -> None:
        raise kind("lab.yaml: it is [red]wrong")

    result = CliRunner().invoke(main, ["fail"])
    assert result.exit_code == kind.exit_code
    assert result.stderr == "main: lab.yaml: it is [red]wrong\n"
    assert result.stdout == ""


def test_interrupt_ends_with_130_and_no_word() -> None:
    result = CliRunner().invoke(main, ["interrupted"])
    assert (result.exit_code, result.output) == (130, "")


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        CliRunner().invoke(main, ["bug"], catch_exceptions=False)


def test_piped_table_is_plain_unwrapped_text(capsys: pytest.CaptureFixture[str]) -> None:
    long = "[red]" + "x" * 200
    command.console().print(command.table(("device", "what"), [("rpi1", long), ("rpi2", 7)]))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["device  what", f"rpi1    {long}", "rpi2    7"]


HELP = [
    (package, name)
    for package, program in {"broker": broker.cli, "coordinator": coordinator.cli, "device": device.cli}.items()
    for name in ("", *program.main.commands)
]


@pytest.mark.parametrize(("package", "name"), HELP)
def test_help_answers_at_once(package: str, name: str) -> None:
    """It loads nothing that takes long to load."""
    program = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    program += f"from {package}.cli import main; main()"
    arguments = [*filter(None, [name]), "--help"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert f"{package}.cli" in loaded
    slow = {"numpy", "msgspec", "paho", "rich", "cryptography", "yaml", "psutil", "tensorflow", "PIL", "sqlite3"}
    assert loaded.isdisjoint(slow)


def test_what_a_peer_wrote_cannot_forge_a_log_line() -> None:
    program = "import logging; from common.command import set_up_logging; set_up_logging(False); "
    program += r"logging.getLogger('x').warning('said: %s', 'no\n2026 level=ERROR logger=x forged \x1b[31mred')"
    done = subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "said: no 2026 level=ERROR" in done.stderr


# ---- names that files bring ----------------------------------------------------------------------

LATIN_1 = os.fsdecode(b"t\xfcmor.jpg")
FORGED = "a.png\nbroker ok \x1b[2J"


def test_a_name_that_is_not_utf_8_is_printed_with_its_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(f"skipped: {LATIN_1}")
    console().print(table(("file",), [(LATIN_1,)]))
    print_json({"files": [LATIN_1], LATIN_1: 1})
    told = capsys.readouterr().out
    assert told.count(r"t\xfcmor.jpg") == 2
    assert json.loads(told[told.index("{") :]) == {"files": [r"t\xfcmor.jpg"], r"t\xfcmor.jpg": 1}


def test_a_name_forges_no_line_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(f"skipped: {FORGED}")
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "\x1b" not in told


def test_an_error_with_such_names_stays_one_line_that_can_be_sent() -> None:
    told = str(DataError(f"{FORGED} {LATIN_1}: broken"))
    assert told.isprintable()
    assert r"t\xfcmor.jpg" in told
    told.encode()


def test_a_path_option_knows_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pi")

    @click.command()
    @click.option("--data", type=PATH)
    def show(data: Path) -> None:
        click.echo(data)

    assert CliRunner().invoke(show, ["--data=~/images"]).output == "/home/pi/images\n"
    done = CliRunner().invoke(show, ["--data=~nobody-of-this-name/images"])
    assert done.exit_code == 2
    assert "'~nobody-of-this-name' is not known here" in done.output


@pytest.mark.parametrize("text", ["no,yes", " no , yes ", "no,yes,", "no, ,yes"])
def test_a_list_is_split_at_commas_without_blanks(text: str) -> None:
    assert listed(text) == ("no", "yes")


def test_the_value_of_an_option_is_read_as_a_configuration_is() -> None:
    assert option_value("1e-3", "--option lr") == 0.001
    with pytest.raises(ConfigError, match="--option lr, line 1: not valid YAML"):
        option_value("{", "--option lr")
