"""The parent of one server, run as a script: it stops the server in order when the process that asked for it stops or dies.

`python -I -S keeper.py <status descriptor> <signal>:<seconds>,... <command> ...`

Standard input is a pipe whose other end only the asking process holds. Its end (a request to stop, or a kill -9) makes the
keeper send the listed signals to the command, each with its patience, then SIGKILL. The command's process id goes to the
status descriptor; the keeper leaves with the command's return code, 128 + n for signal n. It imports only the standard library.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_AT_PARENT_SECONDS = 1.0  # a fork of the asking process may hold the pipe open: its death then shows in the parent's id


def parse_steps(text: str) -> list[tuple[signal.Signals, float]]:
    """The steps of a stop from `INT:60,QUIT:10`: signals and seconds of patience."""
    steps = []
    for part in text.split(","):
        name, seconds = part.split(":")
        steps.append((signal.Signals[f"SIG{name}"], float(seconds)))
    return steps


def become(command: list[str], keeper: int, first: signal.Signals) -> None:
    """Turn this fork into the command; it hears `first` when the keeper itself is killed."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the pipe alone has to do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(first), 0, 0, 0)
    if os.getppid() != keeper:
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)  # what came since the fork is heard now, with its default meaning
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    try:
        os.execvp(command[0], command)  # noqa: S606  # a command list of ours, and a shell would stand between
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the pipe does; the command's return code."""
    status, steps, command = int(arguments[0]), parse_steps(arguments[1]), arguments[2:]
    os.set_inheritable(status, False)
    asker = os.getppid()
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    asked: list[int] = []
    for number in HEARD:
        signal.signal(number, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    keeper = os.getpid()
    # Until the fork has become the command it would take a signal with our handlers, which is to lose it.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    child = os.fork()
    if child == 0:
        become(command, keeper, steps[0][0])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    with contextlib.suppress(BrokenPipeError):  # the asking process is gone already: the pipe's end is seen below
        os.write(status, f"{child}\n".encode())
    os.close(status)

    stopping_until: float | None = None
    while True:
        done, result = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # what the command started in its own group goes with it
            return os.waitstatus_to_exitcode(result) if os.WIFEXITED(result) else 128 + os.WTERMSIG(result)
        now = time.monotonic()
        if stopping_until is not None and now >= stopping_until:
            number, patience = steps.pop(0) if steps else (signal.SIGKILL, 3600.0)
            os.kill(child, number)
            stopping_until = now + patience
        listen = [woken] if stopping_until is not None else [0, woken]
        wait = LOOK_AT_PARENT_SECONDS if stopping_until is None else max(0.0, stopping_until - now)
        ready, _, _ = select.select(listen, [], [], wait)
        if woken in ready:
            os.read(woken, 512)
        if stopping_until is None and (asked or (0 in ready and not os.read(0, 512)) or os.getppid() != asker):
            stopping_until = time.monotonic()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
