"""`python -m tests.fuzz`: damaged and made-up inputs behind `make fuzz`.

Each target runs in a process of its own, so that the memory which is measured is that of its inputs.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from common.command import console, table
from tests.fuzz.target import MOST_MB, MOST_SECONDS, Failure, Outcome, Target, attack
from tests.fuzz.targets import TARGETS

FAILED = 70
"""The exit code where an input was not read or refused as it must be."""
SHORT, LEAST = 100, 100
"""A short run takes one input in so many, and no fewer than that."""


@click.command()
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other seeds make other inputs.")
@click.option("--targets", "names", default=",".join(TARGETS), show_default=True, help="Which kinds of input.")
@click.option("--short", is_flag=True, help=f"One input in {SHORT}, at least {LEAST}.")
@click.option("--only", type=click.Choice(list(TARGETS)), help="Run one target here, and print its outcome as JSON.")
def main(seed: int, names: str, short: bool, only: str | None) -> None:
    """Hand inputs to the product: each must be read, or refused with one of fedpi's own errors.

    Exit code 0: every input was; 70: one was not, took over 5 s, or the process took over 400 MB.
    """
    if only is not None:
        click.echo(msgspec.json.encode(run_here(only, seed, is_short=short)))
        return
    if unknown := [name for name in names.split(",") if name not in TARGETS]:
        raise click.BadParameter(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    outcomes = [_run_in_child(name, seed, is_short=short) for name in names.split(",")]
    _show(outcomes)
    raise SystemExit(0 if all(outcome.is_good for outcome in outcomes) else FAILED)


def run_here(name: str, seed: int, *, is_short: bool) -> Outcome:
    """Run a target in this process."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="fedpi-fuzz-") as folder:
        return attack(target, seed, _count(target, is_short=is_short), Path(folder))


def _count(target: Target, *, is_short: bool) -> int:
    return max(target.count // SHORT, LEAST) if is_short else target.count


def _run_in_child(name: str, seed: int, *, is_short: bool) -> Outcome:
    console(stderr=True).print(f"{name}: {_count(TARGETS[name], is_short=is_short):,} inputs")
    command = [sys.executable, "-m", "tests.fuzz", "--only", name, "--seed", str(seed)]
    done = subprocess.run([*command, *(["--short"] if is_short else [])], check=False, stdout=subprocess.PIPE)
    if done.returncode:
        what = f"the process ended with {done.returncode}: a crash of a library, or an input without end"
        return Outcome(name, 0, 0, 0.0, 0.0, 0.0, (Failure(-1, what),))
    return msgspec.json.decode(done.stdout, type=Outcome)


def _show(outcomes: Sequence[Outcome]) -> None:
    out = console()
    for outcome in outcomes:
        for failure in outcome.failures:
            out.print(f"{outcome.target}, input {failure.number}: {failure.what}")
    columns = ("inputs", "number", "refused", "seconds", "slowest", "memory", "failures")
    rows = [
        (
            one.target,
            f"{one.inputs:,}",
            f"{one.refused:,}",
            f"{one.seconds:.0f}",
            f"{one.slowest_s:.2f} s",
            f"{one.memory_mb:.0f} MB",
            len(one.failures),
        )
        for one in outcomes
    ]
    out.print(table(columns, rows))
    out.print(f"limits: {MOST_SECONDS:g} s an input, {MOST_MB:g} MB a process; only fedpi's own errors")


if __name__ == "__main__":
    main(prog_name="fedpi-fuzz")
