"""The other sites: swaks speaking to the MX port, and mail given to the sending Postfix."""

import smtplib

from ground import check, shorten


def by_swaks(ground, port, messages, tls=False):
    """Sends each message with swaks in a session of its own; the bytes after DATA are ours, not swaks's."""
    for message in messages:
        file = ground.write("swaks.data", message.stuffed())
        words = ["swaks", "--server", f"127.0.0.1:{port}", "--helo", "sender.example", "--from", message.sender or "<>",
                 "--to", ",".join(message.to), "--data", f"@{file}", "--no-data-fixup", "--timeout", "60", "--silent", "2"]
        status, output, errors = ground.run(words + (["--tls"] if tls else []))
        check(status == 0, f"swaks ended with {status} for {message.key}: {shorten((output + errors)[-500:])}")


def by_smtp(port, messages):
    """Gives messages to the server on a port, all in one session."""
    with smtplib.SMTP("127.0.0.1", port, "desk.sender.example", timeout=60) as session:
        for message in messages:
            session.ehlo_or_helo_if_needed()
            options = ["body=8bitmime"] if session.has_extn("8bitmime") and max(message.content) > 127 else []
            # sendmail() would fold line ends; the parts are called so that the content goes out as it is.
            reply = session.mail(message.sender, options)
            check(reply[0] == 250, f"MAIL for {message.key}: {reply}")
            for to in message.to:
                reply = session.rcpt(to)
                check(reply[0] == 250, f"RCPT for {message.key}: {reply}")
            reply = session.docmd("DATA")
            check(reply[0] == 354, f"DATA for {message.key}: {reply}")
            session.send(message.stuffed())
            reply = session.getreply()
            check(reply[0] == 250, f"end of data for {message.key}: {reply}")
