"""Small seeded things that tests are made of."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, checker, helper, numpy_helper, save
from PIL import Image
from torch import Tensor

from pipeline.config import ModelConfig, SwapConfig
from pipeline.faces.alignment import cut_crops
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import file_digest
from pipeline.faces.sources import identities_table
from pipeline.faces.table import write_faces
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.generator import Generator, initialised
from pipeline.preparation.dataset import INDEX_COLUMNS, SHARD_COLUMNS, DatasetHeader, header_json, shard_name
from pipeline.synthetic.people import Appearance, Attributes, Placement, Scene
from pipeline.synthetic.portraits import embedding, render
from pipeline.types import Faces, Floats, Identity

TINY = ModelConfig(crop_size=64, widths=(8, 16), blocks=1)
ENCODER = EncoderReference("none", hashlib.sha256(b"tests").hexdigest())


def published_tensor(key: str, shape: Sequence[int]) -> Tensor:
    """A weight by the formula of `shared/parity/README.md`."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    x: np.ndarray[Any, Any] = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    x = x.astype(np.float32)
    if key.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif key.endswith(("running_mean", "bias")):
        x = 0.05 * x
    elif len(shape) == 1:
        x = 1 + 0.05 * x
    elif len(shape) == 2:
        x = 0.1 * x / np.sqrt(shape[1])
    else:
        x = 1.2 * x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x, np.float32))


