"""Third stage: from results to the output file and the receipt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ItemError, RefusedInputError
from pipeline.faces.alignment import frame_to_crop, invert
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.blending import blur, blur_all, paste
from pipeline.faces.masks import soft_square
from pipeline.faces.selection import STAYS
from pipeline.failpoints import fail_point
from pipeline.media.images import StillImage, read_image, write_image
from pipeline.media.store import PARTIAL
from pipeline.swapping.leaks import Leaks, find_leaks, refuse_leaks, without_leaks
from pipeline.swapping.work import BLURRED, Plan, Work, use_threads
from pipeline.types import FaceReceipt, Identity, Receipt


class Finish:
    """From results to the output file and the receipt.

    Args:
        plan: of the job.

    Attributes:
        inputs: what it reads.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        use_threads(settings.pools.finish.threads)
        self._plan, self._analyser, self.inputs, self._output = plan, None, plan.inputs(), plan.output()
        if settings.models is not None and settings.selection.mode == "anonymise" and settings.anonymise.check:
            model, threads = plan.header.config, settings.pools.finish.threads
            self._analyser = FaceAnalyser(settings.models, model.template, model.crop_size, settings.analysis, threads)

    def __call__(self, work: Work) -> Receipt:
        """Make the output visible, whole or not at all; an input that has ended only gets its receipt.

        Raises:
            OutputError: the output cannot be written.
        """
        receipt, output = self.make(work)
        if receipt.output:
            self._output.write(receipt.output, output, PARTIAL)
            fail_point("output written", receipt.item)
        return receipt

    def make(self, work: Work) -> tuple[Receipt, bytes]:
        """The receipt, and the output's bytes, which are not written; none where the input has ended."""
        start = time.perf_counter()
        output, notes = b"", ""
        if work.end is None:
            fail_point("finish", work.file.item)
            try:
                output, notes, work = self._made(work)
            except ItemError as error:
                work = work.ended_by(error)
        return _receipt(work, self._plan, output, notes, time.perf_counter() - start), output

    def _made(self, work: Work) -> tuple[bytes, str, Work]:
        """Decode again, blend, encode and check; gives the output, what it could not keep, and the work."""
        settings = self._plan.settings
        data = self.inputs.read(work.file)
        if hashlib.sha256(data).hexdigest() != work.sha256:
            raise RefusedInputError(work.file.item, "changed while it was worked on", "Run again", "changed")
        image = read_image(data, work.file.item, settings.images)
        output, changed = self._encoded(work, image)
        if self._analyser is not None:
            output, changed, work = self._checked(self._analyser, work, image, output, changed)
        return output, " ".join(image.notes) if changed.any() else "", work

    def _encoded(self, work: Work, image: StillImage) -> tuple[bytes, NDArray[np.bool_]]:
        frame, changed = self._blend(work, image)
        return write_image(image, frame, changed, self._plan.settings.images), changed

    def _checked(
        self, analyser: FaceAnalyser, work: Work, image: StillImage, output: bytes, changed: NDArray[np.bool_]
    ) -> tuple[bytes, NDArray[np.bool_], Work]:
        """The output, or by policy one with the faces blurred that could be recognised in it.

        Raises:
            PolicyError: `policy.leak`, or a leak that blurring did not end.
        """
        policy, item = self._plan.settings.policy.leak, work.file.item
        leaks = self._leaks(analyser, work, output)
        refuse_leaks(item, leaks, policy)
        if not len(leaks):
            return output, changed, work
        if policy == "copy":
            return output, changed, replace(work, reason="leak: copied")
        model = self._plan.header.config
        to_crop = frame_to_crop(leaks.faces.landmarks, model.template, model.crop_size)
        mended = without_leaks(replace(work, whole=""), np.arange(len(work.faces)), leaks, invert(to_crop))
        output, changed = self._encoded(mended, image)
        refuse_leaks(item, self._leaks(analyser, mended, output), "fail")
        return output, changed, replace(mended, reason="leak: blurred")

    def _leaks(self, analyser: FaceAnalyser, work: Work, output: bytes) -> Leaks:
        faces, _ = analyser(read_image(output, work.file.item, self._plan.settings.images).frame)
        rows, limit = np.arange(len(work.faces)), self._plan.settings.anonymise.leak_cosine
        everybody = work.faces.embedding if len(rows) else np.zeros((0, faces.embedding.shape[1]), np.float32)
        return find_leaks(faces, work, rows, everybody, limit)

    def _blend(self, work: Work, image: StillImage) -> tuple[Tensor, NDArray[np.bool_]]:
        frame = image.frame
        if work.whole:
            everywhere = np.full(frame.shape[1:], work.whole == "blur")
            return (blur_all(frame) if work.whole == "blur" else frame), everywhere
        changed = np.zeros(frame.shape[1:], np.bool_)
        mask = self._plan.settings.mask
        square = soft_square(self._plan.header.config.crop_size, mask.erode, mask.feather)
        swapped, blurred, stays = work.become >= 0, work.become == BLURRED, work.become == STAYS
        if blurred.any():  # first: a result may cover what is blurred, nothing may bring it back
            masks = np.broadcast_to(square, (int(blurred.sum()), *square.shape))
            frame, changed = blur(frame, work.to_frame[blurred], masks, work.to_frame[stays])
        if swapped.any():
            masks = np.broadcast_to(square, (int(swapped.sum()), *square.shape))
            if work.masks is not None:
                masks = masks * (work.masks.numpy().astype(np.float32) / 255.0)
            frame, also = paste(frame, work.crops, work.to_frame[swapped], masks, work.to_frame[~swapped])
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
