"""The history of the schema, as Alembic revisions; ``workers.store.database.upgrade`` runs them.

To change the schema: change ``workers/store/schema.py``, add a file in ``versions`` and name it here, and change
``workers/store/new_file.py``, of which new files are made. Tests compare the three.
"""

from __future__ import annotations

from typing import Final

#: The newest revision, which the tables in ``workers.store.schema`` describe. Alembic knows it too, but takes 0.3 s to import.
REVISION: Final = "0004"
