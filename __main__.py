"""``python -m gatecrew``."""

from .cli import main

main(prog_name="gatecrew")
