import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.learning.augmentation import Augmentation, Changes, draw

NOTHING = Augmentation(flips="none", rotation=0, zoom=0, contrast=0)
SIZE = 33


def changes(augmentation: Augmentation, count: int = 200) -> Changes:
    return draw(augmentation, np.random.default_rng(0), count, SIZE)


def moved(drawn: Changes, x: float, y: float) -> np.ndarray:
    """Where each transform reads the output pixel (x, y): `[n, 2]`."""
    rows = drawn.transforms.astype(np.float64).reshape(-1, 8)
    return np.stack([rows[:, 0:3] @ [x, y, 1], rows[:, 3:6] @ [x, y, 1]], axis=1)


def test_nothing_allowed_changes_nothing() -> None:
    drawn = changes(NOTHING)
    assert np.array_equal(drawn.transforms, np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0]), (200, 1)))
    assert set(drawn.gains.tolist()) == {1.0}


def test_a_horizontal_flip_mirrors_half_of_the_images_left_to_right() -> None:
    corners = moved(changes(Augmentation(flips="horizontal", rotation=0, zoom=0)), 0, 0)
    assert set(map(tuple, corners.round(3).tolist())) == {(0, 0), (SIZE - 1, 0)}
    assert 60 < (corners[:, 0] > 0).sum() < 140


@given(st.floats(0, 180), st.floats(0, 0.9), st.floats(0, 0.9))
def test_the_centre_stays_and_the_bounds_hold(rotation: float, zoom: float, contrast: float) -> None:
    drawn = changes(Augmentation(flips="both", rotation=rotation, zoom=zoom, contrast=contrast))
    centre = (SIZE - 1) / 2
    assert np.allclose(moved(drawn, centre, centre), centre, atol=1e-3)
    reach = np.linalg.norm(moved(drawn, centre + 1, centre) - moved(drawn, centre, centre), axis=1)
    assert (reach >= 1 / (1 + zoom) - 1e-4).all()
    assert (reach <= 1 / (1 - zoom) + 1e-4).all()
    assert (np.abs(drawn.gains - 1) <= contrast + 1e-6).all()


def test_rotation_stays_within_its_degrees_and_uses_them() -> None:
    rows = changes(Augmentation(flips="none", rotation=20, zoom=0)).transforms
    angles = np.rad2deg(np.arctan2(rows[:, 3], rows[:, 0]))
    assert 18 < np.abs(angles).max() <= 20.001
