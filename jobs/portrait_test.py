"""`python -m jobs.portrait_test checkpoint=… models=… judge=… [pairs=200]`: compare a generator with true swaps."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from pipeline.config.portraits import PortraitTestConfig
from pipeline.errors import SimSwapError
from pipeline.settings import load_settings


def run(words: Sequence[str]) -> dict[str, Any]:
    """Test a generator on procedural people whom it has not seen."""
    settings = load_settings(PortraitTestConfig, None, words)

    from pipeline.evaluation.pictures import write_png
    from pipeline.evaluation.portraits import run_portrait_test

    test = run_portrait_test(settings)
    if settings.sheet is not None:
        write_png(settings.sheet, test.sheet)
    return {"command": "portrait-test", "status": "done", **settings.model_dump(mode="json"), **test.figures}


def main(words: Sequence[str] | None = None) -> int:
    """Run the test; one JSON line on stdout, everything else on stderr."""
    try:
        with redirect_stdout(sys.stderr):
            result, code = run(sys.argv[1:] if words is None else words), 0
    except SimSwapError as error:
        print(f"portrait-test: {error}", file=sys.stderr)
        result, code = {"command": "portrait-test", "status": "failed", "error": str(error)}, error.exit_code
    print(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main())
