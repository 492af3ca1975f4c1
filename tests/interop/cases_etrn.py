"""ETRN into real Postfix and Exim hosts, asked for by fetchmail and by Python; reports read by Python and taken by Postfix."""

import email
import email.policy
import os
import smtplib
import ssl

import collecting
import messages
import sending
from cases_mail import open_provider
from exim import Exim
from ground import check, equal, free_ports, wait_until
from postfix import Postfix
from provider import Provider
from registry import case


def set_host(provider, port):
    """Says where the customer's deliveries go."""
    provider.command("customer", "set", "demo", "etrn-host", f"127.0.0.1:{port}")


def ask(provider, node="demo.example"):
    """Asks for the queue at the mx port, under STARTTLS and logged in; returns the code."""
    context = ssl.create_default_context(cafile=provider.certificate)
    with smtplib.SMTP("localhost", provider.mx, "mail.demo.example", timeout=30) as session:
        session.starttls(context=context)
        session.ehlo()
        check(session.has_extn("etrn"), "ETRN is not offered under TLS")
        session.login("demo", provider.password)
        return session.docmd("ETRN", node)[0]


def deliver(ground, server):
    """The host is down, is tried again by itself, and takes everything in one go when it is back."""
    provider = open_provider(ground, more='[etrn]\nretry = ["1s"]\n')
    behind = server.behind(ground)
    set_host(provider, behind.port)
    equal(ask(provider), 251, "the reply to ETRN with nothing queued")
    sent = messages.assortment("etrn")
    sending.by_swaks(ground, provider.mx, sent)
    equal(ask(provider), 253, "the reply to ETRN with mail queued")
    wait_until(lambda: "unreachable" in provider.log(), 20, "the first attempt at a host that is down")
    behind.start()
    provider.expect_empty(60)
    behind.box.expect(sent, behind.is_idle)


@case("etrn-into-postfix")
def etrn_into_postfix(ground):
    """A Postfix host without TLS that is down at first."""
    deliver(ground, Postfix)


@case("etrn-into-exim")
def etrn_into_exim(ground):
    """An Exim host without TLS that is down at first."""
    deliver(ground, Exim)


@case("etrn-by-fetchmail")
def etrn_by_fetchmail(ground):
    """fetchmail in ETRN mode, over implicit TLS and with its ESMTP login, starts the delivery into a Postfix host."""
    provider = open_provider(ground)
    behind = Postfix.behind(ground).start()
    set_host(provider, behind.port)
    sent = [messages.plain("one"), messages.dots("two")]
    sending.by_swaks(ground, provider.mx, sent)
    file = ground.write("fetchmail/rc", f"""
poll "localhost" protocol ETRN service {provider.mxs}
  esmtpname "demo" esmtppassword "{provider.password}"
  user "demo"
  fetchdomains "demo.example"
  smtphost "127.0.0.1/{behind.port}"
  ssl sslcertck sslcertfile "{provider.certificate}"
""", 0o600)
    status, output, errors = ground.run(collecting.command(ground, file), 60, env=collecting.environment(ground))
    said = output + errors
    check("253" in said, f"fetchmail ended with {status} and saw no 253: {said[-600:]}")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


@case("report-through-postfix")
def report_through_postfix(ground):
    """A refusal becomes a report that a real Postfix takes as smart host and delivers, and that Python reads."""
    relay = Postfix.behind(ground, "postfix-relay")
    provider = Provider(ground, f'[relay]\nroute = "127.0.0.1:{relay.port}"\ntls = "opportunistic"\n').start()
    provider.add_customer()
    behind = Exim.behind(ground).start()
    set_host(provider, behind.port)
    relay.start()
    never = messages.plain("refused", to="never@demo.example")
    # The smart host delivers for second.example, so that is where the sender lives.
    never.sender = "writer@second.example"
    sending.by_swaks(ground, provider.mx, [never])
    provider.command("flush", "demo.example")

    expect_report(provider, relay)


def expect_report(provider, relay):
    """Waits for the one report in the mailbox behind `relay`, and reads all of it as Python does."""
    def delivered():
        folder = os.path.join(relay.box.folder, "new")
        return [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []

    files = wait_until(delivered, 30, f"the report in the sender's mailbox: {provider.log()[-600:]}")
    with open(files[0], "rb") as file:
        report = email.message_from_binary_file(file, policy=email.policy.default)
    equal(report.get_content_type(), "multipart/report", "the report's type")
    equal(report.get_param("report-type"), "delivery-status", "the report's kind")
    equal(report["Return-Path"], "<>", "the report's reverse-path")
    check(not report.defects, f"Python sees defects: {report.defects}")
    words, status, original = report.iter_parts()
    check("never@demo.example" in words.get_content(), "the words do not name the recipient")
    equal(status.get_content_type(), "message/delivery-status", "the second part")
    whole, recipient = status.get_payload()
    equal(whole["Reporting-MTA"], "dns; mx.provider.example", "Reporting-MTA")
    equal((recipient["Action"], recipient["Status"]), ("failed", "5.1.1"), "Action and Status")
    equal(recipient["Final-Recipient"], "rfc822; never@demo.example", "Final-Recipient")
    equal(recipient["Remote-MTA"], "dns; mail.demo.example", "Remote-MTA")
    check(recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 "), f"Diagnostic-Code: {recipient['Diagnostic-Code']}")
    equal(original.get_content_type(), "text/rfc822-headers", "the third part")
    provider.expect_empty()
