"""What a case stands on: its own folder, the processes that it started, free ports, and bounded waits.

Used by every other file here; knows nothing of mail. Everything started through a Ground ends with it.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

POLL_SECONDS = 0.05


class Failed(Exception):
    """A case did not come out as it must; the text says what was seen instead."""


def check(is_so, text):
    """Fails the case with `text` unless `is_so`."""
    if not is_so:
        raise Failed(text)


def equal(seen, wanted, what):
    """Fails the case unless what was seen is what was wanted."""
    check(seen == wanted, f"{what}: {shorten(seen)} instead of {shorten(wanted)}")


def shorten(value, characters_max=300):
    """A value as text that fits a line of the report."""
    text = repr(value)
    return text if len(text) <= characters_max else text[:characters_max] + "…"


def wait_until(question, seconds_max, what):
    """Asks `question` until it answers with something true, and returns that; fails the case after `seconds_max`."""
    end = time.monotonic() + seconds_max
    while True:
        answer = question()
        if answer:
            return answer
        check(time.monotonic() < end, f"waited {seconds_max} s in vain: {what}")
        time.sleep(POLL_SECONDS)


def is_listening(port):
    """Whether a loopback port takes connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Below the range from which the kernel takes the ports of outgoing connections, so that none of those gets in the way.
PORTS = iter(random.sample(range(12000, 32000), 20000))
PORTS_LOCK = threading.Lock()


def free_ports(count):
    """Loopback ports that nothing listens on; none is given twice in one run."""
    ports = []
    while len(ports) < count:
        with PORTS_LOCK:
            port = next(PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
    return ports


class Ground:
    """The folder and the processes of one case."""

    opened = []

    def __init__(self, name, parent=None):
        if parent:
            self.folder = os.path.join(parent, name)
            shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder)
        else:
            self.folder = tempfile.mkdtemp(prefix=f"interop-{name}-")
        self.is_kept = parent is not None
        # Postfix and Exim give up root and must still reach their folders below.
        os.chmod(self.folder, 0o755)
        self.started = []
        Ground.opened.append(self)

    def path(self, *parts):
        """A path in the folder of this case."""
        return os.path.join(self.folder, *parts)

    def write(self, name, content, mode=0o644):
        """Writes a file into the folder and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(path, mode)
        return path

    def start(self, command, log, **more):
        """Starts a process in a group of its own; its output goes to the file `log` in the folder."""
        with open(self.path(log), "ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, **more)
        self.started.append(process)
        return process

    def run(self, command, seconds_max=60, stdin=b"", **more):
        """Runs a command to its end; returns its exit status, output and error output as text."""
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, **more)
        self.started.append(process)
        try:
            output, errors = process.communicate(stdin, timeout=seconds_max)
        except subprocess.TimeoutExpired:
            end_group(process, signal.SIGKILL)
            output, errors = process.communicate()
            raise Failed(f"{os.path.basename(command[0])} did not end within {seconds_max} s; its last words: "
                         f"{shorten(tail(output + errors))}") from None
        self.started.remove(process)
        return process.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")

    def end(self, process, seconds_max=20):
        """Ends a process that `start` began: by SIGTERM, and by SIGKILL if that does not end it in time."""
        if process in self.started:
            self.started.remove(process)
        end_group(process, signal.SIGTERM)
        try:
            process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            end_group(process, signal.SIGKILL)
            process.wait()
            raise Failed(f"{shorten(process.args)} did not end within {seconds_max} s of SIGTERM") from None
        finally:
            # Children that outlived their parent, such as Exim's deliveries.
            end_group(process, signal.SIGKILL)

    def close(self):
        """Kills what still runs and removes the folder, unless it is to be kept."""
        for process in list(self.started):
            end_group(process, signal.SIGKILL)
            process.wait()
        self.started.clear()
        Ground.opened.remove(self)
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)


def end_group(process, number):
    """Signals the whole group of a process that was started as the leader of one."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def tail(output, bytes_max=600):
    """The end of a program's output, as text."""
    return output[-bytes_max:].decode("utf-8", "replace")
