"""The entry point: sends `check` away before anything else is imported, everything else to the command line.

An exec probe pays for every import again and again (importing click alone costs five times a bare Python
start), so the probe's words are looked at by hand first.
"""

import sys


def main() -> None:
    """Run the command line in `sys.argv` and leave with its exit code."""
    if sys.argv[1:2] == ["check"]:
        from dumpagent import check

        code = check.answer(sys.argv[2:])
        if code is not None:
            sys.exit(code)
    import gc

    from dumpagent.gc_pause import uncollected

    with uncollected(for_ever=True):
        from dumpagent import secrets
        from dumpagent.cli import cli
    secrets.install()
    try:
        cli.main(prog_name="dumpagent")
    finally:
        gc.freeze()  # or the interpreter would go through every object once more before it ends


if __name__ == "__main__":
    main()
