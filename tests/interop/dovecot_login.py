"""A Dovecot that knows one login and tells Postfix: nothing else of it runs."""

import os
import pwd

from ground import check, wait_until

CONFIGURATION = """
protocols =
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
instance_name = interop-login
default_login_user = dovenull
default_internal_user = dovecot
ssl = no
auth_mechanisms = plain
passdb {{
  driver = static
  args = user={name} password={password}
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service auth {{
  unix_listener {folder}/login {{
    mode = 0666
    user = postfix
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Login:
    """One instance; `socket` is what Postfix is told."""

    def __init__(self, ground, name, password, folder="dovecot-login"):
        self.ground = ground
        self.folder = ground.path(folder)
        self.socket = os.path.join(self.folder, "login")
        owner = pwd.getpwnam("nobody")
        os.makedirs(self.folder, 0o755)
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.configuration = ground.write(f"{folder}/dovecot.conf", CONFIGURATION.format(
            folder=self.folder, name=name, password=password))

    def start(self):
        """Starts it and waits for its socket."""
        process = self.ground.start(["dovecot", "-F", "-c", self.configuration], "dovecot-login.out")

        def is_up():
            check(process.poll() is None, "Dovecot ended; see dovecot-login.out")
            return os.path.exists(self.socket)

        wait_until(is_up, 20, "Dovecot's socket for logins")
        return self
