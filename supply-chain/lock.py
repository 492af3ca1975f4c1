"""What check and audit share: the crates of Cargo.lock, the rules of deny.toml, the ledger of the last audit, version ranges.

Reads files only; knows neither cargo nor the network.
"""

import os
import re
import tomllib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LEDGER = os.path.join(ROOT, "supply-chain", "audited.toml")


class Fault(Exception):
    """Why the supply chain cannot be called sound."""


def read_toml(*parts):
    """A TOML file below the project's root."""
    path = os.path.join(ROOT, *parts)
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise Fault(f"{os.path.relpath(path, ROOT)} is missing") from None


def locked():
    """The crates of Cargo.lock that come from outside, each with `name`, `version` and `source`."""
    return [one for one in read_toml("Cargo.lock")["package"] if "source" in one]


def labels(crates):
    """Name and version of each crate, sorted: the form of the ledger."""
    return sorted(f"{one['name']} {one['version']}" for one in crates)


def accepted_advisories():
    """The advisories that deny.toml accepts, by their id; each must give its reason."""
    accepted = {}
    for one in read_toml("deny.toml")["advisories"]["ignore"]:
        if not isinstance(one, dict) or not one.get("reason"):
            raise Fault(f"deny.toml accepts {one} without a reason")
        accepted[one["id"]] = one["reason"]
    return accepted


def parse_version(text):
    """A version as something that sorts: numbers, then whether it is no pre-release, then the pre-release's parts."""
    text = text.split("+")[0]
    numbers, _, pre = text.partition("-")
    parts = [int(part) for part in numbers.split(".")]
    if len(parts) > 3:
        raise Fault(f"{text!r} is no version")
    labelled = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")) if pre else ()
    return (*parts, *[0] * (3 - len(parts))), not pre, labelled


def matches(version, requirement):
    """Whether a version meets a requirement as RustSec writes them: comparisons joined by commas."""
    return all(matches_one(parse_version(version), part.strip()) for part in requirement.split(","))


def matches_one(version, comparison):
    """Whether a parsed version meets a single comparison; a bare version and `^` mean compatible, `~` the same minor."""
    if comparison == "*":
        return True
    operator, text = re.fullmatch(r"(>=|<=|>|<|=|\^|~)?\s*(\S+)", comparison).groups()
    bound = parse_version(text)
    if operator in (">=", "<=", ">", "<"):
        return {">=": version >= bound, "<=": version <= bound, ">": version > bound, "<": version < bound}[operator]
    given = len(text.split("-")[0].split("."))
    if operator == "=":
        return version == bound if given == 3 else version[0][:given] == bound[0][:given]
    kept = min(given, 2) if operator == "~" else compatible_length(bound[0], given)
    return version >= bound and version[0][:kept] == bound[0][:kept]


def compatible_length(numbers, given):
    """How many leading numbers a compatible version shares: up to the first that is not zero."""
    for place, number in enumerate(numbers[:given]):
        if number:
            return place + 1
    return given
