"""Requests that serving cannot answer by a label: each is answered with the reason, and serving goes on."""

import contextlib
import io
import queue
import threading
import time

import pytest
from PIL import Image

from common.stopping import Stop
from device.inference import Classifier, Outcome
from device.serving import Serving, name_of
from tests.device.requesting import Png, Rig

pytestmark = pytest.mark.system


def test_a_request_that_fails_for_an_unforeseen_reason_is_answered_and_the_next_one_too(
    rig: Rig, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = Classifier.classify

    def fail_on_grey(classifier: Classifier, image: bytes) -> Outcome:
        if image == png(7):
            raise MemoryError
        return classify(classifier, image)

    monkeypatch.setattr(Classifier, "classify", fail_on_grey)
    rig.install("r1")
    stop = Stop()
    serving = threading.Thread(target=Serving(rig.config).serve, args=(stop,))
    serving.start()
    try:
        requester = rig.requester()
        requester.wait_until_served("r1", png(1))
        requester.ask(png(7))
        assert "cannot be classified: the device's log says why" in requester.answer().prediction.text
        requester.ask(png(255))
        assert requester.answer().prediction.label == "yes"
    finally:
        stop.set()
        serving.join(10)


def test_an_image_with_odd_exif_is_answered(rig: Rig) -> None:
    rig.install("r1")
    rig.start("serve")
    requester = rig.requester()
    file = io.BytesIO()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x1a\0\x02\0\0\0\x01A\0\0\0" + bytes(4)  # a resolution that is a letter
    Image.new("L", (20, 12), 255).save(file, "JPEG", exif=exif)
    requester.wait_until_served("r1", file.getvalue())

    requester.ask(file.getvalue())
    assert requester.answer().prediction.label == "yes"


def test_a_retained_request_is_ignored(rig: Rig, png: Png) -> None:
    rig.install("r1")
    requester = rig.requester()
    requester.ask(png(9), is_retained=True)
    rig.start("serve")
    answered: list[str] = []
    end = time.monotonic() + 15
    while name_of(png(1)) not in answered and time.monotonic() < end:
        requester.ask(png(1))
        with contextlib.suppress(queue.Empty):
            answered.append(requester.answer(0.5).prediction.request)

    assert set(answered) == {name_of(png(1))}
