"""``python -m phbatch`` is the command line."""

from phbatch.shell.commands import main

main()
