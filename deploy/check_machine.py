"""Says in one line what a machine lacks before anything is installed on it. Standard library only."""

import shutil
import sys

NEEDED_GB = 9
OLDEST, NEWEST = (3, 11), (3, 13)


def main() -> int:
    """0 if Perrin can be set up here, else 2 after one line that says what to do."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        print(
            f"perrin: this is Python {version[0]}.{version[1]}, wanted 3.11 to 3.13; choose one with"
            " `make PYTHON=python3.11 ...`",
            file=sys.stderr,
        )
        return 2
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        print("perrin: this Python has no venv; on Debian and Ubuntu: apt install python3-venv", file=sys.stderr)
        return 2
    free = shutil.disk_usage(".").free / 1e9
    if free < NEEDED_GB:
        print(
            f"perrin: {free:.1f} GB of disk are free here, {NEEDED_GB} are needed (PyTorch with its CUDA libraries"
            " takes 6); free some, or clone onto another disk",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
