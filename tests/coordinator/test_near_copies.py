"""Changed copies of synthetic slices are found; different slices stay apart."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from coordinator.dataset.near_copies import THRESHOLD, distances, fingerprint, join
from coordinator.dataset.synthetic import draw_slice

Change = Callable[[Image.Image], Image.Image]


def slices(count: int) -> list[Image.Image]:
    drawn = (draw_slice(np.random.default_rng((7, i)), 160, has_lesion=i % 2 == 1) for i in range(count))
    return [Image.fromarray(pixels).convert("RGB") for pixels in drawn]


def reencoded(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=25)
    return Image.open(file)


def framed(image: Image.Image) -> Image.Image:
    wide = Image.new("RGB", (image.width + 60, image.height + 30))
    wide.paste(image, (10, 20))
    return wide


CHANGES: dict[str, Change] = {
    "smaller": lambda image: image.resize((90, 90)),
    "larger": lambda image: image.resize((500, 430)),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "quarter turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "re-encoded": reencoded,
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.5),
    "darker": lambda image: image.point(lambda value: (value / 255) ** 1.7 * 255),
    "cropped": lambda image: image.crop((5, 3, 155, 158)),
    "wider frame": framed,
    "all at once": lambda image: reencoded(ImageOps.mirror(image.crop((4, 4, 156, 157))).resize((224, 224))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_copy_finds_its_original_and_no_other(change: Change) -> None:
    originals = slices(5)
    copies = [change(image) for image in originals]
    groups = join(distances([fingerprint(image) for image in originals + copies]))
    assert groups == [[i, i + 5] for i in range(5)]


def test_different_slices_are_far_apart() -> None:
    found = distances([fingerprint(image) for image in slices(12)])
    assert found[~np.eye(12, dtype=bool)].min() > THRESHOLD
    np.testing.assert_array_equal(found, found.T)
    assert found.diagonal().max() == 0


def test_distances_do_not_depend_on_how_many_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = [fingerprint(image) for image in slices(5)]
    at_once = distances(prints)
    monkeypatch.setattr("coordinator.dataset.near_copies._CELLS", 1)
    np.testing.assert_array_equal(distances(prints), at_once)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (64, 64)])
def test_an_image_without_content_has_a_fingerprint_too(size: tuple[int, int]) -> None:
    assert set(np.unique(fingerprint(Image.new("RGB", size)))) <= {-1, 1}


def test_joining_is_transitive_and_keeps_the_order() -> None:
    found = np.full((5, 5), 0.4, np.float32)
    np.fill_diagonal(found, 0)
    for one, other in ((0, 3), (3, 4)):
        found[one, other] = found[other, one] = 0.1
    assert join(found) == [[0, 3, 4], [1], [2]]
    assert join(found, 0.05) == [[0], [1], [2], [3], [4]]
