"""`make fuzz`: atheris on everything that takes bytes, each target for some seconds.

    python tests/fuzz [SECONDS [TARGET...]]

A crash is written to the current directory, and its input shown.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    if os.environ.get("FUZZ_TARGET"):
        one(os.environ["FUZZ_TARGET"])
        return
    sys.path.insert(0, str(Path(__file__).parent))
    targets = importlib.import_module("targets")
    seconds, *names = sys.argv[1:] or ["60"]
    for name in names or [*targets.OF_BYTES, *targets.OF_BATCHES]:
        print(f"== {name}", flush=True)
        options = [f"-max_total_time={seconds}", "-rss_limit_mb=1024", "-timeout=10", "-max_len=4096", "-verbosity=0"]
        code = subprocess.call([sys.executable, __file__, *options], env={**os.environ, "FUZZ_TARGET": name})
        if code:
            sys.exit(f"{name} failed")
    print("nothing found")


def one(name: str) -> None:
    """Run one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["gatecrew", "targets"]):
        sys.path.insert(0, str(Path(__file__).parent))
        targets = importlib.import_module("targets")
    atheris.Setup(sys.argv, lambda data: targets.run(name, data))
    atheris.Fuzz()


main()
