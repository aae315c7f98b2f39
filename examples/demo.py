"""One job of every modality through the SDK, on an embedded platform: what ``make demo`` runs.

    python examples/demo.py FOLDER

No service is needed. Results go to FOLDER with a contact sheet of the pictures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import perrin
import perrin.wire
from perrin.errors import PerrinError
from perrin_orchestration import embedded


def main(folder: Path) -> int:
    """Submit the examples of every modality, wait for them with progress bars, save what they made."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perrin-demo-") as home:
        print("Starting the platform: gateway and one worker, no services.")
        with embedded.platform(home=home) as address:
            client = perrin.Client(address.url, address.api_key)
            saved = [path for face in client.modalities() for path in generate(client, face, folder)]
    print(f"\n{len(saved)} files in {folder.resolve()}, {time.monotonic() - began:.0f} s:")
    for path in saved:
        print(f"  {path.relative_to(folder.resolve())}")
    print("\nMore:  make up   (dashboard)      .venv/bin/perrin generate image 'a blue fish' --out fish.png")
    return 0


def generate(client: perrin.Client, face: perrin.wire.ModalityInfo, folder: Path) -> list[Path]:
    """The files of one modality's examples."""
    print(f"\n{face.title}: {face.summary}")
    jobs = [(example, client.submit(face.name, **example)) for example in face.examples]
    saved = []
    for example, job in jobs:
        said = str(
            example.get("prompt") or " ".join([face.name, *(f"{key} {example[key]}" for key in sorted(example))])
        )
        print(f"  {said!r}, job {job.id}")
        job.wait(progress=True)
        name = "-".join(said.split())
        saved += [path.resolve() for path in job.save(folder / f"{name}.{job.record.format}")]
    return saved


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
    except PerrinError as error:
        print(f"perrin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
