"""Work in threads: of its commit and its caller's cancellation, the first one counts."""

import asyncio
import threading

import pytest

from contracts.thread_cancellation import ThreadCancellation, ThreadCancelled
from contracts.wire.system.threads import finish_if_committed, run_cancellable
from tests.limits import WAIT


async def test_the_result_of_work_that_is_not_cancelled() -> None:
    assert await run_cancellable(lambda cancellation: list(cancellation.checked(range(3)))) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        await run_cancellable(lambda _: 1 / 0)


async def test_a_cancellation_returns_at_once_and_the_work_ends_at_its_next_check() -> None:
    started, proceed, ended = threading.Event(), threading.Event(), threading.Event()
    committed: list[bool] = []

    def work(cancellation: ThreadCancellation) -> None:
        try:
            started.set()
            proceed.wait(WAIT)
            cancellation.commit()
            committed.append(True)
        finally:
            ended.set()

    running = asyncio.create_task(run_cancellable(work))
    await asyncio.to_thread(started.wait, WAIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    proceed.set()
    assert await asyncio.to_thread(ended.wait, WAIT)
    assert committed == []


async def test_work_that_has_committed_is_finished_before_the_cancellation_is_raised() -> None:
    committed, proceed = threading.Event(), threading.Event()
    finished: list[bool] = []

    def work(cancellation: ThreadCancellation) -> None:
        cancellation.commit()
        committed.set()
        proceed.wait(WAIT)
        finished.append(True)

    running = asyncio.create_task(run_cancellable(work))
    await asyncio.to_thread(committed.wait, WAIT)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert finished == [True]


async def test_a_blocking_call_can_be_made_to_return_early() -> None:
    started, blocked = threading.Event(), threading.Event()

    def work(cancellation: ThreadCancellation) -> None:
        cancellation.on_cancel(blocked.set)
        started.set()
        blocked.wait(WAIT)

    running = asyncio.create_task(run_cancellable(work))
    await asyncio.to_thread(started.wait, WAIT)
    running.cancel()
    assert await asyncio.to_thread(blocked.wait, WAIT)
    with pytest.raises(asyncio.CancelledError):
        await running


def test_after_the_cancellation_nothing_commits_and_after_the_commit_nothing_cancels() -> None:
    cancellation = ThreadCancellation()
    assert cancellation.cancel()
    for call in (cancellation.check, cancellation.commit, lambda: cancellation.on_cancel(int)):
        with pytest.raises(ThreadCancelled):
            call()
    cancellation = ThreadCancellation()
    cancellation.commit()
    cancellation.check()
    assert not cancellation.cancel()


@pytest.mark.parametrize("commits", [False, True])
async def test_what_follows_a_commit_is_done_and_what_precedes_it_is_not(commits: bool) -> None:
    cancellation, started, proceed = ThreadCancellation(), asyncio.Event(), asyncio.Event()
    reported: list[bool] = []

    async def store_and_report() -> None:
        if commits:
            cancellation.commit()
        started.set()
        await proceed.wait()
        reported.append(True)

    running = asyncio.create_task(finish_if_committed(store_and_report(), cancellation, timeout=WAIT))
    await started.wait()
    running.cancel()
    await asyncio.sleep(0)
    proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert reported == [True] * commits


async def test_what_follows_a_commit_has_a_time_limit() -> None:
    cancellation, started = ThreadCancellation(), asyncio.Event()

    async def hang() -> None:
        cancellation.commit()
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(finish_if_committed(hang(), cancellation, timeout=0.01))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
