"""The one process that imports the app: it says what is in it, and forks children on request.

Started afresh (`python -m taskq.worker.nursery`), so that new code needs only a new nursery and the
worker's parent never runs a line of the user's.  It does nothing else but fork and reap, which
keeps replacing a child safe and quick.  What its socket to the parent carries is in `forker`; end
of file on it means: go.
"""

import ctypes
import gc
import os
import signal
import socket
import sys
import traceback
from collections import ChainMap, deque
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack

from taskq import hooks, log
from taskq.client import validation
from taskq.client.task import Task, TaskOptions
from taskq.errors import TaskqError
from taskq.locate import find_app
from taskq.loop import Loop
from taskq.settings import DEFAULTS
from taskq.worker import child
from taskq.worker.forker import ANNOUNCE, BORN, BROKEN, DIED, FORK, MANIFEST
from taskq.worker.frames import unpacker
from taskq.worker.manifest import WORKER_SETTINGS, Manifest
from taskq.worker.options import WorkerOptions
from taskq.worker.outcome import Policy
from taskq.worker.plain import disclosed

if TYPE_CHECKING:
    from taskq.app import TaskQ

_PR_SET_PDEATHSIG = 1


def prepare(options: WorkerOptions) -> tuple["TaskQ", Manifest]:
    """The app of a worker with these *options*, imported, and its manifest.

    Whatever keeps the app from being used is raised.
    """
    app = find_app(options.app, options.folder)
    app.import_modules()
    # Opening connects to nothing.  A mistake in the URL is found now, and whatever there is to be
    # imported and to be warned of is so once, and not in each child.
    _ = app.backend
    if any(task.pydantic for task in app.registry.values()):
        validation.load()
    return app, _describe(app, options)


def _describe(app: "TaskQ", options: WorkerOptions) -> Manifest:
    return Manifest(
        app=app.main,
        where=options.folder,
        broker=app.conf.broker_options(),
        queues=tuple(app.router.worker_queues(options.queues)),
        known_queues=tuple(app.router.queues.values()),
        policies={
            name: Policy(
                acks_late=task.acks_late,
                acks_on_failure_or_timeout=task.acks_on_failure_or_timeout,
                reject_on_worker_lost=task.reject_on_worker_lost,
                dead_letter=task.dead_letter,
                time_limit=task.time_limit or None,
                soft_time_limit=task.soft_time_limit or None,
                ignore_result=bool(task.ignore_result),
                store_errors_even_if_ignored=app.conf.task_store_errors_even_if_ignored,
                rate_limit=str(task.rate_limit or "") or None,
            )
            for name, task in app.registry.items()
        },
        settings={name: getattr(app.conf, name) for name in WORKER_SETTINGS},
        backend=app.conf.backend_options().url,
        chosen={name: _chosen(task) for name, task in app.registry.items()},
        conf=disclosed(app.conf.as_dict()),
        changed=[name for name, default in DEFAULTS.items() if getattr(app.conf, name) != default],
    )


def _chosen(task: "Task[Any, Any]") -> dict[str, Any]:
    """The options that the author of *task* set, as far as they are plain values."""
    kinds = [dict(vars(kind)) for kind in type(task).__mro__ if kind not in Task.__mro__]
    own = ChainMap(vars(task), *kinds)
    return {
        name: own[name]
        for name in TaskOptions.__annotations__
        if isinstance(own.get(name), str | int | float)
    }


class Nursery:
    """Forks and reaps; *parent* is the socket to the worker's parent."""

    def __init__(self, parent: socket.socket, options: WorkerOptions) -> None:
        self._parent = parent
        self._options = options
        self._loop = Loop()
        self._unpacker = unpacker()
        self._descriptors: deque[int] = deque()
        self._app: TaskQ | None = None

    def run(self) -> None:
        """Import the app, say what is in it, then serve until the parent is gone."""
        try:
            self._app, manifest = prepare(self._options)
        except (Exception, SystemExit) as error:
            self._say(BROKEN, explain(error))
            return
        self._say(MANIFEST, manifest.pack())
        if self._options.pool is None and self._app.conf.worker_pool == "solo":
            return  # the parent will run the tasks by itself
        # Children share the pages of what was imported only as long as the collector does not
        # write into them (https://docs.python.org/3/library/gc.html#gc.freeze).
        gc.collect()
        gc.freeze()
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._loop.add_handler(self._parent.fileno(), self._on_request, Loop.READ)
        self._loop.start()
        hooks.worker_shutdown.send(node=self._options.name)

    def _say(self, *words: Any) -> None:
        try:
            self._parent.sendall(msgpack.packb(words, default=str))
        except OSError:
            self._loop.stop()

    def _on_request(self, _fd: int, _events: int) -> None:
        data, descriptors, _flags, _address = socket.recv_fds(self._parent, 65536, 64)
        self._descriptors.extend(descriptors)
        if not data:
            self._loop.stop()
            return
        self._unpacker.feed(data)
        for word, *rest in self._unpacker:
            if word == FORK:
                self._fork(rest[0], self._descriptors.popleft(), self._descriptors.popleft())
            elif word == ANNOUNCE:
                hooks.worker_ready.send(node=self._options.name)

    def _fork(self, number: int, line: int, slate: int) -> None:
        nursery = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_child(nursery, line, slate)
        os.close(line)
        os.close(slate)
        self._say(BORN, number, pid)

    def _become_child(self, nursery: int, line: int, slate: int) -> NoReturn:
        status = 70
        try:
            die_with_parent(nursery)
            # A group of its own: killing it reaches what the task started, too.
            os.setpgid(0, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._loop.close()
            self._parent.close()
            assert self._app is not None
            status = child.main(self._app, socket.socket(fileno=line), slate, self._options)
        except SystemExit:
            status = 0
        except BaseException:
            log.logger.exception("a child could not start")
        finally:
            # Not sys.exit: the finalisers and buffers of the nursery are not the child's to run.
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Linux counts ru_maxrss in KiB, macOS in bytes.
            peak = usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
            self._say(DIED, pid, status, peak)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when *parent*, which started it, ends (Linux only).

    Elsewhere the end of the socket to the parent is what ends it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the wish was heard
        os._exit(1)


def explain(error: BaseException) -> str:
    """Why an import failed: our own errors speak for themselves, others show their traceback."""
    if isinstance(error, TaskqError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


def main() -> None:
    """Run the nursery on the socket and options that the parent passed in the command line."""
    options = WorkerOptions.from_json(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(options.parent)
    log.configure(options.loglevel, options.logfile, options.log_style)
    Nursery(socket.socket(fileno=int(sys.argv[1])), options).run()


if __name__ == "__main__":
    main()
