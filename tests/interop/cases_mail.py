"""Mail of every kind, end to end: sent by swaks and by Postfix, kept by the provider, collected by fetchmail into Postfix and Exim."""

import collecting
import messages
import sending
from exim import Exim
from ground import check, equal
from postfix import Postfix
from provider import Provider
from registry import case


def open_provider(ground, tls=False, domains=("demo.example",), more=""):
    """A running provider with the customer `demo`; for fetchmail over TLS with the setting that it needs."""
    provider = Provider(ground, more).start()
    provider.add_customer(domains=domains)
    if tls:
        provider.command("customer", "set", "demo", "client-profile", "fetchmail-tls")
    return provider


def send_assortment(ground, provider):
    """Sends one message of each kind by swaks, plain and under STARTTLS, and one of each kind by a real Postfix."""
    sent = messages.assortment("swaks")
    sending.by_swaks(ground, provider.mx, sent[:-2])
    sending.by_swaks(ground, provider.mx, sent[-2:], tls=True)
    relayed = messages.assortment("postfix")
    sender = Postfix.sender(ground, provider.mx).start()
    sending.by_smtp(sender.port, relayed)
    queued = provider.wait_for(len(sent) + len(relayed))
    sender.stop()
    check("status=bounced" not in sender.log(), f"the sending Postfix was refused: {sender.log()[-600:]}")
    equal({one["customer"] for one in queued}, {"demo"}, "the customer of what is queued")
    return sent + relayed


def collect_all(ground, server, tls):
    """The whole way, for one kind of server behind and one kind of wire."""
    provider = open_provider(ground, tls)
    sent = send_assortment(ground, provider)
    behind = server.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port, tls=tls)
    run.expect_mail()
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


@case("plain-into-postfix")
def plain_into_postfix(ground):
    """CRAM-MD5 in clear text, Postfix behind."""
    collect_all(ground, Postfix, tls=False)


@case("plain-into-exim")
def plain_into_exim(ground):
    """CRAM-MD5 in clear text, Exim behind."""
    collect_all(ground, Exim, tls=False)


@case("tls-into-postfix")
def tls_into_postfix(ground):
    """Implicit TLS with the profile `fetchmail-tls`, Postfix behind."""
    collect_all(ground, Postfix, tls=True)


@case("tls-into-exim")
def tls_into_exim(ground):
    """Implicit TLS with the profile `fetchmail-tls`, Exim behind."""
    collect_all(ground, Exim, tls=True)


@case("two-domains")
def two_domains(ground):
    """One ATRN with a list of two domains takes the mail of both; one with the second alone leaves the first."""
    provider = open_provider(ground, domains=("demo.example", "second.example"))
    first = messages.plain("first", to="a@demo.example")
    second = messages.plain("second", to="b@second.example")
    both = [messages.plain("third", to="c@demo.example"), messages.plain("fourth", to="d@second.example")]
    sending.by_swaks(ground, provider.mx, [first, second])
    behind = Postfix.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port, domains=("second.example",))
    run.expect_mail()
    behind.box.expect([second], behind.is_idle)
    equal([one["domain"] for one in provider.wait_for(1)], ["demo.example"], "the domain of what is still queued")
    sending.by_swaks(ground, provider.mx, both)
    run = collecting.collect(ground, provider, behind.port, domains=("demo.example", "second.example"))
    run.expect_mail()
    provider.expect_empty()
    behind.box.expect([first, second, *both], behind.is_idle)
