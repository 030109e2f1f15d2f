"""Tag a 16-bit WAV file with an export, in NumPy and ONNX Runtime alone: see docs/export.md.

python tag_with_onnx.py tagger_onnx bark.wav
"""

import sys
import wave

import numpy as np
import onnxruntime

FALL_OFF = [0, -0.07, -0.65, -2.8, -8.1, -18, -34, -62, -134]  # dB at 92 to 100 % of the band.


def resample(samples, old, new):
    """Resample (n,) from one rate to another, with a filter like that of the training's library."""
    if old == new:
        return samples
    # Both lengths are whole periods of the rates, with zeros at the end.
    n_periods = len(samples) * np.gcd(old, new) // old + 2
    n_old, n_new = n_periods * old // np.gcd(old, new), n_periods * new // np.gcd(old, new)
    frequencies = np.arange(n_old // 2 + 1) / (min(n_old, n_new) / 2)  # 1 is the end of the band.
    decibels = np.interp(frequencies, np.linspace(0.92, 1, 9), FALL_OFF)
    spectrum = np.fft.rfft(samples, n_old) * 10 ** (decibels / 20)
    return np.fft.irfft(spectrum, n_new)[: -(-len(samples) * new // old)] * (n_new / n_old)


folder, file = sys.argv[1:]
c = np.load(f"{folder}/preprocessing.npz")
session = onnxruntime.InferenceSession(f"{folder}/tagger.onnx")
if len(session.get_inputs()) > 1:
    sys.exit("this ensemble needs summary features, which this example does not compute")

with wave.open(file) as sound:
    if sound.getsampwidth() != 2:
        sys.exit("only WAV files of 16 bits can be read")
    rate = sound.getframerate()
    content = sound.readframes(round(c["max_seconds"] * rate))
    samples = np.frombuffer(content, "<i2").reshape(-1, sound.getnchannels()).mean(axis=1) / 32768
samples = resample(samples, rate, int(c["decoding_rate"]))

# Trim silence at both ends.
hop, half = int(c["trim_hop"]), c["trim_length"] // 2
energy = np.cumsum(np.pad(samples**2, (half + 1, half)))
power = np.maximum((energy[2 * half :] - energy[: -2 * half])[::hop] / (2 * half), 1e-10)
loud = np.flatnonzero(power > power.max() * 10 ** (-c["trim_top_db"] / 10))
samples = samples[hop * loud[0] : hop * (loud[-1] + 1)]

# Compute the log-mel.
samples = resample(samples, int(c["decoding_rate"]), int(c["sample_rate"]))
samples = np.convolve(samples, c["pre_emphasis"], mode="valid")
samples = np.pad(samples, len(c["window"]) // 2, mode=str(c["padding"]))
windows = np.lib.stride_tricks.sliding_window_view(samples, len(c["window"]))[:: c["hop_length"]]
blocks = np.array_split(windows, -(-len(windows) // 1000))
power = [np.abs(np.fft.rfft(block * c["window"], c["n_fft"])) ** 2 for block in blocks]
mel = np.concatenate([each @ c["mel_filters"].T for each in power])
log_mel = c["log_scale"] * np.log(np.maximum(mel, c["log_floor"]) + c["log_offset"])
log_mel = np.maximum(log_mel, log_mel.max() - c["dynamic_range"]).T.astype(np.float32)

# Predict equal pieces, which bounds the memory, and combine them.
pieces = np.array_split(log_mel, -(-log_mel.shape[1] // c["longest_piece"]), axis=1)
found = [session.run(["probabilities"], {"log_mel": piece[None]})[0][0] for piece in pieces]
probabilities = np.exp(np.log(np.maximum(found, 1e-38)).mean(axis=0))
probabilities /= probabilities.sum()
for index in np.argsort(-probabilities)[:3]:
    print(f"{probabilities[index]:7.1%}  {c['labels'][index]}")
