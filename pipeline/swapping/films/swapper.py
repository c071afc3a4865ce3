"""All steps of a film in one process: for tests and notebooks."""

from __future__ import annotations

from pipeline.media.inputs import InputFile
from pipeline.swapping.films.assemble import assemble
from pipeline.swapping.films.parts import FinishPiece
from pipeline.swapping.films.state import FilmState
from pipeline.swapping.films.steps import CutStep, LookStep, cast_step, open_step, roles_step
from pipeline.swapping.people import People
from pipeline.swapping.swap import Swap
from pipeline.swapping.work import Plan
from pipeline.types import Receipt


class FilmSwapper:
    """All steps of a film.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._people = plan, People(plan)
        self._look, self._cut = LookStep(plan), CutStep(plan)
        self._swap, self._finish = Swap(plan), FinishPiece(plan)

    def __call__(self, file: InputFile) -> Receipt:
        """One video to its output; whatever is wrong with it is in the receipt."""
        for number in range(open_step(self._plan, file)):
            self._look(file, number)
        for troupe in roles_step(self._plan, self._people, [cast_step(self._plan, file)]):
            for number in range(troupe.pieces):
                self._finish(self._swap([self._cut(file, number)])[0])
        receipt = assemble(self._plan, file)
        FilmState(self._plan, file).remove()
        return receipt
