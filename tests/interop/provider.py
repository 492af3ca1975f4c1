"""The program under test, driven as an operator drives it: a configuration file and the commands of the binary."""

import json
import os
import re
import signal

from ground import check, end_group, equal, free_ports, is_listening, shorten, wait_until

BINARY = os.path.abspath(os.environ.get("RESTANTE_BIN", "target/release/restante"))

CONFIGURATION = """
hostname = "mx.provider.example"
data_dir = "{folder}/provider"

[listen]
mx    = ["127.0.0.1:{mx}"]
mxs   = ["127.0.0.1:{mxs}"]
odmr  = ["127.0.0.1:{odmr}"]
odmrs = ["127.0.0.1:{odmrs}"]
http  = []

[tls]
certificate = "{folder}/tls/server.pem"
private_key = "{folder}/tls/server.key"

[auth]
require_tls = false

{relay}
{more}
"""


class Provider:
    """A provider with its own store and a certificate for "localhost", and one customer's password."""

    password = "correct horse battery"

    def __init__(self, ground, more=""):
        self.ground = ground
        self.mx, self.mxs, self.odmr, self.odmrs = free_ports(4)
        self.process = None
        os.makedirs(ground.path("provider"), 0o700)
        self.certificate = make_certificate(ground)
        self.configuration = ground.write("restante.toml", CONFIGURATION.format(
            folder=ground.folder, mx=self.mx, mxs=self.mxs, odmr=self.odmr, odmrs=self.odmrs, more=more,
            # No case asks the DNS of the world.
            relay="" if "[relay]" in more else '[relay]\nroute = "none"'), 0o600)

    def command(self, *words, stdin=b"", status=0):
        """Runs one of the binary's commands on this provider; fails the case if it ends otherwise than with `status`."""
        environment = dict(os.environ, RESTANTE_CONFIG=self.configuration)
        seen, output, errors = self.ground.run([BINARY, *words], stdin=stdin, env=environment)
        check(seen == status, f"restante {' '.join(words)} ended with {seen}: {shorten(output + errors)}")
        return output

    def start(self):
        """Starts it and waits until every port takes connections. The case's own authority is the system's for it."""
        environment = dict(os.environ, SSL_CERT_FILE=self.certificate)
        self.process = self.ground.start([BINARY, "serve", "-c", self.configuration], "restante.out", env=environment)
        wait_until(lambda: self.is_up(), 20, f"restante serve to listen: {shorten(self.log())}")
        return self

    def is_up(self):
        """Whether it listens on every port; fails the case if it died."""
        check(self.process.poll() is None, f"restante serve ended: {self.log()[-800:]}")
        return all(is_listening(port) for port in (self.mx, self.mxs, self.odmr, self.odmrs))

    def stop(self):
        """Ends it as a service manager does."""
        self.ground.end(self.process)

    def reload(self):
        """SIGHUP, as `systemctl reload` sends it."""
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        """Ends it as a power cut ends a process."""
        end_group(self.process, signal.SIGKILL)
        self.process.wait()
        self.ground.started.remove(self.process)

    def add_customer(self, name="demo", domains=("demo.example",)):
        """Makes a customer with the known password."""
        words = [word for domain in domains for word in ("--domain", domain)]
        output = self.command("customer", "add", name, *words, "--json", "--password-stdin",
                              stdin=self.password.encode() + b"\n")
        made = json.loads(output)
        equal((made["name"], made["domains"]), (name, list(domains)), "customer add --json")

    def queued(self, *filters):
        """What `queue list --json` lists."""
        return json.loads(self.command("queue", "list", *filters, "--json"))["messages"]

    def wait_for(self, count, seconds_max=60):
        """Waits until so many messages are queued."""
        seen = []

        def is_there():
            seen[:] = self.queued()
            return len(seen) == count

        wait_until(is_there, seconds_max, f"{count} queued messages")
        return seen

    def expect_empty(self, seconds_max=20):
        """Waits until nothing is queued any more: the last settlement may come after the collector has ended."""
        self.wait_for(0, seconds_max)

    def in_doubt(self):
        """The keys of the messages that were on their way when a line broke: these, and no others, may come twice."""
        return set(re.findall(r" in-doubt .*message_id=\"?<([^@>]+)@", self.log()))

    def log(self):
        """The program's log so far."""
        try:
            with open(self.ground.path("restante.out"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""


def make_certificate(ground):
    """Makes an authority and a certificate for "localhost" signed by it; returns the authority's file."""
    os.makedirs(ground.path("tls"))
    ground.write("tls/names", "subjectAltName=DNS:localhost,DNS:mx.provider.example,IP:127.0.0.1\n"
                 "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n")
    file = lambda name: ground.path("tls", name)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-days", "30", "-subj", "/CN=Interop authority", "-keyout", file("ca.key"),
         "-out", file("ca.pem"), "-addext", "basicConstraints=critical,CA:TRUE",
         "-addext", "keyUsage=critical,keyCertSign"],
        ["req", "-new", *key, "-subj", "/CN=localhost", "-keyout", file("server.key"), "-out", file("request")],
        ["x509", "-req", "-in", file("request"), "-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-days", "30",
         "-set_serial", "1", "-extfile", file("names"), "-out", file("server.pem")],
    ):
        status, output, errors = ground.run(["openssl", *command])
        check(status == 0, f"openssl {command[0]}: {output}{errors}")
    os.chmod(file("server.key"), 0o600)
    return file("ca.pem")
