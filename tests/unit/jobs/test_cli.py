from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from jobs import cli
from pipeline.errors import ConfigError
from pipeline.model.checkpoint import read_header
from tests.conftest import SHARED
from tests.contracts import broken_contract
from tests.factories import parity_inputs, published_state


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(list(words))
    out, err = capfd.readouterr()
    assert broken_contract(json.loads(out)) == []
    return code, json.loads(out), err


def test_files_and_settings_are_told_apart() -> None:
    files, settings = cli.split_words(["a=b.yaml", "x/y=z.pth", "c.yaml", "k.l=1"], ["ONE", "TWO"])
    assert files == ["x/y=z.pth", "c.yaml"]
    assert settings == ["a=b.yaml", "k.l=1"]
    with pytest.raises(ConfigError, match=r"needs 1 file \(CONFIG\.yaml\), got 0"):
        cli.split_words(["k=1"], ["CONFIG.yaml"])


def test_a_word_in_brackets_may_be_left_out() -> None:
    assert cli.split_words(["k=1"], ["[COMMAND]"]) == ([], ["k=1"])
    assert cli.split_words(["swap"], ["[COMMAND]"]) == (["swap"], [])
    with pytest.raises(ConfigError, match=r"needs 0 to 1 file \(\[COMMAND\]\), got 2"):
        cli.split_words(["swap", "train"], ["[COMMAND]"])


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_its_settings(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "settings:" in capsys.readouterr().out


def test_a_dry_run_may_be_asked_for_anywhere_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        ["demo", "--dry-run", "scenes=3"],
        ["demo", "scenes=3", "--dry-run"],
        ["--dry-run", "demo", "scenes=3"],
    ):
        code, result, _ = run(capfd, *words)
        assert (code, result["status"], result["scenes"]) == (0, "planned", 3)
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_job_that_is_given_on_are_told_from_flags(capfd: pytest.CaptureFixture[str]) -> None:
    for flag in (["--address", "http://head:8265"], ["--address=http://head:8265"]):
        code, result, _ = run(capfd, "jobs", "status", *flag)
        assert code == 2
        assert "needs 1 file (ID), got 0" in result["error"]


def test_an_unknown_command_is_wrong_use() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["swop"])
    assert ended.value.code == 2


@pytest.mark.long
@pytest.mark.assets
def test_a_published_file_is_imported_and_exported(
    tmp_path: Path, pack: str, parity: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = json.loads((parity / "keys_inference-224.json").read_text())
    source, checkpoint, onnx = (str(tmp_path / name) for name in ("g.pth", "g.safetensors", "g.onnx"))
    torch.save(published_state(keys), source)
    code, result, err = run(capfd, "import-checkpoint", source, checkpoint, "variant=inference-224", f"encoder={pack}")
    assert code == 0, err
    assert result["parameters"] == 55_051_779
    assert read_header(checkpoint).training["variant"] == "inference-224"

    code, result, err = run(capfd, "export", checkpoint, onnx)
    assert code == 0, err
    crop, embedding = parity_inputs(224)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (output,) = session.run(["result"], {"target": crop.numpy(), "embedding": embedding.numpy()})
    reference = np.load(parity / "reference_inference-224.npz")["output"]
    assert np.abs(output[:, :, ::4, ::4] - reference).max() < 1e-3


@pytest.mark.assets
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["variant=trained-512"], 1, "say variant=inference-224"),
        ([], 2, "variant is needed"),
        (["variant=inference-256"], 2, "'inference-224'"),
    ],
)
def test_an_import_in_doubt_is_refused_and_writes_nothing(
    words: list[str], code: int, says: str, tmp_path: Path, pack: str, parity: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = json.loads((parity / "keys_inference-224.json").read_text())
    source, target = tmp_path / "g.pth", tmp_path / "g.safetensors"
    torch.save({key: torch.zeros(shape) for key, shape in keys.items()}, source)
    got, result, _ = run(capfd, "import-checkpoint", str(source), str(target), f"encoder={pack}", *words)
    assert got == code
    assert says in result["error"]
    assert not target.exists()


@pytest.mark.assets
def test_an_encoder_of_another_length_is_refused(
    tmp_path: Path, parity: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = json.loads((parity / "keys_inference-224.json").read_text())
    torch.save({key: torch.zeros(shape) for key, shape in keys.items()}, tmp_path / "g.pth")
    words = [str(tmp_path / "g.pth"), str(tmp_path / "g.safetensors"), "variant=inference-224"]
    code, result, _ = run(capfd, "import-checkpoint", *words, f"encoder={SHARED / 'assets' / 'models' / 'y1'}")
    assert code == 1
    assert "gives embeddings of 128 numbers, inference-224 takes 512" in result["error"]
