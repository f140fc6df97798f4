"""``python -m router.front``: a front process. The supervisor starts it; it is not meant to be called by hand."""

import sys

from router.front.front import main

if __name__ == "__main__":
    sys.exit(main())
