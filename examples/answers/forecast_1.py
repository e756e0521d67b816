"""Yule's autoregression of order 2, fitted to the sunspot numbers of 1749 to 1924: its two coefficients."""

import numpy as np
from statsmodels.datasets import sunspots

series = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()[1749 - 1700 : 1925 - 1700]
design = np.stack([series[1:-1], series[:-2], np.ones(len(series) - 2)], axis=1)
(a_1, a_2, _), *_ = np.linalg.lstsq(design, series[2:])
print(f"{a_1:.2f} and {a_2:.2f}")
