"""Signatures of messages: Ed25519 (RFC 8032) over topic, epoch, sequence and the message's own bytes.

Without keys nothing is signed and nothing is asked for. `docs/protocol.md`, section 15, says what is signed and
what a reader refuses.
"""

import base64
import contextlib
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from common.config import SigningConfig, locate
from common.epochs import EPOCH_MAX
from common.errors import ConfigError, PeerError, WorkError
from common.files import DECRYPT, unreadable, write_atomic
from common.messages import Signed, decode, encode, unsigned
from common.names import name_fault
from common.wills import is_will

if TYPE_CHECKING:  # 10 MB of memory that a federation without keys does not need
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

log = logging.getLogger(__name__)

DOMAIN = b"fedpi signature 1\n"
"""Stands before what is signed, so that a signature is good for nothing else."""
WILL = 0
"""The sequence of a will: it was signed before all that the connection says, and is heard after it."""
_SIGNATURE = re.compile(r"(0|[1-9]\d{0,15})\.(0|[1-9]\d{0,15})\.([A-Za-z0-9_-]{86})")
Mark: TypeAlias = tuple[int, int]


class ReplayedError(PeerError):
    """What came was signed by its speaker, and something later was heard before; `message` is the unsigned message."""

    def __init__(self, text: str, message: bytes) -> None:
        super().__init__(text)
        self.message = message


class Signer:
    """Signs what one process says, with a sequence that grows by one a message."""

    def __init__(self, config: SigningConfig | None, epoch: int = 0) -> None:
        """Read the key; raises ConfigError."""
        self._key = None if config is None else _read_key(locate(config.key))
        self._epoch = epoch
        self._sequence = WILL

    def wire(self, topic: str, message: bytes) -> bytes:
        """Sign a msgpack message."""
        if self._key is None:
            return message
        return encode(Signed(body=message, signature=self._sign(topic, message)))

    def story(self, topic: str, document: bytes) -> bytes:
        """Sign a JSON document: its last key becomes `signature`."""
        return document if self._key is None else _with_signature(document, self._sign(topic, document))

    def will(self, topic: str, document: bytes) -> bytes:
        """Sign a JSON document that is to be heard after whatever this process says."""
        return document if self._key is None else _with_signature(document, self._seal(topic, document, WILL))

    def read_own(self, topic: str, payload: bytes) -> tuple[bytes, int]:
        """Return a msgpack message that this key signed, maybe long ago, and its epoch; raises PeerError."""
        if self._key is None:
            return payload, 0
        signed = decode(payload, Signed)
        match = _SIGNATURE.fullmatch(signed.signature)
        if match is None:
            raise PeerError("a coordinator does not sign")
        epoch, sequence = int(match[1]), int(match[2])
        if not _is_of(self._key.public_key(), match[3], _signed_bytes(topic, epoch, sequence, signed.body)):
            raise PeerError("forged: this is not the coordinator's signature")
        return signed.body, epoch

    def outdo(self, heard: int) -> bool:
        """Sign above an epoch that was heard of another process from now on; returns whether that is a change."""
        is_behind = self._key is not None and self._epoch <= heard < EPOCH_MAX
        if is_behind:
            self._epoch = heard + 1
        return is_behind

    def _sign(self, topic: str, message: bytes) -> str:
        self._sequence += 1
        return self._seal(topic, message, self._sequence)

    def _seal(self, topic: str, message: bytes, sequence: int) -> str:
        assert self._key is not None  # noqa: S101 - callers look first
        signature = self._key.sign(_signed_bytes(topic, self._epoch, sequence, message))
        return f"{self._epoch}.{sequence}.{_to_text(signature)}"


@dataclass(frozen=True)
class Peer:
    """Somebody whose signatures count: the public key, also as the text in the file."""

    key: "Ed25519PublicKey"
    text: str


