"""A real Postfix with its own configuration, queue and data folder, on a loopback port.

Two roles: the customer's server (`behind`), which delivers everything into one maildir, and another site's server (`sender`),
which relays everything to the provider's MX port. It never reads /etc/postfix/main.cf.
"""

import json
import os
import pwd

from ground import Failed, check, free_ports, is_listening, wait_until
from messages import Box

MASTER = "/usr/lib/postfix/sbin/master"

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = {hostname}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_host_lookup = native
smtp_dns_support_level = disabled
disable_dns_lookups = yes
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
biff = no
message_size_limit = 104857600
mailbox_size_limit = 0
virtual_mailbox_limit = 0
in_flow_delay = 0
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
anvil_status_update_time = 600s
"""

BEHIND = """
virtual_mailbox_domains = demo.example, second.example
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_recipient_restrictions = {slow}check_recipient_access inline:{{{refusals}}}, permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
"""

TLS = """
smtpd_tls_security_level = may
smtpd_tls_chain_files = {tls}/server.key, {tls}/server.pem
smtpd_tls_loglevel = 1
"""

# Login by a Dovecot, and mail only for those who are logged in and under TLS.
SASL = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_tls_auth_only = yes
smtpd_sasl_security_options = noanonymous
mynetworks = 192.0.2.0/24
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject
"""

SENDER = """
relayhost = [127.0.0.1]:{mx}
default_transport = smtp
smtp_tls_security_level = encrypt
smtp_tls_loglevel = 1
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
smtpd_relay_restrictions = permit_mynetworks, reject
"""

SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
tlsmgr    unix  - - n 1000? 1 tlsmgr
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
virtual   unix  - n n - - virtual
proxymap  unix  - - n - - proxymap
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
showq     unix  n - n - - showq
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance."""

    name = "postfix"

    def __init__(self, ground, folder, port, text):
        self.ground = ground
        self.folder = ground.path(folder)
        self.port = port
        self.box = Box(os.path.join(self.folder, "box"))
        self.process = None
        owner = pwd.getpwnam("postfix")
        for part, mode in (("", 0o755), ("queue", 0o755), ("data", 0o700)):
            os.makedirs(os.path.join(self.folder, part), mode, exist_ok=True)
        os.chown(os.path.join(self.folder, "data"), owner.pw_uid, owner.pw_gid)
        ground.write(f"{folder}/main.cf", text.format(folder=self.folder, uid=owner.pw_uid, gid=owner.pw_gid))
        ground.write(f"{folder}/master.cf", SERVICES.format(port=port))
        # Virtual delivery runs as this user, and makes the maildir itself below its base.
        os.makedirs(self.box.folder)
        os.chown(self.box.folder, owner.pw_uid, owner.pw_gid)
        status, output, errors = ground.run(["postfix", "-c", self.folder, "check"])
        if status != 0:
            raise Failed(f"postfix check: {output}{errors}")

    @classmethod
    def behind(cls, ground, folder="postfix-behind", port=None, tls=None, seconds=0, sasl=None, more=""):
        """The customer's server: takes mail for demo.example and second.example.

        `tls` is the folder of its certificate, `seconds` how long it thinks about each recipient, `sasl` the socket of a
        Dovecot that knows the logins, without which it then takes nothing, `more` goes into its main.cf.
        """
        refusals = ", ".join(f"{{{to}@demo.example = {reply}}}" for to, reply in (
            ("later", "450 4.2.1 come again later"), ("never", "550 5.1.1 nobody of this name")))
        text = MAIN.replace("{hostname}", "mail.demo.example") + BEHIND.replace("{refusals}", refusals.replace(
            "{", "{{").replace("}", "}}")).replace("{slow}", f"sleep {seconds}, " if seconds else "")
        if tls:
            text += TLS.replace("{tls}", tls)
        if sasl:
            text += SASL.replace("{sasl}", sasl)
        return cls(ground, folder, port or free_ports(1)[0], text + more)

    @classmethod
    def sender(cls, ground, mx_port, folder="postfix-sender"):
        """Another site's server: what it gets by SMTP it sends on to the provider's port, under STARTTLS."""
        text = MAIN.replace("{hostname}", "mail.sender.example") + SENDER.replace("{mx}", str(mx_port))
        return cls(ground, folder, free_ports(1)[0], text)

    def start(self):
        """Starts it and waits until it listens."""
        self.process = self.ground.start([MASTER, "-c", self.folder, "-d"], "postfix-master.out")
        wait_until(lambda: self.is_up(), 20, f"Postfix on port {self.port}; see its log")
        return self

    def is_up(self):
        """Whether it listens; fails the case if it died."""
        check(self.process.poll() is None, f"Postfix's master ended: {self.log()[-600:]}")
        return is_listening(self.port)

    def stop(self):
        """Stops it; what it has queued stays queued."""
        self.ground.end(self.process)

    def queued(self):
        """The messages in its queue."""
        status, output, errors = self.ground.run(["postqueue", "-c", self.folder, "-j"])
        check(status == 0, f"postqueue: {errors}")
        return [json.loads(line) for line in output.splitlines()]

    def is_idle(self):
        """Whether its queue is empty."""
        return not self.queued()

    def log(self):
        """Its log so far."""
        try:
            with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""
