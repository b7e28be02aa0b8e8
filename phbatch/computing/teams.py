"""Teams of workers of a large cluster, and work that waits for more of them.

A Dask scheduler that is given a call for any of a thousand named workers looks at each of them. So a call is given to a
team of a few, among which Dask chooses, and the teams get calls in turns, by how many they have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Any

from phbatch.places.lock import new_token

if TYPE_CHECKING:
    from distributed import Client

TEAM = 16
"""Workers of a team, at most."""

MOST_WAITING, WAITING = 2000, 50
"""Calls that are seen to wait, at most, and for a thread: an adaptive cluster wants 5 s of work for each."""

_NOBODY = {"phbatch-waits-for-workers": 1.0}


class Teams:
    """Who shares calls with whom, and how many calls each team has."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._calls: Counter[int] = Counter()

    def share(
        self, keys: Iterable[str], workers: Sequence[str], threads: Mapping[str, int]
    ) -> list[tuple[list[str], list[str]]]:
        """Teams of these workers, and the calls that each is given.

        Examples
        --------
        >>> workers = [f"w{index}" for index in range(32)]
        >>> shared = Teams().share("abcd", workers, {})
        >>> [(len(team), keys) for team, keys in shared]
        [(16, ['a', 'c']), (16, ['b', 'd'])]
        """
        if len(workers) <= TEAM:
            return [(list(workers), list(keys))]
        members: dict[int, list[str]] = {}
        for worker in workers:
            if worker in self._of:
                members.setdefault(self._of[worker], []).append(worker)
        for worker in workers:
            if worker not in self._of:
                self._of[worker] = min(
                    (team for team in members if len(members[team]) < TEAM),
                    key=lambda team: len(members[team]),
                    default=max(self._of.values(), default=-1) + 1,
                )
                members.setdefault(self._of[worker], []).append(worker)
        room = {team: sum(threads.get(each, 1) for each in members[team]) for team in members}
        load = [(self._calls[team] / room[team], team) for team in members]
        heapify(load)
        given: dict[int, list[str]] = {}
        for key in keys:
            _, team = load[0]
            given.setdefault(team, []).append(key)
            self._calls[team] += 1
            heapreplace(load, (self._calls[team] / room[team], team))
        return [(members[team], found) for team, found in given.items()]

    def ended(self, workers: Collection[str]) -> None:
        """A call of these workers is done."""
        team = self._of.get(next(iter(workers), ""))
        if team is not None and self._calls[team] > 0:
            self._calls[team] -= 1


class Waiting:
    """Tasks that stand for calls that were not yet given to anybody, and that nobody can take.

    The window of calls is small, so that little is lost with a worker; a cluster that adapts itself to the work that
    its scheduler holds would see too little of it, and shrink. They have the name of the stage, and so its durations.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._token = client, new_token()
        self._futures: list[Any] = []
        self._made = 0

    def show(self, stage: str, threads: int) -> None:
        """Let so much be seen as keeps a cluster of so many threads."""
        wanted = min(MOST_WAITING, WAITING * threads) - len(self._futures)
        if wanted <= 0:
            return
        keys = [f"{stage}-{number}-waiting-{self._token}" for number in range(self._made, self._made + wanted)]
        self._made += wanted
        graph = dict.fromkeys(keys, (int,))
        self._futures += self._client.get(graph, keys, sync=False, resources=_NOBODY)

    def end(self) -> None:
        """Nothing waits any more."""
        self._futures.clear()
