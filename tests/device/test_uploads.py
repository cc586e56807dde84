"""An update on its way: what the coordinator asks for is sent once a connection, as long as nothing was lost."""

from pathlib import Path
from typing import Any

import pytest

from common.blobs import BlobStore
from common.chunks import full, layout_of, to_wire
from common.messages import Chunk, Ref, Want, decode
from device.uploads import Upload

CHUNK = 4096
CHUNKS = 10


class Line:
    """A connection whose acknowledgements come when the test says so."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.under_way: set[int] = set()
        self.window = 4

    def publish(self, _topic: str, payload: bytes) -> int:
        self.sent.append(decode(payload, Chunk).index)
        self.under_way.add(len(self.sent))
        return len(self.sent)

    def is_under_way(self, message: int) -> bool:
        return message in self.under_way

    def room(self) -> int:
        return self.window - len(self.under_way)


@pytest.fixture
def ref_and_blobs(tmp_path: Path) -> tuple[Ref, BlobStore]:
    blobs, draft = BlobStore(tmp_path / "updates"), tmp_path / "draft"
    draft.write_bytes(b"".join(bytes([place]) * CHUNK for place in range(CHUNKS)))
    return blobs.add(draft, None, CHUNK), blobs


def upload(ref_and_blobs: tuple[Ref, BlobStore], line: Any) -> tuple[Upload, Want]:
    ref, blobs = ref_and_blobs
    made = Upload("pi", "clinic", blobs, line)
    made.offer(ref)
    return made, Want(device="pi", blob=ref.id, chunks=to_wire(full(layout_of(ref).total)))


def test_a_stalled_line_does_not_carry_twice_what_is_asked_for_again(ref_and_blobs: tuple[Ref, BlobStore]) -> None:
    line = Line()
    made, want = upload(ref_and_blobs, line)
    for _ in range(3):  # the coordinator hears nothing for a while, and asks again
        assert made.ask(want)
        made.publish()
    assert line.sent == [0, 1, 2, 3]
    while line.under_way:  # the line is back
        line.under_way.pop()
        made.publish()
    assert line.sent == list(range(CHUNKS + 1))


def test_what_the_broker_had_and_lost_is_sent_again(ref_and_blobs: tuple[Ref, BlobStore]) -> None:
    line = Line()
    made, want = upload(ref_and_blobs, line)
    made.ask(want)
    made.publish()
    line.under_way -= {2, 3}
    made.ask(want)
    made.publish()
    assert line.sent == [0, 1, 2, 3, 1, 2]


def test_a_new_connection_owes_everything_that_is_asked_for(ref_and_blobs: tuple[Ref, BlobStore]) -> None:
    line = Line()
    made, want = upload(ref_and_blobs, line)
    made.ask(want)
    made.publish()
    line.under_way.clear()
    made.forget()
    line.under_way = {1}  # an id of the old connection, given again
    made.ask(want)
    made.publish()
    assert line.sent == [0, 1, 2, 3, 0, 1, 2]
