"""Every error of the library, by what becomes of the work.

SimSwapError
├── FatalError            the job stops
│   ├── ConfigError           wrong settings or wrong use        exit code 2
│   ├── CheckpointError       a checkpoint that cannot be used   exit code 1
│   ├── ModelPackError        a model pack that cannot be used   exit code 1
│   ├── DatasetError          a training set that cannot be used exit code 1
│   ├── TrainingError         training cannot go on              exit code 1
│   ├── OutputError           the output cannot be written to    exit code 1
│   ├── RefusedError          going on would not be safe         exit code 3
│   └── ConsentError          a source without a right to it     exit code 3
├── ItemError             this input becomes a row with a reason, the job goes on
│   ├── UnreadableError       the bytes are not a whole, known image
│   ├── RefusedInputError     readable, but outside the limits or the kind of job
│   └── PolicyError           a policy says that this input gets no result
└── TransientError        was tried again with back-off; where it concerns one input, that becomes an ItemError
    └── StoreError            a store does not answer, or refuses

A message reads *input: problem. mend.* All parts go to `super().__init__`, so that an error is the
same after pickling between workers.
"""

from __future__ import annotations


class SimSwapError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        subject: the input the error is about: a path, a setting, an item.
        problem: what is wrong, without a full stop.
        mend: what the reader can do about it, without a full stop; may be empty.
    """

    exit_code = 1

    def __init__(self, subject: str, problem: str, mend: str = "") -> None:
        super().__init__(subject, problem, mend)
        self.subject = subject
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        sentences = [f"{self.subject}: {self.problem}", self.mend]
        return " ".join(text if text.endswith((".", "?")) else f"{text}." for text in sentences if text)


class FatalError(SimSwapError):
    """The job stops: going on would waste or spoil work."""


class ConfigError(FatalError):
    """A setting, a command or a combination of them that cannot work."""

    exit_code = 2


class CheckpointError(FatalError):
    """A checkpoint that is damaged, of another architecture, or of another identity encoder."""


class ModelPackError(FatalError):
    """A model pack or a network file that is missing, empty or not of a known kind."""


class DatasetError(FatalError):
    """A prepared training set that is missing, damaged, or does not fit the model that it is to train."""


class TrainingError(FatalError):
    """Training cannot go on: a loss that is not finite, or workers that keep failing."""


class OutputError(FatalError):
    """The output already holds something else, or cannot be written to."""


class RefusedError(FatalError):
    """A job that would run where it is not safe to, or without the right to."""

    exit_code = 3


class ConsentError(FatalError):
    """A source without a consent or licence record that covers this job."""

    exit_code = 3


class ItemError(SimSwapError):
    """One input cannot be done; it becomes a row with a reason and stops nothing else.

    Args:
        subject: the item.
        problem: what is wrong, without a full stop.
        mend: what the reader can do about it.
        code: the short reason that receipts are counted by, for example `too_large`; empty takes the class's own.
        status: `failed`, or `skipped` for what nobody would have expected to be done.
    """

    code = "item"

    def __init__(self, subject: str, problem: str, mend: str = "", code: str = "", status: str = "failed") -> None:
        super().__init__(subject, problem, mend)
        self.args = (subject, problem, mend, code, status)
        self.code = code or type(self).code
        self.status = status


class UnreadableError(ItemError):
    """The bytes of an input are not a whole image of a known format."""

    code = "unreadable"


class RefusedInputError(ItemError):
    """A readable input that the limits or the kind of job exclude."""

    code = "refused"


class PolicyError(ItemError):
    """A policy (`fail` or `drop`) decides that this input gets no result."""

    code = "policy"


class TransientError(SimSwapError):
    """A fault that may pass, and did not while it was tried again."""


class StoreError(TransientError):
    """A store does not answer, or refuses."""
