"""Who may import whom, and what the small processes leave alone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = (
    "common/chronicle.py",
    "common/chunks.py",
    "common/coordinators.py",
    "common/health.py",
    "common/messages.py",
    "common/packing.py",
    "common/plan.py",
    "common/topics.py",
    "common/transfer.py",
    "common/weights.py",
    "coordinator/events.py",
    "coordinator/method.py",
    "coordinator/multicast.py",
    "coordinator/options.py",
    "coordinator/outcome.py",
    "coordinator/records.py",
    "coordinator/rivals.py",
    "coordinator/round.py",
    "coordinator/round_state.py",
    "coordinator/schedule.py",
    "coordinator/story.py",
    "coordinator/wording.py",
    "device/session.py",
    "device/session_events.py",
    *(
        f"coordinator/strategies/{path.name}"
        for path in sorted((ROOT / "coordinator" / "strategies").glob("[a-z]*.py"))
    ),
)
IMPURE = frozenset(
    {
        "asyncio",
        "datetime",
        "fcntl",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "paho",
        "pathlib",
        "queue",
        "random",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "uuid",
    }
)
FORBIDDEN_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})
HEAVY = ("tensorflow", "keras", "PIL", "sklearn", "matplotlib", "ai_edge_litert", "tflite_runtime", "rich")
SMALL = ("coordinator.service", "device.daemon", "coordinator.cli", "device.cli", "broker.cli")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_knows_no_clock_no_chance_and_no_file(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        match node:
            case ast.Import(names=names):
                assert not {alias.name.split(".")[0] for alias in names} & IMPURE
            case ast.ImportFrom(module=module):
                assert (module or "").split(".")[0] not in IMPURE
            case ast.Call(func=ast.Name(id=called)):
                assert called not in FORBIDDEN_CALLS
            case ast.Global() | ast.AsyncFunctionDef():
                pytest.fail(f"{name} line {node.lineno}: state of a module, or a coroutine")


def test_the_pure_modules_import_pure_modules_only() -> None:
    program = f"import sys, {', '.join(name[:-3].replace('/', '.') for name in PURE)}; print(*sys.modules)"
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.split(".")[0] in {"common", "coordinator", "device"}}
    # admission looks at files as well, through a path that it is handed.
    beyond = {"common", "coordinator", "device", "coordinator.strategies", "coordinator.admission"}
    beyond |= {"common.errors", "common.plain_text"}
    assert loaded - beyond == {name[:-3].replace("/", ".") for name in PURE}


@pytest.mark.system
@pytest.mark.parametrize("module", SMALL)
def test_a_small_process_leaves_the_heavy_libraries_alone(module: str) -> None:
    done = run(sys.executable, "-c", f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert {name.split(".")[0] for name in done.stdout.split()}.isdisjoint(HEAVY)


def test_the_contracts_of_who_imports_whom_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = run(str(lint), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_package_lies_where_it_would_hide_another() -> None:
    """The names of the rooms are fixed; below tests/ and beside data, an `__init__.py` would shadow them."""
    for folder in ("tests", "config", "systemd", "docs"):
        assert not list((ROOT / folder).rglob("__init__.py"))


def test_every_file_stays_readable() -> None:
    """At most 350 lines."""
    for folder in ("broker", "common", "coordinator", "device", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 350, f"{path.relative_to(ROOT)} has {lines} lines"
