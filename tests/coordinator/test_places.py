"""Who may send: so many at a time, whoever is silent makes room for whoever waits."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.places import Places


def filled(count: int, *names: str) -> Places:
    places = Places(count)
    for name in names:
        places.enter(name)
    places.give(lambda _: False)
    return places


def test_places_go_to_who_came_first_and_a_free_one_to_the_next() -> None:
    places = filled(2, "a", "b", "c", "d")
    assert list(places.placed) == ["a", "b"]
    places.leave("a")
    assert places.give(lambda _: False) == (["c"], [])
    assert list(places.placed) == ["b", "c"]


def test_who_is_silent_keeps_a_place_that_nobody_waits_for() -> None:
    places = filled(2, "a", "b")
    assert places.give(lambda _: True) == ([], [])
    assert list(places.placed) == ["a", "b"]


def test_who_is_silent_gives_up_the_place_once_and_gets_a_spare_one() -> None:
    places = filled(1, "a", "b")
    assert places.give(lambda name: name == "a") == (["b"], ["a"])
    assert places.give(lambda name: name == "a") == ([], [])
    places.leave("b")
    assert places.give(lambda name: name == "a") == (["a"], [])


def test_who_is_heard_of_again_takes_the_place_of_who_is_silent() -> None:
    places = filled(1, "a", "b")
    places.give(lambda name: name == "a")
    places.enter("a")
    assert places.give(lambda _: False) == ([], [])
    assert places.give(lambda name: name == "b") == (["a"], ["b"])


def test_who_gave_up_a_place_says_so_only_where_there_was_one() -> None:
    places = filled(1, "a", "b")
    assert places.give_up("a")
    assert not places.give_up("b")
    assert list(places.placed) == []


NAMES = st.sampled_from("abcdefgh")
DEEDS = st.lists(st.tuples(st.sampled_from(["enter", "leave", "give_up"]), NAMES, st.sets(NAMES)), max_size=60)


@given(DEEDS, st.integers(1, 4))
def test_never_too_many_and_never_a_free_place_beside_one_who_waits(
    deeds: list[tuple[str, str, set[str]]], count: int
) -> None:
    places, known = Places(count), set[str]()
    for deed, name, silent in deeds:
        if deed == "enter" or name in known:
            getattr(places, deed)(name)
        known = known - {name} if deed == "leave" else known | {name} if deed == "enter" else known
        got, gave_up = places.give(silent.__contains__)
        assert len(places.placed) == min(count, len(known))
        assert set(places.placed) <= known
        assert set(got) & set(places.placed) == set(got)
        assert set(gave_up) <= silent
