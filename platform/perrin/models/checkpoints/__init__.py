"""Other people's checkpoints: looked at, taken in as models, and run.

`families` is the table of what is known. `adding` takes one in, with `folders`, `schedule`, `headers` and `checking`;
`others` knows single files and adapters. `pipelines` has how each family is told a prompt and asked; `loading` reads
the networks, whose classes are those of diffusers and transformers.
"""

from __future__ import annotations

from perrin.models.checkpoints.adding import Options, Source, add_checkpoint, look, take_in

__all__ = ["Options", "Source", "add_checkpoint", "look", "take_in"]
