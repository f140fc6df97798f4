"""Load for a running server, and what it measures."""
