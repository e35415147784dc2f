"""One part of an object, gathered over as many answers as it takes, all of one version of the object."""

from __future__ import annotations

from typing import Any, NamedTuple

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.ranges import ByteRange

STREAM_BYTES = 2**18
"""A body is taken in pieces of this size at first, so that less than one is lost when it breaks off. What is asked for
again is taken in whatever pieces come: a connection that always breaks early gets on too."""


class Version(NamedTuple):
    """What tells an object from the one that replaced it."""

    size: int
    tag: str

    @classmethod
    def of(cls, meta: Any) -> Version:
        """Return what an answer's metadata say."""
        return cls(int(meta["size"]), str(meta.get("e_tag") or meta["last_modified"]))

    @property
    def condition(self) -> dict[str, str]:
        """What a request may demand: of an ETag that is strong, that it still holds."""
        return {"if_match": self.tag} if self.tag.startswith('"') else {}


class Body:
    """The bytes of one part, gathered over as many answers as it takes."""

    def __init__(self, path: str, part: ByteRange, version: Version | None) -> None:
        self._path = path
        self._part = part
        self._pieces: list[bytes] = []
        self._got = 0
        self._piece_bytes = STREAM_BYTES
        self.version = version
        """As demanded, or as the first answer tells; None while there was none."""

    def take(self, obstore: Any, client: Any) -> None:
        """Ask for what is missing and take what comes; raise when that is not all of it."""
        start, end = self._part.start + self._got, self._part.end
        condition = self.version.condition if self.version else {}
        try:
            answer = obstore.get(client, self._path, options={"range": (start, end), **condition})
        except Exception as error:
            beyond_end = "code: 416" in str(error) or "wanted range" in str(error).lower()
            if beyond_end and start >= int(obstore.head(client, self._path)["size"]):
                return
            raise
        version = Version.of(answer.meta)
        if self.version not in (None, version):
            raise StorageError("it was replaced while it was read; start again")
        self.version = version
        expected = max(0, min(end, version.size) - start)
        came = 0
        stream, self._piece_bytes = answer.stream(min_chunk_size=self._piece_bytes), 1
        for piece in stream:
            came += len(piece)
            if came > expected:
                break
            self._pieces.append(piece)
            self._got += len(piece)
        if came != expected:
            raise OSError(f"{came} of {expected} bytes came")

    def count(self) -> int:
        """Return how many bytes came so far."""
        return self._got

    def data(self) -> bytes:
        """Return the bytes."""
        return bytes(self._pieces[0]) if len(self._pieces) == 1 else b"".join(self._pieces)
