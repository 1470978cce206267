"""Notifications of changed workloads; several changes of one workload may be reported as one."""

from __future__ import annotations

import asyncio
import weakref

from llmos_hub.workload import WorkloadRef

__all__ = ["Changes", "Subscription"]


class Subscription:
    """An iterator over the workloads that changed since its creation; it ends when the backend is closed."""

    def __init__(self) -> None:
        self._pending: dict[WorkloadRef, None] = {}
        self._wake = asyncio.Event()
        self._ended = False

    def add(self, ref: WorkloadRef) -> None:
        """Add a change that is still to be reported."""
        self._pending[ref] = None
        self._wake.set()

    def end(self) -> None:
        """End the iteration once all pending changes have been reported."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> WorkloadRef:
        while not self._pending:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        ref = next(iter(self._pending))
        del self._pending[ref]
        return ref


class Changes:
    """All subscriptions. One that is no longer referenced elsewhere is dropped."""

    def __init__(self) -> None:
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._closed = False

    def subscribe(self) -> Subscription:
        """Return a new subscription."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._closed:
            subscription.end()
        return subscription

    def notify(self, ref: WorkloadRef) -> None:
        """Report that this workload's observation changed."""
        for subscription in tuple(self._subscriptions):
            subscription.add(ref)

    def close(self) -> None:
        """End every iteration."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.end()
