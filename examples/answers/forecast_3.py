"""The error of the next year's sunspot number in 1921 to 2008, by a GRU trained on the years before."""

import numpy as np
from statsmodels.datasets import sunspots

import fastrnn

z = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy() / 40
x = z[:, None].astype(np.float32)  # (T, 1), the years from 1700 to 2008
trained = 1921 - 1700

layer, head = fastrnn.GRU(1, 16, rng=1), fastrnn.Linear(16, 1, rng=2)
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)
for _ in range(300):
    output, _, tape = layer.forward(x[: trained - 1])
    forecasts, head_tape = head.forward(output)
    _, d_forecasts = fastrnn.mean_squared_error(forecasts, x[1:trained])
    d_output, d_head = head.backward(head_tape, d_forecasts)
    _, _, d_layer = layer.backward(tape, d_output)
    optimizer.step([d_layer, d_head])
forecasts = head(layer(x)[0])[:, 0]
print(f"{40 * np.sqrt(np.mean((forecasts[trained - 1 : -1] - z[trained:]) ** 2)):.0f}")
