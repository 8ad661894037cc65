"""``python -m cmrtrial``."""

from cmrtrial.cli import main

main()
