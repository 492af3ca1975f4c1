"""A real Exim as the customer's server: its own configuration and spool, everything delivered into one maildir.

The binary is unpacked from Debian's package by `packages`, since Postfix's package forbids to install it.
"""

import os
import pwd
import shutil

from ground import check, free_ports, is_listening, wait_until
from messages import Box

EXIM = os.path.join(os.environ.get("RESTANTE_INTEROP_CACHE", "target/interop"), "exim/usr/sbin/exim4")

CONFIGURATION = """
exim_path = {exim}
exim_user = Debian-exim
exim_group = Debian-exim
never_users =
primary_hostname = mail.demo.example
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/pid
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
disable_ipv6
host_lookup =
rfc1413_query_timeout = 0s
{tls}
accept_8bitmime
message_size_limit = 100M
check_spool_space = 0
smtp_accept_queue_per_connection = 0
{more}deliver_drop_privilege
untrusted_set_sender = *
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept

begin acl
check_rcpt:
{login}{slow}  defer local_parts = later
        message = 450 4.2.1 come again later
  deny local_parts = never
       message = 550 5.1.1 nobody of this name
  accept domains = demo.example : second.example
  deny message = relay not permitted

begin routers
everything:
  driver = accept
  transport = box

begin transports
box:
  driver = appendfile
  directory = {folder}/box
  maildir_format
  create_directory
  envelope_to_add
  return_path_add
  delivery_date_add
  user = Debian-exim
  group = Debian-exim
  mode = 0600
"""


TLS = """tls_advertise_hosts = *
tls_certificate = {tls}/server.pem
tls_privatekey = {tls}/server.key
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}"""

LOGIN = """
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


class Exim:
    """One instance."""

    name = "exim"

    def __init__(self, ground, folder, port=None, tls=None, seconds=0, login=None, more=""):
        self.ground = ground
        self.folder = ground.path(folder)
        self.port = port or free_ports(1)[0]
        self.box = Box(os.path.join(self.folder, "box"))
        self.process = None
        owner = pwd.getpwnam("Debian-exim")
        for part in ("", "spool", "log", "box"):
            os.makedirs(os.path.join(self.folder, part), 0o755, exist_ok=True)
            os.chown(os.path.join(self.folder, part), owner.pw_uid, owner.pw_gid)
        if tls:
            # Exim reads its key as its own user.
            own = os.path.join(self.folder, "tls")
            shutil.copytree(tls, own)
            for part in (own, *(os.path.join(own, name) for name in os.listdir(own))):
                os.chown(part, owner.pw_uid, owner.pw_gid)
            tls = own
        # Owned by root: Exim refuses a configuration that another user could have written.
        text = CONFIGURATION.format(
            exim=os.path.abspath(EXIM), folder=self.folder, port=self.port, more=more,
            tls=TLS.format(tls=tls) if tls else "tls_advertise_hosts =",
            login="  deny !authenticated = *\n       message = 550 5.7.1 log in first\n" if login else "",
            slow=f"  warn delay = {seconds}s\n" if seconds else "")
        if login:
            text += LOGIN.format(name=login[0], password=login[1])
        self.configuration = ground.write(f"{folder}/exim.conf", text)

    @classmethod
    def behind(cls, ground, folder="exim-behind", **how):
        """The customer's server: takes mail for demo.example and second.example.

        `tls` is the folder of its certificate, `seconds` how long it thinks about each recipient, `login` the name and
        password of the only one who may send, `more` goes among its main options.
        """
        return cls(ground, folder, **how)

    def start(self):
        """Starts it and waits until it listens."""
        self.process = self.ground.start([EXIM, "-C", self.configuration, "-bdf", "-q10s"], "exim.out")
        wait_until(lambda: self.is_up(), 20, f"Exim on port {self.port}; see its log")
        return self

    def is_up(self):
        """Whether it listens; fails the case if it died."""
        check(self.process.poll() is None, f"Exim ended: {self.log()[-600:]}")
        return is_listening(self.port)

    def stop(self):
        """Stops it; what it has queued stays queued."""
        self.ground.end(self.process)

    def is_idle(self):
        """Whether its queue is empty."""
        status, output, errors = self.ground.run([EXIM, "-C", self.configuration, "-bpc"])
        check(status == 0, f"exim -bpc: {errors}")
        return output.strip() == "0"

    def log(self):
        """Its log so far, with the output of its daemon before it."""
        text = ""
        for path in (self.ground.path("exim.out"), os.path.join(self.folder, "log", "main"),
                     os.path.join(self.folder, "log", "panic")):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += file.read()
            except FileNotFoundError:
                pass
        return text
