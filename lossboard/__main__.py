"""``python -m lossboard`` is the command ``lossboard``."""

from lossboard.cli import main

main()
