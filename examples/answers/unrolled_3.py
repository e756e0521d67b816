"""The smallest LSTM with 64 inputs and more than a million parameters: 4 H (64 + H + 2) of them."""

import fastrnn

H = 1
while 4 * H * (64 + H + 2) <= 1_000_000:
    H += 1
assert fastrnn.LSTM(64, H - 1).params.flat.size <= 1_000_000 < fastrnn.LSTM(64, H).params.flat.size
print(H)
