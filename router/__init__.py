"""The processes between clients, operators and workers: the supervisor, and the fronts that accept clients.

``python -m router serve`` is the supervisor, which starts ``python -m router.front`` and ``python -m workers``. A front knows a client
until its HELLO; after that the client's socket belongs to a worker. ``router.admin`` answers in the supervisor, and ``router.operator`` is
the command line and the socket that it talks to. Nothing in here may import ``workers``.
"""
