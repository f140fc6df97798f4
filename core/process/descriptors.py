"""Open files in the state that one program hands on to another, which may have other numbers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NewType

#: Stands in a state for an open file.
Descriptor = NewType("Descriptor", int)
#: Stands for none.
NOT_OPEN: Final = Descriptor(-1)
#: Called with each open file that is to go along; returns what stands for it in the state.
Keep = Callable[[int], Descriptor]
