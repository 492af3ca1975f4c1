"""Runs the cases one after the other and reports each: called by `run`, which has fetched the programs."""

import argparse
import os
import signal
import sys
import time
import traceback

from ground import Failed, Ground
from registry import CASES

# Importing a file of cases puts its cases on the list.
import cases_failure  # noqa: F401
import cases_mail  # noqa: F401
import cases_volume  # noqa: F401


def run_case(one, parent):
    """Runs one case; returns why it failed, or none."""
    ground = Ground(one.name, parent)
    try:
        one.body(ground)
        return None
    except Failed as failure:
        return str(failure)
    except Exception as error:  # a fault of the case itself is a failure too, with its place
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"
    finally:
        ground.close()


def main():
    """Reads the arguments, runs the chosen cases, returns the exit status."""
    arguments = argparse.ArgumentParser(prog="tests/interop/run")
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument("-l", dest="is_listing", action="store_true")
    arguments.add_argument("--extra", action="store_true")
    arguments.add_argument("--keep", action="store_true")
    chosen = arguments.parse_args()
    cases = [one for one in CASES
             if (chosen.extra or chosen.names or not one.is_extra)
             and (not chosen.names or any(name in one.name for name in chosen.names))]
    if chosen.is_listing:
        for one in CASES:
            print(one.name + (" (extra)" if one.is_extra else ""))
        return 0
    if not cases:
        print("no case has such a name", file=sys.stderr)
        return 2
    # So that an end from outside runs the `finally` that kills what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parent = None
    if chosen.keep:
        parent = os.path.join(os.path.abspath(os.environ.get("RESTANTE_INTEROP_CACHE", "target/interop")), "cases")
        os.makedirs(parent, exist_ok=True)
    failed = 0
    for one in cases:
        begun = time.monotonic()
        why = run_case(one, parent)
        seconds = time.monotonic() - begun
        if why is None:
            print(f"ok {one.name} ({seconds:.1f} s)", flush=True)
        else:
            failed += 1
            print(f"FAIL {one.name} {' '.join(why.split())}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
