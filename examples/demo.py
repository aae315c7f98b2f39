"""The examples of every modality through the SDK, on an embedded platform: what ``make demo`` runs.

    python examples/demo.py FOLDER

No service is needed. Results go to FOLDER, with a page, ``index.html``, that shows and plays them. What a browser
cannot show is made once more as a picture.
"""

from __future__ import annotations

import html
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import perrin
import perrin.wire
from perrin.errors import PerrinError
from perrin_orchestration import embedded

TAGS = {
    "image": '<a href="{0}"><img src="{0}" alt="{1}"></a>',
    "audio": '<audio controls src="{0}" aria-label="{1}"></audio>',
    "video": '<video controls autoplay loop muted playsinline src="{0}" aria-label="{1}"></video>',
}
"""How a page shows a file, by the first half of its media type."""

HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Perrin: what the demo made</title>
<style>
body { font: 15px/1.4 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
section { display: flex; flex-wrap: wrap; gap: 16px } figure { margin: 0; max-width: 528px } a { display: block }
img, video, audio { min-width: 256px; max-width: 100% } figcaption { color: #555 }
</style>
"""


def main(folder: Path) -> int:
    """Submit the examples of every modality, wait for them with progress bars, save and show what they made."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    parts, saved = [HEAD], []
    with tempfile.TemporaryDirectory(prefix="perrin-demo-") as home:
        print("Starting the platform: gateway and one worker, no services.")
        with embedded.platform(home=home) as address:
            client = perrin.Client(address.url, address.api_key)
            for face in client.modalities():
                made = generate(client, face, folder)
                saved += [path for _, paths in made for path in paths]
                parts.append(shown(face, made))
    (folder / "index.html").write_text("\n".join(parts))
    print(f"\n{len(saved)} files in {folder.resolve()}, {time.monotonic() - began:.0f} s:")
    for path in saved:
        print(f"  {path.name}")
    print(f"\nAll of them on one page: {(folder / 'index.html').resolve()}")
    print("More:  make up   (dashboard)      .venv/bin/perrin generate image 'a blue fish' --out fish.png")
    return 0


def generate(client: perrin.Client, face: perrin.wire.ModalityInfo, folder: Path) -> list[tuple[str, list[Path]]]:
    """What was asked for and the files of it, for each of a modality's examples."""
    print(f"\n{face.title}: {face.summary}")
    formats = [face.formats[0], *pictures(face)]
    asked = [(said(face, one), [client.submit(face.name, format=f, **one) for f in formats]) for one in face.examples]
    made = []
    for what, jobs in asked:
        print(f"  {what!r}, job {', '.join(job.id for job in jobs)}")
        name = "-".join(re.findall(r"[\w.#+]+", what))
        paths: list[Path] = []
        for job in jobs:
            job.wait(progress=True)
            paths += job.save(folder / f"{name}.{job.record.format}")
        made.append((what, paths))
    return made


def pictures(face: perrin.wire.ModalityInfo) -> list[str]:
    """The format that shows what the modality's first one holds, where a browser does not show that one itself."""
    if face.media_types[0].partition("/")[0] in TAGS:
        return []
    return [f for f, kind in zip(face.formats, face.media_types, strict=True) if kind.startswith("image/")][:1]


def said(face: perrin.wire.ModalityInfo, example: Mapping[str, Any]) -> str:
    """An example in words: its prompt, or its parameters."""
    return str(example.get("prompt") or " ".join([face.name, *(f"{key} {example[key]}" for key in sorted(example))]))


def shown(face: perrin.wire.ModalityInfo, made: Sequence[tuple[str, Sequence[Path]]]) -> str:
    """The page's part about a modality."""
    kinds = dict(zip(face.formats, face.media_types, strict=True))
    lines = [f"<h2>{html.escape(face.title)}</h2><p>{html.escape(face.summary)}</p><section>"]
    for what, paths in made:
        text = html.escape(what)
        lines.append("<figure>")
        for path in paths:
            at = quote(path.name)
            tag = TAGS.get(kinds[path.suffix[1:]].partition("/")[0], '<a href="{0}">{0}</a>')
            lines.append(tag.format(at, text))
        lines.append(f"<figcaption>{text}</figcaption></figure>")
    return "\n".join([*lines, "</section>"])


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
    except PerrinError as error:
        print(f"perrin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
