from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.portrait_test import main
from pipeline.config import ModelConfig
from pipeline.config.portraits import PortraitTestConfig
from pipeline.evaluation.pictures import GAP
from pipeline.evaluation.portraits import Judge, Truths, exact_pairs, run_portrait_test, summarise
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import find_pack
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.generator import initialised
from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.settings import load_settings
from pipeline.training.build import encoder_reference
from tests.factories import ENCODER

PACK, JUDGE = pack_folder("portraits"), pack_folder("judge")
MODEL = ModelConfig(crop_size=64, widths=(8, 16), blocks=1)
PAIRS = 8


def settings(batch_size: int = 4, seed: int = 3) -> PortraitTestConfig:
    return PortraitTestConfig(checkpoint="", models="", judge="", pairs=PAIRS, batch_size=batch_size, seed=seed)


@pytest.fixture(scope="module")
def truths() -> Truths:
    (batch,) = exact_pairs(settings(PAIRS), MODEL)
    return batch


def test_pairs_are_numbered_whatever_the_batch_and_other_seeds_draw_others(truths: Truths) -> None:
    parts = list(exact_pairs(settings(3), MODEL))
    assert [len(part.target) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.swapped for part in parts]), truths.swapped)
    other = next(exact_pairs(settings(seed=4), MODEL))
    assert not torch.equal(other.target, truths.target[:4])


def test_the_true_swap_lies_on_the_target_pixel_by_pixel(truths: Truths) -> None:
    """Where the face is not, nothing changes; inside it much does."""
    change = (truths.swapped - truths.target).abs().mean(dim=1, keepdim=True)
    inside, outside = (change * truths.face).sum() / truths.face.sum(), change[truths.face == 0].mean()
    assert inside > 5 * outside
    assert ((truths.face == 1) | (truths.face == 0)).all()
    assert 0.3 < truths.face.mean() < 0.95


def test_a_perfect_swap_and_no_swap_are_the_two_ends(truths: Truths) -> None:
    judge = Judge(JUDGE, MODEL, torch.device("cpu"))
    perfect, nothing = summarise(judge(truths, truths.swapped)), summarise(judge(truths, truths.target))
    assert perfect["source_nearer"] == perfect["true_source_nearer"] > 0.7
    assert perfect["landmark_error_median"] == perfect["landmark_floor_median"] < 0.1
    assert perfect["landmark_seen_median"] == 0.0
    assert perfect["psnr_gain_db_median"] > perfect["face_psnr_gain_db_median"] * 0.5 > 20
    assert nothing["source_nearer"] == 0.0
    assert nothing["landmark_error_median"] == nothing["landmark_unswapped_median"]
    assert nothing["landmark_seen_median"] == nothing["landmark_seen_unswapped_median"] > 0.03
    assert nothing["psnr_gain_db_median"] == nothing["face_psnr_gain_db_mean"] == 0.0


def test_what_could_not_be_measured_is_not_there(truths: Truths) -> None:
    figures = summarise(Judge(JUDGE, MODEL, torch.device("cpu"))(truths, torch.zeros_like(truths.target)))
    assert figures["landmarks_found"] == 0.0
    assert "landmark_error_median" not in figures
    assert "landmark_floor_median" in figures
    json.dumps(figures, allow_nan=False)


def test_the_job_prints_one_line_and_shows_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = IdentityEncoder(find_pack(PACK).recogniser, "arcface").embedding_size
    model = MODEL.model_copy(update={"embedding_size": size})
    checkpoint, sheet = tmp_path / "g.safetensors", tmp_path / "sheet.png"
    words = [f"checkpoint={checkpoint}", f"models={PACK}", f"judge={JUDGE}", "pairs=3"]

    def save(encoder: EncoderReference) -> None:
        save_checkpoint(str(checkpoint), initialised(model).state_dict(), model, encoder, {})

    save(encoder_reference(PACK))
    assert main([*words, f"sheet={sheet}", "sheet_pairs=2"]) == 0
    out = capsys.readouterr().out
    result = json.loads(out)
    assert out.count("\n") == 1
    assert (result["status"], result["pairs"], result["sheet"]) == ("done", 3, str(sheet))
    assert {"source_nearer", "landmark_floor_median", "face_psnr_gain_db_mean"} <= result.keys()
    assert np.asarray(Image.open(sheet)).shape == (2 * 128 + GAP, 4 * 128 + 3 * GAP, 3)

    save(ENCODER)
    assert main(words) == 1
    assert "was trained with identity encoder none" in json.loads(capsys.readouterr().out)["error"]
    assert main([*words, "pair=3"]) == 2
    assert "did you mean 'pairs'?" in json.loads(capsys.readouterr().out)["error"]


def test_the_shipped_generator_swaps_people_whom_it_has_never_seen() -> None:
    words = [f"checkpoint={shipped_generator()}", f"models={PACK}", f"judge={JUDGE}", "pairs=60"]
    figures = run_portrait_test(load_settings(PortraitTestConfig, None, words)).figures
    assert figures["source_nearer"] >= 0.95
    assert figures["psnr_gain_db_mean"] >= 6.0
    assert figures["landmark_error_mean"] < figures["landmark_unswapped_mean"]
    assert figures["landmark_seen_mean"] < 0.055
    assert figures["landmark_floor_mean"] < 0.035, "the detector itself"
    assert figures["landmarks_found"] == 1.0
