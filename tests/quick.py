"""The marker `quick`: tests that start no broker and no other process, load no TensorFlow and take no seconds.

A test is quick unless it says otherwise: by a marker (see MARKERS), by a fixture that starts a broker, or because its
module imports what starts processes. A quick test that starts a process or loads TensorFlow all the same fails.
"""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

MARKERS = ("system", "tensorflow", "process", "slow")
BROKERS = frozenset({"mosquitto", "embedded_broker", "launch_mosquitto", "start_mosquitto"})
STARTERS = frozenset({"subprocess", "multiprocessing"})
"""Modules whose import says that a test module starts processes."""
EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"})
"""What Python's audit hooks call the start of a process."""
HEAVY = frozenset({"tensorflow", "keras", "iotcore"})
"""TensorFlow, and the broker that runs within the process that imports it."""

_started: list[str] = []
"""The audit events of processes that the test that runs has started."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every quick test."""
    for item in items:
        if is_quick(item):
            item.add_marker("quick")


def is_quick(item: pytest.Item) -> bool:
    """Whether nothing says that this test starts a process or a broker, or loads TensorFlow."""
    if any(item.get_closest_marker(name) for name in MARKERS) or BROKERS & set(getattr(item, "fixturenames", ())):
        return False
    module = getattr(item, "module", None)
    imported = {value.__name__ for value in vars(module).values() if isinstance(value, ModuleType)} if module else set()
    return not imported & STARTERS


@pytest.fixture(autouse=True)
def guard_of_quick_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a quick test that started a process or loaded TensorFlow."""
    _started.clear()
    before = _loaded()
    yield
    if request.node.get_closest_marker("quick") is None:
        return
    if _started:
        pytest.fail(f"a quick test started a process ({_started[0]}): mark it pytest.mark.process")
    if loaded := _loaded() - before:
        pytest.fail(f"a quick test loaded {', '.join(sorted(loaded))}: mark it pytest.mark.tensorflow or process")


def _loaded() -> set[str]:
    return {name for name in HEAVY if sys.modules.get(name) is not None}


def _watch(event: str, _arguments: object) -> None:
    if event in EVENTS:
        _started.append(event)


sys.addaudithook(_watch)
