"""A thousand messages in one drain, and what a collector killed in the middle of one leaves behind."""

import signal

import collecting
import messages
import sending
from cases_mail import open_provider
from exim import Exim
from ground import check, end_group, equal, wait_until
from postfix import Postfix
from registry import case

MANY = 1000


def send_many(ground, provider, count=MANY):
    """Sends small messages through a real Postfix, which opens as many connections as it likes."""
    sent = [messages.plain(f"many-{number:04}") for number in range(count)]
    sender = Postfix.sender(ground, provider.mx).start()
    sending.by_smtp(sender.port, sent)
    provider.wait_for(count, seconds_max=90)
    sender.stop()
    return sent


def collect_many(ground, server, tls):
    """A thousand messages, one run of fetchmail, one ATRN."""
    provider = open_provider(ground, tls)
    sent = send_many(ground, provider)
    behind = server.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port, tls=tls)
    run.expect_mail()
    equal(run.said.count("> ATRN "), 1, "the count of ATRN commands")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle, seconds_max=90)


@case("thousand-into-postfix")
def thousand_into_postfix(ground):
    """On a plain connection, Postfix behind."""
    collect_many(ground, Postfix, tls=False)


@case("thousand-into-exim")
def thousand_into_exim(ground):
    """On a plain connection, Exim behind."""
    collect_many(ground, Exim, tls=False)


@case("thousand-over-tls")
def thousand_over_tls(ground):
    """Over implicit TLS, one line for each record, Postfix behind."""
    collect_many(ground, Postfix, tls=True)


@case("collector-killed")
def collector_killed(ground):
    """fetchmail dies by SIGKILL in the middle: the next run takes the rest, and twice comes only what was in doubt."""
    provider = open_provider(ground)
    sent = send_many(ground, provider, 400)
    behind = Postfix.behind(ground).start()
    file = collecting.write_file(ground, provider, behind.port)
    process = ground.start(collecting.command(ground, file), "fetchmail.out", env=collecting.environment(ground))
    wait_until(lambda: behind.box.count() >= 100, 60, "the first hundred messages")
    end_group(process, signal.SIGKILL)
    process.wait()
    left = len(provider.queued())
    check(left > 0, "fetchmail was done before it could be killed: more messages are needed")

    def is_taken():
        # The lease of the dead session may live on for a few seconds.
        run = collecting.collect(ground, provider, behind.port)
        return run.is_reversed and run.status == collecting.DONE

    wait_until(is_taken, 60, "a second turn after the first died")
    provider.expect_empty()
    # What was settled before the cut is known to have arrived: it is in no doubt, and may not come again.
    check(len(provider.in_doubt()) < len(sent), "every message was in doubt: the case shows nothing")
    behind.box.expect(sent, behind.is_idle, may_double=provider.in_doubt())
