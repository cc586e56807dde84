"""The account that the service runs as: a check that root asks for sees files as the service will."""

import contextlib
import os
import pwd
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from common.errors import WorkError

ACCOUNT = "fedpi"
"""As in systemd/fedpi-device.service."""
STATE = Path("/var/lib/fedpi")
"""Its StateDirectory, which systemd makes when the service starts for the first time."""
CREDENTIALS = ("device.key", "device.signing")
"""The keys that systemd hands over to the service (LoadCredential)."""


def service_account() -> pwd.struct_passwd | None:
    """Return the account that root has to check as; None where nobody is root, or nothing is installed."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(ACCOUNT)
    return None


def is_readable() -> bytes:
    """Tell whether this process may read the program that it runs, as it must to load more of it; nothing where not."""
    return b"yes" * all(os.access(file, os.R_OK) for file in (os.__file__, __file__))


def run_as(account: pwd.struct_passwd, keys: Path, work: Callable[[], bytes]) -> bytes:
    """Return what `work` returns in a child process that runs as `account`, with root's keys of the folder `keys`.

    Raises WorkError where the child ends without an answer.
    """
    with _handed_over(keys, account) as credentials:
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            _answer(account, credentials, sender, work)
        os.close(sender)
        with os.fdopen(receiver, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise WorkError(f"the check as {account.pw_name} ended by itself (code {os.waitstatus_to_exitcode(status)})")
    return answer


def _answer(account: pwd.struct_passwd, credentials: Path, sender: int, work: Callable[[], bytes]) -> None:
    """Become `account`, for good, and write the answer; never returns."""
    code = 1
    try:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        os.environ |= {"HOME": account.pw_dir, "CREDENTIALS_DIRECTORY": str(credentials)}
        with os.fdopen(sender, "wb") as pipe:
            pipe.write(work())
        code = 0
    except Exception:  # noqa: BLE001 - the parent says that it ended, this says why
        traceback.print_exc()
    finally:
        os._exit(code)


@contextlib.contextmanager
def _handed_over(keys: Path, account: pwd.struct_passwd) -> Iterator[Path]:
    """Copy the keys to where only `account` reads them, in memory if possible, while inside; make its state folder."""
    if account.pw_dir == str(STATE) and not STATE.exists():
        STATE.mkdir(mode=0o700)
        os.chown(STATE, account.pw_uid, account.pw_gid)
    memory = Path("/run")
    with tempfile.TemporaryDirectory(prefix="fedpi-", dir=memory if memory.is_dir() else None) as folder:
        for name in CREDENTIALS:
            with contextlib.suppress(OSError):  # the check names what is missing
                shutil.copy(keys / name, Path(folder, name))
                os.chown(Path(folder, name), account.pw_uid, account.pw_gid)
        os.chown(folder, account.pw_uid, account.pw_gid)
        yield Path(folder)
