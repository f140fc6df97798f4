"""Tests of the real processes, started as a user starts them, seen only through the wire."""
