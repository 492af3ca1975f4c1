"""The messages that the cases send, and the comparison of what arrived with what was sent.

A message is its content as it goes over the wire: bytes with CRLF line ends, before dot-stuffing. Mail servers store it with
bare line feeds and may put trace fields in front (RFC 5321 §4.4); nothing else may differ.
"""

import base64
import glob
import os
import random
import re

from ground import check, equal, shorten, wait_until

# What servers put in front: RFC 5321 §4.4 and the customary fields of Postfix and Exim.
TRACE = {b"received", b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"delivery-date"}


class Message:
    """A message with its envelope, known by its Message-ID."""

    def __init__(self, key, body, to="demo@demo.example", sender="alice@sender.example", fields=()):
        self.key = key
        self.sender = sender
        self.to = [to] if isinstance(to, str) else list(to)
        head = [f"From: Alice <{sender or 'postmaster@sender.example'}>", "To: Somebody <somebody@demo.example>",
                "Date: Sat, 03 Oct 2026 12:00:00 +0000", f"Subject: {key}", f"Message-ID: <{key}@interop.example>",
                *fields]
        self.content = "\r\n".join(head).encode() + b"\r\n\r\n" + body
        assert self.content.endswith(b"\r\n")
        assert b"\n" not in self.content.replace(b"\r\n", b"")

    def stuffed(self):
        """The content as it goes over the wire after DATA, with the final dot (RFC 5321 §4.5.2)."""
        return re.sub(rb"(?m)^\.", b"..", self.content) + b".\r\n"


def lines(*texts):
    """A body of these lines."""
    return b"".join((text if isinstance(text, bytes) else text.encode()) + b"\r\n" for text in texts)


def plain(key, **more):
    """A short message in plain text."""
    return Message(key, lines("Hello,", "", "this is a letter.", "", "Alice"), **more)


def dots(key, **more):
    """Lines of dots: first, last, alone, many, and such as look like the end of the message."""
    body = lines(".", "..", "...", ".leading", "..two leading", "", ".", "", " .", ". ", ".\t", "a.", ".QUIT", "",
                 "From somebody as in an mbox file", "." * 900, ".", "..")
    return Message(key, body, **more)


def eight_bit(key, **more):
    """Every byte above ASCII, in UTF-8 and in Latin-1, unencoded."""
    body = lines("Grüße aus Köln, привет, 你好", bytes(range(0x80, 0x100)), b"\xff\xfe\x80 broken \xc3", "ÿ" * 200)
    fields = ["MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit"]
    return Message(key, body, fields=fields, **more)


def edges(key, **more):
    """Long lines up to RFC 5321's 1,000 bytes, blanks at line ends, empty lines at the end, control characters."""
    body = lines("", "", "x" * 998, "blanks at the end   ", "tab at the end\t", " ", "\x01\x02\x08\x0c\x1b\x7f", "-", "")
    return Message(key, body + b"\r\n\r\n", **more)


def empty(key, **more):
    """A header and an empty body."""
    return Message(key, b"", **more)


def attachment(key, mebibytes, **more):
    """A MIME message with an attachment that does not compress; the bytes depend on the key only."""
    data = random.Random(key).randbytes(mebibytes << 20)
    encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    body = (lines("--frontier", "Content-Type: text/plain", "", "See the attachment.", "", "--frontier",
                  "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64",
                  "Content-Disposition: attachment; filename=noise.bin", "")
            + encoded + lines("--frontier--"))
    fields = ["MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=frontier"]
    return Message(key, body, fields=fields, **more)


def assortment(prefix, mebibytes=6):
    """One message of every kind, also to odd addresses and without a reverse-path."""
    return [
        plain(f"{prefix}-plain"),
        dots(f"{prefix}-dots"),
        eight_bit(f"{prefix}-eight-bit"),
        edges(f"{prefix}-edges"),
        empty(f"{prefix}-empty"),
        attachment(f"{prefix}-attachment", mebibytes),
        plain(f"{prefix}-report", sender=""),
        plain(f"{prefix}-sub-address", to="demo+lists@demo.example"),
        plain(f"{prefix}-quoted", to='"two words"@demo.example'),
        plain(f"{prefix}-three", to=["one@demo.example", "two@demo.example", "three@demo.example"]),
    ]


