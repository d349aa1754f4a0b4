"""
Commands that start without importing torch and transformers again, which takes 5 s of CPU time.

`umons`, `python` and `accelerate` are clients of a process that has imported the package and its libraries. It forks
for each command. The fork has the arguments, folder, environment and streams of its client.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


PRELOADED = (
    "accelerate.commands.accelerate_cli", "av", "matplotlib.pyplot", "modeling_umons.cli.predict",
    "modeling_umons.evaluation.report", "modeling_umons.inference.timeline",
    "modeling_umons.models.umons.pipeline_umons", "modeling_umons.training.run", "sklearn.feature_extraction.text",
    "sklearn.linear_model", "torch.distributed.run", "transformers.models.auto.modeling_auto",
)  # fmt: skip
status = 0  # of the command
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n"
    sent = socket.send_fds(server, [request], [0, 1, 2])
    server.sendall(request[sent:])
    sys.exit(int(server.recv(16)))
"""


class WarmCommands:
    """
    The commands and the process that serves them.

    Args:
        environment: variables of the process, which libraries read when they are imported.

    Attributes:
        environment: variables of a process that finds the commands.
    """

    def __init__(self, environment: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        path = os.pathsep.join(map(str, (folder, Path(sys.executable).parent, environment["PATH"])))
        # torchrun starts its workers with PYTHON_EXEC.
        self.environment = {**environment, "PATH": path, "PYTHON_EXEC": str(folder / "python")}

    def __enter__(self) -> "WarmCommands":
        folder = Path(self._folder.name)
        for name in ("umons", "python", "accelerate"):
            client = folder / name
            client.write_text(CLIENT.format(python=sys.executable, address=str(folder / "socket"), name=name))
            client.chmod(0o755)
        command = [sys.executable, __file__, folder / "socket"]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.communicate()
        self._folder.cleanup()


def leave() -> None:
    """End without the destruction of modules, which would copy their pages."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(address: str) -> None:
    atexit.register(leave)  # first, to run last
    for name in PRELOADED:
        __import__(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watch(connection)


def watch(connection: socket.socket) -> None:
    """Run the command in a fork, which a client that has ended ends too, and send its exit status."""
    request, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not request.endswith(b"\n"):
        request += connection.recv(1 << 16)
    ended, running = os.pipe()
    command = os.fork()
    if command == 0:
        connection.close()
        os.close(ended)
        run_with_status(*json.loads(request), streams)
        return
    os.close(running)
    for stream in streams:
        os.close(stream)
    if connection in select.select([ended, connection], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    exit_code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(str(exit_code).encode())
    os._exit(0)


def run_with_status(*request) -> None:
    global status
    status = 1
    try:
        run(*request)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def run(name: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    if name == "umons":
        from modeling_umons.cli.main import main

        sys.exit(main())
    if name == "accelerate":
        from accelerate.commands.accelerate_cli import main

        sys.executable = environment["PYTHON_EXEC"]
        sys.exit(main())
    run_python([argument for argument in arguments if argument != "-u"])


def run_python(arguments: list[str]) -> None:
    """Run `-c CODE`, `-m MODULE` or a script."""
    if arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], ""
        if not hasattr(sys.modules.get(arguments[1]), "__path__"):
            sys.modules.pop(arguments[1], None)  # runpy warns of imported modules
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
