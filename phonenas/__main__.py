"""The command line; `python -m phonenas` is the same."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run it; Ctrl-C while it loads ends it with a line and exit code 130, as later."""
    try:
        from phonenas.cli import main as run
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
