"""The engine below layers, cells and `fastrnn.functional`: from checked arguments to calls of the kernels.

Its modules, from the bottom up: `spec` describes the cells and their options; `pool` keeps unused buffers; `ragged`
lays out the time steps of a batch; `stack` runs layers and directions forward and backward; `checkpoint` does so with
less memory; `tape` holds the saved activations of a forward pass; `arguments` checks the arguments of callers.
"""
