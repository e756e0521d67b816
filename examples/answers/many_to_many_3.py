"""The hidden size of a bidirectional LSTM with as many parameters as one of a single direction with 96 units."""

import fastrnn

single = fastrnn.LSTM(32, 96).params.flat.size
sizes = range(32, 97)
print(min(sizes, key=lambda H: abs(fastrnn.LSTM(32, H, bidirectional=True).params.flat.size - single)))
