"""Data that people have: every kind is read from real files, and what cannot be used is dropped with its reason."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from perrin.errors import InvalidInput
from perrin.training.data import (
    AUDIO,
    MOLECULES,
    PICTURES,
    SHAPES,
    Item,
    Report,
    open_pack,
    pack,
    read_folder,
    read_molecules,
    read_shards,
    read_source,
)
from perrin.training.data.decoders import audio, molecule, picture, shape
from perrin.training.data.pack import Decoded, Near


def drawing(seed: int, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """Something with large shapes, as pictures have."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    drawing(0).save(folder / "red cat.png")
    (folder / "red cat.txt").write_text("a red cat\n\na  cat on a mat\n")
    drawing(1).save(folder / "more" / "b.jpg", quality=90)
    drawing(2).convert("CMYK").save(folder / "c.jpeg", quality=90)
    drawing(3).save(folder / "d.webp", lossless=True)
    turned = drawing(4)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.rotate(90, expand=True).save(folder / "e.jpg", exif=exif, quality=95)
    drawing(5).convert("P").save(folder / "f.gif")
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(folder / "g.png")
    (folder / "copy of red cat.png").write_bytes((folder / "red cat.png").read_bytes())
    drawing(3, (160, 120)).save(folder / "larger d.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    drawing(7, (9, 9)).save(folder / "tiny.png")
    (folder / "link.png").symlink_to(folder / "f.gif")
    (folder / "notes.md").write_text("no picture")
    return folder


def test_a_folder_of_pictures_becomes_a_pack(pictures: Path, tmp_path: Path) -> None:
    report = Report()
    made = pack(read_source(pictures, PICTURES, report), picture(32), tmp_path / "pack", report)
    assert [record.name for record in made.records] == [
        "c.jpeg", "copy of red cat.png", "d.webp", "e.jpg", "f.gif", "g.png", "more/b.jpg",
    ]  # fmt: skip
    assert report.read == 11
    assert report.kept == 7
    assert report.dropped == {
        "the same bytes as another": 1,
        "nearly the same as another": 1,
        "no picture that can be read (UnidentifiedImageError)": 1,
        "a side shorter than 16 pixels": 1,
        "a link": 1,
    }
    assert "1 dropped, the same bytes as another: red cat.png" in report.text
    pixels = made.arrays["pixels"]
    assert (pixels.shape, pixels.dtype) == ((7, 32, 32, 4), np.uint8)
    assert isinstance(pixels, np.memmap)
    upright = np.asarray(drawing(4).resize((32, 24), Image.Resampling.LANCZOS))
    assert np.abs(pixels[3, 4:28, :, :3].astype(int) - upright).mean() < 8, "its camera's note was followed"
    assert not pixels[3, :4, :, 3].any(), "what is not picture is transparent"
    again = pack(iter(()), picture(32), tmp_path / "pack", Report())
    assert again.records == made.records, "a pack that is there is opened"


def test_captions_from_every_place(pictures: Path) -> None:
    found = {item.name: item for item in read_folder(pictures, PICTURES, Report())}
    assert found["red cat.png"].captions == ("a red cat", "a cat on a mat")
    (pictures / "captions.csv").write_text('file_name,text,artist\nd.webp,"a thing, green",Ann\nd.webp,green thing,\n')
    found = {item.name: item for item in read_folder(pictures, PICTURES, Report())}
    assert found["d.webp"].captions == ("a thing, green", "green thing")
    assert found["red cat.png"].captions == ("a red cat", "a cat on a mat"), "the rest keeps its own"
    (pictures / "captions.csv").unlink()
    rows = [{"file_name": "more/b.jpg", "caption": ["one", "two"], "year": 1999}]
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {item.name: item for item in read_folder(pictures, PICTURES, Report())}
    assert found["more/b.jpg"].captions == ("one", "two")
    assert found["more/b.jpg"].extra["year"] == 1999
    (pictures / "metadata.jsonl").write_text('{"text": "whose?"}\n')
    with pytest.raises(InvalidInput, match=r"row 1.*a column file_name"):
        list(read_folder(pictures, PICTURES, Report()))


def shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    drawing(seed).save(stream, "PNG")
    return stream.getvalue()


def test_webdataset_shards(tmp_path: Path) -> None:
    shard(
        tmp_path / "a.tar",
        {"x/0001.png": png(1), "x/0001.txt": b"first", "x/0002.json": b'{"caption": "lost"}', "x/0003.png": png(2),
         "x/0003.json": b'{"caption": "third", "score": 7}'},
    )  # fmt: skip
    shard(tmp_path / "b.tar", {"0004.png": png(3), "../../0005.png": png(4)})
    report = Report()
    items = list(read_source(tmp_path, PICTURES, report))
    assert [(item.name, item.captions) for item in items] == [
        ("a.tar/x/0001.png", ("first",)),
        ("a.tar/x/0003.png", ("third",)),
        ("b.tar/0004.png", ()),
        ("b.tar/../../0005.png", ()),
    ]
    assert items[1].extra["score"] == 7
    assert items[0].read() == png(1)
    assert (report.read, dict(report.dropped)) == (5, {"no file of this kind in its sample": 1})
    made = pack(iter(items), picture(16), tmp_path / "pack", report)
    assert len(made) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "b.tar", "pack"], "nothing is unpacked anywhere"
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    with pytest.raises(InvalidInput, match="a whole tar file"):
        list(read_shards([tmp_path / "b.tar"], PICTURES, Report()))


