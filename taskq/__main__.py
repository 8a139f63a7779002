"""`python -m taskq` is the `taskq` command; the commands themselves live in `taskq.cli`."""

from taskq.cli.main import main

if __name__ == "__main__":
    main()
