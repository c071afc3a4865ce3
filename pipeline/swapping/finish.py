"""Third stage: from results to the output file and the receipt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.errors import ItemError, UnreadableError
from pipeline.faces.blending import blur, blur_all, paste
from pipeline.faces.masks import soft_square
from pipeline.faces.selection import STAYS
from pipeline.media.images import StillImage, read_image, write_image
from pipeline.media.storage import write_atomically
from pipeline.swapping.work import BLURRED, PARTIAL, Plan, Work, read_input, use_threads
from pipeline.types import FaceReceipt, Identity, Receipt


class Finish:
    """From results to the output file and the receipt.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        use_threads(plan.settings.pools.finish.threads)
        self._plan = plan

    def __call__(self, work: Work) -> Receipt:
        """Make the output visible, whole or not at all; an input that has ended only gets its receipt.

        Raises:
            OutputError: the output cannot be written.
        """
        start = time.perf_counter()
        output, notes = b"", ""
        if work.end is None:
            try:
                output, notes = self._write(work)
            except ItemError as error:
                work = work.ended_by(error)
        return _receipt(work, self._plan, output, notes, time.perf_counter() - start)

    def _write(self, work: Work) -> tuple[bytes, str]:
        """Decode again, blend, encode and write; gives the output and what it could not keep."""
        settings = self._plan.settings
        data = read_input(settings.inputs, work.file, settings.images)
        if hashlib.sha256(data).hexdigest() != work.sha256:
            raise UnreadableError(work.file.item, "changed while it was being processed", "Run again")
        image = read_image(data, work.file.item, settings.images)
        frame, changed = self._blend(work, image)
        output = write_image(image, frame, changed, settings.images)
        write_atomically(Path(settings.output) / work.file.item, output, Path(settings.output) / PARTIAL)
        return output, " ".join(image.notes) if changed.any() else ""

    def _blend(self, work: Work, image: StillImage) -> tuple[Tensor, np.ndarray]:
        frame = image.frame
        if work.whole:
            everywhere = np.full(frame.shape[1:], work.whole == "blur")
            return (blur_all(frame) if work.whole == "blur" else frame), everywhere
        changed = np.zeros(frame.shape[1:], np.bool_)
        mask = self._plan.settings.mask
        square = soft_square(self._plan.header.config.crop_size, mask.erode, mask.feather)
        swapped, blurred = work.become >= 0, work.become == BLURRED
        if swapped.any():
            masks = np.broadcast_to(square, (int(swapped.sum()), *square.shape))
            if work.masks is not None:
                masks = masks * (work.masks.numpy().astype(np.float32) / 255.0)
            frame, changed = paste(frame, work.crops, work.to_frame[swapped], masks, work.to_frame[~swapped])
        if blurred.any():
            masks = np.broadcast_to(square, (int(blurred.sum()), *square.shape))
            frame, also = blur(frame, work.to_frame[blurred], masks, work.to_frame[~blurred])
            changed |= also
        return frame, changed


def _receipt(work: Work, plan: Plan, output: bytes, notes: str, finish_s: float) -> Receipt:
    end = work.end
    return Receipt(
        item=work.file.item,
        status=end.status if end else "done",
        reason=end.code if end else work.reason,
        detail=end.detail if end else notes,
        output="" if end else work.file.item,
        input_bytes=work.file.size_bytes,
        input_mtime_ns=work.file.mtime_ns,
        input_sha256=work.sha256,
        output_sha256="" if end else hashlib.sha256(output).hexdigest(),
        width=work.width,
        height=work.height,
        recipe=plan.recipe,
        faces=tuple(_face_receipt(work, i, plan.sources) for i in range(len(work.faces))),
        analyse_s=work.analyse_s,
        swap_s=work.swap_s,
        finish_s=finish_s,
        finished_at=time.time(),
    )


def _face_receipt(work: Work, index: int, sources: Sequence[Identity]) -> FaceReceipt:
    become = int(work.become[index])
    action = {BLURRED: "blurred", STAYS: "kept"}.get(become, "swapped")
    left, top, right, bottom = (float(v) for v in work.faces.box[index])
    scores = (work.source_before[index], work.source_after[index], work.owner_after[index])
    return FaceReceipt(
        (left, top, right, bottom),
        float(work.faces.score[index]),
        "none" if work.end else action,
        sources[become].name if become >= 0 else "",
        *(None if np.isnan(value) else float(value) for value in scores),
    )
