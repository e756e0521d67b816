"""Ten thousand recordings of ragged length through a layer on a Dask cluster, from one Zarr store to another.

    python examples/recordings.py                                 # makes recordings.zarr, writes features.zarr
    python examples/recordings.py --recordings 100000 --workers 8
    python examples/recordings.py --scheduler tcp://head:8786     # a cluster that runs already, shared files

The store `recordings.zarr` has the samples of all recordings in one array, samples (N, I), and offsets (n + 1,):
recording k is samples[offsets[k]:offsets[k + 1]]. The store `features.zarr` gets an array features (n, H): the state of
the layer after the last step of each recording. A task reads some recordings and writes their rows, which are one chunk
of the store; so tasks do not meet, and a task that is repeated because its worker has died writes the same bytes.
"""

import argparse
import hashlib
import sys
import time

import dask
import numpy as np
import zarr
from dask.distributed import Client, LocalCluster, as_completed
from tqdm import tqdm

import fastrnn

I, H = 12, 64  # channels of a recording, hidden units
RECORDINGS_PER_TASK = 200
CHUNK = 16_384  # steps, in the store of samples


def make_recordings(path, n, seed=1):
    """A store of n recordings of 20 to 500 steps: sums of random steps, a chunk at a time."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(20, 501, n))])
    store = zarr.create_group(path, overwrite=True)
    store.create_array("offsets", data=offsets)
    samples = store.create_array("samples", shape=(offsets[-1], I), chunks=(CHUNK, I), dtype=np.float32)
    for start in range(0, samples.shape[0], CHUNK):
        steps = rng.standard_normal((min(CHUNK, samples.shape[0] - start), I), np.float32)
        samples[start : start + len(steps)] = np.cumsum(steps, axis=0) / 100


def write_features(source, target, first, layer):
    """A task: reads RECORDINGS_PER_TASK recordings from `first` on, writes their features; returns their number."""
    store = zarr.open_group(source, mode="r")
    offsets = store["offsets"][first : first + RECORDINGS_PER_TASK + 1]
    samples = store["samples"][offsets[0] : offsets[-1]]
    recordings = np.split(samples, (offsets - offsets[0])[1:-1])
    x, lengths = fastrnn.pad(recordings)
    _, (h, _) = layer(x, lengths=lengths)
    zarr.open_group(target, mode="r+")["features"][first : first + len(recordings)] = h[-1]
    return len(recordings)


def process(client, source, target, layer):
    """Writes the features of all recordings of a store; `layer` goes once to each worker."""
    n = zarr.open_group(source, mode="r")["offsets"].shape[0] - 1
    chunks = (RECORDINGS_PER_TASK, layer.hidden_size)
    zarr.create_group(target, overwrite=True).create_array(
        "features", shape=(n, layer.hidden_size), chunks=chunks, dtype=layer.dtype
    )
    shared = dask.delayed(layer, pure=True)
    task = dask.delayed(write_features, pure=False)
    tasks = [task(source, target, first, shared) for first in range(0, n, RECORDINGS_PER_TASK)]
    with tqdm(total=n, unit="recording", mininterval=0.2 if sys.stderr.isatty() else 10) as bar:
        for future in as_completed(client.compute(tasks)):
            bar.update(future.result())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--recordings", type=int, default=10_000, help="default: %(default)s", metavar="N")
    parser.add_argument("--workers", type=int, help="processes; default: one per core", metavar="N")
    parser.add_argument("--scheduler", help="the address of a cluster; default: one on this machine")
    parser.add_argument("--source", default="recordings.zarr", help="default: %(default)s", metavar="FOLDER")
    parser.add_argument("--target", default="features.zarr", help="default: %(default)s", metavar="FOLDER")
    options = parser.parse_args()

    make_recordings(options.source, options.recordings)
    layer = fastrnn.LSTM(I, H, rng=1)
    layer.freeze()
    # Workers are processes with one thread each, for tasks and within a call.
    workers = options.workers or fastrnn.get_num_threads()
    cluster = options.scheduler or LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
    with Client(cluster) as client:
        begin = time.perf_counter()
        process(client, options.source, options.target, layer)
        seconds = time.perf_counter() - begin
    if not options.scheduler:
        cluster.close()
    steps = int(zarr.open_group(options.source, mode="r")["offsets"][-1])
    features = zarr.open_group(options.target, mode="r")["features"][:]
    print(f"{options.recordings:,} recordings, {steps:,} steps in {seconds:.1f} s: {steps / seconds:,.0f} steps/s")
    print(f"features {features.shape}, SHA-256 {hashlib.sha256(features).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
