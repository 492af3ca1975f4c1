"""Hosts that are slow, that lose their TLS and get it back; swaks at the door of ETRN; smart hosts that want a login."""

import os
import time

import messages
import sending
from cases_etrn import ask, expect_report, set_host
from cases_mail import open_provider
from dovecot_login import Login
from exim import Exim
from ground import check, equal, free_ports, wait_until
from postfix import Postfix
from provider import Provider
from registry import case


def slow(ground, server):
    """The host thinks for two seconds about each recipient; the answers to ETRN come at once all the same, and once."""
    provider = open_provider(ground)
    behind = server.behind(ground, seconds=2).start()
    set_host(provider, behind.port)
    sent = [messages.plain("one"), messages.dots("two"), messages.plain("three", to=["a@demo.example", "b@demo.example"])]
    sending.by_swaks(ground, provider.mx, sent)
    begun = time.monotonic()
    for _ in range(5):
        equal(ask(provider), 253, "the reply to ETRN while the host is slow")
    check(behind.box.count() < 4, "the host was not slow at all")
    check(time.monotonic() - begun < 6, "five ETRN took longer than the four recipients did")
    behind.box.expect(sent, behind.is_idle)
    provider.expect_empty()
    equal(ask(provider), 251, "the reply to ETRN afterwards")
    # The line is written when the host has said goodbye, which is later than its last 250.
    wait_until(lambda: " drained " in provider.log(), 20, "the end of the drain in the log")
    equal(provider.log().count(" drained "), 1, "connections for five ETRN")


@case("etrn-slow-postfix")
def etrn_slow_postfix(ground):
    """Postfix sleeps before it answers RCPT."""
    slow(ground, Postfix)


@case("etrn-slow-exim")
def etrn_slow_exim(ground):
    """Exim's ACL delays the answer to RCPT."""
    slow(ground, Exim)


def loses_tls(ground, server):
    """With a certificate for its name, without TLS, and back: nothing goes in clear text that must not."""
    provider = open_provider(ground, more='[etrn]\nretry = ["1s"]\n')
    port, tls = free_ports(1)[0], ground.path("tls")
    provider.command("customer", "set", "demo", "etrn-host", f"localhost:{port}")
    provider.command("customer", "set", "demo", "etrn-tls", "verify")
    boxes, sent = [], []

    def expect(number, folder, **more):
        behind = server.behind(ground, folder, port=port, **more).start()
        sent.append(messages.plain(f"letter-{number}"))
        sending.by_swaks(ground, provider.mx, sent[-1:])
        equal(ask(provider), 253, "the reply to ETRN")
        return behind

    first = expect(1, "first", tls=tls)
    first.box.expect(sent, first.is_idle)
    provider.expect_empty()
    check("TLS" in first.log(), f"no TLS at the host: {first.log()[-400:]}")
    first.stop()
    second = expect(2, "second")
    wait_until(lambda: "does not offer STARTTLS, and TLS is required" in provider.log(), 20, "the word about TLS")
    equal(second.box.count(), 0, "messages in clear text")
    provider.wait_for(1)
    second.stop()
    third = server.behind(ground, "third", port=port, tls=tls).start()
    third.box.expect(sent[1:], third.is_idle)
    provider.expect_empty()
    third.stop()
    # What the operator allows goes in clear text again.
    provider.command("customer", "set", "demo", "etrn-tls", "opportunistic")
    fourth = expect(4, "fourth")
    fourth.box.expect(sent[2:], fourth.is_idle)
    provider.expect_empty()


@case("etrn-postfix-loses-tls")
def etrn_postfix_loses_tls(ground):
    """A Postfix host with a verified certificate, without TLS, and back again."""
    loses_tls(ground, Postfix)


@case("etrn-exim-loses-tls")
def etrn_exim_loses_tls(ground):
    """An Exim host with a verified certificate, without TLS, and back again."""
    loses_tls(ground, Exim)


