"""A real Dovecot as the customer's mailbox: LMTP only (RFC 2033), everything delivered into one maildir."""

import os
import pwd

from ground import check, free_ports, is_listening, wait_until
from messages import Box

CONFIGURATION = """
protocols = lmtp
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
instance_name = interop
default_login_user = dovenull
default_internal_user = dovecot
ssl = no
mail_location = maildir:{folder}/box
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
postmaster_address = postmaster@demo.example
lmtp_save_to_detail_mailbox = no
recipient_delimiter =
auth_username_chars =
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home allow_all_users=yes
}}
service lmtp {{
  user = {user}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    """One instance."""

    name = "dovecot"

    def __init__(self, ground, folder):
        self.ground = ground
        self.folder = ground.path(folder)
        self.port = free_ports(1)[0]
        # Dovecot notes the recipient only where a transaction has a single one.
        self.box = Box(os.path.join(self.folder, "box"), names_recipients=False)
        self.process = None
        owner = pwd.getpwnam("nobody")
        for part in ("", "box", "home"):
            os.makedirs(os.path.join(self.folder, part), 0o755, exist_ok=True)
            os.chown(os.path.join(self.folder, part), owner.pw_uid, owner.pw_gid)
        self.configuration = ground.write(f"{folder}/dovecot.conf", CONFIGURATION.format(
            folder=self.folder, uid=owner.pw_uid, gid=owner.pw_gid, user=owner.pw_name, port=self.port))

    @classmethod
    def behind(cls, ground, folder="dovecot-behind"):
        """The customer's mailbox: takes mail for everybody."""
        return cls(ground, folder)

    def start(self):
        """Starts it and waits until it listens."""
        self.process = self.ground.start(["dovecot", "-F", "-c", self.configuration], "dovecot.out")
        wait_until(lambda: self.is_up(), 20, f"Dovecot on port {self.port}; see its log")
        return self

    def is_up(self):
        """Whether it listens; fails the case if it died."""
        check(self.process.poll() is None, f"Dovecot ended: {self.log()[-600:]}")
        return is_listening(self.port)

    def stop(self):
        """Stops it."""
        self.ground.end(self.process)

    def is_idle(self):
        """It queues nothing: what it has answered is in the mailbox."""
        return True

    def log(self):
        """Its log so far."""
        text = ""
        for path in (self.ground.path("dovecot.out"), os.path.join(self.folder, "log")):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += file.read()
            except FileNotFoundError:
                pass
        return text
