"""``python -m perrin`` is ``perrin``."""

from __future__ import annotations

import sys

from perrin.cli import main

if __name__ == "__main__":
    sys.exit(main())
