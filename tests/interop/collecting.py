"""fetchmail as the customer's collector, with a file of its own for each run.

What it does and does not: docs of fetchmail 6.4; it needs the port given, speaks CRAM-MD5 only, and never STARTTLS in ODMR mode.
"""

import os

from ground import equal

# fetchmail's exit codes (its manual, "EXIT CODES"). In ODMR mode 453 is no failure to it: DONE.
DONE = 0


class Collected:
    """How a run ended: its exit code, all that it said, and whether the roles were reversed."""

    def __init__(self, status, said):
        self.status = status
        self.said = said
        self.is_reversed = "Turnaround now" in said

    def expect_mail(self):
        """Fails the case unless the roles were reversed and fetchmail ended well."""
        equal((self.status, self.is_reversed), (DONE, True), f"fetchmail's exit and reversal, having said {self.said[-500:]!r}")


def write_file(ground, provider, behind_port, tls=False, domains=("demo.example",), password=None, user="demo"):
    """Writes a fetchmailrc and returns its path: fetchmail refuses one that others may read."""
    wire = f'ssl sslcertck sslcertfile "{provider.certificate}"' if tls else ""
    names = " ".join(f'"{domain}"' for domain in domains)
    return ground.write("fetchmail/rc", f"""
poll "localhost" protocol ODMR service {provider.odmrs if tls else provider.odmr}
  auth cram-md5
  user "{user}" password "{password or provider.password}"
  fetchdomains {names}
  smtphost "127.0.0.1/{behind_port}"
  {wire}
""", 0o600)


def command(ground, file):
    """The command line of one run in the foreground, without a trace in the user's own files."""
    return ["fetchmail", "-f", file, "--nodetach", "--nosyslog", "--pidfile", ground.path("fetchmail/pid"), "-v", "-v"]


def environment(ground):
    """An environment whose home is the folder of the case."""
    home = ground.path("fetchmail")
    return dict(os.environ, HOME=home, FETCHMAILHOME=home, LC_ALL="C")


def collect(ground, provider, behind_port, seconds_max=120, **more):
    """Runs fetchmail once, as a customer's cron job does."""
    file = write_file(ground, provider, behind_port, **more)
    status, output, errors = ground.run(command(ground, file), seconds_max, env=environment(ground))
    said = output + errors
    ground.write("fetchmail/said", said)
    return Collected(status, said)
