"""Inputs that nobody thought of, for all code of the core and the front that reads what strangers send: see ``docs/fuzzing.md``."""
