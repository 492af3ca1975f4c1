"""`restante quickstart` as a stranger uses it: every command that it prints is run as printed, in the order printed."""

import os
import re
import stat

from ground import check, equal, is_listening, wait_until
from provider import BINARY
from registry import case

# The ports of the interface: fixed, so that the printed commands and the README can name them.
PORTS = {"mx": 2525, "mxs": 4650, "odmr": 3660, "odmrs": 3661, "http": 9366}
BEHIND = 2599

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../README.md")


def printed_commands(text):
    """The commands below each numbered heading: indented by two columns; a line that ends in `|` goes on in the next."""
    commands = {}
    number = None
    for line in text.splitlines():
        heading = re.match(r"(\d+)\. ", line)
        if heading:
            number = int(heading.group(1))
            commands[number] = []
        elif number and commands[number] and commands[number][-1].endswith("|"):
            commands[number][-1] += "\n" + line.strip()
        elif number and re.match(r"  \S", line):
            commands[number].append(line.strip())
    equal(sorted(commands), [1, 2, 3, 4, 5], "the numbered steps that quickstart prints")
    check(all(commands.values()), f"a step without a command: {commands}")
    return commands


class Stranger:
    """Somebody with two terminals in an empty folder: the program's folder and Debian's own Python stand first in the path."""

    def __init__(self, ground):
        self.ground = ground
        self.folder = ground.path("restante-data")
        path = os.pathsep.join([os.path.dirname(BINARY), "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
        self.environment = dict(os.environ, PATH=path, HOME=ground.folder, PYTHONUNBUFFERED="1", LC_ALL="C")
        self.process = None

    def quickstart(self, log):
        """Starts `restante quickstart`; returns what it printed, once every port takes connections."""
        for name, port in {**PORTS, "behind": BEHIND}.items():
            check(not is_listening(port), f"port {port} ({name}) is taken by another program")
        self.process = self.ground.start([BINARY, "quickstart"], log, cwd=self.ground.folder, env=self.environment)

        def is_up():
            check(self.process.poll() is None, f"quickstart ended with {self.process.returncode}: {self.printed(log)[-600:]}")
            return all(is_listening(port) for port in PORTS.values())

        wait_until(is_up, 30, "quickstart to listen on all its ports")
        return self.printed(log)

    def printed(self, log):
        """What a started program has printed so far."""
        with open(self.ground.path(log), encoding="utf-8") as file:
            return file.read()

    def shell(self, command):
        """Runs a printed command; fails the case if it fails."""
        status, output, errors = self.ground.run(["sh", "-c", command], cwd=self.ground.folder, env=self.environment)
        equal(status, 0, f"the exit of {command!r}, having said {(output + errors)[-400:]!r}")
        return output + errors


def printed_listing(stranger):
    """How many messages `queue list` has in the folder that quickstart made."""
    return stranger.shell("restante queue list --json -c restante-data/restante.toml").count('"reverse_path"')


def expect_readme(commands, log):
    """The README shows a command that quickstart prints, and of the log only events that there are."""
    with open(README, encoding="utf-8") as file:
        text = file.read()
    shown = re.findall(r"(?m)^  (swaks .*)$", text)
    check(shown, "the README shows no command of quickstart's")
    equal([one for one in shown if one not in commands[1]], [], "commands in the README that quickstart does not print")
    events = re.findall(r"(?m)^… info (\S+) ", text)
    check(events, "the README shows no line of the log")
    equal([one for one in events if f" info {one} " not in log], [], "events in the README that the log does not have")


@case("quickstart")
def quickstart(ground):
    """From an empty folder to a collected message by the printed commands; then again, on what is there."""
    stranger = Stranger(ground)
    commands = printed_commands(stranger.quickstart("first.out"))
    for path, mode in (("", 0o700), ("restante.toml", 0o600), ("fetchmailrc", 0o600), ("tls/key.pem", 0o600)):
        equal(stat.S_IMODE(os.stat(os.path.join(stranger.folder, path)).st_mode), mode, f"the mode of {path or 'the folder'}")

    for command in commands[1]:
        stranger.shell(command)
    equal(printed_listing(stranger), len(commands[1]), "messages that wait after step 1")
    said = stranger.shell(commands[2][0])
    equal(said.count("you@sender.example"), len(commands[1]), "lines of `queue list` that name the sender")

    behind = ground.start(["sh", "-c", "exec " + commands[3][0]], "behind.out", env=stranger.environment)
    wait_until(lambda: is_listening(BEHIND), 20, "the mail server of step 3")
    stranger.shell(commands[4][0])
    wait_until(lambda: stranger.printed("behind.out").count("Subject: It works") == len(commands[1]), 20,
               "the collected messages in what the server of step 3 prints")
    wait_until(lambda: printed_listing(stranger) == 0, 20, "an empty queue")
    check("demo" in stranger.shell(commands[5][0]), "`restante status` does not name the customer")

    wait_until(lambda: " drained " in stranger.printed("first.out"), 20, "the end of the drain in the log")
    expect_readme(commands, stranger.printed("first.out"))
    ground.end(stranger.process)
    equal(stranger.process.returncode, 0, "quickstart's exit after SIGTERM")
    ground.end(behind)
    again = stranger.quickstart("second.out")
    check("Serving what is in" in again, f"the second start says {again[:300]!r}")
    stranger.shell(commands[1][0])
    equal(printed_listing(stranger), 1, "messages after the second start")


@case("quickstart-refuses")
def quickstart_refuses(ground):
    """A folder with something else in it is not touched."""
    ground.write("full/letter.txt", "mine")
    status, output, errors = ground.run([BINARY, "quickstart", ground.path("full")])
    equal((status, output), (1, ""), f"exit and output, having said {errors!r}")
    equal(len(errors.splitlines()), 1, f"lines on standard error: {errors!r}")
    equal(os.listdir(ground.path("full")), ["letter.txt"], "what is in the folder afterwards")
