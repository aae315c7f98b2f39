"""Writes the numbers of `bench_engine.py` into docs/engine.md, and draws docs/pictures/engine.webp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
COLOURS = {"batched": (200, 60, 40), "one at a time": (60, 90, 160)}
WIDTH, HEIGHT, EDGE = 460, 330, 56


def main() -> None:
    """Read results.json; write the table and the picture."""
    results = json.loads((HERE / "results.json").read_text())
    page = DOCS / "engine.md"
    text = page.read_text()
    begin, end = text.index("<!-- measured -->"), text.index("<!-- end -->")
    page.write_text(text[:begin] + "<!-- measured -->\n" + table(results) + "\n" + text[end:])
    if "load" in results:
        picture(results["load"]).save(DOCS / "pictures" / "engine.webp", quality=90, method=6)


def table(results: dict[str, Any]) -> str:
    """What was measured, in words and numbers."""
    threads = ", ".join(sorted({str(part["threads"]) for part in results.values()}))
    shared = {part["seconds_are"] for part in results.values()} == {"process_time"}
    lines = [
        f"By `make bench-engine` on {threads} CPU thread of an x86-64 machine with no GPU; seconds are "
        + ("CPU time, for the machine was shared." if shared else "wall time."),
    ]
    for name, words in (("unet32", unet), ("unet64", unet), ("image", image), ("overhead", overhead), ("load", load)):
        if name in results:
            lines += ["", *words(results[name])]
    return "\n".join(lines)


def unet(r: dict[str, Any]) -> list[str]:
    gains = ", ".join(f"{b}: {g:.2f}" for b, g in r["bare_gain"].items())
    return [
        f"**{r['requests']} mixed requests, 1M U-Net, {r['size']}x{r['size']}** (four samplers, guidance on and off,",
        f"arriving over a third of the time that one at a time takes; {r['evaluations']} evaluations)",
        "",
        "| | |",
        "|---|---|",
        f"| gain of the bare network, by samples in a call | {gains} |",
        f"| samples in a call, on average | {r['mean_batch']:.1f} |",
        f"| gain of the bare network at the sizes called | {r['gain_of_the_bare_network_at_these_sizes']:.3f} |",
        f"| gain of the engine over one at a time | {r['gain']:.3f} |",
        f"| the one over the other; runs on this machine differ by some percent | {r['part_of_that_gain']:.3f} |",
        f"| gain of the engine over diffusers, one at a time | {r['gain_over_diffusers']:.3f} |",
        "| largest difference from the same request alone, over the largest value | "
        f"{r['largest_difference_from_alone_relative_to_largest_value']:.1e} |",
    ]


def image(r: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{b}: {ms}" for b, ms in r["milliseconds_by_batch"].items())
    return [
        f"**The shipped image model, emoji-64**: {r['requests']} mixed requests on {r['device']} gain",
        f"{r['gain']:.3f} over one at a time, {r['pictures_per_second']:.2f} pictures a second; no pixel is further",
        f"than {r['largest_difference_of_256']} of 255 from the request alone. Milliseconds by samples in a call:",
        f"{sizes}.",
    ]


def overhead(r: dict[str, Any]) -> list[str]:
    whole, loop = r["microseconds_per_request_step"], r["of_which_sampling_loop_alone"]
    return [
        f"**Overhead**: {r['requests']} requests of {r['steps']} steps through a model that does nothing take",
        f"{whole:.0f} microseconds a request-step, admission, events and files included. The same requests take",
        f"{loop:.0f} in the sampling loop without an engine, so {whole - loop:.0f} are the engine's. Peak memory grew",
        f"by {r['peak_memory_growth_mib']:.1f} MiB.",
    ]


def load(r: dict[str, Any]) -> list[str]:
    return [
        "![Throughput and latency against load, batched and one at a time](pictures/engine.webp)",
        "",
        f"{r['requests']} requests of {r['steps']} steps for the U-Net at {r['size']}x{r['size']} arrive at random;",
        f"load 1 is what one at a time can do ({r['one_at_a_time_per_second']:.1f} a second).",
    ]


def picture(found: dict[str, Any]) -> Image.Image:
    """Two plots: throughput, and mean latency, against load."""
    image = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    for place, (key, title) in enumerate(
        (("throughput", "requests a second"), ("latency_mean", "mean latency, seconds"))
    ):
        plot(image, place * WIDTH, found["points"], key, title)
    return image


def plot(image: Image.Image, left: int, points: list[dict[str, Any]], key: str, title: str) -> None:
    """One plot, its left edge at ``left``."""
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    top_x, top_y = max(p["load"] for p in points), max(p[key] for p in points) * 1.08
    inner_w, inner_h = WIDTH - EDGE - 24, HEIGHT - 2 * EDGE

    def at(x: float, y: float) -> tuple[float, float]:
        return left + EDGE + x / top_x * inner_w, HEIGHT - EDGE - y / top_y * inner_h

    for i in range(5):
        y = top_y * i / 4
        draw.line([at(0, y), at(top_x, y)], (225, 225, 225))
        draw.text((at(0, y)[0] - 6, at(0, y)[1]), f"{y:.2g}" if top_y < 10 else f"{y:.0f}", "black", font, "rm")
    for load in sorted({p["load"] for p in points}):
        draw.text((at(load, 0)[0], HEIGHT - EDGE + 6), f"{load:g}", "black", font, "ma")
    draw.text((left + WIDTH / 2, HEIGHT - EDGE + 26), "load", "black", font, "ma")
    draw.text((left + EDGE, 14), title, "black", font, "lm")
    for number, (name, colour) in enumerate(COLOURS.items()):
        line = [at(p["load"], p[key]) for p in points if p["engine"] == name]
        draw.line(line, colour, 3, "curve")
        for x, y in line:
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], colour)
        draw.text((left + EDGE + 8, 36 + 18 * number), name, colour, font, "lm")


if __name__ == "__main__":
    main()
