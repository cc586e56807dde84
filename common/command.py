"""What the three command lines share: exit codes, logs, plain or coloured output, JSON.

Imports no more than click at the top, so that `--help` answers at once.
"""

import errno
import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.errors import ConfigError, FedpiError, UsageError, WorkError
from common.extras import advice
from common.plain_text import printable

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

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; what the terminal's encoding lacks is printed as its number."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except (FedpiError, OSError, ImportError) as error:
            if (told := verdict(error)) is None:
                raise
            logging.getLogger(__name__).debug("ends because of", exc_info=error)
            click.echo(f"{ctx.command_path}: {printable(told[0])}", err=True)
            ctx.exit(told[1])
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def verdict(error: Exception) -> tuple[str, int] | None:
    """Return the sentence and the exit code of an expected error, None for a bug.

    Expected is also what the machine refuses or lacks: a file's rights, a disk, a package of an extra.
    """
    if isinstance(error, FedpiError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        places = " and ".join(str(place) for place in (error.filename, error.filename2) if place is not None)
        sentence = f"{places}: {error.strerror}" if places else str(error) or type(error).__name__
        return sentence, WorkError.exit_code
    if isinstance(error, ImportError) and (sentence := advice(error) or ""):
        return sentence, ConfigError.exit_code
    return None


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


class _HomePath(click.Path):
    """A path in which `~` is the home folder also where the shell left it, as in --data=~/images."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from common.config import home_path

        try:
            return super().convert(Path(home_path(str(value))), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


PATH = _HomePath(path_type=Path)


class _InputPath(_HomePath):
    """A file or folder that must be there; whether it can be read and used, the command says."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(super().convert(value, param, ctx))
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            given = "" if param is None else f"{param.get_error_hint(ctx) if ctx else param.name}: "
            raise UsageError(f"{given}{path}: there is no such file or folder; correct the path") from error
        except OSError:
            pass
        return path


INPUT = _InputPath(path_type=Path)
"""The type of options and arguments that name a file or folder."""
FOLDER = _HomePath(path_type=Path, file_okay=False, exists=True)
"""The type of those that name a folder that is there."""


def usual_config(role: str) -> Path:
    """Name the file that a command of `role` reads unless `--config` names another."""
    return Path("/etc/fedpi") / f"{role}.yaml"


def config_option_of(role: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what decorates a command that reads the configuration of `role`; its parameter is `config_path`."""
    return click.option(
        "--config",
        "config_path",
        type=PATH,
        default=usual_config(role),
        show_default=True,
        help=f"The {role}'s YAML file.",
    )


def init_command(role: str) -> click.Command:
    """Return the command `init` of `role`."""

    @click.command("init")
    @click.option("--out", "folder", type=PATH, default=Path(), show_default=True, help="Folder to write into.")
    @json_option
    def init(folder: Path, as_json: bool) -> None:
        """Write out the examples that come with fedpi: configurations, units and what belongs to them.

        A file that is there already stays as it is.
        """
        from common.examples import write

        done = write(role, folder)
        if as_json:
            print_json(done)
        else:
            console().print(table(("file", ""), [(example.file, example.state) for example in done]))

    return init


version_option = click.version_option(package_name="fedpi")
"""Decorates a group: `--version` prints which fedpi this is."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
"""Decorates a command; its parameter is `as_json`."""


def console(*, stderr: bool = False) -> "Console":
    """Return a console that colours and draws on a terminal, and prints plain, unwrapped text elsewhere.

    Square brackets are text, not markup: what we print comes from peers and files. Style by `style=`.
    A string is printed in lines that it has itself; what is in them is made printable.
    """
    from rich.console import Console

    class Lines(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Lines(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if is_terminal else 1000)


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
    """Print a struct, dataclass, mapping or sequence as indented JSON on stdout, names made printable if need be."""
    import msgspec

    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_encodable(msgspec.to_builtins(document)))
    click.echo(msgspec.json.format(encoded).decode())


def _encodable(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {_encodable(key): _encodable(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_encodable(item) for item in plain]
    return printable(plain) if isinstance(plain, str) else plain


def listed(text: str) -> tuple[str, ...]:
    """Split the list of an option at its commas; blanks around the items and empty items are dropped."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def option_value(text: str, source: str) -> Any:
    """Read the value of KEY=VALUE as a configuration file would; raises UsageError that names `source`."""
    from common.yaml_text import parse

    try:
        return parse(text, source).plain
    except ConfigError as error:
        raise UsageError(str(error)) from error
