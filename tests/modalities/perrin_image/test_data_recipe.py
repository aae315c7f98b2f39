"""Laws of names, captions, fetching and of the pack as a whole, on a handful of drawings and without a network."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perrin.errors import InvalidInput, PerrinError
from perrin.training.data.archives import Source, extract, fetch
from perrin_image.data import recipe
from perrin_image.data.captions import (
    article,
    captions_for,
    clean,
    colour_words_in,
    mirror_ok,
    recoloured_captions,
    without_colours,
)
from perrin_image.data.clipart import title_of
from perrin_image.data.fetch import SOURCES
from perrin_image.data.large import open_large, prepare_large
from perrin_image.data.pack import open_pack, write_pack
from perrin_image.data.render import premultiplied
from perrin_image.data.sets import SETS, read_iconify
from perrin_image.data.sheet import contact_sheet
from perrin_image.data.vocabulary import Concept, Vocabulary, load_vocabulary

LABELS = [
    ("1F34E", "red apple", ["apple", "fruit"], "🍎", 4, 41),
    ("1F697", "automobile", ["car"], "🚗", 5, 54),
    ("1F680", "rocket", ["space"], "🚀", 5, 56),
    ("2764-FE0F", "red heart", ["heart"], "❤️", 0, 14),
    ("27A1", "right arrow", ["arrow"], "➡", 8, 80),
    ("1F468-200D-1F680", "man astronaut", ["astronaut"], "👨‍🚀", 1, 25),
]
GROUPS = ((0, "smileys-emotion"), (1, "people-body"), (4, "food-drink"), (5, "travel-places"), (8, "symbols"))
SUBGROUPS = (
    *((14, "heart"), (25, "person-role"), (41, "food-fruit"), (54, "transport-ground"), (56, "transport-air")),
    (80, "arrow"),
)


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """The unpacked packages in miniature."""
    names = tmp_path / "emojibase/package/en"
    (names / "shortcodes").mkdir(parents=True)
    rows = [
        {"hexcode": h, "label": label, "tags": tags, "emoji": e, "group": g, "subgroup": s}
        for h, label, tags, e, g, s in LABELS
    ]
    (names / "data.json").write_text(json.dumps(rows))
    messages = {
        "groups": [{"order": o, "key": k} for o, k in GROUPS],
        "subgroups": [{"order": o, "key": k} for o, k in SUBGROUPS],
    }
    (names / "messages.json").write_text(json.dumps(messages))
    for dialect in ("cldr", "emojibase", "github", "iamcal", "joypixels", "emojibase-legacy"):
        content = {"1F697": ["car", "red_car"]} if dialect == "github" else {}
        (names / f"shortcodes/{dialect}.json").write_text(json.dumps(content))
    library = tmp_path / "emojilib/package/dist"
    library.mkdir(parents=True)
    (library / "emoji-en-US.json").write_text(json.dumps({"🚀": ["rocket", "launch"]}))
    icons = tmp_path / "iconify/package/json"
    icons.mkdir(parents=True)
    red, blue, gray = (f'<circle cx="8" cy="8" r="7" fill="{c}"/>' for c in ("#dd2e44", "#3b88c3", "#ccd6dd"))
    body = {
        "red-apple": red + '<path d="M8 4q1-3 4-3q0 3-4 3z" fill="#77b255"/>',
        "red-car": '<rect x="1" y="5" width="14" height="6" fill="#dd2e44"/>' + gray.replace('r="7"', 'r="2"'),
        "rocket": '<path d="M8 1Q12 5 11 14H5Q4 5 8 1z" fill="#d5d8de"/>',
        "red-heart": red,
        "right-arrow": '<path d="M1 6h7V2l7 6l-7 6v-4H1z" fill="#3b88c3"/>',
        "man-astronaut": blue,
        "man-astronaut-dark-skin-tone": gray,
        "flag-france": blue,
        "blank": "",
    }
    file = {"icons": {name: {"body": text} for name, text in body.items()}, "width": 16, "height": 16}
    for emoji_set in SETS:
        (icons / f"{emoji_set.name}.json").write_text(json.dumps(file))
    (tmp_path / "webp/package/assets").mkdir(parents=True)
    clips = tmp_path / "clips/usr/share/openclipart/svg/food"
    clips.mkdir(parents=True)
    (clips / "nonsense_01.svg").write_text("<svg><dc:title>xqzzt 17</dc:title>PublicDomain</svg>")
    return {
        "emojibase-data": tmp_path / "emojibase",
        "emojilib": tmp_path / "emojilib",
        "@iconify/json": tmp_path / "iconify",
        "@lobehub/fluent-emoji-3d": tmp_path / "webp",
        "openclipart-svg": tmp_path / "clips",
    }


@pytest.fixture
def vocabulary(packages: dict[str, Path]) -> Vocabulary:
    return load_vocabulary(
        packages["emojibase-data"] / "package/en", packages["emojilib"] / "package/dist/emoji-en-US.json"
    )


def concept_of(vocabulary: Vocabulary, name: str) -> Concept:
    concept = vocabulary.by_name(name)
    assert concept is not None
    return concept


def test_all_names_of_a_thing_lead_to_it(vocabulary: Vocabulary) -> None:
    assert {concept_of(vocabulary, n).label for n in ("car", "red-car", "RED CAR", "automobile")} == {"automobile"}
    assert vocabulary.by_code("2764-fe0f") == vocabulary.by_code("2764")
    assert vocabulary.by_name("nothing of the kind") is None


def test_sets_leave_out_tones_and_flags_and_count_them(packages: dict[str, Path], vocabulary: Vocabulary) -> None:
    dropped: Counter[str] = Counter()
    path = packages["@iconify/json"] / "package/json/noto.json"
    ids = {drawing.id for drawing in read_iconify(path, SETS[0], vocabulary, dropped)}
    assert "noto/man-astronaut-dark-skin-tone" not in ids
    assert "noto/flag-france" not in ids
    assert dropped == {"skin-tone variant": 1, "letter, digit or country flag": 1}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rocket", "a rocket"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("grapes", "grapes"),
        ("glass of milk", "a glass of milk"),
        ("men with bunny ears", "men with bunny ears"),
        ("men wrestling", "men wrestling"),
        ("bus", "a bus"),
        ("bacon", "bacon"),
    ],
)
def test_articles(name: str, wanted: str) -> None:
    assert article(name) == wanted


def test_cleaning_is_idempotent_and_lower_case() -> None:
    text = clean("A_Man:  Curly HAIR!")
    assert text == "a man, curly hair"
    assert clean(text) == text


def test_captions_start_with_the_label_and_do_not_repeat(vocabulary: Vocabulary) -> None:
    captions = captions_for(concept_of(vocabulary, "car"), ["red car"], "red", vocabulary)
    assert captions[:2] == ["automobile", "an automobile"]
    assert {"car", "red automobile"} <= set(captions)
    assert 2 <= len(captions) == len(set(captions)) <= 8
    assert all(caption == clean(caption) for caption in captions)


def test_a_caption_names_no_colour_that_is_not_seen(vocabulary: Vocabulary) -> None:
    blue = captions_for(concept_of(vocabulary, "car"), ["red car"], "blue", vocabulary)
    assert {word for caption in blue for word in colour_words_in(caption)} == {"blue"}
    green = captions_for(concept_of(vocabulary, "red apple"), ["red apple"], "green", vocabulary)
    assert green[0] == "green apple"
    assert not any("red" in caption for caption in green)


@pytest.mark.parametrize("names", [["red apple", "an apple"], ["automobile", "car"], ["heart"]])
def test_recoloured_captions_all_carry_the_one_new_colour(names: list[str]) -> None:
    captions = recoloured_captions(names, "blue")
    assert captions
    assert all(colour_words_in(caption) == ["blue"] for caption in captions)


@pytest.mark.parametrize("name", ["orange", "blueberries", "red"])
def test_names_that_are_colours_cannot_be_recoloured(name: str) -> None:
    assert recoloured_captions([name], "green") == []


def test_without_colours() -> None:
    assert without_colours("red apple") == "apple"
    assert without_colours("rocket") == "rocket"


def test_arrows_and_sides_are_not_mirrored(vocabulary: Vocabulary) -> None:
    assert not mirror_ok(["right arrow"], concept_of(vocabulary, "right arrow"))
    assert not mirror_ok(["magnifying glass tilted left"], None)
    assert mirror_ok(["rocket", "a rocket"], concept_of(vocabulary, "rocket"))


@pytest.mark.parametrize(
    ("title", "stem", "wanted"),
    [
        ("Red Apple", "apple_01", "red apple"),
        ("Casa verde", "casa_01", "green house"),
        ("Clipart by Somebody - rocket", "car_01", "car"),
        ("Untitled 7", "x17", None),
        ("Map of Italy", "map", None),
    ],
)
def test_clipart_titles(vocabulary: Vocabulary, title: str, stem: str, wanted: str | None) -> None:
    known = replace(vocabulary, words=vocabulary.words | {"house", "italy"})
    assert title_of(f"<dc:title>{title}</dc:title>", f"{stem}.svg", known) == wanted


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_file_is_fetched_once_checked_and_unpacked(tmp_path: Path) -> None:
    content = archive_of({"package/a.json": b"{}", "package/b.bin": b"x"})
    item = Source("npm", "@a/b", "1.0", hashlib.sha256(content).hexdigest(), ("package/a",))
    calls: list[str] = []

    def download(source: Source, folder: Path) -> Path:
        calls.append(source.package)
        (folder / "file").write_bytes(content)
        return folder / "file"

    archives = [fetch(item, tmp_path / "downloads", download) for _ in range(2)]
    assert calls == ["@a/b"]
    folder = extract(item, archives[0], tmp_path / "unpacked")
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["a.json"]


def test_another_file_than_the_pinned_one_is_refused_and_removed(tmp_path: Path) -> None:
    item = replace(SOURCES[0], sha256="0" * 64)

    def download(source: Source, folder: Path) -> Path:
        (folder / "file").write_bytes(b"something else")
        return folder / "file"

    with pytest.raises(PerrinError, match="SHA-256"):
        fetch(item, tmp_path, download)
    assert list(tmp_path.iterdir()) == []


def test_pins_are_complete() -> None:
    assert all(len(item.sha256) == 64 and item.version and item.members for item in SOURCES)
    assert abs(sum(emoji_set.share for emoji_set in SETS) - 1) < 1e-9
    assert {row[2] for row in recipe.attributions()} <= {"MIT", "Apache-2.0", "CC-BY-4.0", "public domain"}


@pytest.fixture
def built(packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(recipe, "unpacked", lambda item, folder: packages[item.package])
    monkeypatch.setattr(recipe, "SETS", (SETS[0], *(s for s in SETS if s.style in {"3d", "clipart"})))
    return recipe.prepare(tmp_path / "cache", pack=tmp_path / "pack")


def test_the_pack_holds_what_it_should(built: Path, tmp_path: Path) -> None:
    pack = open_pack(built)
    originals = [record for record in pack.records if not record.recoloured]
    copies = [record for record in pack.records if record.recoloured]
    assert {record.name for record in originals} == {
        *("red apple", "automobile", "rocket", "red heart", "right arrow", "man astronaut")
    }
    assert copies
    assert all(record.colour in set(colour_words_in(caption)) for record in copies for caption in record.captions)
    assert not any(record.name == "man astronaut" for record in copies)
    assert len({record.id for record in pack.records}) == len(pack.records)
    assert (pack.pictures[..., 3].max((1, 2)) == 255).all()
    report = json.loads((built / "report.json").read_text())
    assert report["pictures"] == len(pack.records)
    assert report["styles"]["noto"]["dropped"]["cannot be drawn"] == 1
    assert contact_sheet(built, tmp_path / "sheet.png", 4).stat().st_size > 1000


def test_a_second_run_uses_what_is_there(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("rendered again")

    before = (built / "records.jsonl").read_bytes(), (built / "pictures.npy").read_bytes()
    monkeypatch.setattr(recipe, "ProcessPoolExecutor", never)
    assert recipe.prepare(tmp_path / "cache", pack=built) == built
    (built / "report.json").unlink()
    recipe.prepare(tmp_path / "cache", pack=built)
    assert before == ((built / "records.jsonl").read_bytes(), (built / "pictures.npy").read_bytes())


def test_the_large_pack_is_of_the_same_pictures(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = open_pack(built)
    folder = prepare_large(tmp_path / "cache", lambda *_: None)
    large = open_large(folder)
    assert large.records == tuple(record for record in small.records if not record.recoloured)
    assert large.pictures.shape == (len(large.records), 256, 256, 4)
    numbers = [small.records.index(record) for record in large.records]
    apart = np.abs(premultiplied(large.small) - premultiplied(small.pictures[numbers]))
    assert apart.mean((1, 2, 3)).max() < 0.02, "centred up to half a pixel elsewhere"
    monkeypatch.setattr("perrin_image.data.large.write_large", None)
    assert prepare_large(tmp_path / "cache", lambda *_: None) == folder


def test_an_incomplete_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"report\.json"):
        open_pack(tmp_path)
    with pytest.raises(InvalidInput, match="N records"):
        write_pack(tmp_path, np.zeros((1, 64, 64, 4), np.uint8), [], {}, "")
