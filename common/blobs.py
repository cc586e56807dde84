"""Blobs on disk, named by their id: `ID.head`, `ID.body`, and while it arrives `ID.part`.

What a part already holds is never written down beside it: it is what hashes to the digests in the
head, so a torn write or a power cut costs the torn chunks and nothing else.
"""

import contextlib
import filecmp
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from common.chunks import (
    DIGEST_BYTES,
    ChunkHasher,
    Head,
    Layout,
    decode_head,
    digest_of,
    encode_head,
    full_body,
    indexes,
    ref_of,
    zero_chunks,
)
from common.errors import DataError, PeerError
from common.files import disk_error, hand_over, make_folder, move, sync
from common.messages import Ref
from common.weights import Spec

PENDING_BLOCKS = 2
"""Blocks of a new blob that may wait to be written."""


@lru_cache(maxsize=1024)
def _path(root: Path, name: str) -> Path:
    """Join once: pathlib takes longer than writing a chunk."""
    return root / name


class BlobStore:
    """The blobs of one process below `root`. Methods raise WorkError when the disk fails or is full.

    With `spare`, a path on the same file system, a body that is no longer kept is moved there, and the
    next blob to arrive is written over it: a fifth of the work of making a new file. Only for stores
    whose bodies nobody reads any more by then.
    """

    def __init__(self, root: Path, *, spare: Path | None = None) -> None:
        self._root = root
        self._spare = spare
        self._open: dict[tuple[Path, int], int] = {}
        """Descriptors by path and by how they were opened."""
        self._is_rooted = False
        """Whether the name of `root` itself is durable."""
        make_folder(root)

    def body(self, blob: str) -> Path:
        """Path of the bytes of a complete blob."""
        return _path(self._root, f"{blob}.body")

    def head_path(self, blob: str) -> Path:
        """Path of a blob's head."""
        return _path(self._root, f"{blob}.head")

    def part(self, blob: str) -> Path:
        """Path of the bytes of a blob that is still arriving."""
        return _path(self._root, f"{blob}.part")

    def has(self, blob: str) -> bool:
        """Whether the blob is here, complete."""
        return self.body(blob).exists() and self.head_path(blob).exists()

    def complete(self) -> list[str]:
        """Ids of the blobs that are here, complete."""
        return sorted(path.stem for path in self._root.glob("*.body"))

    def ref(self, blob: str) -> Ref:
        """Return the Ref of a blob whose head is here; raises PeerError when it is damaged."""
        return ref_of(self.packed_head(blob))

    def head(self, ref: Ref) -> Head:
        """Return the head of `ref`; raises PeerError when the file is damaged."""
        return decode_head(self.packed_head(ref.id), ref)

    def packed_head(self, blob: str) -> bytes:
        """Return the head of a blob as its bytes; raises DataError when it cannot be read."""
        try:
            return self.head_path(blob).read_bytes()
        except OSError as error:
            raise DataError(f"{self.head_path(blob)}: cannot read: {error.strerror}") from error

    def add(self, source: Path, spec: Spec | None, chunk_bytes: int, *, is_durable: bool = True) -> Ref:
        """Take the file `source` in, moving it: it must lie on the same file system."""
        hasher = ChunkHasher(chunk_bytes)
        try:
            with source.open("rb") as file:
                while data := file.read(chunk_bytes):
                    hasher.update(data)
            ref = self._publish(source, hasher.head(spec))
        except OSError as error:
            raise disk_error(f"{source}: cannot store it as a blob", error) from error
        if is_durable:
            self.sync(ref.id)
        return ref

    def add_blocks(
        self, blocks: Iterable[bytes], spec: Spec | None, chunk_bytes: int, *, is_durable: bool = True
    ) -> Ref:
        """Write a new blob from its bytes; each block is hashed while it is at hand."""
        draft = self._root / "draft.tmp"
        hasher = ChunkHasher(chunk_bytes)
        try:
            with draft.open("wb") as file, ThreadPoolExecutor(1, "write") as writer:

                def take(block: bytes) -> None:
                    hasher.update(block)
                    file.write(block)

                pending: deque[Future[None]] = deque()
                for block in blocks:  # hashed and written while the next one is computed
                    pending.append(writer.submit(take, block))
                    if len(pending) > PENDING_BLOCKS:
                        pending.popleft().result()
                for future in pending:
                    future.result()
            ref = self._publish(draft, hasher.head(spec))
        except OSError as error:
            draft.unlink(missing_ok=True)  # a full disk needs its room
            raise disk_error(f"{draft}: cannot store the blob", error) from error
        if is_durable:
            self.sync(ref.id)
        return ref

    def _publish(self, source: Path, head: Head) -> Ref:
        packed, ref = encode_head(head)
        if self._holds(ref.id, packed, source):  # written again, a power cut could take what was durable
            source.unlink()
            return ref
        self.head_path(ref.id).write_bytes(packed)
        for path in (self.head_path(ref.id), source):
            hand_over(path, like=self._root)
        source.replace(self.body(ref.id))
        return ref

    def _holds(self, blob: str, packed: bytes, body: Path) -> bool:
        is_same_head = self.has(blob) and self.head_path(blob).read_bytes() == packed
        return is_same_head and filecmp.cmp(body, self.body(blob), shallow=False)

    def files(self, blob: str) -> tuple[Path, ...]:
        """What is to be synced for a complete blob to be durable: its files, and the folder of their names."""
        return self.body(blob), self.head_path(blob), self._root

    def sync(self, blob: str, beside: Iterable[Path] = ()) -> None:
        """Make a complete blob durable, and what lies `beside` it in the same wait; any thread may call it."""
        above = () if self._is_rooted else (self._root.parent,)
        try:
            sync(*self.files(blob), *beside, *above)
        except OSError as error:
            raise disk_error(f"{self.body(blob)}: cannot make it durable", error) from error
        self._is_rooted = True

    def read(self, ref: Ref, layout: Layout, index: int, *, is_checked: bool = False) -> bytes:
        """Return chunk `index` of the stream of a complete blob, if wanted checked against the head's digest.

        Raises DataError where a file cannot be read or is damaged.
        """
        offset, length = layout.span(index)
        if index < layout.head_chunks:
            path, data = self.head_path(ref.id), self.packed_head(ref.id)[offset : offset + length]
        else:
            path = self.body(ref.id)
            data = self._pread(path, offset, length)
        if len(data) != length:
            raise DataError(f"{path}: the file is damaged, it is too short")
        if is_checked and index >= layout.head_chunks:
            digest = self._whole_head(ref).digest(index - layout.head_chunks)
            if digest_of(data) != digest:
                raise DataError(f"{path}: the file is damaged, its content does not have the digests that name it")
        return data

    def verify(self, ref: Ref) -> None:
        """See that a complete blob is what its name and its head say; raises DataError where it is not."""
        path, head = self.body(ref.id), self._whole_head(ref)
        self._close(path)  # another process may have replaced the file
        try:
            is_whole = path.stat().st_size == head.size and self._intact(path, head) == full_body(head)
        except OSError as error:
            raise DataError(f"{path}: cannot read: {error.strerror}") from error
        if not is_whole:
            raise DataError(f"{path}: the file is damaged, its content does not have the digests that name it")

    def prepare(self, ref: Ref, head: Head, packed: bytes, sources: Iterable[str] = ()) -> int:
        """Keep the head and make the part ready; returns the bitmap of body chunks that need not travel.

        Those are what an earlier transfer left whole, zeros, and chunks that a blob of `sources` holds. The part takes
        its whole room on the disk at once, so that a full one is found before anything travels.
        """
        is_new = not self.part(ref.id).exists()
        try:
            # Not synced until finish(): a torn head does not hash to its name, and travels again.
            self.head_path(ref.id).write_bytes(packed)
            is_recycled = is_new and self.recycle(self.part(ref.id))
            descriptor = self._descriptor(self.part(ref.id), os.O_RDWR | os.O_CREAT)
            for path in (self.head_path(ref.id), self.part(ref.id)):
                hand_over(path, like=self._root)
            os.ftruncate(descriptor, head.size)
            if head.size:
                os.posix_fallocate(descriptor, 0, head.size)
            held = zero_chunks(head) if is_new else self._intact(self.part(ref.id), head)
            if is_recycled:
                self._write_zeros(ref, head, held)
            return held | self._copied(ref, head, held, sources)
        except OSError as error:
            if is_new:
                self._close(self.part(ref.id))
                with contextlib.suppress(OSError):
                    self.part(ref.id).unlink()
            raise disk_error(f"{self.part(ref.id)}: cannot prepare it", error) from error

    def write(self, ref: Ref, offset: int, data: bytes) -> None:
        """Write a verified chunk at `offset` of the part."""
        try:
            os.pwrite(self._descriptor(self.part(ref.id), os.O_RDWR), data, offset)
        except OSError as error:
            raise disk_error(f"{self.part(ref.id)}: cannot write", error) from error

    def finish(self, ref: Ref) -> None:
        """Turn a part whose chunks are all here into the blob.

        Nothing is synced: who sent it still has it, and `is_intact` tells after a power cut.
        """
        part = self.part(ref.id)
        try:
            self._close(part)
            part.replace(self.body(ref.id))
        except OSError as error:
            raise disk_error(f"{part}: cannot finish it", error) from error

    def is_intact(self, blob: str) -> bool:
        """Whether a complete blob still hashes to its id; a damaged one becomes a part: its good chunks serve again."""
        if not self.has(blob):
            return False
        is_good = False
        with contextlib.suppress(PeerError, DataError):
            ref = self.ref(blob)
            head = self.head(ref)
            is_whole = self._intact(self.body(blob), head) == full_body(head)
            is_good = ref.id == blob and is_whole and self.body(blob).stat().st_size == head.size
        self._close(self.body(blob))
        if not is_good:
            move(self.body(blob), self.part(blob))
        return is_good

    def recover(self) -> None:
        """Look through all complete blobs after a start, since they may have met a power cut."""
        for blob in self.complete():
            self.is_intact(blob)

    def keep(self, blobs: Iterable[str]) -> None:
        """Delete every blob, and every part, that is not one of `blobs`."""
        wanted = set(blobs)
        for path in sorted(self._root.iterdir()):
            if path.name.split(".")[0] not in wanted:
                self._close(path)
                move(path, self._spare if path.suffix == ".body" else None)

    def recycle(self, path: Path) -> bool:
        """Make the spare file, if there is one, the file `path`, to be written over."""
        if self._spare is None or not self._spare.exists():
            return False
        move(self._spare, path)
        return True

    def close(self) -> None:
        """Close all files."""
        for path, _ in list(self._open):
            self._close(path)

    def _whole_head(self, ref: Ref) -> Head:
        try:
            return self.head(ref)
        except PeerError as error:
            raise DataError(f"{self.head_path(ref.id)}: the file is damaged: {error}") from error

    # ---- what need not travel ---------------------------------------------------------------

    def _write_zeros(self, ref: Ref, head: Head, chunks: int) -> None:
        layout = Layout(0, head.size, head.chunk_bytes)
        for index in indexes(chunks):
            offset, length = layout.span(index)
            self.write(ref, offset, bytes(length))

    def _intact(self, path: Path, head: Head) -> int:
        layout = Layout(0, head.size, head.chunk_bytes)
        return sum(
            1 << i for i in range(layout.total) if digest_of(self._pread(path, *layout.span(i))) == head.digest(i)
        )

    def _copied(self, ref: Ref, head: Head, held: int, sources: Iterable[str]) -> int:
        known = self._digests(sources, head.chunk_bytes)
        layout = Layout(0, head.size, head.chunk_bytes)
        copied = 0
        for index in range(layout.total):
            found = None if held >> index & 1 else known.get(head.digest(index))
            if found is None:
                continue
            offset, length = layout.span(index)
            with contextlib.suppress(DataError):  # one that cannot be read travels
                data = self._pread(self.body(found[0]), found[1], length)
                if digest_of(data) == head.digest(index):
                    self.write(ref, offset, data)
                    copied |= 1 << index
        return copied

    def _digests(self, sources: Iterable[str], chunk_bytes: int) -> dict[bytes, tuple[str, int]]:
        known: dict[bytes, tuple[str, int]] = {}
        for blob in sources:
            try:
                head = self.head(self.ref(blob)) if self.has(blob) else None
            except (PeerError, DataError):
                continue  # a damaged source only costs traffic
            if head is not None and head.chunk_bytes == chunk_bytes:
                count = len(head.digests) // DIGEST_BYTES
                known.update({head.digest(i): (blob, i * chunk_bytes) for i in range(count)})
        return known

    # ---- files ------------------------------------------------------------------------------

    def _descriptor(self, path: Path, flags: int) -> int:
        key = path, flags & os.O_ACCMODE
        if key not in self._open:
            self._open[key] = os.open(path, flags, 0o600)
        return self._open[key]

    def _pread(self, path: Path, offset: int, length: int) -> bytes:
        """Read a part as it is written, anything else for reading only: what root made may not be written by others."""
        try:
            how = os.O_RDWR if (path, os.O_RDWR) in self._open else os.O_RDONLY
            return os.pread(self._descriptor(path, how), length, offset)
        except OSError as error:
            raise DataError(f"{path}: cannot read: {error.strerror}") from error

    def _close(self, path: Path) -> None:
        for how in (os.O_RDONLY, os.O_RDWR):
            if (descriptor := self._open.pop((path, how), None)) is not None:
                os.close(descriptor)
