"""Tests of the worker's parts, and of a real worker process with the test in the place of the front and the supervisor."""
