"""core.chat.packed: a dictionary, whatever ids and values are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.chat.packed import Packed

KEYS = st.sampled_from([*"abcdefgh", "aa", "a:b", "ab", "someone@example.com", "|", "é"])
VALUES = st.lists(
    st.one_of(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())
)


@given(st.lists(st.tuples(st.sampled_from(["set", "get", "pop"]), KEYS, VALUES)))
def test_it_is_a_dictionary(steps: list[tuple[str, str, list[object]]]) -> None:
    packed, known = Packed(), dict[str, list[object]]()
    for step, key, value in steps:
        if step == "set":
            packed[key] = value
            known[key] = value
        elif step == "get":
            assert packed.get(key) == known.get(key)
        else:
            assert packed.pop(key) == known.pop(key, None)
        assert len(packed) == len(known)
    assert dict(record for block in packed.blocks() for record in block) == known


def test_what_looks_like_another_record_is_none() -> None:
    packed = Packed()
    packed["a"] = ["\nb\t[1]", "\t", "\\"]
    assert packed.get("b") is None
    assert packed.get("a") == ["\nb\t[1]", "\t", "\\"]
