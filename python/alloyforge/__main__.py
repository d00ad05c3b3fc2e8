"""`python -m alloyforge` is the command line."""

import sys

from alloyforge.cli import main

sys.exit(main())
