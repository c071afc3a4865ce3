"""Crops of a piece's faces, cut where the cast says that they are."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.faces.alignment import compose, frame_to_crop, invert, warp_in
from pipeline.media.video import Span
from pipeline.media.video_decoding import decode
from pipeline.media.video_regions import FrameRegions
from pipeline.swapping.films.cast import Cast
from pipeline.swapping.films.film import Film
from pipeline.swapping.films.geometry import reach, shifted
from pipeline.swapping.films.render import editable
from pipeline.swapping.work import Plan, Work, cosines_to_sources, use_threads
from pipeline.types import Floats, Ints


class Cut:
    """Decodes a piece of a film again and cuts the crops of the faces that get a source.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._threads = plan.settings.pools.analyse.threads
        use_threads(self._threads)

    def __call__(self, film: Film, cast: Cast, roles: Ints, number: int) -> Work:
        """A piece as work for the generator.

        Args:
            film: which.
            cast: of the film.
            roles: [Q] what its people become.
            number: of the piece.

        Raises:
            ItemError: the piece cannot be decoded.
        """
        start = time.perf_counter()
        work = self._geometry(film, cast, roles, number)
        chosen = np.flatnonzero(work.become >= 0)
        size = self._plan.header.config.crop_size
        crops = np.zeros((len(chosen), size, size, 3), np.uint8)
        if len(chosen):
            wanted = Span(int(work.ticks[chosen].min()), int(work.ticks[chosen].max()) + 1)
            for frame in decode(film.path, film.file.item, film.info, wanted, self._threads):
                rows = np.flatnonzero(work.ticks[chosen] == frame.pts)
                if len(rows):
                    crops[rows] = crops_of(frame, work.to_frame[chosen[rows]], size)
        before = cosines_to_sources(work.faces.embedding, chosen, work.become, self._plan.sources)
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()
        return replace(work, crops=pixels, source_before=before, analyse_s=time.perf_counter() - start)

    def _geometry(self, film: Film, cast: Cast, roles: Ints, number: int) -> Work:
        model = self._plan.header.config
        rows = cast.between(cast.pieces[number])
        track = cast.track[rows]
        faces = replace(cast.faces.at(rows), embedding=cast.likeness[track])
        to_crop = frame_to_crop(faces.landmarks, model.template, model.crop_size)
        to_coded = invert(film.info.to_shown()[None])
        unknown = np.full(len(rows), np.nan, np.float32)
        return replace(
            Work.of(film.file, number),
            width=film.info.width,
            height=film.info.height,
            faces=faces,
            to_frame=compose(to_coded, invert(to_crop)) if len(rows) else to_crop,
            become=cast.become(roles, self._plan.settings.policy.low_confidence)[track],
            whole="" if len(cast.track) else self._plan.settings.policy.no_face,
            source_before=unknown,
            source_after=unknown,
            owner_after=unknown,
            ticks=cast.ticks[faces.frame],
            weight=cast.weight[rows],
        )


def crops_of(frame: VideoFrame, to_frame: Floats, size: int) -> NDArray[np.uint8]:
    """[K, S, S, 3] u8: only the rectangle that the crops need becomes RGB."""
    regions = FrameRegions(editable(frame))
    rectangle = regions.aligned(*reach(to_frame, size))
    if rectangle[2] <= rectangle[0] or rectangle[3] <= rectangle[1]:
        return np.zeros((len(to_frame), size, size, 3), np.uint8)
    return warp_in(regions.read(rectangle), invert(shifted(to_frame, rectangle)), size)
