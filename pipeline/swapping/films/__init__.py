"""Films: a video from file to file, span by span.

look (every span) -> cast (the whole film: tracks, people, who becomes whom) -> cut -> swap -> render (every span)
-> assemble (the whole film). Who somebody becomes is decided once for a film, so that the spans it is worked on in
change nothing of the result; between the stages go crops and geometry, never frames.
"""

from __future__ import annotations

from pipeline.swapping.films.cast import Cast, Casting
from pipeline.swapping.films.cut import CutSpan
from pipeline.swapping.films.film import Film, FilmSpan, open_film
from pipeline.swapping.films.look import Look, Seen
from pipeline.swapping.films.render import Render
from pipeline.swapping.films.swapper import FilmSwapper

__all__ = ["Cast", "Casting", "CutSpan", "Film", "FilmSpan", "FilmSwapper", "Look", "Render", "Seen", "open_film"]
