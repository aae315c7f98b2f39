from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import dots
import pytest
from gateway import KEY, NOW, Gateway

from perrin import plugins, transport
from perrin.cli import OWN, PANELS, main
from perrin.wire import WorkerRecord


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    dots.install(monkeypatch, tmp_path / "home")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(transport, "PAUSES", (0.01,))
    return tmp_path / "here"


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    with Gateway() as running:
        monkeypatch.setenv("PERRIN_URL", running.url)
        monkeypatch.setenv("PERRIN_API_KEY", KEY)
        yield running


def run(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(shlex.split(line))
    out, err = capsys.readouterr()
    return code, out, err


needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="runs a model in this process")


@needs_torch
def test_generate_twice_gives_the_same_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "generate dots 'a dot' --seed 7 --size 16 --shape square --bright --layers 1 --layers 2 --out {}"
    assert run(line.format("one.png"), capsys) == (0, "one.png\n", "")
    assert run(line.format("two.png"), capsys)[0] == 0
    assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()
    code, out, _ = run("inspect one.png --json", capsys)
    parameters = json.loads(out)["parameters"]
    assert parameters | {"seed": 7, "size": 16, "shape": "square", "bright": True, "layers": [1, 2]} == parameters
    code, out, _ = run("inspect one.png", capsys)
    assert code == 0
    assert re.search(r"^ +prompt +a dot$", out, re.MULTILINE)


@needs_torch
def test_several_files_are_numbered_unless_one_holds_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate dots dot --count 2 --seed 1 --out a.png", capsys)[1].split() == ["a-0.png", "a-1.png"]
    assert run("generate dots dot --count 2 --seed 1 --out a.dots", capsys)[1].split() == ["a.dots"]
    assert run("generate dots dot --seed 2 --out b.png", capsys)[0] == 0
    assert (folder / "a-1.png").read_bytes() == (folder / "b.png").read_bytes()


BAD = [
    ("generate", "modality: "),
    ("generate nope x --out x.png", "modality: .*one of dots"),
    ("generate dots --out x.png", "prompt: "),
    ("generate dots '' --out x.png", "prompt: "),
    (f"generate dots {'x' * 200} --out x.png", r"prompt: .*characters.*1 to 100"),
    ("generate dots x", "out: "),
    ("generate dots x --out x", "out: .*png"),
    ("generate dots x --out x.exe", "format: .*png, dots"),
    ("generate dots x --out no/such/x.png", "out: .*no folder"),
    ("generate dots x --out folder.png", "out: .*folder"),
    ("generate dots x --out x.png --steps 0", r"steps: got 0, wanted an integer of at least 1 and at most 1000"),
    ("generate dots x --out x.png --steps 1000000", "steps: "),
    ("generate dots x --out x.png --steps many", "steps: got 'many'"),
    ("generate dots x --out x.png --guidance nan", "guidance: "),
    ("generate dots x --out x.png --guidance -1", "guidance: "),
    ("generate dots x --out x.png --size 65", "size: .*64"),
    ("generate dots x --out x.png --shape oval", "shape: .*round"),
    ("generate dots x --out x.png --layers one", "layers.0: "),
    ("generate dots x --out x.png --seed -1", "seed: "),
    ("generate dots x --out x.png --count 65", "count: "),
    ("generate dots x --out x.png --model nope", "model: .*one of dots-8"),
    ("generate dots x --out x.png --sampler magic", "sampler: .*one of "),
    ("generate dots x --out x.png --device abacus", "device: .*cpu"),
    ("generate dots x --out x.png --colour red", "no such option"),
    ("generate dots x y --out x.png", "got unexpected extra argument"),
    ("nope", "no such command 'nope'"),
    ("jobs --nope", "no such option"),
    ("jobs --state nope", "state: .*queued"),
    ("jobs --limit 0", "invalid value for '--limit'"),
    ("job", "missing argument"),
    ("models show nope", "model: .*one of dots-8"),
    ("models nope", "no such command"),
    ("inspect none.png", "none.png: no such file"),
    ("inspect text.txt", "file: .*PNG"),
    ("inspect plain.png", "plain.png: a PNG, but nothing"),
    ("inspect cut.png", "file: .*cut short"),
    ("train image/emoji --set steps", "set: .*KEY=VALUE"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    (folder / "folder.png").mkdir()
    (folder / "text.txt").write_text("text")
    (folder / "plain.png").write_bytes(dots.png({}))
    (folder / "cut.png").write_bytes(dots.png({})[:40])
    before = sorted(folder.rglob("*"))
    code, out, err = run(line, capsys)
    assert code == 2, err
    assert out == ""
    assert re.search(f"^perrin: {message}", err)
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_may_not_be_written_is_said_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).resolve() != folder.resolve())
    code, _, err = run("generate dots x --out x.png", capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "out: " in err


@needs_torch
def test_a_full_disk_is_said_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERRIN_MIN_FREE_MB", str(10**12))
    code, _, err = run("generate dots x --out x.png", capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "disk nearly full" in err


@needs_torch
@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [("interrupt", 130, "interrupted"), ("nothing", 1, "the result is empty"), ("crash", 1, "internal error")],
)
def test_what_goes_wrong_while_working_is_one_line_too(
    folder: Path, capsys: pytest.CaptureFixture[str], prompt: str, code: int, message: str
) -> None:
    found, out, err = run(f"generate dots {prompt} --out x.png", capsys)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"perrin: {message}")
    assert not list(folder.iterdir())


