"""Python reads this when it starts: the time of day is that of the machine plus what the file PERRIN_CLOCK says.

The monotonic clock stays, as it does when somebody sets a machine's clock. (libfaketime cannot do this: with the
monotonic clock left alone, its clock_nanosleep refuses every sleep of Python's.)
"""

import os
import time

_now, _path = time.time, os.environ["PERRIN_CLOCK"]


def _moved() -> float:
    with open(_path) as stream:  # noqa: PTH123 (called thousands of times a second)
        return _now() + float(stream.read() or 0)


time.time = _moved
