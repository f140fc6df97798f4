"""A dictionary from ids to JSON for many small records that nobody needs at present, which takes no more memory than their text.

Records of a crowd that has left must be no objects: each would lie somewhere in the memory that the crowd took, and keep a page of it, or
more, from being given back. Here they stand one behind the other in a few large blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from core.wire import codec

#: Few, since each keeps the pages in which it begins and ends. With 10,000 records a block has 300 of them, and looking for one takes
#: microseconds; with a million, a millisecond.
_BLOCKS: Final = 32


class Packed:
    """Ids must have no control characters. Values are what JSON can hold, and are copied."""

    __slots__ = ("_blocks", "_count")

    def __init__(self) -> None:
        #: Lines of id, tab and JSON, each behind a line feed; JSON writes neither in any other way than escaped.
        self._blocks: list[bytearray | None] = [None] * _BLOCKS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __setitem__(self, key: str, value: Any) -> None:
        self.pop(key)
        index = hash(key) % _BLOCKS
        block = self._blocks[index]
        if block is None:
            block = self._blocks[index] = bytearray()
        block += b"\n%b\t%b" % (key.encode(), codec.to_json(value))
        self._count += 1

    def get(self, key: str) -> Any:
        """Return the value, None if there is none."""
        found = self._find(key)
        if found is None:
            return None
        block, start, end = found
        return codec.from_json(block[block.index(b"\t", start) + 1 : end])

    def pop(self, key: str) -> Any:
        """Remove the value and return it, None if there is none."""
        found = self._find(key)
        if found is None:
            return None
        block, start, end = found
        value = codec.from_json(block[block.index(b"\t", start) + 1 : end])
        del block[start:end]
        self._count -= 1
        return value

    def blocks(self) -> Iterator[list[tuple[str, Any]]]:
        """Iterate over all records, a few at a time; what is changed meanwhile may or may not be among them."""
        for index in range(_BLOCKS):
            lines = bytes(self._blocks[index] or b"").split(b"\n")[1:]
            if not lines:
                continue
            yield [
                (key.decode(), codec.from_json(value)) for key, value in (line.split(b"\t") for line in lines)
            ]

    def _find(self, key: str) -> tuple[bytearray, int, int] | None:
        """Return the block, and from where to where in it."""
        block = self._blocks[hash(key) % _BLOCKS]
        start = -1 if block is None else block.find(b"\n%b\t" % key.encode())
        if block is None or start < 0:
            return None
        end = block.find(b"\n", start + 1)
        return block, start, end if end >= 0 else len(block)
