"""`simswap evaluate` as a user runs it: real recognisers, Ray, MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from pipeline.config import ModelConfig
from pipeline.faces.packs import find_pack
from pipeline.model.checkpoint import save_checkpoint
from pipeline.model.generator import initialised
from pipeline.portrait_pack import pack_folder
from pipeline.training.build import encoder_reference
from tests.e2e.conftest import Here
from tests.factories import small_dataset

pytestmark = [pytest.mark.ray, pytest.mark.e2e]

MODEL = ModelConfig(crop_size=32, widths=(8, 16), blocks=1, embedding_size=256)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    pack = pack_folder("portraits")
    small_dataset(tmp_path / "set", 8, 3, 32, encoder=find_pack(pack).recogniser)
    for seed in (0, 1):
        weights = initialised(MODEL, seed).state_dict()
        save_checkpoint(str(tmp_path / f"{seed}.safetensors"), weights, MODEL, encoder_reference(pack), {})
    (tmp_path / "evaluate.yaml").write_text("pairs: 12\ngrid: [2, 2]\n")
    given = {
        "data": tmp_path / "set",
        "models": pack,
        "judge": pack_folder("judge"),
        "checkpoint": tmp_path / "0.safetensors",
        "output": tmp_path / "out",
        "tracking.uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    return [str(tmp_path / "evaluate.yaml"), *(f"{name}={value}" for name, value in given.items())]


def test_a_generator_is_measured_once_and_compared_with_another(here: Here, tmp_path: Path, words: list[str]) -> None:
    code, planned, stderr = here(tmp_path, "evaluate", *words, "--dry-run")
    assert (code, planned["people"], planned["pairs"]) == (0, 8, 12), stderr
    assert not (tmp_path / "out").exists()

    code, result, stderr = here(tmp_path, "evaluate", *words)
    assert code == 0, stderr
    written: dict[str, Any] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["figures"] == result["figures"]
    assert written["protocol_digest"] == result["protocol_digest"] == planned["protocol_digest"]
    figures = result["figures"]
    assert {"source_cosine", "owner_cosine", "retrieval", "source_nearer", "self_psnr_db"} <= set(figures)
    assert figures["self_psnr_db"] < 20, "an untrained generator keeps nothing"
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert min(grid.size) > 200
    story = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = story.get_run(result["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(figures)
    assert run.data.tags["protocol_digest"] == result["protocol_digest"]
    assert {a.path for a in story.list_artifacts(run.info.run_id)} == {"evaluation.json", "grid.png"}

    code, again, _ = here(tmp_path, "evaluate", *words)
    assert (code, again["figures"], again["mlflow"]) == (0, figures, result["mlflow"]), "nothing to do"

    other = [f"checkpoint={tmp_path / '1.safetensors'}", f"output={tmp_path / 'other'}"]
    baseline = f"baseline={tmp_path / 'out' / 'evaluation.json'}"
    code, compared, stderr = here(tmp_path, "evaluate", *words, *other, baseline)
    assert code == 0, stderr
    assert compared["differences"]["same_person_cosine"] == 0, "photographs are the same"
    assert compared["differences"]["source_cosine"] == pytest.approx(
        compared["figures"]["source_cosine"] - figures["source_cosine"], abs=2e-6
    )


def test_what_does_not_belong_together_is_refused_in_one_line(here: Here, tmp_path: Path, words: list[str]) -> None:
    wrong = {
        f"judge={pack_folder('portraits')}": "is the recogniser that the generator was trained with",
        f"models={pack_folder('judge')}": "was trained with identity encoder",
        f"baseline={tmp_path / 'evaluate.yaml'}": "is no result of simswap evaluate",
        f"data={tmp_path}": "no prepared set there",
    }
    for word, says in wrong.items():
        code, result, _ = here(tmp_path, "evaluate", *words, word, "--dry-run")
        assert code == 1 if word.startswith(("data", "models")) else code == 2, result
        assert says in result["error"]
