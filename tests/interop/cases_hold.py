"""Connections that stay: new mail pushed through the real fetchmail to real servers, for longer than these bear silence; and a
fetchmail over TLS that is understood without being told.

The servers' idle limit is 10 s here instead of their 300 s, and the pace of our NOOP is 4 s instead of 240 s.
"""

import time

import collecting
import messages
import sending
from cases_mail import open_provider
from exim import Exim
from ground import check, equal, wait_until
from postfix import Postfix
from registry import case

IDLE_SECONDS_MAX = 10
PACED = '[drain]\nhold_open = "1h"\nnoop_after = "4s"\n'
POSTFIX = f"smtpd_timeout = {IDLE_SECONDS_MAX}s\n"
EXIM = f"smtp_receive_timeout = {IDLE_SECONDS_MAX}s\n"


def begin_collecting(ground, provider, behind_port):
    """Starts fetchmail for one run, which lasts as long as the provider holds the connection."""
    file = collecting.write_file(ground, provider, behind_port)
    return ground.start(collecting.command(ground, file), "fetchmail.out", env=collecting.environment(ground))


def held(ground, behind):
    """Mail goes out at once on a connection that was silent for longer than the server behind bears."""
    provider = open_provider(ground, more=PACED)
    first, second = messages.dots("first"), messages.assortment("second")
    sending.by_swaks(ground, provider.mx, [first])
    fetchmail = begin_collecting(ground, provider, behind.port)
    behind.box.expect([first], behind.is_idle)
    # There is nothing to wait for but the time itself: more than twice what the server bears without a word.
    end = time.monotonic() + 2.2 * IDLE_SECONDS_MAX
    while time.monotonic() < end:
        check(fetchmail.poll() is None, f"fetchmail ended while it was held: {provider.log()[-600:]}")
        time.sleep(0.5)
    sending.by_swaks(ground, provider.mx, second)
    behind.box.expect([first, *second], behind.is_idle)
    provider.expect_empty()
    equal(provider.log().count(" turn "), 1, "calls of the customer: all came over one")
    begun = time.monotonic()
    provider.stop()
    equal(fetchmail.wait(20), collecting.DONE, "fetchmail's exit after the provider's orderly end")
    ground.started.remove(fetchmail)
    check(time.monotonic() - begun < 10, "the end of the provider took too long")
    check("ended=shutdown" in provider.log(), f"the drain did not end in order: {provider.log()[-600:]}")


@case("held-into-postfix")
def held_into_postfix(ground):
    """Postfix behind, with CHUNKING."""
    held(ground, Postfix.behind(ground, more=POSTFIX).start())


@case("held-into-postfix-without-chunking")
def held_into_postfix_without_chunking(ground):
    """Postfix behind, without CHUNKING."""
    held(ground, Postfix.behind(ground, more=POSTFIX + "smtpd_discard_ehlo_keywords = chunking\n").start())


@case("held-into-exim")
def held_into_exim(ground):
    """Exim behind, with CHUNKING."""
    held(ground, Exim.behind(ground, more=EXIM).start())


@case("held-into-exim-without-chunking")
def held_into_exim_without_chunking(ground):
    """Exim behind, without CHUNKING."""
    held(ground, Exim.behind(ground, more=EXIM + "chunking_advertise_hosts =\n").start())


@case("held-too-silently")
def held_too_silently(ground):
    """Without our NOOP the server behind hangs up; the provider notices, nothing is lost, and the next call brings the rest."""
    provider = open_provider(ground, more='[drain]\nhold_open = "1h"\n')
    first, second = messages.plain("first"), messages.plain("second")
    sending.by_swaks(ground, provider.mx, [first])
    behind = Postfix.behind(ground, more=POSTFIX).start()
    fetchmail = begin_collecting(ground, provider, behind.port)
    behind.box.expect([first], behind.is_idle)
    wait_until(lambda: " drained " in provider.log(), 3 * IDLE_SECONDS_MAX, "the provider to notice the end")
    check("ended=closed-by-customer" in provider.log(), f"not told from other ends: {provider.log()[-600:]}")
    fetchmail.wait(20)
    ground.started.remove(fetchmail)
    sending.by_swaks(ground, provider.mx, [second])
    provider.command("customer", "set", "demo", "hold-open", "0s")
    run = collecting.collect(ground, provider, behind.port)
    run.expect_mail()
    provider.expect_empty()
    behind.box.expect([first, second], behind.is_idle)


@case("profile-is-learnt")
def profile_is_learnt(ground):
    """fetchmail over TLS without a profile: the first drain stalls and says what to set, the next one works, also after a restart."""
    provider = open_provider(ground, more='[drain]\nstall_after = "5s"\n')
    provider.command("customer", "set", "demo", "client-profile", "auto")
    sent = [messages.plain("learnt-1"), messages.dots("learnt-2"), messages.eight_bit("learnt-3")]
    sending.by_swaks(ground, provider.mx, sent)
    behind = Postfix.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port, tls=True)
    check(run.is_reversed, f"the roles were not reversed: {run.said[-400:]}")
    wait_until(lambda: " drained " in provider.log(), 20, "the end of the first drain")
    log = provider.log()
    check("ended=timeout" in log, f"fetchmail did not stall as 6.4 does, or was not told from other silence: {log[-600:]}")
    check("in-doubt" not in log, f"content was on its way when the client stalled: {log[-600:]}")
    check("restante customer set demo client-profile fetchmail-tls" in log, f"no advice in the log: {log[-600:]}")
    check("client-profile fetchmail-tls" in provider.command("customer", "show", "demo"), "customer show does not tell it")
    equal(behind.box.count(), 0, "messages that came with the stalled drain")
    provider.kill()
    provider.start()
    run = collecting.collect(ground, provider, behind.port, tls=True)
    run.expect_mail()
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)
