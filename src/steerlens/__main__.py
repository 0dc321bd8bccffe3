"""`python -m steerlens` is the `steerlens` program."""

import sys

from steerlens.cli.main import main

sys.exit(main())
