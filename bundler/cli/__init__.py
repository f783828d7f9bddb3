"""The entry points: ``bundler`` with its sub-commands, and ``build-bundle`` and ``verify-bundle`` by themselves.

Nothing is imported before :func:`_enter` watches: Ctrl-C ends a command with 130 and one line from its first moment on.
"""


def main() -> None:
    """``bundler``."""
    _enter("bundler")


def build_bundle() -> None:
    """``build-bundle``."""
    _enter("build-bundle")


def verify_bundle() -> None:
    """``verify-bundle``."""
    _enter("verify-bundle")


def _enter(name: str) -> None:
    import sys

    try:
        from bundler.cli.door import run

        code = run(name)
        _ignore_interrupts()
    except KeyboardInterrupt:
        code = 130
        _ignore_interrupts()
        print("stopped: nothing half-made was left behind", file=sys.stderr)  # noqa: T201  # click may not be there yet
    sys.exit(code)


def _ignore_interrupts() -> None:
    """What follows is Python's own end, which answers Ctrl-C with a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
