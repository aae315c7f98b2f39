"""The processes of a platform: ``python -m perrin_orchestration gateway|worker|platform``.

People start them through ``perrin``; these are the same without the command line's own imports.
"""

from __future__ import annotations

import sys

from perrin.errors import PerrinError


def main(arguments: list[str]) -> int:
    """Run one process; its exit code."""
    role = arguments[0] if arguments else ""
    descriptor = int(arguments[2]) if arguments[1:2] == ["--fd"] else None
    try:
        if role == "gateway":
            from perrin_orchestration.gateway.serve import serve

            serve(descriptor=descriptor)
        elif role == "worker":
            from perrin_orchestration.commands import worker

            worker()
        elif role == "platform" and descriptor is not None:
            from perrin_orchestration.platform_process import main as platform

            platform(descriptor)
        else:
            print("usage: python -m perrin_orchestration gateway [--fd N] | worker", file=sys.stderr)
            return 2
    except PerrinError as error:
        print(f"perrin: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
