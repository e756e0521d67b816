"""How deep tests with drawn arguments look: FASTRNN_FUZZ=n draws n times as many cases, and others in each run.

Without it, as in `make test` and CI, the cases are the same in each run: a failure is one of the change at hand.
"""

import os

RANDOM = "FASTRNN_FUZZ" in os.environ
DEPTH = int(os.environ.get("FASTRNN_FUZZ", "1"))
