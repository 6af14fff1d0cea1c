"""`python -m vsrife`: the command line without an installed script."""

from vsrife.cli import entry

if __name__ == "__main__":
    entry()
