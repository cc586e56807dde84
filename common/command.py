"""What the three command lines share: exit codes, logs, plain or coloured output, JSON.

Imports no more than click at the top, so that `--help` answers at once.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.errors import FedpiError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

INTERRUPTED = 130
LOG_FORMAT = "%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"


class Commands(click.Group):
    """A command group whose expected errors are one sentence and an exit code; Ctrl+C ends with 130.

    Use it as `@click.group(cls=Commands)`. A reader that closes the pipe early ends the command without a
    word (click does that); anything else is a bug and prints its traceback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except FedpiError as error:
            click.echo(f"{ctx.command_path}: {printable(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


class _OneLine(logging.Formatter):
    """Keeps what peers wrote within its line, so that nobody can forge another one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def set_up_logging(is_verbose: bool) -> None:
    """Send logs to stderr as key=value lines: INFO and above, or everything. Under systemd, to its journal."""
    from common.journal import JournalHandler, is_journal

    is_entry = is_journal()  # with time, level and logger in fields of their own
    out = JournalHandler() if is_entry else logging.StreamHandler(sys.stderr)
    out.setFormatter(_OneLine("%(message)s" if is_entry else LOG_FORMAT))
    logging.basicConfig(level=logging.DEBUG if is_verbose else logging.INFO, handlers=[out])


def _on_verbose(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    set_up_logging(value)


verbose_option = click.option(
    "--verbose",
    "-v",
    is_flag=True,
    expose_value=False,
    callback=_on_verbose,
    help="Log every detail to stderr.",
)
"""Decorates a command that logs: sets logging up before it runs."""


def usual_config(role: str) -> Path:
    """Name the file that a command of `role` reads unless `--config` names another."""
    return Path("/etc/fedpi") / f"{role}.yaml"


def config_option_of(role: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what decorates a command that reads the configuration of `role`; its parameter is `config_path`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=usual_config(role),
        show_default=True,
        help=f"The {role}'s YAML file.",
    )


version_option = click.version_option(package_name="fedpi")
"""Decorates a group: `--version` prints which fedpi this is."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
"""Decorates a command; its parameter is `as_json`."""


def console(*, stderr: bool = False) -> "Console":
    """Return a console that colours and draws on a terminal, and prints plain, unwrapped text elsewhere.

    Square brackets are text, not markup: what we print comes from peers and files. Style by `style=`.
    """
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if is_terminal else 1000)


def printable(text: str) -> str:
    """Put a space for each control character: what a peer wrote must not steer the reader's terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> "Table":
    """Lay `rows` out under `columns`: ruled on a terminal, aligned by spaces elsewhere."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    ruled = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    drawn = Table(*columns, title=title, box=ruled, title_justify="left", pad_edge=False)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    return drawn


def print_json(document: Any) -> None:
    """Print a struct, dataclass, mapping or sequence as indented JSON on stdout."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
