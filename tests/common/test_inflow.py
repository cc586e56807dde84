"""A transfer onto a real disk, with restarts and torn files in between."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.blobs import BlobStore
from common.chunks import Layout, from_wire, full, indexes, layout_of
from common.errors import PeerError
from common.inflow import Inflow
from common.messages import Chunk, Ref
from common.transfer import Patience
from common.verified import read_verified
from common.weights import TensorSpec

CHUNK = 4096
PATIENCE = Patience(2.0, 30.0)
BODY = random.Random(7).randbytes(9 * CHUNK) + bytes(3 * CHUNK) + random.Random(8).randbytes(848)
ZEROS = full(3) << 9
# Names long enough that the head takes three chunks.
SPEC = tuple(TensorSpec(f"{place:0200d}", (1000,), "uint8") for place in range(50))


@dataclass
class Ends:
    """A sender that has the blob, and the folder of a receiver that is started anew at will."""

    sender: BlobStore
    ref: Ref
    folder: Path

    @property
    def layout(self) -> Layout:
        return layout_of(self.ref)

    def receiver(self, window: int = 500) -> tuple[BlobStore, Inflow]:
        blobs = BlobStore(self.folder)
        inflow = Inflow(self.ref, blobs, PATIENCE, now=0.0, sources=blobs.complete())
        inflow.window = window
        return blobs, inflow

    def chunk(self, index: int) -> Chunk:
        return Chunk(blob=self.ref.id, index=index, data=self.sender.read(self.ref, self.layout, index))


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    sender, draft = BlobStore(tmp_path / "sender"), tmp_path / "draft"
    draft.write_bytes(BODY)
    ref = sender.add(draft, SPEC, CHUNK)
    return Ends(sender, ref, tmp_path / "receiver")


def run(ends: Ends, inflow: Inflow, *, limit: int = 10**6) -> int:
    """Ask and answer until the blob is complete or `limit` chunks came; returns what was asked for."""
    asked, now, came = 0, 0.0, 0
    while not inflow.is_complete:
        bits = inflow.wish(now)
        now += 1.0
        if bits is None:
            continue
        wanted = from_wire(bits, ends.layout.total)
        asked |= wanted
        for index in indexes(wanted):
            if came == limit:
                return asked
            came += 1
            inflow.take(ends.chunk(index), now)
    inflow.finish()
    return asked


def body_bits(ends: Ends, asked: int) -> int:
    return asked >> ends.layout.head_chunks


def test_a_blob_arrives_and_its_zeros_do_not_travel(ends: Ends) -> None:
    blobs, inflow = ends.receiver()
    asked = run(ends, inflow)
    assert read_verified(blobs.body(ends.ref.id)) == BODY
    assert body_bits(ends, asked) == full(13) & ~ZEROS
    assert inflow.fraction == 1.0


def test_chunks_of_an_older_blob_do_not_travel(ends: Ends, tmp_path: Path) -> None:
    blobs, inflow = ends.receiver()
    draft = tmp_path / "draft"
    draft.write_bytes(BODY[: 4 * CHUNK] + b"x" * CHUNK)
    blobs.add(draft, None, CHUNK)
    blobs, inflow = ends.receiver()
    assert body_bits(ends, run(ends, inflow)) == full(13) & ~ZEROS & ~full(4)
    assert read_verified(blobs.body(ends.ref.id)) == BODY


damages = st.sampled_from(["none", "overwrite", "truncate", "extend", "tear head", "lose head", "lose part", "empty"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.tuples(st.integers(0, 20), damages, st.integers(0, 2**32)), max_size=4))
def test_a_restart_after_any_prefix_goes_on_with_what_is_intact(ends: Ends, stops: list[tuple[int, str, int]]) -> None:
    blobs, inflow = ends.receiver()
    blobs.keep(())
    for limit, damage, seed in stops:
        blobs, inflow = ends.receiver()
        run(ends, inflow, limit=limit)
        blobs.close()
        hurt(blobs, ends.ref.id, damage, random.Random(seed))
        blobs.recover()
        blobs.close()
    intact = intact_bits(ends, blobs)
    blobs, inflow = ends.receiver()
    asked = run(ends, inflow)
    assert read_verified(blobs.body(ends.ref.id)) == BODY
    assert body_bits(ends, asked) & intact == 0
    blobs.close()


def hurt(blobs: BlobStore, blob: str, damage: str, rng: random.Random) -> None:
    """Do to the files what a power cut or a failing card does."""
    path = blobs.body(blob) if blobs.has(blob) else blobs.part(blob)
    head = blobs.head_path(blob)
    if not path.exists() or not head.exists():
        return
    data = bytearray(path.read_bytes())
    match damage:
        case "overwrite":
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(1, 9000)] = rng.randbytes(rng.randrange(1, 9000))
        case "truncate":
            del data[rng.randrange(len(data)) :]
        case "extend":
            data += rng.randbytes(100)
        case "empty":
            data.clear()
        case "tear head":
            head.write_bytes(head.read_bytes()[: rng.randrange(head.stat().st_size)])
        case "lose head":
            head.unlink()
    if damage == "lose part":
        path.unlink()
    else:
        path.write_bytes(data)


def intact_bits(ends: Ends, blobs: BlobStore) -> int:
    """Which body chunks lie on the receiver's disk as they should."""
    path = blobs.body(ends.ref.id) if blobs.has(ends.ref.id) else blobs.part(ends.ref.id)
    data = path.read_bytes() if path.exists() else b""
    places = range(0, len(BODY), CHUNK)
    return sum(1 << place // CHUNK for place in places if data[place : place + CHUNK] == BODY[place : place + CHUNK])


def test_an_earlier_process_that_received_everything_leaves_nothing_to_ask(ends: Ends) -> None:
    _, inflow = ends.receiver()
    for index in range(ends.layout.total):
        inflow.take(ends.chunk(index), 0.0)
    blobs, again = ends.receiver()
    assert again.is_complete
    assert again.wish(0.0) is None
    again.finish()
    assert read_verified(blobs.body(ends.ref.id)) == BODY


def test_a_false_chunk_is_refused_and_does_not_reach_the_disk(ends: Ends) -> None:
    blobs, inflow = ends.receiver()
    for index in range(ends.layout.head_chunks):
        inflow.take(ends.chunk(index), 0.0)
    before = blobs.part(ends.ref.id).read_bytes()
    false = Chunk(blob=ends.ref.id, index=ends.layout.head_chunks, data=bytes(CHUNK))
    with pytest.raises(PeerError, match="digest"):
        inflow.take(false, 0.0)
    assert blobs.part(ends.ref.id).read_bytes() == before
    run(ends, inflow)
    assert read_verified(blobs.body(ends.ref.id)) == BODY


def test_a_false_head_is_refused_and_the_blob_completed(ends: Ends) -> None:
    blobs, inflow = ends.receiver()
    inflow.take(Chunk(blob=ends.ref.id, index=0, data=bytes(CHUNK)), 0.0)
    inflow.take(ends.chunk(1), 0.0)
    with pytest.raises(PeerError, match="head"):
        inflow.take(ends.chunk(2), 0.0)
    run(ends, inflow)
    assert read_verified(blobs.body(ends.ref.id)) == BODY


def test_a_new_connection_asks_at_once_for_what_was_under_way(ends: Ends) -> None:
    _, inflow = ends.receiver()
    first = inflow.wish(0.0)
    assert inflow.wish(0.1) is None
    inflow.ask_again()
    assert inflow.wish(0.1) == first


def test_repeats_are_counted(ends: Ends) -> None:
    _, inflow = ends.receiver()
    inflow.take(ends.chunk(0), 0.0)
    inflow.take(ends.chunk(0), 0.0)
    assert inflow.repeated == 1
