"""Half a minute of speech for the examples of audio models: the sample of the package pyannote.audio, under MIT."""

import wave

import numpy as np

from comparison import file_of

RATE = 16000


def speech(seconds=30.0):
    """The beginning of a telephone conversation.

    Parameters
    ----------
    seconds : float, default 30
        At most 30.

    Returns
    -------
    samples : ndarray of float32, (seconds * 16000,)
        In [-1, 1].
    """
    with wave.open(file_of("pyannote.audio", "pyannote/audio/sample/sample.wav")) as file:
        assert file.getframerate() == RATE
        samples = np.frombuffer(file.readframes(round(seconds * RATE)), "<i2")
    return samples.astype(np.float32) / 32768
