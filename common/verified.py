"""A complete blob read by who has only its path, such as a release that is served."""

from pathlib import Path

from common.chunks import Layout, decode_head, digest_of, ref_of
from common.errors import DataError, PeerError


def read_verified(body: Path) -> bytes:
    """Return the bytes of the complete blob whose body is the file `body`, checked against its name and its head.

    Raises DataError where a file cannot be read or is damaged.
    """
    try:
        packed, data = body.with_suffix(".head").read_bytes(), body.read_bytes()
        ref = ref_of(packed)
        head = decode_head(packed, ref)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot read: {error.strerror}") from error
    except PeerError as error:
        raise DataError(f"{body}: its head is damaged: {error}") from error
    layout = Layout(0, head.size, head.chunk_bytes)
    spans = [layout.span(index) for index in range(layout.total)]
    is_whole = all(digest_of(data[at : at + size]) == head.digest(i) for i, (at, size) in enumerate(spans))
    if ref.id != body.stem or len(data) != head.size or not is_whole:
        raise DataError(f"{body}: the file is damaged, its content does not have the digests that name it")
    return data
