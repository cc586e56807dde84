"""One publish for every device."""

from hypothesis import given
from hypothesis import strategies as st

from common.chunks import Layout, full, to_wire
from common.messages import Ref
from coordinator.multicast import Distribution, gather, release, take

REF = Ref(id="0" * 64, head_bytes=100, size=9 * 4096, chunk_bytes=4096)
TOTAL = 10
NEW = Distribution(REF, Layout(100, 9 * 4096, 4096))
TWO = frozenset({"a", "b"})


def test_the_union_of_all_wishes_goes_out_once() -> None:
    state = gather(NEW, "a", to_wire(0b0111), 5.0)
    assert release(state, TWO, 1.0).queued == 0
    state = release(gather(state, "b", to_wire(0b1110), 6.0), TWO, 1.0)
    assert state.queued == 0b1111
    assert release(state, TWO, 2.0) == state


def test_a_device_that_does_not_ask_is_waited_for_only_so_long() -> None:
    state = gather(gather(NEW, "a", to_wire(0b01), 5.0), "a", to_wire(0b10), 7.0)
    assert release(state, TWO, 4.9).queued == 0
    assert release(state, TWO, 5.0).queued == 0b11


def test_a_device_that_came_unannounced_is_served_too() -> None:
    assert release(gather(NEW, "x", to_wire(0b1), 5.0), frozenset(), 0.0).queued == 0b1


def test_what_is_queued_already_is_not_queued_twice() -> None:
    state = release(gather(NEW, "a", to_wire(0b11), 5.0), frozenset({"a"}), 0.0)
    state, chosen = take(state, 1)
    assert chosen == 0b01
    state = gather(state, "a", to_wire(0b11), 5.0)
    assert state.wanted == 0b01  # the published one is wanted again: it was lost
    assert state.queued == 0b10


def test_chunks_that_the_blob_does_not_have_are_not_queued() -> None:
    state = release(gather(NEW, "a", b"\xff" * 16_384, 5.0), frozenset({"a"}), 0.0)
    assert state.queued == full(TOTAL)


def test_without_room_nothing_is_taken() -> None:
    state = release(gather(NEW, "a", to_wire(0b11), 5.0), frozenset({"a"}), 0.0)
    assert take(state, 0) == (state, 0)


wishes = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, full(TOTAL)), st.integers(0, 4)))


@given(wishes)
def test_every_wish_is_served_and_nothing_else(history: list[tuple[str, int, int]]) -> None:
    """Whatever was asked for is published at some time after it was asked for."""
    state, owed, now = NEW, 0, 0.0
    for device, bits, room in history:
        now += 0.1
        state = release(gather(state, device, to_wire(bits), now + 0.25), frozenset({"a", "b", "c"}), now)
        owed |= bits
        state, chosen = take(state, room)
        assert chosen.bit_count() <= room
        assert chosen & ~owed == 0
        owed &= ~chosen
    state = release(state, frozenset({"a", "b", "c"}), now + 1.0)
    state, rest = take(state, TOTAL)
    assert rest == owed
    assert (state.queued, state.wanted, state.waiting) == (0, 0, frozenset())
