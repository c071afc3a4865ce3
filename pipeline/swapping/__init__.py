"""One work unit from file to file: analyse -> swap -> finish, as plain callables.

Each stage loads what it needs in its constructor and works in its call; nothing here knows Ray. Between
the stages go crops and geometry, never frames. `FaceSwapper` is the three in one process.
"""

from __future__ import annotations

from pipeline.media.inputs import InputFile
from pipeline.swapping.analyse import Analyse
from pipeline.swapping.finish import Finish
from pipeline.swapping.swap import Swap
from pipeline.swapping.work import BLURRED, End, Plan, Work
from pipeline.types import Receipt

__all__ = ["BLURRED", "Analyse", "End", "FaceSwapper", "Finish", "Plan", "Swap", "Work"]


class FaceSwapper:
    """The three stages in one process: for tests, notebooks and the fused engine of the benchmark.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self.analyse, self.swap, self.finish = Analyse(plan), Swap(plan), Finish(plan)

    def __call__(self, file: InputFile) -> Receipt:
        """One input to its output; whatever is wrong with the input is in the receipt."""
        return self.finish(self.swap([self.analyse(file)])[0])
