"""Frozen layers on a Dask cluster of processes: the bytes of one process, one shipment per worker, a killed worker."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dask")
pytest.importorskip("distributed")

import dask
import dask.array
import dask.bag
from dask.distributed import Client, LocalCluster, progress

import fastrnn

EXAMPLES = str(Path(__file__).parent.parent / "examples")

# Of Dask's own threads and sockets at the end of a cluster.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

T, B, I, H = 20, 48, 3, 16


@pytest.fixture(scope="module")
def client():
    """Two workers, processes with one thread each, which import from where this process does.

    Dask's memory manager, which looks every two seconds, does not run: between `scatter` and the first task it might
    drop a copy of the layer on one worker, which then fetches it again.
    """
    no_manager = dask.config.set({"distributed.scheduler.active-memory-manager.start": False})
    with no_manager, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as one:
            yield one


@pytest.fixture(scope="module")
def layer():
    layer = fastrnn.LSTM(I, H, 2, batch_first=True, bidirectional=True, rng=1)
    layer.freeze()
    return layer


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(2).standard_normal((B, T, I), np.float32)


def last_states(x, layer):
    """The state of each sequence (B, T, I) after its last step, (B, H)."""
    return layer(x)[1][0][-1]


def last_state_of_each(recordings, layer):
    """As `last_states`, of a list of sequences (T, I) of unequal lengths."""
    x, lengths = fastrnn.pad(recordings)
    _, (h, _) = layer(x.transpose(1, 0, 2), lengths=lengths)
    return list(h[-1])


def slow_states(x, layer, seconds):
    time.sleep(seconds)
    return last_states(x, layer)


def ragged(n):
    rng = np.random.default_rng(3)
    return [rng.standard_normal((T, I), np.float32) for T in rng.integers(1, 40, n)]


class Shipped:
    """A layer that writes into a folder which processes unpickle it."""

    def __init__(self, layer, folder):
        self.layer, self.folder = layer, folder

    def __reduce__(self):
        return unpacked, (self.layer, self.folder)


def unpacked(layer, folder):
    with open(os.path.join(folder, str(os.getpid())), "a") as file:
        file.write("x")
    return Shipped(layer, folder)


def shipped_states(x, shipped):
    assert shipped.layer.frozen
    return last_states(x, shipped.layer)


def test_workers_compute_with_one_thread(client):
    assert list(client.run(fastrnn.get_num_threads).values()) == [1, 1]


@pytest.mark.parametrize("form", [None, "int8"])
def test_dask_arrays(client, layer, x, form):
    layer = layer.quantize(form) if form else layer
    blocks = dask.array.from_array(x, chunks=(7, T, I))
    meta = np.empty((0, 0), np.float32)
    states = blocks.map_blocks(last_states, layer=dask.delayed(layer, pure=True), drop_axis=1, meta=meta)
    assert states.compute().tobytes() == last_states(x, layer).tobytes()


def test_bags_of_ragged_recordings(client, layer):
    recordings = ragged(50)
    bag = dask.bag.from_sequence(recordings, npartitions=6)
    states = bag.map_partitions(last_state_of_each, layer=dask.delayed(layer, pure=True)).compute()
    assert np.array(states).tobytes() == np.array(last_state_of_each(recordings, layer)).tobytes()


def test_futures(client, layer, x):
    shared = client.scatter(layer, broadcast=True)
    futures = client.map(last_states, np.split(x, 8), layer=shared)
    assert np.concatenate(client.gather(futures)).tobytes() == last_states(x, layer).tobytes()


def test_dataframes_of_parquet(client, layer, tmp_path):
    pandas = pytest.importorskip("pandas")
    dataframe = pytest.importorskip("dask.dataframe")
    recordings = ragged(30)
    for k in range(0, 30, 8):
        ids = range(k, min(k + 8, 30))
        frame = pandas.DataFrame({"id": ids, "samples": [recordings[k].ravel() for k in ids]})
        frame.to_parquet(tmp_path / f"part.{k // 8}.parquet")
    meta = pandas.DataFrame({"id": [0], **dict.fromkeys(map(str, range(H)), np.float32(0))})
    shared = dask.delayed(layer, pure=True)
    found = dataframe.read_parquet(tmp_path).map_partitions(states_of_frame, shared, meta=meta).compute()
    assert found["id"].tolist() == list(range(30))
    expected = np.array(last_state_of_each(recordings, layer))
    assert found.drop(columns="id").to_numpy().tobytes() == expected.tobytes()


def states_of_frame(frame, layer):
    import pandas

    recordings = [samples.reshape(-1, I) for samples in frame["samples"]]
    states = pandas.DataFrame(np.array(last_state_of_each(recordings, layer)), frame.index, map(str, range(H)))
    states.insert(0, "id", frame["id"])
    return states


@pytest.mark.parametrize("way", ["delayed", "scatter"])
def test_a_layer_is_shipped_once_to_each_worker(client, layer, x, tmp_path, way):
    shipped = Shipped(layer, str(tmp_path))
    shared = dask.delayed(shipped, pure=False) if way == "delayed" else client.scatter(shipped, broadcast=True)
    blocks = dask.array.from_array(x, chunks=(2, T, I))
    states = blocks.map_blocks(shipped_states, shipped=shared, drop_axis=1, meta=np.empty((0, 0), np.float32))
    assert states.compute().tobytes() == last_states(x, layer).tobytes()
    workers = map(str, client.run(os.getpid).values())
    counts = {name: len((tmp_path / name).read_text()) for name in workers if (tmp_path / name).exists()}
    assert counts and set(counts.values()) == {1}


def test_a_worker_that_is_killed_changes_nothing(client, layer, x):
    shared = dask.delayed(layer, pure=True)
    blocks = dask.array.from_array(x, chunks=(2, T, I))
    meta = np.empty((0, 0), np.float32)
    states = blocks.map_blocks(slow_states, layer=shared, seconds=0.05, drop_axis=1, meta=meta)
    before = client.run(os.getpid)
    result = client.compute(states)
    time.sleep(0.3)
    assert not result.done()
    os.kill(next(iter(before.values())), signal.SIGKILL)
    assert result.result(60).tobytes() == last_states(x, layer).tobytes()
    client.wait_for_workers(2, 60)
    assert set(client.run(os.getpid).values()) != set(before.values())


def test_the_progress_bar_goes_to_the_end(client, layer, x, capfd):
    futures = client.map(last_states, np.split(x, 8), layer=client.scatter(layer))
    progress(futures, notebook=False)
    assert "100% Completed" in capfd.readouterr().out
    assert len(client.gather(futures)) == 8


def test_the_example_writes_what_one_process_computes(client, tmp_path):
    zarr = pytest.importorskip("zarr")
    import recordings

    source, target = str(tmp_path / "recordings.zarr"), str(tmp_path / "features.zarr")
    recordings.make_recordings(source, 450)
    layer = fastrnn.LSTM(recordings.I, recordings.H, rng=1)
    layer.freeze()
    recordings.process(client, source, target, layer)
    store = zarr.open_group(source, mode="r")
    x, lengths = fastrnn.pad(np.split(store["samples"][:], store["offsets"][1:-1]))
    _, (h, _) = layer(x, lengths=lengths)
    assert zarr.open_group(target, mode="r")["features"][:].tobytes() == h[-1].tobytes()
