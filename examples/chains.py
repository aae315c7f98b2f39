"""The chains that ship, each submitted as one graph of jobs: what one makes, the next takes in.

    python examples/chains.py FOLDER

No service is needed. The results go to FOLDER, named for their chain and step.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import perrin
from perrin.chains import chains
from perrin.errors import PerrinError
from perrin_orchestration import embedded


def main(folder: Path) -> int:
    """Submit the chains whose modalities are installed, wait with progress, save what every step made."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perrin-chains-") as home, embedded.platform(home=home) as address:
        client = perrin.Client(address.url, address.api_key)
        able = chains([face.name for face in client.modalities()])
        groups = {name: client.submit_group(chain.jobs, label=chain.label) for name, chain in able.items()}
        for name, group in groups.items():
            print(f"\n{able[name].label}: {able[name].about}")
            for job in group.jobs:
                print(f"  {job.record.name}, job {job.id}")
                job.wait(progress=True)
                for path in job.save(folder / f"{name}-{job.record.name}.{job.record.format}"):
                    print(f"  {path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "chains")))
    except PerrinError as error:
        print(f"perrin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
