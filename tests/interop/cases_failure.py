"""What must not lose mail: empty queues, a server behind that is down or refuses, wrong logins, a killed provider."""

import collecting
import messages
import sending
from cases_mail import open_provider
from exim import Exim
from ground import check, equal, free_ports, wait_until
from postfix import Postfix
from registry import case


@case("empty-queue")
def empty_queue(ground):
    """ATRN without mail is answered 453, which fetchmail takes as a quiet success without mail."""
    provider = open_provider(ground)
    behind = Exim.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port)
    check("< 453 " in run.said, f"no 453 in what fetchmail saw: {run.said[-400:]}")
    equal((run.status, run.is_reversed), (collecting.DONE, False), "fetchmail's exit and reversal")


@case("server-behind-down")
def server_behind_down(ground):
    """Nothing listens behind fetchmail: the turn ends after our 250 with nothing sent, and nothing is lost."""
    provider = open_provider(ground)
    sent = [messages.plain("kept-1"), messages.dots("kept-2")]
    sending.by_swaks(ground, provider.mx, sent)
    run = collecting.collect(ground, provider, free_ports(1)[0])
    check(run.status != collecting.DONE, "fetchmail's exit is 0 although nothing listens behind it")
    equal([one["state"] for one in provider.wait_for(2)], ["queued", "queued"], "states after the lost turn")
    behind = Postfix.behind(ground).start()

    def is_taken():
        # The lease of the lost session may live on for a few seconds.
        run = collecting.collect(ground, provider, behind.port)
        return run.is_reversed and run.status == collecting.DONE

    wait_until(is_taken, 30, "the next turn")
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)


def refused(ground, server):
    """4xx keeps a recipient, 5xx becomes a report, and neither disturbs the others."""
    provider = open_provider(ground)
    sent = [messages.plain("before"), messages.plain("after")]
    later = messages.plain("deferred", to="later@demo.example")
    never = messages.plain("refused", to="never@demo.example")
    mixed = messages.plain("mixed", to=["one@demo.example", "later@demo.example"])
    sending.by_swaks(ground, provider.mx, [sent[0], later, never, mixed, sent[1]])
    behind = server.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port)
    run.expect_mail()
    wait_until(lambda: " report " in provider.log(), 20, "the report about what was refused")
    left = provider.wait_for(3)
    forward = sorted((path["address"], path["state"]) for one in left for path in one["forward_paths"]
                     if path["state"] != "delivered")
    equal(forward, [("alice@sender.example", "queued"), ("later@demo.example", "deferred"),
                    ("later@demo.example", "deferred")], "the forward-paths that are left, a report among them")
    equal(provider.queued("--failed"), [], "queue list --failed")
    mixed.to = ["one@demo.example"]
    behind.box.expect([*sent, mixed], behind.is_idle)


@case("refused-by-postfix")
def refused_by_postfix(ground):
    """Postfix behind refuses some recipients."""
    refused(ground, Postfix)


@case("refused-by-exim")
def refused_by_exim(ground):
    """Exim behind refuses some recipients."""
    refused(ground, Exim)


@case("wrong-login")
def wrong_login(ground):
    """A wrong password and a domain of somebody else: refused, nothing handed out."""
    provider = open_provider(ground)
    provider.add_customer("other", ("second.example",))
    sending.by_swaks(ground, provider.mx, [messages.plain("ours"), messages.plain("theirs", to="x@second.example")])
    behind = Exim.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port, password="guessed")
    check("< 535 " in run.said and run.status != collecting.DONE,
          f"no 535 for a wrong password, or fetchmail's exit is 0: {run.said[-400:]}")
    run = collecting.collect(ground, provider, behind.port, domains=("second.example",))
    check("< 450 " in run.said, f"no 450 for a foreign domain: {run.said[-400:]}")
    run = collecting.collect(ground, provider, behind.port, domains=("demo.example", "second.example"))
    check("< 450 " in run.said, f"no 450 for a list with a foreign domain: {run.said[-400:]}")
    provider.wait_for(2)
    equal(behind.box.count(), 0, "messages behind")


@case("provider-killed")
def provider_killed(ground):
    """What was answered 250 is there after SIGKILL and a new start, byte by byte."""
    provider = open_provider(ground)
    sent = messages.assortment("kept", mebibytes=1)
    sending.by_swaks(ground, provider.mx, sent)
    provider.kill()
    provider.start()
    equal(len(provider.queued()), len(sent), "messages after the kill")
    behind = Postfix.behind(ground).start()
    run = collecting.collect(ground, provider, behind.port)
    run.expect_mail()
    provider.expect_empty()
    behind.box.expect(sent, behind.is_idle)
