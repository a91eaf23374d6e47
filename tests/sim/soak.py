"""Run scenarios with new seeds for as long as one likes, or one again.

make soak ARGS="--seconds 3600"
make soak ARGS="--seed 359 --log"
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from itertools import count

from .scenario import verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, 60 unless told")
    parser.add_argument("--first", type=int, help="the first seed; unless told, one that nobody had before")
    parser.add_argument("--seed", type=int, help="run this one, and no other")
    parser.add_argument("--log", action="store_true", help="show what the processes log")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if asked.log else logging.CRITICAL, format="%(name)s: %(message)s")
    new = int(time.time()) * 1000 if asked.first is None else asked.first
    seeds = count(new) if asked.seed is None else iter([asked.seed])
    until = time.monotonic() + asked.seconds
    done = broken = 0
    for seed in seeds:
        problem = verdict(seed)
        done += 1
        if problem:
            broken += 1
            print(problem, end="\n\n", flush=True)
        if time.monotonic() > until:
            break
    print(f"{done} seeds, {broken} of them broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
