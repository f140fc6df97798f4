"""The processes between the operator and the workers: the supervisor, and the fronts that accept clients.

``python -m router serve`` is the supervisor, which starts ``python -m router.front`` and ``python -m workers``. A front knows a client
until its HELLO; after that the client's socket belongs to a worker. Nothing in here may import ``workers``.
"""