@case("etrn-door-by-swaks")
def etrn_door_by_swaks(ground):
    """swaks has no ETRN of its own: it shows what is offered when, and logs in as a customer; ETRN itself is said by hand."""
    provider = open_provider(ground)
    common = ["swaks", "--helo", "mail.demo.example", "--from", "a@sender.example", "--to", "demo@demo.example",
              "--timeout", "60", "--server"]
    login = ["--auth", "PLAIN", "--auth-user", "demo", "--auth-password", provider.password]
    clear = [*common, f"127.0.0.1:{provider.mx}", "--quit-after", "EHLO"]
    status, output, errors = ground.run(clear)
    check(status == 0 and "ETRN" not in output and "AUTH" not in output, f"offered in clear text: {output[-600:]}")
    starttls = [*common, f"127.0.0.1:{provider.mx}", "--tls", *login, "--quit-after", "AUTH"]
    implicit = [*common, f"127.0.0.1:{provider.mxs}", "--tls-on-connect", *login, "--quit-after", "AUTH"]
    for words in (starttls, implicit):
        status, output, errors = ground.run(words)
        check(status == 0 and "ETRN" in output and "235 " in output, f"swaks ended with {status}: {output[-600:]}{errors}")
    wrong = [word if word != provider.password else "guessed" for word in starttls]
    status, output, errors = ground.run(wrong)
    check(status != 0 and "535 " in output, f"a wrong password: {output[-600:]}")
    # Logged in, swaks sends a message; that login is no relay.
    status, output, errors = ground.run([*common[:-1], "--silent", "2", "--tls", *login, "--server", f"127.0.0.1:{provider.mx}"])
    check(status == 0, f"swaks ended with {status}: {output[-600:]}{errors}")
    elsewhere = [word if word != "demo@demo.example" else "x@elsewhere.example" for word in starttls[:-2]]
    status, output, errors = ground.run(elsewhere)
    check(status != 0 and "550 5.7.1" in output, f"relayed for a customer: {output[-600:]}")
    provider.wait_for(1)
    for node, code in (("demo.example", 459), ("localname", 501), ("@com", 459)):
        equal(ask(provider, node), code, f"the reply to ETRN {node} without an etrn-host")
    behind = Exim.behind(ground).start()
    set_host(provider, behind.port)
    for node, code in (("#demo", 253), ("#other", 459), ("second.example", 459)):
        equal(ask(provider, node), code, f"the reply to ETRN {node}")
    provider.expect_empty()
    equal(ask(provider, "@demo.example"), 251, "the reply to ETRN @demo.example")


RELAY = '''[relay]
route = "localhost:{port}"
tls = "verify"
username = "restante"
password_file = "relay-password"
'''


def report_by_login(ground, port, make):
    """A refusal becomes a report that leaves by a smart host with a verified certificate and a login."""
    ground.write("relay-password", "right-horse\n", 0o600)
    provider = Provider(ground, RELAY.format(port=port)).start()
    relay = make()
    provider.add_customer()
    behind = Exim.behind(ground).start()
    set_host(provider, behind.port)
    never = messages.plain("refused", to="never@demo.example")
    # The smart host delivers for second.example, so that is where the sender lives.
    never.sender = "writer@second.example"
    sending.by_swaks(ground, provider.mx, [never])
    # It takes nothing from somebody who is not logged in.
    words = ["swaks", "--server", f"127.0.0.1:{port}", "--from", "<>", "--to", "writer@second.example", "--silent", "3"]
    check(ground.run(words)[0] != 0, "the smart host takes mail without a login")
    provider.command("flush", "demo.example")
    expect_report(provider, relay)


@case("report-through-exim-with-login")
def report_through_exim_with_login(ground):
    """The smart host is an Exim with AUTH PLAIN under TLS."""
    port = free_ports(1)[0]
    report_by_login(ground, port, lambda: Exim.behind(
        ground, "exim-relay", port=port, tls=ground.path("tls"), login=("restante", "right-horse")).start())


@case("report-through-postfix-with-login", is_extra=True)
def report_through_postfix_with_login(ground):
    """The smart host is a Postfix that asks a Dovecot whether the login is good."""
    port = free_ports(1)[0]

    def make():
        login = Login(ground, "restante", "right-horse").start()
        return Postfix.behind(ground, "postfix-relay", port=port, tls=ground.path("tls"), sasl=login.socket).start()

    report_by_login(ground, port, make)


@case("report-through-postfix-under-tls")
def report_through_postfix_under_tls(ground):
    """The smart host is a Postfix whose certificate is verified; it knows us by our address."""
    relay = Postfix.behind(ground, "postfix-relay", port=free_ports(1)[0], tls=None)
    check(os.path.isdir(relay.folder), "no Postfix")
    provider = Provider(ground, f'[relay]\nroute = "localhost:{relay.port}"\ntls = "verify"\n').start()
    provider.add_customer()
    behind = Exim.behind(ground).start()
    set_host(provider, behind.port)
    never = messages.plain("refused", to="never@demo.example", sender="writer@second.example")
    sending.by_swaks(ground, provider.mx, [never])
    # Without TLS it gets nothing.
    relay.start()
    provider.command("flush", "demo.example")
    wait_until(lambda: "does not offer STARTTLS, and TLS is required" in provider.log(), 20, "the word about TLS")
    equal(relay.box.count(), 0, "reports in clear text")
    relay.stop()
    relay = Postfix.behind(ground, "postfix-relay-tls", port=relay.port, tls=ground.path("tls")).start()
    expect_report_after_reload(provider, relay)


def expect_report_after_reload(provider, relay):
    """A reload is a reason to try at once."""
    provider.reload()
    expect_report(provider, relay)