def test_without_torch_generate_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run("generate dots x --out x.png", capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'perrin[run]'" in err
    assert run("version", capsys)[0] == run("models", capsys)[0] == 0
    assert not list(folder.iterdir())


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_DEBUG", "1")
    with pytest.raises(Exception, match="one of dots"):
        main(["generate", "nope"])


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_PORT", "many")
    code, _, err = run("jobs", capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("perrin: PERRIN_PORT: got 'many'")


def test_help_of_a_modality_shows_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "submit"):
        code, out, _ = run(f"{command} dots --help", capsys)
        assert code == 0
        for text in ("--seed", "--size", "--layers", "--bright", "round|square", "--out", "[sic]", "PROMPT"):
            assert text in out
    assert "dots" in run("generate --help", capsys)[1]


def test_submit_wait_and_save(folder: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("submit dots 'a dot' --seed 7 --label mine --priority 3", capsys)
    assert (code, out) == (0, "job0\n")
    assert gateway.jobs["job0"].parameters["seed"] == 7
    gateway.once_there("job1", gateway.run)
    code, out, err = run("submit dots 'a dot' --out out", capsys)
    assert (code, out, err) == (0, "out/job1-0.png\n", "job1\n")
    gateway.once_there("job2", gateway.run)
    assert run("submit dots dot --count 2 --out x.png", capsys)[1].split() == ["x-0.png", "x-1.png"]
    assert (folder / "x-1.png").read_bytes() == gateway.files["job2-1"]


def test_the_gateway_refuses_with_the_same_words(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    here = run("generate dots x --out x.png --steps 0", capsys)
    there = run("submit dots x --steps 0", capsys)
    assert there == here
    assert run("submit nope x", capsys)[2].startswith("perrin: modality: got 'nope', wanted one of dots")
    code, _, err = run("submit dots x --out no/such/x.png", capsys)
    assert (code, err[:13]) == (2, "perrin: out: ")
    assert not gateway.jobs


def test_a_failed_job_is_one_line(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.once_there("job0", lambda job_id: gateway.fail(job_id, "the picture is black"))
    code, out, err = run("submit dots x --wait", capsys)
    assert (code, out) == (1, "job0\n")
    assert err == "perrin: job job0 failed: the picture is black\n"
    assert run("job job0 --watch", capsys)[0] == 1


def test_ctrl_c_while_waiting_leaves_the_job(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perrin.progress.StageBar.update", interrupt)
    code, out, err = run("submit dots x --wait", capsys)
    assert (code, out, err.count("\n")) == (130, "job0\n", 1)
    assert "perrin cancel job0" in err
    assert not gateway.jobs["job0"].state.terminal


def test_lists_and_details(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jobs", capsys) == (0, "", "no jobs; make one with `perrin submit`\n")
    assert run("workers", capsys)[1] == ""
    gateway.workers.append(
        WorkerRecord(
            id="worker-1",
            host="box",
            device="cpu",
            pool="cpu",
            state="idle",
            jobs=[],
            models=["dots-8"],
            started_at=NOW,
            seen_at=NOW,
            finished_jobs=3,
            memory_mb=512.0,
        )
    )
    run("submit dots 'a [red] dot'", capsys)
    run("submit dots 'a blue dot'", capsys)
    gateway.run("job0")
    _, out, _ = run("jobs", capsys)
    assert out.index("job1") < out.index("job0")
    assert "a [red] dot" in out
    assert "succeeded" in out
    _, out, _ = run("jobs --search blue --json", capsys)
    assert [record["id"] for record in json.loads(out)] == ["job1"]
    _, out, _ = run("job job0", capsys)
    assert "worker-1" in out
    assert "0.png" in out
    assert json.loads(run("job job0 --json", capsys)[1])["state"] == "succeeded"
    assert run("cancel job1", capsys)[1] == "job1 cancelled\n"
    assert run("cancel job1", capsys)[::2] == (2, "perrin: job job1 has ended already\n")
    assert run("job nope", capsys)[2] == "perrin: no job nope\n"
    _, out, _ = run("workers", capsys)
    assert "512 MiB" in out
    assert json.loads(run("workers --json", capsys)[1])[0]["id"] == "worker-1"


def test_no_platform_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("jobs", capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "perrin up" in err


def test_models(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("models", "models list", "models show dots-8"):
        code, out, _ = run(line, capsys)
        assert code == 0
        assert "CC0-1.0" in out
    assert run("models card dots-8", capsys)[1] == dots.CARD
    assert run("models verify", capsys)[1] == "dots-8: 0 files as their card says\n"
    assert run("models remove dots-8", capsys)[0] == 0
    assert not (tmp_path / "home" / "models" / "dots-8").exists()
    assert run("models verify dots-8", capsys)[0] == 2


def test_doctor_says_what_to_do(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("doctor", capsys)
    assert code == 1
    assert "start a worker" in out
    monkeypatch.delenv("PERRIN_URL")
    code, out, _ = run("doctor", capsys)
    assert code == 0, out
    assert "perrin up" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version", capsys)[1] == run("version", capsys)[1].split("\n")[0].split()[1] + "\n"


def test_every_command_is_on_the_help_page(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--help", capsys)
    assert code == 0
    for name in {*OWN, *plugins.commands()}:
        assert re.search(rf"^│ {name} ", out, re.MULTILINE), name
    for names in PANELS.values():
        assert set(names) <= {*OWN, *plugins.commands()}
    assert run("", capsys)[1] == out


def test_a_command_that_cannot_be_imported_breaks_no_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EntryPoint("broken", "no_such_package:command", "perrin.commands")
    monkeypatch.setattr(plugins, "commands", lambda: {"broken": broken})
    assert "broken" in run("--help", capsys)[1]
    code, _, err = run("broken", capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "no_such_package" in err


def test_starting_loads_nothing_heavy() -> None:
    code = (
        "import sys; from perrin.cli import main; main(['--help']);"
        "print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "transformers", "streamlit", "sqlalchemy", "celery", "fastapi", "httpx", "PIL", "pandas"}
    assert not heavy & set(done.stderr.split())
    assert "pydantic_settings" not in done.stderr.split()
