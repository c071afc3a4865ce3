"""insightface model packs: found, checked, described; loaded by insightface itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from pipeline.errors import ModelPackError
from pipeline.media.copies import local_copy
from pipeline.model.onnx_module import ONNXRUNTIME_ERRORS

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis

PACKS_ROOT = "~/.insightface"
FIVE_LANDMARKS = "landmark_2d_5"
"""Task of a landmark network like those of our own packs; insightface's published ones find 106."""

LANDMARK_TASKS = (FIVE_LANDMARKS, "landmark_2d_106")
_LICENCE_FILE = "LICENSE"


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack's networks.

    Attributes:
        folder: where the pack lies.
        detector: path of the detector's ONNX file.
        recogniser: path of the recogniser's ONNX file.
        landmarks: path of the 2D landmark network's ONNX file; None where the pack has none.
        finders: paths of the networks that say where the five landmarks of aligned crops are (`LandmarkFinder`): the
            detector, and a landmark network of five points.
        digest: sha256 over detector and recogniser, hex.
    """

    folder: str
    detector: str
    recogniser: str
    landmarks: str | None
    finders: tuple[str, ...]
    digest: str


def load_face_analysis(models: str, modules: list[str], threads: int, optional: Sequence[str] = ()) -> FaceAnalysis:
    """Insightface's `FaceAnalysis` over a pack, ready to run, with `det_size` left automatic.

    Args:
        models: a folder, its address, or a pack's name, which insightface looks up under `~/.insightface` and
            downloads.
        modules: which tasks to load, for example `["detection"]`.
        threads: CPU threads of each network.
        optional: tasks that are loaded too where the pack has networks for them.

    Raises:
        ModelPackError: no such folder, an empty one, a failed download, or no such task in the pack.
    """
    from insightface.app import FaceAnalysis  # half a second that only those who look for faces spend

    models = local_copy(models)
    _check(models)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        analysis = FaceAnalysis(
            name=models, root=PACKS_ROOT, allowed_modules=[*modules, *optional], sess_options=options
        )
    except AssertionError as error:  # how insightface says that a pack has no detector
        raise ModelPackError(models, "holds no face detector", "Give a complete insightface pack") from error
    except ONNXRUNTIME_ERRORS as error:
        raise ModelPackError(models, f"a network in it cannot be loaded ({error})", "Get the pack anew") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelPackError(
            models,
            f"is no folder, and insightface could not download a pack of that name ({_first_line(error)})",
            f"Give the pack's folder, or unpack it to {PACKS_ROOT}/models/{models}",
        ) from error
    missing = [name for name in modules if name not in analysis.models]
    if missing:
        raise ModelPackError(models, f"holds no network for {', '.join(missing)}", "Give a complete insightface pack")
    analysis.prepare(ctx_id=0 if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else -1)
    return analysis


@lru_cache(maxsize=4)
def find_pack(models: str) -> Pack:
    """The networks of a pack.

    Raises:
        ModelPackError: as `load_face_analysis`.
    """
    networks = load_face_analysis(models, ["detection", "recognition"], 1, optional=LANDMARK_TASKS)
    files = {task: str(network.model_file) for task, network in networks.models.items()}
    detector, recogniser = files["detection"], files["recognition"]
    landmarks = next((files[task] for task in LANDMARK_TASKS if task in files), None)
    finders = tuple(files[task] for task in ("detection", FIVE_LANDMARKS) if task in files)
    digest = hashlib.sha256((file_digest(detector) + file_digest(recogniser)).encode()).hexdigest()
    return Pack(str(networks.model_dir), detector, recogniser, landmarks, finders, digest)


def licence_note(pack: Pack) -> str:
    """What to tell about the right to use a pack: the first line of a licence that lies in it, else insightface's."""
    licence = Path(pack.folder) / _LICENCE_FILE
    if licence.is_file():
        return licence.read_text(encoding="utf-8").splitlines()[0]
    return "insightface's published packs are licensed for non-commercial research only"


def file_digest(path: str) -> str:
    """sha256 of a file, hex."""
    facts = Path(path).stat()
    return _file_digest(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_digest(path: str, size_bytes: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_digest(models: str | None) -> str:
    """sha256 of a pack's recogniser; empty without a pack."""
    return file_digest(find_pack(models).recogniser) if models is not None else ""


def _check(models: str) -> None:
    """Missing and empty folders have no usable error in insightface: look first."""
    folder = Path(models).expanduser()
    if not folder.is_dir():
        if folder.exists() or len(folder.parts) > 1:
            problem = "is a file, not a model pack" if folder.exists() else "no such model pack"
            raise ModelPackError(models, problem, "Give a folder of .onnx files or a pack's name such as buffalo_l")
        folder = Path(PACKS_ROOT).expanduser() / "models" / models
        if not folder.is_dir():
            return
    if not any(folder.glob("*.onnx")) and not any(folder.glob("*.json")):
        raise ModelPackError(str(folder), "holds no .onnx file", "Unpack the whole pack into it, or remove it")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
