"""Bugs to plant into a process under the launcher, and the injection that must show each: a test of the rows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PLANTED = "FEDPI_PLANT"


class Anything:
    """Equals whatever it is held against: a digest that is not checked."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # nobody keeps it


def skip_fsync() -> None:
    """Sync neither files nor folders."""
    import common.blobs
    import common.files
    import device.store

    for module in (common.files, common.blobs, device.store):
        module.sync = lambda *_: None  # type: ignore[attr-defined]  # a bug, planted


def skip_names() -> None:
    """Sync files, but not the folders that name them."""
    import common.blobs
    import common.files

    sync = common.files.sync

    def files_only(*paths: Path) -> None:
        if files := [path for path in paths if not path.is_dir()]:
            sync(*files)

    for module in (common.files, common.blobs):
        module.sync = files_only  # type: ignore[attr-defined]  # a bug, planted


def count_repeat() -> None:
    """Count an update once more for every time that its offer is repeated."""
    from coordinator import aggregator, service
    from coordinator import round as rounds
    from coordinator.events import Offered

    repeats: Counter[str] = Counter()
    step, contributions = rounds.step, aggregator.contributions

    def counting(round_: Any, event: Any, now: float) -> Any:
        if isinstance(event, Offered) and any(m.device == event.offer.device for m in round_.reported):
            repeats[event.offer.device] += 1
        return step(round_, event, now)

    def repeated(round_: Any, path: Any) -> Any:
        return [c for c in contributions(round_, path) for _ in range(1 + repeats.pop(c.device, 0))]

    rounds.step = counting
    service.contributions = repeated  # type: ignore[attr-defined]  # a bug, planted


def speak_first() -> None:
    """Write into the journal what was said already."""
    from coordinator.service import Service

    enter, save = Service._enter, Service._save  # noqa: SLF001 - a test looks inside

    def speaking(service: Service, before: Any, after: Any, commands: Any) -> None:
        Service._save = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001 - a bug, planted
        try:
            enter(service, before, after, commands)
        finally:
            Service._save = save  # type: ignore[method-assign]  # noqa: SLF001 - as above
        if commands:
            save(service, after)

    Service._enter = speaking  # type: ignore[assignment,method-assign]  # noqa: SLF001 - a bug, planted


def skip_digest() -> None:
    """Take every chunk for what it claims to be."""
    import common.blobs
    import common.transfer

    for module in (common.blobs, common.transfer):
        module.digest_of = lambda *_: Anything()  # type: ignore[attr-defined]  # a bug, planted


def only_onwards() -> None:
    """Let a device pass over what it is told of a round before the last one that it knows of."""
    from device import session as sessions

    pointed = sessions._pointed  # noqa: SLF001 - a test looks inside

    def pointing(session: Any, status: Any, now: float) -> Any:
        is_earlier = session.pointer is not None and status.round < session.pointer.round
        return (session, ()) if is_earlier else pointed(session, status, now)

    sessions._pointed = pointing  # noqa: SLF001 - a bug, planted


def any_generation() -> None:
    """Take a message for one of the open round if only its number fits."""
    import msgspec

    from coordinator.reception import Reception

    hear = Reception._hear  # noqa: SLF001 - a test looks inside

    def hearing(self: Reception, message: Any, device: str, open_: Any) -> Any:
        if open_ is not None and getattr(message, "round", 0) == open_.round:
            message = msgspec.structs.replace(message, generation=open_.generation)
        return hear(self, message, device, open_)

    Reception._hear = hearing  # type: ignore[method-assign]  # noqa: SLF001 - a bug, planted


def deaf_to_rivals() -> None:
    """Pass over what other coordinators say."""
    from coordinator import rivals as watched

    hear = watched.hear

    def hearing(rivals: Any, message: Any, now: float) -> Any:
        return hear(rivals, message, now) if message.process == rivals.process else (rivals, None)

    watched.hear = hearing


def open_when_met() -> None:
    """Open rounds while another coordinator does."""
    from coordinator.rivals import Rivals

    Rivals.may_open = lambda self, now: self.may_speak  # type: ignore[method-assign]  # noqa: ARG005 - a bug, planted


def any_answer() -> None:
    """Take any answer for life, whatever question it names."""
    import msgspec

    from common.coordinators import Alive
    from coordinator import rivals as watched

    hear = watched.hear

    def hearing(rivals: Any, message: Any, now: float) -> Any:
        if isinstance(message, Alive) and rivals.asked:
            message = msgspec.structs.replace(message, nonce=rivals.asked[-1][0])
        return hear(rivals, message, now)

    watched.hear = hearing


def no_takeover() -> None:
    """Tell nobody that a device's name is in use."""
    from coordinator.reception import Reception

    Reception._tell = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001 - a bug, planted


PLANTS: dict[str, tuple[Callable[[], None], tuple[int, str | int]]] = {
    "skip the fsync order": (skip_fsync, (9, "cut at Aggregated aggregating>committed spoken")),
    "skip the names' sync": (skip_names, (9, "cut at Aggregated aggregating>committed spoken")),
    "count a repeat": (count_repeat, (9, "kill at Delivered reporting>reporting saved")),
    "speak before the journal": (speak_first, (9, "kill at CheckedIn selecting>reporting half")),
    "drop the digest check": (skip_digest, (9, "cut at updates.write after")),
    "a device goes to no earlier round": (only_onwards, (24, 0)),
    "generations are not compared": (any_generation, (25, 1)),
    "deaf to other coordinators": (deaf_to_rivals, (26, 0)),
    "rounds are opened in a meeting": (open_when_met, (26, 3)),
    "any answer proves life": (any_answer, (26, 4)),
    "nobody is told of a second process": (no_takeover, (27, 0)),
}
"""Each with the row, and the place or the seed of the injection, that must show it."""


def plant(name: str) -> None:
    """Plant a bug into this process."""
    PLANTS[name][0]()


def check(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Plant each bug in turn; yields its name, the injection that must show it, and what that showed, if anything."""
    from tests.faults import campaign
    from tests.faults.rows_crashes import seeds_of

    for number, (name, (_, (row, place))) in enumerate(PLANTS.items()):
        os.environ[PLANTED] = name
        seeds = (place,) if isinstance(place, int) else seeds_of(row, place)
        unit = campaign.Unit(((row, seeds),), folder / f"plant-{number}")
        try:
            found = campaign.run_unit(unit)
        finally:
            del os.environ[PLANTED]
        where = f"seed {place}" if isinstance(place, int) else place
        yield name, f"row {row}, {where}", [i.note for i in found.injections if not i.survived]
