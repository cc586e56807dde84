"""Row 13: a broker that does not let a device in, or not to what it needs."""

import random
import re
import signal
from pathlib import Path

from broker import accounts
from broker.mosquitto import render_acl
from broker.settings import ServeConfig
from common.files import make_folder
from common.topics import STORY_ROOT, WIRE_ROOT, Kind
from tests.faults import brokers
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup
from tests.faults.passing import Way, carries
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_

GATED = Setup(deadline_s=8.0, grace_s=4.0, round=(("selection_s", 3.0),))
"""A round waits this long for who does not come, or does not deliver."""
REFUSED = r"level=ERROR .* publish refused: Not authorized"
LOGIN_REFUSED = r"link=control down: .*(Not authorized|Bad user name or password)"
TOLD_S = 20.0
"""A device that had sent everything when it was denied finds out by its next repeat."""


def access_denied(arena: Arena, rng: random.Random) -> Outcome:
    """Forbid a device to deliver, or to log in, or anything from mid-round on, in turn."""
    _give_accounts(arena)
    device = rng.choice(DEVICES)
    fault = (_may_not_deliver, _has_a_wrong_password, _is_removed)[arena.seed % 3]
    return fault(arena, rng, device)


def _may_not_deliver(arena: Arena, _rng: random.Random, device: str) -> Outcome:
    _set_acl(arena, f"\nuser {device}\ntopic deny {WIRE_ROOT}/+/+/dev/{device}/up\n")
    return _go_on_without(arena, device, REFUSED, "may not deliver")


def _has_a_wrong_password(arena: Arena, _rng: random.Random, device: str) -> Outcome:
    secret = accounts.secret_file(brokers.folder_of(arena), device)
    right = secret.read_text()
    secret.write_text("wrong\n")
    _restart(arena, device)
    outcome = _go_on_without(arena, device, LOGIN_REFUSED, "has a wrong password")
    secret.write_text(right)
    _restart(arena, device)
    return outcome


def _is_removed(arena: Arena, rng: random.Random, device: str) -> Outcome:
    moment = rng.choice([(Kind.DEV_CMD, Way.DOWN, 1), (Kind.DEV_UP, Way.UP, rng.randint(1, 40))])
    begin = arena.proxy.watch(carries(moment[0], moment[1], device), moment[2])
    before = arena.log_sizes()
    trial = arena.open()
    await_(begin, f"a moment of {device}")
    _set_acl(arena, f"\nuser {device}\ntopic deny #\n")
    trial.finish(must_count=set(DEVICES) - {device})
    _wait_for_word(arena, device, REFUSED, before)
    _let_back_in(arena, device)
    return Outcome(0.0, arena.proxy.tally.resent_bytes, f"{device} is removed from the ACL in mid-round")


def _go_on_without(arena: Arena, device: str, word: str, what: str) -> Outcome:
    before = arena.log_sizes()
    trial = arena.open()
    trial.finish(must_count=set(DEVICES) - {device})
    (row,) = arena.store.rounds(trial.first - 1)
    if device in row.reported:
        raise NotSurvivedError(f"{device} reported, though it {what}")
    _wait_for_word(arena, device, word, before)
    _let_back_in(arena, device)
    return Outcome(0.0, arena.proxy.tally.resent_bytes, f"{device} {what}")


def _wait_for_word(arena: Arena, device: str, word: str, before: dict[Path, int]) -> None:
    arena.until(lambda: re.search(word, arena.logged(device, before)), f"{device} to log {word!r}", TOLD_S)


def _let_back_in(arena: Arena, device: str) -> None:
    """Undo what the ACL denied; a new connection shows the device at once what it has missed."""
    _set_acl(arena, "")
    arena.proxy.reset(device)


def _give_accounts(arena: Arena) -> None:
    """Give every device a password and the rights that fedpi's own ACL gives it; the coordinator stays anonymous."""
    folder = brokers.folder_of(arena)
    if (folder / accounts.SECRETS).exists():
        return
    make_folder(folder / accounts.SECRETS, mode=0o700)
    accounts.ensure(folder, DEVICES, renew=False)
    brokers.kill(arena)
    brokers.configure(arena, {"password_file": str(folder / "passwords")})
    _write_acl(arena, "")
    arena.restart_broker()
    for device in DEVICES:
        arena.processes[device].stop()
        login = {"username": device, "password_file": str(accounts.secret_file(folder, device))}
        arena.start_device(device, {**arena.device_options(device), "broker": {**arena.broker, **login}})
    arena.settle()


def _set_acl(arena: Arena, denials: str) -> None:
    _write_acl(arena, denials)
    arena.processes["broker"].send(signal.SIGHUP)


def _write_acl(arena: Arena, denials: str) -> None:
    anonymous = "".join(f"topic readwrite {root}/#\n" for root in (STORY_ROOT, WIRE_ROOT))
    rendered = render_acl(ServeConfig(kind="mosquitto"))
    (brokers.folder_of(arena) / "acl").write_text(f"{anonymous}\n{rendered}{denials}")


def _restart(arena: Arena, device: str) -> None:
    arena.processes.pop(device).stop()
    arena.start_device(device)


ROWS = (
    Row(
        number=13,
        fault="ACL denial; wrong password; a device removed from the ACL in mid-round",
        how="Mosquitto's ACL and passwords",
        holds="clear error, round goes on with the rest",
        inject=access_denied,
        setup=GATED,
        expects=(r"(publish|subscription) refused: Not authorized", r"refused: round \d+ is (closed|not open)"),
        short_seeds=(2,),
        is_waiting=True,
    ),
)
