"""The controller of a run on a cluster: it keeps workers, runs until all is done, and says beside the output how."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, time
from typing import Any

from phbatch.clusters.base import Kind, Opened, Submission
from phbatch.clusters.beside import Jobs
from phbatch.computing.cluster import SilentSchedulerError
from phbatch.running.run import run
from phbatch.tools.verify import verify
from phbatch.words.errors import ClusterError, InterruptedRunError, UsageError, first_line
from phbatch.words.events import Event, Listener, Notice, RunStarted, Stop, UnitFailed, UnitFinished
from phbatch.words.results import RunResult, VerifyReport

BEAT_S, LOOK_S = 10.0, 1.0
"""How often a controller says that it is there, and looks whether it is asked to stop."""

ROUNDS = 3
"""How often all workers may be lost, or a controller's time be over, without a unit finished in between."""


class Voice:
    """What a controller says of itself beside the output, and hears there: a thread's work.

    Parameters
    ----------
    jobs : Jobs
        Beside the output.
    who : str
        Name of this process among those that compute.
    facts : dict
        Of it, such as the number of its job.
    """

    def __init__(self, jobs: Jobs, who: str, facts: dict[str, Any]) -> None:
        self._jobs, self._who = jobs, who
        self._state = {"host": socket.gethostname(), "process": os.getpid(), "failed": {}, **facts}
        self._said: dict[str, Any] = {}
        self._beaten = 0.0
        self._over, self._cancelled = threading.Event(), threading.Event()
        self._opened: Opened | None = None
        self.hopeless = ""
        self.idle = 1 + int(dict(jobs.states()).get(who, {}).get("idle", 0))

    def say(self, state: str, **facts: Any) -> None:
        """Say how it is, from the next look on."""
        self._state |= {"state": state, **facts}

    def tend(self, opened: Opened | None) -> None:
        """Look after the workers of a cluster, too."""
        self._opened = opened

    def hear(self, event: Event) -> None:
        """Take in what happens in the run."""
        if isinstance(event, RunStarted):
            self.say("running", started=time(), done=event.units_done, idle=self.idle)
        elif isinstance(event, UnitFinished) and self.idle:
            self.idle = self._state["idle"] = 0
        elif isinstance(event, UnitFailed):
            self._state["failed"] = {**self._state["failed"], event.unit: event.error}

    def cancelled(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._cancelled.is_set()

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """While inside, a thread speaks and hears; what was said last stays."""
        thread = threading.Thread(target=self._speak, name="phbatch-voice", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(BEAT_S)
            self.write()

    def _speak(self) -> None:
        while True:
            self._look()
            if self._over.wait(LOOK_S):
                return

    def _look(self) -> None:
        with suppress(OSError):  # of a store that is away for a while
            if self._jobs.cancelled():
                self._cancelled.set()
        if self._opened is not None:
            with suppress(UsageError):  # of a cluster's commands, which may be busy
                self.hopeless = self._opened.tend()
                self._state["workers"] = self._opened.workers()
        if self._state != self._said or monotonic() - self._beaten > BEAT_S:
            self.write()

    def write(self) -> None:
        """Say it now."""
        with suppress(OSError):
            self._jobs.say(self._who, self._state)
            self._said, self._beaten = dict(self._state), monotonic()


def control(
    submission: Submission, kind: Kind, listener: Listener, stop: Stop, command: str, *, as_job: bool = False
) -> tuple[RunResult, VerifyReport | None]:
    """Run on a cluster that is opened for it, and closed, however that ends.

    Parameters
    ----------
    submission : Submission
        What is asked for.
    kind : Kind
        Of the cluster.
    listener, stop, command
        As for `phbatch.run`.
    as_job : bool
        Whether this process is a job itself, which begins once more where its time is over.

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        As of `phbatch.run`; and where the jobs of workers end before their worker has come.
    InterruptedRunError
        `stop` said so, or somebody did beside the output, or no workers finish anything.
    """
    voice = Voice(submission.jobs, "controller", {"job": kind.here()} if as_job else {})
    voice.say("asking for workers", workers=0)

    def asked() -> bool:
        return stop() or voice.cancelled()

    with voice.speaking():
        try:
            with kind.open(submission) as opened:
                voice.tend(opened)
                try:
                    result = _run_until_done(submission, opened, voice, listener, asked, command)
                finally:
                    voice.tend(None)
        except (InterruptedRunError, KeyboardInterrupt) as error:
            again = as_job and not voice.cancelled() and voice.idle < ROUNDS and _is_over(kind, submission)
            state = "cancelled" if voice.cancelled() else "queued again" if again else "stopped"
            voice.say(state, workers=0, error=first_line(error))
            if again:
                voice.write()  # the cluster may end this process at once
                kind.again()
            raise
        except BaseException as error:
            voice.say("failed", workers=0, error=first_line(error))
            raise
        found = None
        if submission.verify and result.exit_code == 0:
            voice.say("verifying", workers=0)
            store = submission.options.get("storage_options")
            found = verify(submission.output.path, listener=listener, storage_options=store)
        well = result.exit_code == 0 and (found is None or found.exit_code == 0)
        voice.say("done" if well else "ended with failures", workers=0)
        return result, found


def _is_over(kind: Kind, submission: Submission) -> bool:
    with suppress(UsageError):  # a cluster that does not answer does not hide why the run was stopped
        return kind.is_over(submission)
    return False


def _run_until_done(
    submission: Submission, opened: Opened, voice: Voice, listener: Listener, stop: Stop, command: str
) -> RunResult:
    rounds = 0

    def hear(event: Event) -> None:
        nonlocal rounds
        if isinstance(event, UnitFinished):
            rounds = 0
        voice.hear(event)
        listener(event)

    while True:
        _await_workers(submission, opened, voice, listener, stop)
        try:
            return run(
                submission.input,
                submission.output.path,
                listener=hear,
                command=command,
                stop=stop,
                scheduler=opened.address,
                **submission.options,
            )
        except (InterruptedRunError, ClusterError, SilentSchedulerError):  # all workers are lost, or it is busy
            rounds += 1
            if stop() or rounds == ROUNDS:
                raise
            voice.say("waiting for other workers")


def _await_workers(submission: Submission, opened: Opened, voice: Voice, listener: Listener, stop: Stop) -> None:
    """Return once there is a worker: what a run plans with is the memory of those that are there."""
    said = False
    while not opened.workers():
        if stop():
            raise InterruptedRunError("stopped before a worker came; submit again to continue.")
        if voice.hopeless:
            raise UsageError(
                f"{voice.hopeless}, and none of their workers came; see `phbatch logs {submission.output.path}`."
            )
        if not said:
            listener(Notice(f"{submission.cluster.workers} workers are asked for; waiting for the first one."))
            said = True
        threading.Event().wait(0.1)
