"""The period of the cycle that Yule's autoregression of order 2 describes, in years."""

import numpy as np
from statsmodels.datasets import sunspots

series = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()[1749 - 1700 : 1925 - 1700]
design = np.stack([series[1:-1], series[:-2], np.ones(len(series) - 2)], axis=1)
(a_1, a_2, _), *_ = np.linalg.lstsq(design, series[2:])
root = np.roots([1, -a_1, -a_2])[0]  # of the characteristic polynomial; its angle is the turn of a year
print(f"{2 * np.pi / abs(np.angle(root)):.1f}")