def key_of(stored):
    """The key of a stored message, from its Message-ID; none if it has none of ours."""
    found = re.search(rb"(?mi)^Message-ID: <([^@>]+)@interop\.example>$", stored[:65536])
    return found and found.group(1).decode()


def difference(message, stored):
    """What is wrong with a stored copy of a message, or none."""
    content = message.content.replace(b"\r\n", b"\n")
    if not stored.endswith(content):
        if stored.replace(b"\r\n", b"\n").endswith(content):
            return "stored with other line ends"
        start = stored.find(b"From: Alice")
        copy = stored[start:] if start >= 0 else stored
        place = next((i for i, (a, b) in enumerate(zip(copy, content)) if a != b), min(len(copy), len(content)))
        return (f"content differs from byte {place} (of {len(content)} sent, {len(copy)} arrived): "
                f"{shorten(content[place:place + 40])} became {shorten(copy[place:place + 40])}")
    for line in stored[:len(stored) - len(content)].split(b"\n")[:-1]:
        name = line.split(b":")[0].lower()
        if line[:1] not in (b" ", b"\t") and name not in TRACE:
            return f"the field {shorten(line)} was added"
    return None


def envelope_of(stored):
    """The reverse-path and the forward-path that the delivering server noted in its trace fields."""
    head = stored.split(b"\nFrom: ")[0].decode("utf-8", "replace")
    back = re.search(r"(?mi)^Return-path: ?<(.*)>$", head)
    to = re.search(r"(?mi)^(?:Delivered-To|Envelope-to): ?(.*)$", head)
    return back and back.group(1), to and to.group(1).strip("<>")


class Box:
    """A maildir into which a customer's server delivers, whatever the recipient.

    `names_recipients` says whether the server notes the recipient on every copy; without it copies are only counted.
    """

    def __init__(self, folder, names_recipients=True):
        self.folder = folder
        self.names_recipients = names_recipients

    def stored(self):
        """Every stored message's bytes."""
        found = []
        for path in glob.glob(os.path.join(self.folder, "new", "*")):
            with open(path, "rb") as file:
                found.append(file.read())
        return found

    def count(self):
        """How many messages there are."""
        try:
            return len(os.listdir(os.path.join(self.folder, "new")))
        except FileNotFoundError:
            return 0

    def expect(self, messages, is_idle, seconds_max=60, may_double=frozenset()):
        """Waits until each message has come once for every recipient, and compares the bytes of every copy.

        `is_idle` says whether the server behind has no message left to deliver. `may_double` are the keys of
        the messages that may have come more often than once: only a cut connection allows any.
        """
        wanted = {one.key: one for one in messages}
        copies = sum(len(one.to) for one in messages)
        wait_until(lambda: self.count() >= copies and is_idle(), seconds_max,
                   f"{copies} copies in the mailbox; lately {self.count()}")
        seen = {}
        for stored in self.stored():
            key = key_of(stored)
            check(key in wanted, f"a message arrived that nobody sent: {shorten(stored[:400])}")
            fault = difference(wanted[key], stored)
            check(fault is None, f"message {key}: {fault}")
            back, to = envelope_of(stored)
            equal(back, wanted[key].sender, f"the reverse-path of {key}")
            seen.setdefault(key, []).append(to)
        missing = [key for key in wanted if key not in seen]
        check(not missing, f"{len(missing)} messages did not arrive: {shorten(missing[:5])}")
        for key, recipients in seen.items():
            if self.names_recipients:
                equal(sorted(set(recipients)), sorted(wanted[key].to), f"the recipients of {key}")
            check(len(recipients) >= len(wanted[key].to), f"{key} came to {len(recipients)} of {len(wanted[key].to)} recipients")
        double = [key for key, recipients in seen.items()
                  if len(recipients) > len(wanted[key].to) and key not in may_double]
        check(not double, f"{len(double)} messages came more often than once: {shorten(double[:5])}")
