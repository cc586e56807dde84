"""What every command line owes its user: a sentence, an exit code, plain text in a pipe, a quick --help."""

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from common import command
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


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["check", "--help"], ["init", "--help"]])
def test_broker_help_answers_at_once(arguments: list[str]) -> None:
    def seconds() -> float:
        started = time.perf_counter()
        program = [sys.executable, "-c", "from broker.cli import main; main()", *arguments]
        subprocess.run(program, cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 0.3


def test_what_a_peer_wrote_cannot_forge_a_log_line() -> None:
    program = "import logging; from common.command import set_up_logging; set_up_logging(False); "
    program += r"logging.getLogger('x').warning('said: %s', 'no\n2026 level=ERROR logger=x forged \x1b[31mred')"
    done = subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "said: no 2026 level=ERROR" in done.stderr
