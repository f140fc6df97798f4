"""The server API (D36): JSON over HTTP for backends, on a port of its own."""
