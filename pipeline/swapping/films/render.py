"""Results into the frames of a piece, and the frames into an encoded part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.faces.blending import blur, blur_all, paste
from pipeline.faces.masks import soft_square
from pipeline.faces.selection import STAYS
from pipeline.media.video import Span
from pipeline.media.video_decoding import decode
from pipeline.media.video_encoding import choose_pixel_format, encode
from pipeline.media.video_regions import FrameRegions, supported
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.geometry import reach, shifted
from pipeline.swapping.work import BLURRED, Plan, Work, use_threads
from pipeline.types import Floats


class Render:
    """Decodes a piece a last time, puts the results in, and encodes it.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._threads = plan.settings.pools.finish.threads
        use_threads(self._threads)
        mask = plan.settings.mask
        self._square = soft_square(plan.header.config.crop_size, mask.erode, mask.feather)
        self._rim = int(np.flatnonzero(self._square.any(axis=0))[0])  # nothing of a result is seen there

    def __call__(self, film: Film, span: Span, work: Work, part: str) -> int:
        """Write the part of a piece.

        Args:
            film: which.
            span: of the piece.
            work: with results for crops.
            part: path of the MP4 to write.

        Returns:
            Frames written; without any there is no file.

        Raises:
            ItemError: the piece cannot be decoded.
        """
        encoder = self._plan.settings.videos.encoder
        return encode(part, self.frames(film, span, work), film.info, encoder, self._threads)

    def frames(self, film: Film, span: Span, work: Work) -> Iterator[VideoFrame]:
        """The frames of a piece with the results in them, as they are encoded."""
        pixel_format, _ = choose_pixel_format(self._plan.settings.videos.encoder, film.info)
        place = np.cumsum(work.become >= 0) - 1  # of each face's crop
        for frame in decode(film.path, film.file.item, film.info, span, self._threads):
            if work.whole == "blur":
                yield _blurred(editable(frame, pixel_format))
                continue
            rows = np.flatnonzero(work.ticks == frame.pts)
            if not (work.become[rows] != STAYS).any():
                yield frame
                continue
            image = editable(frame, pixel_format)
            self.blend(image, work, rows, place)
            yield image

    def blend(self, frame: VideoFrame, work: Work, rows: NDArray[np.int64], place: NDArray[np.int64]) -> None:
        """Put results into a frame, in place.

        Args:
            frame: of a format whose rectangles can be edited.
            work: with results for crops.
            rows: of the work's faces in this frame.
            place: [N] which crop each face of the work has.
        """
        regions = FrameRegions(frame)
        become, size = work.become[rows], self._square.shape[0]
        rim = 0 if (become == BLURRED).any() else self._rim
        rectangle = regions.aligned(*reach(work.to_frame[rows[become != STAYS]], size, rim))
        if rectangle[2] <= rectangle[0] or rectangle[3] <= rectangle[1]:
            return
        to_frame = shifted(work.to_frame[rows], rectangle)
        image = torch.from_numpy(regions.read(rectangle)).permute(2, 0, 1)
        changed = np.zeros(image.shape[1:], np.bool_)
        swapped, blurred, stays = become >= 0, become == BLURRED, become == STAYS
        if blurred.any():  # first: a result may cover what is blurred, nothing may bring it back
            masks = np.broadcast_to(self._square, (int(blurred.sum()), size, size))
            image, changed = blur(image, to_frame[blurred], masks, to_frame[stays])
        if swapped.any():
            chosen = place[rows[swapped]]
            masks = self._masks(work, rows[swapped], chosen)
            crops = work.crops[torch.from_numpy(chosen)]
            image, also = paste(image, crops, to_frame[swapped], masks, to_frame[~swapped])
            changed |= also
        regions.write(rectangle, image.permute(1, 2, 0).numpy(), changed)

    def _masks(self, work: Work, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> Floats:
        masks = self._square * work.weight[rows][:, None, None]
        if work.masks is not None:
            masks = masks * (work.masks[torch.from_numpy(chosen)].numpy().astype(np.float32) / 255.0)
        return masks


def _blurred(frame: VideoFrame) -> VideoFrame:
    """The frame with all of it made unrecognisable, in place."""
    regions, everything = FrameRegions(frame), (0, 0, frame.width, frame.height)
    pixels = blur_all(torch.from_numpy(regions.read(everything)).permute(2, 0, 1))
    regions.write(everything, pixels.permute(1, 2, 0).numpy(), np.ones((frame.height, frame.width), np.bool_))
    return frame


def editable(frame: VideoFrame, pixel_format: str = "gbrp") -> VideoFrame:
    """The frame itself where its rectangles can be edited, else converted to a pixel format that can be."""
    if supported(frame.format.name):
        return frame
    converted = frame.reformat(format=pixel_format if supported(pixel_format) else "gbrp")
    converted.pts, converted.time_base = frame.pts, frame.time_base
    return converted
