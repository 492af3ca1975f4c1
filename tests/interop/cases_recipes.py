"""The recipes of docs/customer.md as they stand there, and `restante fetch` where things go wrong behind it."""

import os
import re
import signal
import smtplib

import messages
import sending
from cases_fetch import TRY_LATER, fetch
from cases_mail import open_provider
from cases_volume import send_many
from dovecot import Dovecot
from exim import Exim
from ground import check, end_group, equal, free_ports, is_listening, wait_until
from messages import Box
from postfix import Postfix
from provider import BINARY
from registry import case

GUIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/customer.md")


def recipe(heading, number=0):
    """The block of that number under a heading of the guide."""
    with open(GUIDE, encoding="utf-8") as file:
        section = file.read().split(f"\n### {heading}\n")[1].split("\n##")[0]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)[number]


def expect_no_relay(port):
    """A message to a domain that is not ours is refused at this port, one to ours is not."""
    with smtplib.SMTP("127.0.0.1", port, "mx.provider.example", timeout=20) as session:
        session.ehlo()
        equal(session.mail("a@sender.example")[0], 250, "MAIL")
        reply = session.rcpt("victim@elsewhere.example")
        check(reply[0] // 100 == 5, f"the door relays for the provider: {reply}")
        equal(session.rcpt("one@demo.example")[0], 250, "RCPT for our own domain")


@case("recipe-postfix", is_extra=True)
def recipe_postfix(ground):
    """The guide's door in master.cf: takes our mail, relays nothing."""
    provider = open_provider(ground)
    sent = messages.assortment("door")
    sending.by_smtp(provider.mx, sent)
    behind = Postfix.behind(ground)
    door = free_ports(1)[0]
    with open(os.path.join(behind.folder, "master.cf"), "a", encoding="utf-8") as file:
        file.write(recipe("Postfix").replace(":2526 ", f":{door} "))
    behind.start()
    wait_until(lambda: is_listening(door), 20, "the door of the guide")
    expect_no_relay(door)
    fetch(ground, provider, f"smtp://127.0.0.1:{door}", "starttls")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


@case("recipe-exim", is_extra=True)
def recipe_exim(ground):
    """The guide's second port and its rule: takes our mail, relays nothing, though the first port does."""
    provider = open_provider(ground)
    sent = messages.assortment("door")
    sending.by_smtp(provider.mx, sent)
    behind = Exim.behind(ground)
    door = free_ports(1)[0]
    path = behind.configuration
    with open(path, encoding="utf-8") as file:
        text = file.read()
    rule = recipe("Exim", 1).replace("{2526}", f"{{{door}}}")
    accept = "  accept domains = demo.example : second.example\n"
    check(accept in text, "the instance's configuration has changed")
    relay = f"{rule}\n  accept hosts = 127.0.0.1\n"
    listen = recipe("Exim", 0).replace("0.0.0.0.25", f"127.0.0.1.{behind.port}").replace(".2526", f".{door}")
    text = text.replace("local_interfaces = 127.0.0.1\n", "domainlist local_domains = demo.example : second.example\n" + listen)
    text = text.replace(accept, relay)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    behind.start()
    wait_until(lambda: is_listening(door), 20, "the door of the guide")
    expect_no_relay(door)
    fetch(ground, provider, f"smtp://127.0.0.1:{door}", "starttls")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


@case("recipe-dovecot", is_extra=True)
def recipe_dovecot(ground):
    """The guide's LMTP socket."""
    provider = open_provider(ground)
    sent = messages.assortment("socket")
    sending.by_smtp(provider.mx, sent)
    behind = Dovecot.behind(ground)
    with open(behind.configuration, "a", encoding="utf-8") as file:
        file.write(recipe("Dovecot (LMTP)"))
    behind.start()
    fetch(ground, provider, f"lmtp://{behind.folder}/run/lmtp", "implicit")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


@case("fetch-into-maildir", is_extra=True)
def fetch_into_maildir(ground):
    """One message of every kind into a Maildir, byte by byte."""
    provider = open_provider(ground)
    # A copy for each recipient is what a mail server makes of a message; a Maildir gets one for all.
    sent = [one for one in messages.assortment("file") if len(one.to) == 1]
    sending.by_smtp(provider.mx, sent)
    fetch(ground, provider, f"maildir:{ground.path('Maildir')}", "starttls")
    provider.expect_empty()
    Box(ground.path("Maildir")).expect(sent, lambda: True)


@case("fetch-server-killed", is_extra=True)
def fetch_server_killed(ground):
    """Postfix dies by SIGKILL in the middle and is started again: the next call takes the rest, at most one message
    comes twice."""
    provider = open_provider(ground)
    sent = send_many(ground, provider, 400)
    behind = Postfix.behind(ground).start()
    file = ground.write("password", provider.password + "\n", 0o600)
    command = [BINARY, "fetch", f"localhost:{provider.odmr}", "--user", "demo", "--password-file", file,
               "--to", f"smtp://127.0.0.1:{behind.port}", "--ca", provider.certificate]
    process = ground.start(command, "fetch.out", env=dict(os.environ, HOME=ground.folder))
    wait_until(lambda: behind.box.count() >= 20, 60, "the first twenty messages")
    end_group(behind.process, signal.SIGKILL)
    behind.process.wait()
    ground.started.remove(behind.process)
    equal(process.wait(30), TRY_LATER, "the exit of restante fetch after its server died")
    ground.started.remove(process)
    check(provider.queued(), "all was collected before the server died: more messages are needed")
    behind.start()
    fetch(ground, provider, f"smtp://127.0.0.1:{behind.port}", "starttls")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle, seconds_max=90, may_double=provider.in_doubt())


@case("fetch-ten-thousand", is_extra=True)
def fetch_ten_thousand(ground):
    """Ten thousand small messages in one call, into a Maildir."""
    provider = open_provider(ground)
    sent = [messages.plain(f"many-{number:05}") for number in range(10_000)]
    sending.by_smtp(provider.mx, sent)
    # Every message is flushed to the disk by both sides before the next: minutes on a slow or busy disk.
    fetch(ground, provider, f"maildir:{ground.path('Maildir')}", "starttls", seconds_max=300)
    provider.expect_empty()
    Box(ground.path("Maildir")).expect(sent, lambda: True)


@case("fetch-fifty-mebibytes", is_extra=True)
def fetch_fifty_mebibytes(ground):
    """A message nearly as large as the provider takes, into Postfix."""
    provider = open_provider(ground)
    sent = [messages.attachment("large", 36)]
    check(len(sent[0].content) > 48 << 20, "the message is not large")
    sending.by_smtp(provider.mx, sent)
    behind = Postfix.behind(ground).start()
    fetch(ground, provider, f"smtp://127.0.0.1:{behind.port}", "starttls")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)
