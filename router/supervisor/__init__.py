"""Starts the fronts and workers, starts again what dies, and stops all of them in order."""
