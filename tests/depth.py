"""The depth of tests with drawn arguments: FASTRNN_FUZZ=n draws n times as many cases, and others in each run.

Without it, as in `make test` and CI, the cases are the same in each run: a failure comes from the current change.
"""

import os

RANDOM = "FASTRNN_FUZZ" in os.environ
DEPTH = int(os.environ.get("FASTRNN_FUZZ", "1"))
