"""The wheels of released versions, which `test_mixed.py` starts: none is forgotten when a version is raised."""

from tests.compat.versions import FIRST, RELEASES, kept_wheels, listed, parse, this_version


def test_the_changelog_begins_with_this_version_and_no_other_is_unreleased() -> None:
    first, *earlier = listed()
    assert first == this_version()
    assert all(listed()[number] for number in earlier), (
        "whoever raises the version says when the one before was released"
    )


def test_the_wheel_of_every_released_version_that_may_have_changed_the_wire_is_kept() -> None:
    minor = {number for number, is_released in listed().items() if is_released and parse(number)[2] == 0}
    needed = {number for number in minor if parse(number) >= FIRST}
    assert set(kept_wheels()) == needed, f"{RELEASES}: see 'A release' in CONTRIBUTING.md"
