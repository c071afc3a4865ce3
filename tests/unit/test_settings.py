from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import VARIANTS, EvaluateConfig, ModelConfig, PrepareConfig, Section, SwapConfig, TrainConfig
from pipeline.errors import ConfigError
from pipeline.settings import load_settings

NEEDED = ["inputs=in", "output=out", "source=s.jpg", "checkpoint=c.safetensors", "models=pack"]
KINDS: dict[str, tuple[type[Section], list[str]]] = {
    "swap": (SwapConfig, NEEDED),
    "prepare": (PrepareConfig, ["inputs=in", "output=out", "models=pack"]),
    "train": (TrainConfig, ["data=set", "output=out", "models=pack"]),
    "evaluate": (EvaluateConfig, ["data=set", "checkpoint=g", "models=pack", "judge=other", "output=out"]),
}
ROOT = Path(__file__).resolve().parents[2]


def load(*words: str, path: str | None = None) -> SwapConfig:
    return load_settings(SwapConfig, path, [*NEEDED, *words])


def test_a_word_beats_the_file_and_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "swap.yaml"
    file.write_text("swapper: {batch_size: 3, precision: bfloat16}\n")
    settings = load("swapper.batch_size=5", path=str(file))
    assert (settings.swapper.batch_size, settings.swapper.precision, settings.swapper.device) == (5, "bfloat16", "auto")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("swapper.batchsize=3", "no setting 'swapper.batchsize'; did you mean 'swapper.batch_size'?"),
        ("batch_size=3", "did you mean 'swapper.batch_size'?"),
        ("polcy.no_face=copy", "did you mean 'policy.no_face'?"),
        ("swapper.batch_size=0", "swapper.batch_size=0: input should be greater than 0"),
        ("policy.no_face=ignore", "'fail', 'drop', 'blur' or 'copy'"),
        ("swapper", "not a setting"),
        ("swapper.batch_size.x=3", "no setting 'swapper.batch_size.x'"),
        ("mask.erode=0.45", "mask.feather: with erode 0.45 it must be below 0.05"),
        ("analysis.confident_score=0.3", "0.5 or more would do"),
        ("output=in/here", "overlaps inputs in; choose a folder beside it"),
        ("selection.mode=mapping", "exactly when mode is mapping"),
        ("checkpoint=null", "checkpoint: needed; make one with simswap import-checkpoint"),
        ("models=null", "models: needed to find faces"),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(word: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(word)
    assert says in str(caught.value)


def test_an_unknown_key_in_a_file_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "swap.yaml"
    file.write_text("swapper: {batchsize: 3}\n")
    with pytest.raises(
        ConfigError, match=r"swap\.yaml: no setting 'swapper\.batchsize'; did you mean 'swapper\.batch_size'"
    ):
        load(path=str(file))


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "a: &x [*x"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "swap.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"swap\.yaml"):
        load(path=str(file))


def test_everything_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(SwapConfig, None, [])
    assert all(f"add {name}=" in str(caught.value) for name in ("inputs", "output", "source"))


def test_text_stays_text() -> None:
    assert load("source=007").source == "007"
    assert load("tracking.run_name=1e3").tracking.run_name == "1e3"
    assert load("tracking.run_name=null").tracking.run_name is None


@given(st.integers(1, 10**6), st.sampled_from(["float32", "bfloat16", "float16"]), st.booleans())
def test_settings_come_back_from_yaml(batch: int, precision: str, passthrough: bool) -> None:
    settings = load(
        f"swapper.batch_size={batch}", f"swapper.precision={precision}", f"swapper.passthrough={passthrough}"
    )
    again = SwapConfig.model_validate(yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json"))))
    assert again == settings


def test_a_crop_size_that_does_not_fit_the_stages_names_one_that_does() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        ModelConfig(widths=())
    with pytest.raises(ValueError, match="225 is not a multiple of 8; 224 would do"):
        ModelConfig(crop_size=225)
    assert all(ModelConfig.model_validate_json(m.model_dump_json()) == m for m in VARIANTS.values())


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_file_is_valid_and_repeats_no_default(path: Path) -> None:
    kind, needed = KINDS[path.stem.partition("-")[0]]
    shipped = yaml.safe_load(path.read_text()) or {}
    default, settings = (load_settings(kind, file, needed).model_dump() for file in (None, str(path)))
    for section, values in shipped.items():
        for name in values:
            assert settings[section][name] != default[section][name], f"{section}.{name}"


def test_wrong_settings_fail_in_under_a_second_without_ray_or_torch() -> None:
    code = (
        "import sys; from jobs.cli import main; code = main(['swap', 'jobs/configs/swap.yaml', 'swapper.batchsize=3']);"
        "heavy = {'ray', 'torch', 'mlflow', 'insightface', 'cv2'} & set(sys.modules); sys.exit(10 if heavy else code)"
    )
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "did you mean 'swapper.batch_size'?" in done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - start.ru_utime - start.ru_stime < 1.0, "of processor time"
