"""The adapter of picows with a compiled listener, which its authors recommend for speed."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from picows import WSListener

from bench import toolchain
from bench.clients import picows_client
from bench.consumers import Consumer, Kind


def compiled() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picows_listener", toolchain.LISTENER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Adapter(picows_client.Adapter):
    """The callback of its consumer is the listener itself."""

    def make_consumer(self, kind: Kind, total: int) -> Consumer:
        listeners = compiled()
        if kind is Kind.CHECK:
            consumer = Consumer(None, lambda: consumer.checksum.messages)
            consumer.callback = listeners.CheckingListener(consumer.checksum)
        elif kind is Kind.STAMP:
            consumer = Consumer(None, lambda: len(consumer.stamps))
            listener = listeners.StampingListener(consumer.stamps, total, self.stop)
            consumer.callback, consumer.last = listener, lambda: listener.last
        elif kind is Kind.WAKE:
            waker = listeners.WakingListener(self.stop)
            consumer = Consumer(waker, lambda: waker.left, expect=waker.expect)
        else:
            consumer = Consumer(make_counter(listeners, kind), lambda: consumer.callback.count)
        return consumer

    def listener(self) -> WSListener:
        return self.consumer.callback


def make_counter(listeners: ModuleType, kind: Kind) -> WSListener:
    if kind is Kind.COUNT:
        return listeners.CountingListener()
    import orjson

    return listeners.ParsingListener(orjson.loads)
