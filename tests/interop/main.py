"""Runs the cases, a few at a time, and reports each: called by `run`, which has fetched the programs."""

import argparse
import concurrent.futures
import os
import signal
import sys
import time
import traceback

from ground import Failed, Ground
from registry import CASES

# Importing a file of cases puts its cases on the list.
import cases_volume  # noqa: F401
import cases_mail  # noqa: F401
import cases_etrn  # noqa: F401
import cases_wayout  # noqa: F401
import cases_failure  # noqa: F401
import cases_fetch  # noqa: F401
import cases_hold  # noqa: F401
import cases_quickstart  # noqa: F401
import cases_recipes  # noqa: F401


def why_failed(one, ground):
    """Runs one case; returns why it failed, or none."""
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


def run_case(one, parent):
    """Runs one case and prints its line; returns whether it passed."""
    begun = time.monotonic()
    why = why_failed(one, Ground(one.name, parent))
    seconds = time.monotonic() - begun
    if why is None:
        print(f"ok {one.name} ({seconds:.1f} s)", flush=True)
    else:
        print(f"FAIL {one.name} {' '.join(why.split())}", flush=True)
    return why is None


def stop_all(number, _frame):
    """An end from outside: kills what the running cases started, and is gone."""
    for ground in list(Ground.opened):
        ground.close()
    print("stopped before the end", file=sys.stderr, flush=True)
    os._exit(128 + number)


def main():
    """Reads the arguments, runs the chosen cases, returns the exit status."""
    arguments = argparse.ArgumentParser(prog="tests/interop/run")
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument("-l", dest="is_listing", action="store_true")
    arguments.add_argument("--extra", action="store_true")
    arguments.add_argument("--keep", action="store_true")
    # The longest cases wait for the network's timers, not for the processor: fetchmail hands every message on line by line.
    arguments.add_argument("--jobs", type=int, default=4, metavar="N")
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
    signal.signal(signal.SIGTERM, stop_all)
    signal.signal(signal.SIGINT, stop_all)
    parent = None
    if chosen.keep:
        parent = os.path.join(os.path.abspath(os.environ.get("RESTANTE_INTEROP_CACHE", "target/interop")), "cases")
        os.makedirs(parent, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        running = [pool.submit(run_case, one, parent) for one in cases]
        failed = sum(not future.result() for future in concurrent.futures.as_completed(running))
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
