"""The two kinds of failure a user meets; each knows its process exit status."""

from __future__ import annotations


class SrqError(Exception):
    """Base of every error srq-hw raises on purpose: shown as one message, never as a traceback."""

    exit_code = 1


class InputError(SrqError):
    """The user's input is wrong (file, key, option, image). Exit status 2."""

    exit_code = 2


class RunError(SrqError):
    """A gate or a run failed although the input was legal. Exit status 1."""

    exit_code = 1
