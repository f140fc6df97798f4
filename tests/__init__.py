"""The tests; each directory mirrors the one that it tests, `system` runs the real processes."""
