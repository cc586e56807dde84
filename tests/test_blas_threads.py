"""NumPy computes with one thread in every process of fedpi, unless somebody asks for more."""

import os
import subprocess
import sys

import pytest

COUNT = "import numpy, threadpoolctl; print([pool['num_threads'] for pool in threadpoolctl.threadpool_info()])"
CHILD = f"import device.runner; {COUNT}"
RUN_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"
PROCESSES = {
    "coordinator": f"import fedpi, coordinator.cli, coordinator.service; {COUNT}",
    "device": f"import fedpi, device.cli, device.daemon; {COUNT}",
    "trainer": f"import fedpi, device.cli, device.daemon; {RUN_CHILD}",
    "serving": f"import device.serving; {COUNT}",
    "simulation": f"import coordinator.rehearsal.__main__, coordinator.rehearsal.results.simulation; {COUNT}",
}


def threads(process: str, **environment: str) -> list[int]:
    """Threads of each BLAS in a process of that kind, started where nobody has asked for any number."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", PROCESSES[process]]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.strip("[]\n").split(",")]


@pytest.mark.skipif(os.cpu_count() == 1, reason="with one core there is one thread anyhow")
@pytest.mark.parametrize("process", PROCESSES)
def test_numpy_takes_one_thread(process: str) -> None:
    assert set(threads(process)) == {1}


def test_who_asks_for_more_threads_gets_them() -> None:
    assert threads("device", OPENBLAS_NUM_THREADS="2") == [2]
