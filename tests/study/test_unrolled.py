"""examples/unrolled.py: the layer and the chain agree, to the last bit where documented."""


def test_the_loop_and_the_chain_are_the_same_network(quick):
    numbers, folder = quick("unrolled")
    runs = {label: found for label, found in numbers.items() if isinstance(found, dict)}
    assert {label.split()[0] for label in runs} == {"RNN", "GRU", "LSTM"} and len(runs) == 12
    for label, found in runs.items():
        assert found["output"] and found["state"] and found["d_x"] and found["d_state"], label
        assert found["d_params_apart"] < (1e-5 if "float32" in label else 1e-13), label
        if label.endswith(", 1"):
            assert found["d_biases"], label
    picture = (folder / "unrolled.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 150_000