class Peers:
    """Whose signatures count: a file of lines `name key`, read again when it changes.

    A name has two lines while its key is replaced: the key that it has, and the next one. A damaged line shuts out
    the name that it begins with. A file that is missing or blank while the process runs changes nothing: the one that
    says that nobody counts holds a comment.
    """

    LOOK_S = 0.5

    def __init__(self, path: Path) -> None:
        """Read the file; raises ConfigError where it cannot be read or all its lines are damaged."""
        self._path = path
        self._look_at = 0.0
        self._stamp: tuple[int, int, int] | None = None
        self._trouble = ""
        self._keys: dict[str, tuple[Peer, ...]] = {}
        self._dropped: set[str] = set()
        try:
            text = self._read_if_changed() or ""
        except OSError as error:
            raise unreadable(f"signing.peers: cannot read {self._path}", error) from error
        self._take(text)
        faults = find_peers(text)[1]
        if faults and not self._keys:
            raise ConfigError(f"signing.peers: {self._path} is damaged: {'; '.join(faults.values())}; join again")

    def look(self) -> None:
        """Read the file if it has changed."""
        self._look_at = time.monotonic() + self.LOOK_S
        try:
            text = self._read_if_changed()
            trouble = "" if text is None or text.strip() else "is blank"
        except OSError as error:
            text, trouble = None, f"cannot be read: {error.strerror}"
        if trouble and trouble != self._trouble:
            log.warning("signing.peers: %s %s; whose signatures count stays as it was", self._path, trouble)
        self._trouble = trouble
        if text and not trouble:
            self._take(text)

    def _read_if_changed(self) -> str | None:
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return None
        text = self._path.read_bytes().decode(errors="replace")
        self._stamp = stamp
        return text

    def _take(self, text: str) -> None:
        found, faults = find_peers(text)
        for fault in faults.values():
            log.warning("signing.peers: %s: %s", self._path, fault)
        before, self._keys = self._keys, found
        self._dropped = (self._dropped | set(before)) - set(found)

    def take_dropped(self) -> set[str]:
        """Return who was struck from the file since the last call."""
        if time.monotonic() >= self._look_at:
            self.look()
        dropped, self._dropped = self._dropped, set()
        return dropped

    def get(self, name: str) -> tuple[Peer, ...]:
        """Return the keys of `name` that are trusted: none of a stranger's."""
        if time.monotonic() >= self._look_at:
            self.look()
        return self._keys.get(name, ())


@dataclass(frozen=True)
class _Said:
    """Which streams of messages, one for each topic and key, and how far.

    A speaker whose key is replaced says one stream under both keys: else what the earlier one signed could be said
    again. A key without an earlier one begins anew.
    """

    streams: tuple[str, ...]
    mark: Mark
    message: bytes


class Verifier:
    """Opens what was signed, and refuses by PeerError what is unsigned, forged or said before.

    `memory` is the file in which it remembers over restarts how far a reader of retained documents has heard.
    """

    def __init__(self, config: SigningConfig | None, memory: Path | None = None) -> None:
        """Read the keys of the others; raises ConfigError."""
        self.peers = None if config is None else Peers(Path(config.peers))
        self._memory = memory
        self._marks: dict[str, Mark] = {} if memory is None or config is None else _read_marks(memory)
        self._documents: dict[str, bytes] = {}

    def wire(self, topic: str, payload: bytes, speaker: str) -> bytes:
        """Return the msgpack message that `speaker` signed for `topic`."""
        if self.peers is None:
            return payload
        try:
            signed = decode(payload, Signed)
        except PeerError as error:
            raise PeerError(f"{speaker} does not sign: {error}") from error
        said = self._check(topic, signed.body, signed.signature, speaker)
        if said.mark[1] == WILL:
            raise PeerError(f"{speaker} signs a message as a will")
        self._advance(said, speaker, is_repeatable=False)
        body: bytes = signed.body
        return body

    def story(self, topic: str, payload: bytes, speaker: str) -> bytes:
        """Return the JSON document that `speaker` signed for `topic`; the last one may come again, as retained."""
        document, signature = unsigned(payload)
        if self.peers is None:
            return document
        said = self._check(topic, document, signature, speaker)
        if said.mark[1] == WILL:
            if not is_will(topic, document):
                raise PeerError(f"{speaker} signs a document as a will")
            if said.mark[0] < self._heard(said)[0]:
                raise PeerError(f"replayed: the will of an earlier process of {speaker}")
            return document
        self._advance(said, speaker, is_repeatable=True)
        self._remember(topic, document)
        return document

    def _check(self, topic: str, message: bytes, signature: str, speaker: str) -> _Said:
        assert self.peers is not None  # noqa: S101 - callers look first
        match = _SIGNATURE.fullmatch(signature)
        if match is None:
            raise PeerError(f"{speaker} does not sign")
        if not (peers := self.peers.get(speaker)):
            raise PeerError(f"{speaker} is not enrolled here, or revoked")
        epoch, sequence = int(match[1]), int(match[2])
        signed = _signed_bytes(topic, epoch, sequence, message)
        if not any(_is_of(peer.key, match[3], signed) for peer in peers):
            raise PeerError(f"forged: this is not {speaker}'s signature")
        return _Said(tuple(f"{topic} {peer.text}" for peer in peers), (epoch, sequence), message)

    def _heard(self, said: _Said) -> Mark:
        return max(self._marks.get(stream, (0, 0)) for stream in said.streams)

    def _advance(self, said: _Said, speaker: str, *, is_repeatable: bool) -> None:
        mark, known = said.mark, self._heard(said)
        if mark < known or (mark == known and not is_repeatable):
            heard = f"{known[0]}.{known[1]}"
            raise ReplayedError(
                f"replayed: {speaker} said {mark[0]}.{mark[1]} when {heard} was heard before", said.message
            )
        self._marks |= dict.fromkeys(said.streams, mark)

    def _remember(self, topic: str, document: bytes) -> None:
        """Keep the marks when a document says something new: an older one is then an older statement, too."""
        if self._memory is None or self._documents.get(topic) == document:
            return
        self._documents[topic] = document
        with contextlib.suppress(WorkError):  # a full disk: refused again from the next document on
            write_atomic(self._memory, msgspec.json.encode(self._marks))


