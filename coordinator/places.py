"""Which of many senders are asked for chunks: a number of them at a time, in the order in which they came. Pure."""

from collections.abc import Callable, Collection


class Places:
    """Names that have a place, that wait for one, and that gave theirs up because nothing came from them.

    Whoever gave up a place gets one again where nobody waits, or by `enter`, once it is heard of.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._placed: dict[str, None] = {}
        self._waiting: dict[str, None] = {}
        self._silent: dict[str, None] = {}

    @property
    def placed(self) -> Collection[str]:
        """Who has a place, in the order in which they got it."""
        return self._placed.keys()

    def enter(self, name: str) -> None:
        """Let `name`, new or heard of again, wait for a place unless it has one; `give` gives it."""
        self._silent.pop(name, None)
        if name not in self._placed:
            self._waiting[name] = None

    def leave(self, name: str) -> None:
        """Let `name` go for good."""
        for names in (self._placed, self._waiting, self._silent):
            names.pop(name, None)

    def give_up(self, name: str) -> bool:
        """Take the place of `name`, from which nothing will come for now; returns whether it had one."""
        had_place = name in self._placed
        self.leave(name)
        self._silent[name] = None
        return had_place

    def give(self, is_silent: Callable[[str], bool]) -> tuple[list[str], list[str]]:
        """Fill the places; returns who has got one, and who had to give up one for somebody who waits."""
        got: list[str] = []
        gave_up: list[str] = []
        while self._waiting:
            if len(self._placed) >= self._count:
                silent = next((name for name in self._placed if name not in got and is_silent(name)), None)
                if silent is None:
                    break
                self.give_up(silent)
                gave_up.append(silent)
            got.append(self._place(self._waiting))
        while self._silent and len(self._placed) < self._count:
            got.append(self._place(self._silent))
        return got, gave_up

    def _place(self, names: dict[str, None]) -> str:
        name = next(iter(names))
        del names[name]
        self._placed[name] = None
        return name