def published_state(keys: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A whole state dict by that formula."""
    return {key: published_tensor(key, shape) for key, shape in keys.items()}


def parity_inputs(size: int) -> tuple[Tensor, Tensor]:
    """The crop [1, 3, S, S] and embedding [1, 512] of `shared/parity/README.md`."""
    random = np.random.RandomState(size)
    low = torch.from_numpy(random.rand(1, 3, size // 8, size // 8).astype(np.float32))
    crop = torch.nn.functional.interpolate(low, scale_factor=8, mode="bilinear", align_corners=False)
    vector = random.standard_normal((1, 512)).astype(np.float32)
    return crop, torch.from_numpy(vector / np.linalg.norm(vector))


def unit_vectors(count: int, size: int = 512, seed: int = 0) -> Floats:
    """[count, size] f32 of length one."""
    vectors = np.random.default_rng(seed).standard_normal((count, size))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def landmarks_at(x: float, y: float, eye_distance: float, roll_degrees: float = 0.0) -> Floats:
    """[5, 2] of a frontal face whose eyes' middle is at (x, y)."""
    shape = np.array([[-0.5, 0], [0.5, 0], [0, 0.53], [-0.42, 1.1], [0.42, 1.1]]) * eye_distance
    turn = np.deg2rad(roll_degrees)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(shape @ rotation + (x, y), np.float32)


def textured_frame(height: int = 240, width: int = 320, seed: int = 0) -> Tensor:
    """[3, H, W] u8: a smooth texture, as a photograph is at the scale of a crop."""
    low = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=torch.Generator().manual_seed(seed))
    frame = torch.nn.functional.interpolate(low, size=(height, width), mode="bicubic", align_corners=False)
    return (frame[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)


def scene(crowd: int = 1, seed: int = 0, side: int = 200) -> Scene:
    """Procedural people side by side, with exact landmarks."""
    random = np.random.default_rng(seed)
    people = [
        (Appearance.sample(random), Attributes.sample(random), Placement(side * (i + 0.5), side * 0.45, side * 0.6))
        for i in range(crowd)
    ]
    return render(people, side * crowd, side, seed)


def scene_faces(made: Scene) -> Faces:
    """The exact analysis of a scene."""
    count = len(made.spec.faces)
    vectors = [embedding(appearance) for appearance, _, _ in made.spec.faces]
    score = np.full(count, 0.9, np.float32)
    return Faces(np.zeros(count, np.int64), made.box, made.landmarks, score, np.stack(vectors))


def recogniser_onnx(path: Path, operator: str = "PRelu", size: int = 32) -> str:
    """A small network of a recogniser's operators and shape: [B, 3, 112, 112] to [B, size]."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * 0.1).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["data", "w", "b"], ["c"], strides=[4, 4], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], epsilon=1e-5),
        helper.make_node(operator, ["n", "slope"] if operator == "PRelu" else ["n"], ["p"]),
        helper.make_node("Conv", ["p", "dw"], ["d"], group=8, strides=[4, 4], kernel_shape=[7, 7], name="depthwise"),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "gb"], ["out"], transB=1),
    ]
    variance = numpy_helper.from_array(np.full(8, 1.3, np.float32), "var")
    weights = [
        weight("w", 8, 3, 3, 3), weight("b", 8), weight("scale", 8), weight("shift", 8), weight("mean", 8), variance,
        weight("slope", 8, 1, 1), weight("dw", 8, 1, 7, 7), weight("g", size, 8 * 6 * 6), weight("gb", size),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["B", 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", size])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
    return str(path)


def parser_onnx(path: Path, classes: int, side: int | str = "s") -> str:
    """A network that says class 1 (or probability 1) where red is high, else class 0."""
    weight = np.zeros((classes, 3, 1, 1), np.float32)
    weight[min(1, classes - 1), 0] = 1.0
    bias = (
        np.zeros(classes, np.float32) if classes == 1 else np.array([0.5] + [0.0] + [-9.0] * (classes - 2), np.float32)
    )
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1, 1])
    shape = ["B", 3, side, side]
    graph = helper.make_graph(
        [node],
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", classes, side, side])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return str(path)


def tiny_checkpoint(folder: Path, config: ModelConfig = TINY, generator: Generator | None = None) -> str:
    """A generator, by default an initialised one, as a checkpoint bound to `ENCODER`."""
    path = folder / "tiny.safetensors"
    save_checkpoint(str(path), (generator or initialised(config)).state_dict(), config, ENCODER, {"steps": 0})
    return str(path)


def encode_png(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """[H, W, 3] as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def small_job(root: Path, images: int = 4, **changes: Any) -> SwapConfig:
    """A whole job without any asset: portraits, their analysis table, two sources, a tiny checkpoint."""
    for number in range(images):
        made = scene(1 + number % 2, seed=number)
        add_input(root, f"{number % 3}/{number:04d}.png", encode_png(made.frame), scene_faces(made))
    buffer = io.BytesIO()
    people = [Identity(name, vector) for name, vector in zip("ab", unit_vectors(2, seed=9), strict=True)]
    pq.write_table(identities_table(people), buffer)
    (root / "sources.parquet").write_bytes(buffer.getvalue())
    settings: dict[str, Any] = {
        "inputs": str(root / "in"),
        "output": str(root / "out"),
        "source": str(root / "sources.parquet"),
        "checkpoint": tiny_checkpoint(root),
        "analysis": {"read_table": str(root / "table")},
        "tracking": {"uri": f"sqlite:///{root / 'mlflow.db'}", "contact_sheet": 4},
    }
    return SwapConfig.model_validate(settings | changes)


def add_input(root: Path, item: str, data: bytes, faces: Faces | None) -> None:
    """One more input of a `small_job`, with its rows in the analysis table."""
    path = root / "in" / item
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if faces is not None:
        write_faces(str(root / "table"), [(item, hashlib.sha256(data).hexdigest(), faces)], ENCODER.digest)


def no_faces() -> Faces:
    """The analysis of an image without a face."""
    empty = np.zeros((0, 4), np.float32)
    return Faces(
        np.zeros(0, np.int64), empty, np.zeros((0, 5, 2), np.float32), empty[:, 0], np.zeros((0, 512), np.float32)
    )


def small_dataset(
    folder: Path,
    identities: int = 8,
    photos: int = 3,
    size: int = 64,
    embedding_size: int = 32,
    encoder: str | None = None,
    shard_rows: int = 8,
) -> str:
    """A prepared set of procedural people, well mixed over its shards.

    Args:
        folder: where to; made if it is not there.
        identities: people, `person_000`, …
        photos: of each, with pose, light, hair and clothes of their own.
        size: side of the crops in pixels.
        embedding_size: E of the exact embeddings (`pipeline.synthetic.portraits.embedding`), without an encoder.
        encoder: ONNX file of a recogniser that embeds the crops instead.
        shard_rows: crops of a shard.

    Returns:
        The folder.
    """
    random = np.random.default_rng(7)
    people = [Appearance.sample(random) for _ in range(identities)]
    owner = random.permutation(np.repeat(np.arange(identities), photos))
    made = [portrait(people[who], random) for who in owner]
    frames = [torch.from_numpy(one.frame).permute(2, 0, 1) for one in made]
    crops = torch.cat([cut_crops(f, s.landmarks, "arcface", size).pixels for f, s in zip(frames, made, strict=True)])
    vectors = np.stack([embedding(people[who], embedding_size) for who in owner])
    if encoder is not None:
        with torch.inference_mode():
            vectors = IdentityEncoder(encoder, "arcface")(crops).numpy()
    rows = _dataset_rows(made, crops, vectors, [f"person_{who:03d}" for who in owner])
    _write_dataset(folder, rows, shard_rows, size, ENCODER.digest if encoder is None else file_digest(encoder))
    return str(folder)


def portrait(who: Appearance, random: np.random.Generator, side: int = 128) -> Scene:
    """A photograph of somebody, with pose, light, hair and clothes of its own."""
    look = Appearance.sample(random).with_identity_of(who)
    where = Placement(side / 2, side * 0.48, side * 0.7)
    return render([(look, Attributes.sample(random), where)], side, side, int(random.integers(1 << 31)))


def _dataset_rows(made: Sequence[Scene], crops: Tensor, vectors: Floats, names: Sequence[str]) -> list[dict[str, Any]]:
    pixels = (crops * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [
        {
            "crop": encode_png(pixels[n]),
            "embedding": vectors[n],
            "identity": name,
            "box": made[n].box[0],
            "landmarks": made[n].landmarks[0].reshape(-1),
            "score": 0.9,
            "sharpness": 1.0,
            "yaw": made[n].spec.faces[0][1].yaw,
            "pitch": made[n].spec.faces[0][1].pitch,
            "roll": made[n].spec.faces[0][1].roll,
            "source_path": f"{name}/{n:03d}.png",
            "source_sha256": hashlib.sha256(made[n].frame.tobytes()).hexdigest(),
        }
        for n, name in enumerate(names)
    ]


def _write_dataset(folder: Path, rows: list[dict[str, Any]], shard_rows: int, size: int, digest: str) -> None:
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        shard = pa.Table.from_pylist(rows[start : start + shard_rows], schema=SHARD_COLUMNS)
        pq.write_table(shard, folder / shard_name(number))
    places = [divmod(n, shard_rows) for n in range(len(rows))]
    index = [{"shard": s, "row": r, "identity": rows[n]["identity"]} for n, (s, r) in enumerate(places)]
    pq.write_table(pa.Table.from_pylist(index, schema=INDEX_COLUMNS), folder / "index.parquet")
    vectors = np.stack([row["embedding"] for row in rows])
    np.save(folder / "embeddings.npy", vectors)
    people = len({row["identity"] for row in rows})
    header = DatasetHeader(
        crop_size=size, template="arcface", encoder_name="small", encoder_digest=digest,
        embedding_size=vectors.shape[1], samples=len(rows), identities=people,
        digest=hashlib.sha256(vectors.tobytes()).hexdigest(), recipe="0" * 64,
    )  # fmt: skip
    (folder / "header.json").write_bytes(header_json(header))
