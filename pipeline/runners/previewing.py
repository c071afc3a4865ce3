"""The preview of a video swap: planned like the job, done here and now, without Ray."""

from __future__ import annotations

import time
from typing import Any

from pipeline.config import PreviewConfig
from pipeline.errors import ConfigError, FatalError, ItemError
from pipeline.media.inputs import InputFile, list_inputs
from pipeline.media.store import BOOKS, PARTIAL
from pipeline.media.video import is_video
from pipeline.runners.page import encode_jpeg
from pipeline.runners.planning import plan_of
from pipeline.runners.progress import Progress
from pipeline.swapping.films.film import open_film
from pipeline.swapping.films.preview import Preview, Sample, contact_sheet


def run_preview(settings: PreviewConfig, dry_run: bool = False) -> dict[str, Any]:
    """Show what the swap of a video will look like; no receipt is written and no result.

    Args:
        settings: of the swap, and what to show.
        dry_run: only plan.

    Returns:
        The JSON object that the command prints.

    Raises:
        FatalError: the swap could not start, or the video cannot be shown.
    """
    start = time.time()
    plan = plan_of(settings)
    file = _film(settings)
    output, name = plan.output(), f"{BOOKS}/preview/{file.item}"
    clip, sheet = f"{name}.mp4", f"{name}.jpg"
    facts = {"command": "preview", "film": file.item}
    facts |= {"clip": f"{output.address}/{clip}", "contact_sheet": f"{output.address}/{sheet}"}
    if dry_run:
        return facts | {"status": "planned"}
    try:
        film = open_film(plan.originals(), file, settings.videos.segments)
        preview, samples = Preview(plan), list[Sample]()
        with Progress("preview", settings.frames) as progress:
            for sample in preview.samples(film, settings.frames):
                samples.append(sample)
                progress.advance(1, {"faces": sample.faces})
        output.write(sheet, encode_jpeg(contact_sheet(samples)))
        best = max(samples, key=lambda sample: sample.swapped)
        at_s = best.seconds - settings.seconds / 2 if settings.at_s is None else settings.at_s
        at_s = max(min(at_s, film.info.seconds - settings.seconds), 0.0)
        with output.making(clip) as path:
            count = preview.clip(film, at_s, settings.seconds, settings.width, str(path))
        output.remove_folder(PARTIAL)
    except ItemError as error:
        raise FatalError(error.subject, error.problem, error.mend) from error
    faces = {"found": sum(s.faces for s in samples), "changed": sum(s.swapped for s in samples)}
    shown = {"at_s": round(at_s, 3), "frames": count, "sheet_frames": len(samples), "sheet_faces": faces}
    return facts | {"status": "done", **shown, "seconds": round(time.time() - start, 2)}


def _film(settings: PreviewConfig) -> InputFile:
    films = [file for file in list_inputs(settings.inputs, settings.storage) if is_video(file.item)]
    if not films:
        raise ConfigError(settings.inputs, "holds no videos", "Give a folder with one")
    found = [file for file in films if settings.film in (None, file.item)]
    if not found:
        names = ", ".join(file.item for file in films[:10])
        raise ConfigError(f"film: {settings.film}", f"no such video below {settings.inputs}", f"There are {names}")
    return found[0]
