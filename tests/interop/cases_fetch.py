"""`restante fetch`, the customer's side in the same binary, against a running provider and real servers behind it."""

import os

import messages
import sending
from cases_mail import open_provider
from dovecot import Dovecot
from exim import Exim
from ground import check, equal, free_ports
from postfix import Postfix
from provider import BINARY
from registry import case

# The exit status of `restante fetch` for "nothing lost, try again later".
TRY_LATER = 75


def fetch(ground, provider, target, tls, status=0, seconds_max=60):
    """Runs `restante fetch` once; fails the case if it ends otherwise than with `status`."""
    file = ground.write("password", provider.password + "\n", 0o600)
    port = provider.odmrs if tls == "implicit" else provider.odmr
    seen, output, errors = ground.run(
        [BINARY, "fetch", f"localhost:{port}", "--user", "demo", "--password-file", file, "--to", target,
         "--tls", tls, "--ca", provider.certificate], seconds_max, env=dict(os.environ, HOME=ground.folder))
    equal(seen, status, f"the exit of restante fetch, having said {(output + errors)[-500:]!r}")


def fetch_all(ground, server, scheme, tls):
    """One message of every kind, from the provider through `restante fetch` into a server."""
    provider = open_provider(ground)
    sent = messages.assortment("fetched")
    sending.by_smtp(provider.mx, sent)
    behind = server.behind(ground).start()
    fetch(ground, provider, f"{scheme}://127.0.0.1:{behind.port}", tls)
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)
    fetch(ground, provider, f"{scheme}://127.0.0.1:{behind.port}", tls)


@case("fetch-into-postfix", is_extra=True)
def fetch_into_postfix(ground):
    """STARTTLS, SMTP to Postfix."""
    fetch_all(ground, Postfix, "smtp", "starttls")


@case("fetch-into-exim", is_extra=True)
def fetch_into_exim(ground):
    """Implicit TLS, SMTP to Exim."""
    fetch_all(ground, Exim, "smtp", "implicit")


@case("fetch-into-dovecot", is_extra=True)
def fetch_into_dovecot(ground):
    """STARTTLS, LMTP to Dovecot."""
    fetch_all(ground, Dovecot, "lmtp", "starttls")


@case("fetch-target-down", is_extra=True)
def fetch_target_down(ground):
    """Nothing listens at the target: it does not take the turn, says "try later", and nothing is lost."""
    provider = open_provider(ground)
    sending.by_smtp(provider.mx, [messages.plain("kept")])
    fetch(ground, provider, f"smtp://127.0.0.1:{free_ports(1)[0]}", "starttls", status=TRY_LATER)
    check(provider.wait_for(1)[0]["attempts"] == 0, "a turn was taken although the target was down")
