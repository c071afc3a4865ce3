"""The Ray cluster that a job would go to."""

from __future__ import annotations

from collections.abc import Iterator

import ray

from pipeline.errors import SimSwapError
from pipeline.runners.checkup.check import Check
from pipeline.runners.ray_jobs import RayJobs, is_loopback, is_open


def check_token(origin: str | None, *, open_to_others: bool) -> Check:
    """Look at the token.

    Args:
        origin: where it comes from; None without any.
        open_to_others: whether other users of this machine may read it.
    """
    if origin is None:
        mend = "For a cluster with RAY_AUTH_MODE=token set RAY_AUTH_TOKEN_PATH, or copy its ~/.ray/auth_token"
        return Check("token", "skipped", "no token for a cluster is here", mend)
    if open_to_others:
        return Check("token", "fault", f"other users of this machine may read {origin}", f"chmod 600 {origin}")
    return Check("token", "ok", f"from {origin}")


def check_cluster(address: str, token: str | None) -> Iterator[Check]:
    """Look at a cluster: does it answer, to whom, and which Ray is it.

    Args:
        address: of its job server.
        token: for it; None without any.
    """
    try:
        everybody = is_open(address)
        jobs = RayJobs(address, token)
        at_work = [attempt.id for attempt in jobs.attempts() if attempt.at_work]
    except SimSwapError as error:
        yield Check.of("cluster", error)
        return
    yield Check(
        "cluster", "ok", f"{address} answers, with Ray {ray.__version__}; at work: {', '.join(at_work) or 'nothing'}"
    )
    mend = "Start it with RAY_AUTH_MODE=token"
    if everybody and not is_loopback(address):
        yield Check("cluster", "fault", f"{address} runs code for anybody who can reach it", mend)
    elif everybody:
        yield Check("cluster", "warning", f"{address} asks for no token: every user of this machine may use it", mend)
    elif address.startswith("http://") and not is_loopback(address):
        mend = "Use a tunnel (ray dashboard, kubectl port-forward) or https"
        yield Check("cluster", "warning", f"the token travels unencrypted to {address}", mend)