def test_sounds(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    at = np.arange(22050) / 22050
    tone = 0.5 * np.sin(2 * np.pi * 440 * at)
    soundfile.write(folder / "a.wav", np.stack([tone, tone], 1), 22050)
    soundfile.write(folder / "b.flac", tone[: 22050 // 2], 22050)
    soundfile.write(folder / "c.ogg", tone, 22050)
    soundfile.write(folder / "silence.wav", 0 * tone, 22050)
    (folder / "d.wav").write_bytes(b"RIFF")
    report = Report()
    made = pack(read_source(folder, AUDIO, report), audio(16000, 0.75), tmp_path / "pack", report)
    assert [record.name for record in made.records] == ["a.wav", "b.flac", "c.ogg"]
    assert report.dropped["silence"] == 1
    assert sum(report.dropped.values()) == 2
    samples = made.arrays["samples"]
    assert [len(samples[i]) for i in range(3)] == [12000, 8000, 12000]
    spectrum = np.abs(np.fft.rfft(samples[0].astype(np.float64)))
    assert abs(spectrum.argmax() * 16000 / 12000 - 440) < 2, "resampled, it has its pitch"


SDF = """
     RDKit          3D

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1173 O   0  0  0  0  0  0  0  0  0  0  0  0
    0.0000    0.7572   -0.4692 H   0  0  0  0  0  0  0  0  0  0  0  0
    0.0000   -0.7572   -0.4692 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
  1  3  1  0
M  END
>  <gap>
0.31

$$$$
"""


def test_molecules(tmp_path: Path) -> None:
    folder = tmp_path / "molecules"
    folder.mkdir()
    (folder / "water.sdf").write_text(SDF + SDF.replace("O  ", "S  "))
    (folder / "methane.xyz").write_text(
        "5\nmethane\nC 0 0 0\nH .63 .63 .63\nH -.63 -.63 .63\nH -.63 .63 -.63\nH .63 -.63 -.63\n"
    )
    (folder / "bad.xyz").write_text("5\n\nC 0 0\n")
    (folder / "many.csv").write_text("name,SMILES,gap\nethanol,CCO,0.2\nnonsense,C(C,1\nbenzene,c1ccccc1,0.25\n")
    report = Report()
    items = list(read_molecules(read_source(folder, MOLECULES, report), report))
    assert [item.name for item in items if item.extra.get("gap")] == [
        "many.csv#0.smiles", "many.csv#1.smiles", "many.csv#2.smiles", "water.sdf#0.mol", "water.sdf#1.mol",
    ]  # fmt: skip
    made = pack(iter(items), molecule, tmp_path / "pack", report)
    assert report.kept == 5
    assert sum(report.dropped.values()) == 2
    found = {record.name: i for i, record in enumerate(made.records)}
    elements, bonds, positions = (made.arrays[name] for name in ("elements", "bonds", "positions"))
    assert elements[found["water.sdf#0.mol"]].tolist() == [8, 1, 1]
    assert elements[found["water.sdf#1.mol"]].tolist() == [16, 1, 1]
    assert bonds[found["water.sdf#0.mol"]].tolist() == [[0, 1, 2], [0, 2, 2]]
    assert positions[found["methane.xyz"]].shape == (5, 3)
    benzene = found["many.csv#2.smiles"]
    assert sorted(elements[benzene].tolist()) == [1] * 6 + [6] * 6
    assert (bonds[benzene][:, 2] == 3).sum() == 6, "an aromatic bond counts one and a half"
    with pytest.raises(InvalidInput, match="a column smiles"):
        list(read_molecules([Item("x.csv", (), lambda: b"a,b\n1,2\n")], Report()))


def test_shapes(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    trimesh.creation.icosphere(radius=5.0).apply_translation([9, 9, 9]).export(folder / "ball.ply")
    trimesh.creation.box((2, 1, 1)).export(folder / "box.obj")
    trimesh.PointCloud(np.random.default_rng(0).standard_normal((50, 3))).export(folder / "cloud.ply")
    (folder / "broken.obj").write_text("f 1 2 3\n")
    report = Report()
    made = pack(read_source(folder, SHAPES, report), shape(256), tmp_path / "pack", report)
    assert [record.name for record in made.records] == ["ball.ply", "box.obj", "cloud.ply"]
    points = made.arrays["points"]
    assert points.shape == (3, 256, 3)
    radii = np.linalg.norm(points, axis=2)
    np.testing.assert_allclose(radii.max(1), 1.0, atol=1e-5)
    assert radii[0].min() > 0.85, "a ball is round"
    np.testing.assert_allclose(points.mean(1), 0.0, atol=1e-5)


# --- packs ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.data())
def test_near_hashes_are_found_and_others_are_not(values: list[int], data: st.DataObject) -> None:
    near, kept = Near(), []
    for value in values:
        if not near.seen(value):
            kept.append(value)
    for one in kept:
        assert sum((one ^ other).bit_count() <= 3 for other in kept) == 1
    if kept:
        flips = data.draw(st.lists(st.integers(0, 63), max_size=3, unique=True))
        assert near.seen(kept[0] ^ sum(1 << i for i in flips))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "report.json").unlink(), "written last"),
        (lambda f: (f / "records.jsonl").write_text(""), "0 items; delete"),
    ],
)
def test_a_pack_that_is_not_whole_is_refused(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    items = [Item(str(i), (), str(i).encode) for i in range(3)]
    pack(iter(items), lambda data, item: Decoded({"x": np.arange(int(data) + 1)}), tmp_path, Report())
    assert [part.tolist() for part in open_pack(tmp_path).arrays["x"]] == [[0], [0, 1], [0, 1, 2]]
    spoil(tmp_path)
    with pytest.raises(InvalidInput, match=says):
        open_pack(tmp_path)


def test_a_source_without_anything_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a folder with files of these kinds: .*\.png"):
        list(read_source(tmp_path, PICTURES, Report()))
    with pytest.raises(InvalidInput, match="that can be read"):
        read_source(tmp_path / "nowhere", PICTURES, Report())
    (tmp_path / "x.png").write_bytes(b"x")
    report = Report()
    with pytest.raises(InvalidInput, match="1 read, 0 kept"):
        pack(read_source(tmp_path, PICTURES, report), picture(16), tmp_path / "pack", report)
