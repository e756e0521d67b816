"""Mel-frequency cepstral coefficients in NumPy, and the mel filter with the most power of a tone of 1000 Hz."""

import numpy as np

RATE, WINDOW, HOP, MELS, COEFFICIENTS = 8000, 400, 200, 128, 13


def filters():
    """Triangles (MELS, WINDOW // 2 + 1), equally spaced on the mel scale 2595 log10(1 + f / 700)."""
    hz = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    widths = np.diff(edges)[:, None]
    rising, falling = (hz - edges[:-2, None]) / widths[:-1], (edges[2:, None] - hz) / widths[1:]
    return np.maximum(0, np.minimum(rising, falling))


def mfcc(samples):
    """Samples from -1 to 1 at 8 kHz -> (T, COEFFICIENTS), a step per 25 ms."""
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(windows * hann)) ** 2
    decibel = 10 * np.log10(np.maximum(power @ filters().T, 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    cosines = np.cos(np.pi / MELS * np.outer(np.arange(COEFFICIENTS), np.arange(MELS) + 0.5)) * np.sqrt(2 / MELS)
    cosines[0] /= np.sqrt(2)
    return decibel @ cosines.T


tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
coefficients = mfcc(tone)
print(f"{coefficients.shape[0]} steps, the first coefficient {coefficients[20, 0]:.1f}")
