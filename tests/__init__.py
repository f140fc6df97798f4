"""The tests; each directory mirrors the one that it tests, `system` runs the real processes.

A test of a decision (docs/decisions.md) names it: ``test_d23_...``, or ``(D23)`` in its docstring.
"""
