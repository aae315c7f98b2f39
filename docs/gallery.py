"""Draws what the shipped models make of the committed test prompts, good and bad, once each at a fixed seed.

    python docs/gallery.py

writes docs/gallery.md, its sheets in docs/pictures/, and the picture that README opens with.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

import perrin

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
SIDE, LABEL, COLUMNS = 96, 30, 8
TITLES = {
    "as_captioned": "Captions as they stand in the data",
    "reworded": "The same things in other words",
    "recombined": "Known things, put together anew",
}
README_PROMPTS = (
    "a red apple", "rocket", "smiling face with sunglasses", "blue fish",
    "pizza", "snowman", "purple cat", "guitar",
    "blue heart", "evergreen tree", "automobile", "strawberry",
    "cat face", "alarm clock", "penguin", "green apple",
)  # fmt: skip


def main() -> None:
    """Generate every picture with the default settings and write the page."""
    PICTURES.mkdir(exist_ok=True)
    generate = perrin.load("image")
    text = (files("perrin_image") / "recipes" / "prompts-64.yaml").read_text()
    committed = yaml.safe_load(text)
    seed = committed["seed"]
    card = generate.card
    d = generate("a red apple", seed=seed).parameters.model_dump()
    lines = [
        "# Gallery",
        "",
        f"Made by `make gallery`. Nothing is picked: one picture a prompt, seed {seed}, the defaults of `{card.name}`",
        f"({d['sampler']}, {d['steps']} steps, guidance {d['guidance']}, style {d['style']}),",
        "the 64 prompts that were committed before training "
        "([prompts-64.yaml](../modalities/perrin_image/recipes/prompts-64.yaml)).",
        f"Model {card.sha256[:16]}.",
    ]
    for section, title in TITLES.items():
        prompts = committed[section]
        sheet = _sheet([_picture(generate, p, seed) for p in track(prompts, section)], prompts)
        sheet.save(PICTURES / f"gallery-{section}.webp", quality=88, method=6)
        lines += ["", f"## {title}", "", f"![{', '.join(prompts)}](pictures/gallery-{section}.webp)"]
    styles = card.conditioners["style"]
    sheet = _sheet([_picture(generate, "a red apple", seed, style=s) for s in track(styles, "styles")], styles)
    sheet.save(PICTURES / "gallery-styles.webp", quality=88, method=6)
    lines += ["", "## One prompt in every style: a red apple", "", "![ten styles](pictures/gallery-styles.webp)"]
    (HERE / "gallery.md").write_text("\n".join(lines) + "\n")
    readme = [_picture(generate, p, seed) for p in track(README_PROMPTS, "README")]
    _sheet(readme, README_PROMPTS).save(PICTURES / "readme.webp", quality=90, method=6)


def _picture(generate: perrin.Generator, prompt: str, seed: int, **options: object) -> Image.Image:
    value = generate(prompt, seed=seed, **options)[0].value
    return Image.fromarray(value).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _sheet(pictures: list[Image.Image], labels: list[str] | tuple[str, ...]) -> Image.Image:
    """Pictures in a grid, each over its label in at most two lines."""
    rows = -(-len(pictures) // COLUMNS)
    width = SIDE + 12
    sheet = Image.new("RGB", (COLUMNS * width, rows * (SIDE + LABEL + 6)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10.5)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % COLUMNS * width + 6, number // COLUMNS * (SIDE + LABEL + 6) + 4
        sheet.paste(picture, (x, y))
        for line, part in enumerate(_wrap(draw, label, font, width - 4)):
            left = x + (SIDE - draw.textlength(part, font=font)) / 2
            draw.text((left, y + SIDE + 2 + 12 * line), part, fill="#444", font=font)
    return sheet


def _wrap(
    draw: ImageDraw.ImageDraw, label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines = [""]
    for word in label.split():
        wider = f"{lines[-1]} {word}".strip()
        if draw.textlength(wider, font=font) <= width:
            lines[-1] = wider
        else:
            lines.append(word)
    return lines[:2]


if __name__ == "__main__":
    main()
