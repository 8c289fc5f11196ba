"""Tells every open panel that the model library has changed, so that a new model is listed at once."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

_listeners: set[WeakMethod[Callable[[], None]]] = set()


def listen(method: Callable[[], None]) -> None:
    """Call a bound method after every change, until its object is gone or `leave` is called."""
    _listeners.add(WeakMethod(method))


def leave(method: Callable[[], None]) -> None:
    """Call it no more."""
    _listeners.discard(WeakMethod(method))


def announce() -> None:
    """Say that models were added."""
    for reference in tuple(_listeners):
        method = reference()
        if method is None:
            _listeners.discard(reference)
        else:
            method()