def parse_peers(text: str) -> dict[str, tuple[Peer, ...]]:
    """Read lines of a name and a key as `find_peers` does; raises ValueError where one is damaged."""
    found, faults = find_peers(text)
    if faults:
        raise ValueError("; ".join(faults.values()))
    return found


def find_peers(text: str) -> tuple[dict[str, tuple[Peer, ...]], dict[str, str]]:
    """Read lines of a name and a key (32 bytes in base64).

    Returns the keys of each name in their order, and what is wrong with a line of the name that it begins with: such
    a name has no keys.
    """
    found: dict[str, tuple[Peer, ...]] = {}
    faults: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not (words := line.split()):
            continue
        try:
            found[words[0]] = (*found.get(words[0], ()), _peer(*words))
        except (TypeError, ValueError):
            fault = "a line must be a name and a key, 32 bytes in base64"
            faults.setdefault(words[0], f"line {number} shuts out {words[0][:64]!r}: {fault}")
    return {name: peers for name, peers in found.items() if name not in faults}, faults


def _peer(name: str, key: str) -> Peer:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if fault := name_fault(name):
        raise ValueError(fault)
    return Peer(Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True)), key)


def _read_key(path: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise unreadable(f"signing.key: cannot read {path}", error) from error
    except TypeError as error:  # it asks for a password
        raise ConfigError(f"signing.key: {path} is encrypted; {DECRYPT}") from error
    except ValueError as error:
        raise ConfigError(f"signing.key: {path} is no private key in PEM; name the right file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"signing.key: {path} is no Ed25519 key")
    return key


def _read_marks(path: Path) -> dict[str, Mark]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Mark])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}  # the first start, or a torn file: as one that has heard nothing


def _is_of(key: "Ed25519PublicKey", text: str, signed: bytes) -> bool:
    """Whether `text` is the signature of `key` over `signed`, written in the one way that there is."""
    from cryptography.exceptions import InvalidSignature

    value = base64.urlsafe_b64decode(text + "==")
    try:
        key.verify(value, signed)
    except InvalidSignature:
        return False
    return _to_text(value) == text  # base64 has bits to spare


def _to_text(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).decode("ascii").rstrip("=")


def _signed_bytes(topic: str, epoch: int, sequence: int, message: bytes) -> bytes:
    return DOMAIN + f"{topic}\n{epoch}.{sequence}\n".encode() + message


def _with_signature(document: bytes, signature: str) -> bytes:
    return document[:-1] + f',"signature":"{signature}"}}'.encode()
