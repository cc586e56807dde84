"""What `make` does before the programs run: what is missing is said in one sentence, and quick tests stay quick."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make(*arguments: str) -> str:
    outer = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}  # of the make that runs the tests: it would say which folder it enters
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "-n", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def needs(path: str, *pairs: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / ".ci" / "needs.sh"), "the tests", *pairs]
    return subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": path})


def test_the_tests_say_first_how_long_they_take() -> None:
    assert "20 minutes" in make("test").splitlines()[0]


@pytest.mark.parametrize("target", ["test", "bench", "faults"])
def test_what_runs_against_mosquitto_installs_it_before_anything_else_is_set_up(target: str) -> None:
    lines = make("--assume-new=pyproject.toml", target).splitlines()
    places = [next(n for n, line in enumerate(lines) if word in line) for word in (".ci/needs.sh", "-m venv")]
    assert places == sorted(places)


def test_without_root_and_sudo_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    done = needs(str(tmp_path), "fedpi-a:mosquitto", "fedpi-b:python3-venv")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "apt-get install mosquitto python3-venv" in sentence
    assert "no sudo" in sentence


def test_what_is_there_is_not_installed() -> None:
    done = needs(os.environ["PATH"], "sh:dash")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_proxy_that_refuses_is_one_sentence_of_the_audit() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        environment = {**os.environ, **dict.fromkeys(names, proxy), "NO_PROXY": "", "no_proxy": ""}
        command = [sys.executable, str(ROOT / ".ci" / "audit.py")]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("Dependencies were not audited: no advisory service")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("__import__('os').system('true')", "started a process (os.system): mark it pytest.mark.process"),
        ("__import__('subprocess').run(['true'])", "started a process (subprocess.Popen): mark it pytest.mark.process"),
        ("sys.modules['tensorflow'] = sys", "loaded tensorflow: mark it pytest.mark.tensorflow or process"),
        ("assert True", ""),
    ],
)
def test_a_quick_test_that_starts_a_process_or_loads_tensorflow_fails(body: str, said: str, tmp_path: Path) -> None:
    found = run_quick(tmp_path, f"import sys\n\ndef test_it() -> None:\n    {body}\n")
    assert found.returncode == (1 if said else 0), found.stdout
    assert said in found.stdout


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\n\ndef test_it() -> None:\n    pass\n",
        "import pytest\n\n@pytest.mark.tensorflow\ndef test_it() -> None:\n    pass\n",
        "import pytest\n\n@pytest.fixture\ndef mosquitto(): ...\n\ndef test_it(mosquitto): ...\n",
    ],
)
def test_what_starts_processes_or_a_broker_is_no_quick_test(text: str, tmp_path: Path) -> None:
    assert "1 deselected" in run_quick(tmp_path, text).stdout


def run_quick(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the quick ones among these tests by the rules of this project's."""
    (folder / "test_one.py").write_text(text)
    (folder / "conftest.py").write_text("from tests.quick import guard_of_quick_tests, pytest_collection_modifyitems\n")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "-m", "quick", "-p", "no:cacheprovider", str(folder)],
        check=False, capture_output=True, text=True, env=environment, cwd=folder,
    )  # fmt: skip
