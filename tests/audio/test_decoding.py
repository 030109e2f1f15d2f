"""Decoding and trimming: on simple sounds, on damaged files and against the reference."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fuzz_audio import fuzz

from fsat_kedro.audio import decoding
from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.summary_features import summary_features
from fsat_kedro.errors import UnreadableError

SHARED = Path(os.environ.get("FSAT_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "seed_features.npz"
LOG_MEL = {"kind": "librosa", "sample_rate": 22050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


def tone(frequency, seconds, sample_rate=decoding.SAMPLE_RATE, amplitude=0.5):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def file_of(wave, sample_rate=decoding.SAMPLE_RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, wave, sample_rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    file.seek(0)
    return file


def decode(file, **options):
    return decoding.decode(file, **{"max_seconds": 600, **options})


def load_trimmed(file, **options):
    return decoding.load_trimmed(file, **{"top_db": 60, "max_seconds": 600, **options})


# Decoding


@pytest.mark.parametrize("options", [{}, {"format": "FLAC", "subtype": "PCM_16"}])
def test_a_mono_file_is_decoded_to_its_samples(options):
    wave = tone(440, 0.1)
    decoded, _ = decode(file_of(wave, **options))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, wave, atol=2**-15)


def test_stereo_becomes_the_mean_of_both_channels():
    left, right = tone(440, 0.1), tone(1000, 0.1, amplitude=0.1)
    decoded, _ = decode(file_of(np.stack([left, right], axis=1)))
    np.testing.assert_allclose(decoded, (left + right) / 2, atol=1e-7)


SUBTYPES = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-22),
    ("WAV", "PCM_32", 1e-7),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 1e-7),
    ("AIFF", "PCM_S8", 2**-7),
    ("AIFF", "PCM_16", 2**-15),
    ("AIFF", "DOUBLE", 1e-7),
    ("FLAC", "PCM_S8", 2**-7),
    ("FLAC", "PCM_24", 2**-22),
]


@pytest.mark.parametrize("n_channels", [1, 2, 8])
@pytest.mark.parametrize(("container", "subtype", "tolerance"), SUBTYPES)
def test_every_subtype_is_decoded_with_any_number_of_channels(
    container, subtype, tolerance, n_channels
):
    wave = tone(440, 0.1)
    channels = np.stack([wave] * n_channels, axis=1)
    decoded, warnings = decode(file_of(channels, format=container, subtype=subtype))
    np.testing.assert_allclose(decoded, wave, atol=tolerance + 1e-7)
    assert warnings == ()


@pytest.mark.parametrize("options", [{"format": "OGG", "subtype": "VORBIS"}, {"format": "MP3"}])
def test_lossy_formats_keep_the_tone(options):
    options = {"subtype": None, **options}
    decoded, warnings = decode(file_of(tone(1000, 1), **options))
    spectrum = np.abs(np.fft.rfft(decoded))
    assert abs(spectrum.argmax() * 44_100 / len(decoded) - 1000) < 2
    assert len(decoded) == pytest.approx(44_100, abs=2500)
    assert warnings == ()


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 48_000, 96_000, 192_000])
def test_every_sample_rate_becomes_the_same_tone(rate):
    decoded, _ = decode(file_of(tone(1000, 1, rate), rate))
    expected = tone(1000, 1)
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded[2000:-2000], expected[2000:-2000], atol=2e-3)


def bytes_of(wave, **options):
    return file_of(wave, **options).getvalue()


TONE = tone(440, 0.5)
NOISE = np.random.default_rng(0).normal(0, 0.3, 132_300).astype(np.float32)
WAV, AIFF, FLAC, OGG = (
    bytes_of(TONE, format=container, subtype=subtype)
    for container, subtype in [
        ("WAV", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
    ]
)
LONG_OGG = bytes_of(tone(440, 20), format="OGG", subtype="VORBIS")  # More than one page.
CLAIMS_4_GB = WAV[:40] + b"\xf0\xff\xff\xff" + WAV[44:]


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        pytest.param(b"", ".wav", "an empty file", id="no bytes"),
        pytest.param(WAV[:44], ".wav", "^no samples$", id="WAV, header only"),
        pytest.param(AIFF[:54], ".aiff", "^no samples$", id="AIFF, header only"),
        pytest.param(FLAC[:42], ".flac", "^no samples$", id="FLAC, header only"),
        pytest.param(OGG[:58], ".ogg", "not readable as sound", id="Ogg, header only"),
        pytest.param(WAV[:20], ".wav", "not readable as sound", id="half a header"),
        pytest.param(
            b"no sound at all" * 99,
            ".wav",
            "^not readable as sound: Format not recognised: convert it to WAV, FLAC, Ogg or MP3$",
            id="text",
        ),
        pytest.param(b"\x89PNG\r\n\x1a\n" * 99, ".wav", "not readable as sound", id="image"),
        pytest.param(FLAC, ".wav", "named .wav, but its content is FLAC", id="FLAC as .wav"),
        pytest.param(WAV, ".MP3", "named .MP3, but its content is WAV", id="WAV as .MP3"),
        pytest.param(
            CLAIMS_4_GB, ".wav", "less than 1% of the sound that its header", id="claims 4 GB"
        ),
        pytest.param(
            WAV[:24] + b"\1\0\0\0" + WAV[28:], ".wav", "sample rate of 1 Hz", id="a rate of 1 Hz"
        ),
        pytest.param(bytes_of(np.zeros((0, 2))), ".wav", "^no samples$", id="no samples"),
        pytest.param(bytes_of(np.zeros(44_100)), ".wav", "^silence throughout$", id="silence"),
        pytest.param(
            bytes_of(np.full(100, 0.25)),
            ".wav",
            "silence throughout: every sample is 0.25",
            id="constant offset",
        ),
        pytest.param(bytes_of(np.full(2, 0.5)), ".wav", "sample is 0.5$", id="two equal samples"),
        pytest.param(
            bytes_of(np.full(50, np.nan)),
            ".wav",
            "silence throughout; 50 NaN or infinite samples",
            id="nothing but NaN",
        ),
        pytest.param(
            bytes_of(np.zeros((9, 99))), ".wav", "99 channels", id="a damaged number of channels"
        ),
        *(
            pytest.param(
                bytes_of(np.stack([TONE, -TONE * 0.9999], axis=1), subtype=subtype),
                ".wav",
                "^its channels cancel each other out: keep one of them$",
                id=f"opposite channels, {subtype}",
            )
            for subtype in ("FLOAT", "PCM_16")
        ),
    ],
)
def test_a_file_without_usable_sound_is_refused_with_a_reason(content, suffix, reason):
    with pytest.raises(decoding.UnusableClipError, match=reason):
        load_trimmed(io.BytesIO(content), suffix=suffix)


def test_a_file_that_cannot_be_read_to_its_end_is_used_up_to_there(monkeypatch):
    def read(sound, *args, **options):
        if n_good_blocks == 0 or sound.tell() > 0:
            raise soundfile.LibsndfileError(1)
        return read_block(sound, *args, **options)

    read_block = decoding._ForwardSoundFile.read
    monkeypatch.setattr(decoding._ForwardSoundFile, "read", read)
    n_good_blocks = 1
    decoded, warnings = decode(io.BytesIO(WAV))
    assert len(decoded) == len(TONE)
    assert warnings == ("broken inside, read up to there: Format not recognised",)
    n_good_blocks = 0
    with pytest.raises(decoding.UnusableClipError, match=r"^not readable as sound: Format not"):
        decode(io.BytesIO(WAV))


def test_an_error_that_is_not_of_libsndfile_is_a_reason_too(monkeypatch):
    def fail(file):
        raise RuntimeError("no memory for a decoder. ")

    monkeypatch.setattr(decoding, "_ForwardSoundFile", fail)
    with pytest.raises(decoding.UnusableClipError, match="sound: no memory for a decoder: convert"):
        decode(io.BytesIO(WAV))


@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".dat", ""])
def test_a_correct_or_unknown_suffix_is_accepted(suffix):
    assert len(load_trimmed(io.BytesIO(WAV), suffix=suffix).samples) == len(TONE)


@pytest.mark.parametrize(
    ("content", "min_fraction"),
    [
        pytest.param(WAV, 0.99, id="WAV"),
        pytest.param(AIFF, 0.99, id="AIFF"),
        pytest.param(FLAC, 0.6, id="FLAC"),
        pytest.param(LONG_OGG, 0.7, id="Ogg"),
    ],
)
def test_a_truncated_file_is_used_with_a_warning(content, min_fraction):
    decoded, warnings = decode(io.BytesIO(content[: len(content) // 2]))
    complete, _ = decode(io.BytesIO(content))
    assert min_fraction * len(complete) / 2 <= len(decoded) <= 0.7 * len(complete)
    # A codec that uses later samples may decode the end differently.
    np.testing.assert_array_equal(decoded[:-2000], complete[: len(decoded) - 2000])
    (warning,) = warnings
    assert warning.startswith("cut off: ")


@pytest.mark.parametrize("container", ["RF64", "W64"])
def test_a_truncated_rf64_or_w64_file_has_a_warning(container):
    content = bytes_of(TONE, format=container, subtype="PCM_16")
    decoded, warnings = decode(io.BytesIO(content[: len(content) // 2]))
    np.testing.assert_allclose(decoded, TONE[: len(decoded)], atol=2**-15)
    assert warnings[0] in (
        "cut off: 50.0% of what its header says",
        "cut off: 49.9% of what its header says",
    )


def test_one_missing_sample_is_not_rounded_to_100_percent():
    assert decode(io.BytesIO(WAV[:-2]))[1] == ("cut off: 99.9% of what its header says",)


def test_a_damaged_ogg_file_has_a_warning():
    broken = bytearray(LONG_OGG)
    broken[len(broken) // 2] ^= 1
    _, (warning,) = decode(io.BytesIO(broken))
    assert warning.startswith(("broken inside", "cut off"))


def test_a_flac_file_without_a_length_is_complete():
    without_length = bytearray(FLAC)
    without_length[21] &= 0xF0
    without_length[22:26] = bytes(4)
    decoded, warnings = decode(io.BytesIO(without_length))
    assert len(decoded) == len(TONE)
    assert warnings == ()
    assert decode(io.BytesIO(without_length), max_seconds=0.1)[1] == ()


def test_an_aiff_file_whose_header_wrongly_says_empty_is_read():
    content = bytearray(AIFF)
    start = content.index(b"SSND") + 4
    content[start : start + 4] = bytes(4)
    decoded, _ = decode(io.BytesIO(content))
    assert len(decoded) >= 0.99 * len(TONE)


def test_an_mp3_file_that_is_read_in_part_has_a_warning():
    wave = np.concatenate([tone(440, 3, amplitude=0.001), NOISE])
    options = {"format": "MP3", "subtype": None, "bitrate_mode": "VARIABLE"}
    mp3 = bytes_of(wave, compression_level=0.5, **options)
    assert decode(io.BytesIO(mp3))[1] == ()
    # The first frame has the length. Without it, the decoder guesses from the second's bit rate.
    second_frame = mp3.index(b"\xff\xfb", 4)
    (warning,) = decode(io.BytesIO(mp3[second_frame:]))[1]
    assert "% of its bytes are read: convert it" in warning


def test_a_truncated_flac_file_keeps_all_complete_blocks():
    half = FLAC[: len(FLAC) // 2]
    decoded, _ = decode(io.BytesIO(half))
    more, _ = decode(io.BytesIO(FLAC[: len(FLAC) // 2 + 200]))
    assert len(decoded) % 4096 == 0
    assert len(more) - len(decoded) in (0, 4096)


def test_a_channel_of_only_nan_counts_as_silent():
    wave = tone(440, 0.1)
    decoded, warnings = decode(file_of(np.stack([wave, np.full_like(wave, np.nan)], axis=1)))
    np.testing.assert_array_equal(decoded, wave / 2)
    assert warnings == ("4410 NaN or infinite samples, taken as 0",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_nan_and_infinite_samples_count_as_0_with_a_warning(value):
    wave = tone(440, 2)
    broken = wave.copy()
    places = [7, 70_000]  # In the first block that is read, and in the second.
    broken[places] = value
    decoded, warnings = decode(file_of(broken))
    assert decoded[places].tolist() == [0, 0]
    np.testing.assert_array_equal(np.delete(decoded, places), np.delete(wave, places))
    assert warnings == ("2 NaN or infinite samples, taken as 0",)


def test_a_few_samples_far_beyond_1_count_as_0_with_a_warning():
    wave = tone(440, 0.1)
    wave[50] = 8
    broken = wave.copy()
    broken[99] = 1e20
    decoded, warnings = decode(file_of(broken))
    assert decoded[99] == 0
    np.testing.assert_array_equal(np.delete(decoded, 99), np.delete(wave, 99))
    assert warnings == ("1 samples up to 1e+20, taken as 0",)


def test_a_float_file_scaled_to_integers_is_scaled_down_with_a_warning():
    wave = tone(440, 0.1)
    decoded, warnings = decode(file_of(wave * 32768))
    np.testing.assert_allclose(decoded, wave / wave.max(), atol=1e-6)
    assert warnings == ("samples up to 1.64e+04, scaled down to 1",)


def test_one_sample_in_a_thousand_is_too_many_to_be_damage():
    wave = np.zeros(2000, np.float32)
    wave[:2] = 10
    assert decode(file_of(wave))[1] == ("samples up to 10, scaled down to 1",)


def test_samples_slightly_beyond_1_are_unchanged():
    wave = tone(440, 0.1) * 3
    wave[50] = 8
    decoded, warnings = decode(file_of(wave))
    np.testing.assert_array_equal(decoded, wave)
    assert warnings == ()


def test_sound_on_a_constant_offset_is_usable():
    wave = tone(440, 0.1) + np.float32(0.3)
    np.testing.assert_array_equal(load_trimmed(file_of(wave)).samples, wave)


@pytest.mark.parametrize("rate", [44_100, 8000])
def test_the_first_part_of_a_long_file_is_used_with_a_warning(rate):
    decoded, warnings = decode(file_of(tone(440, 2, rate), rate), max_seconds=0.5)
    assert len(decoded) == 22_050
    assert warnings == ("only its first 0.5 s are used",)
    assert decode(file_of(tone(440, 0.5, rate), rate), max_seconds=0.5)[1] == ()


class GeneratedFile(io.RawIOBase):
    """A WAV file of noise of any length, generated as it is read."""

    def __init__(self, seconds):
        self.header = WAV[:40] + (2 * 44_100 * seconds).to_bytes(4, "little")
        self.size, self.position, self.n_read = 44 + 2 * 44_100 * seconds, 0, 0
        self.noise = np.random.default_rng(0).integers(-999, 999, 2**20, np.int16).tobytes()

    def seek(self, offset, whence=0):
        self.position = offset + [0, self.position, self.size][whence]
        return self.position

    def tell(self):
        return self.position

    def read(self, n=-1):
        n = max(0, min(n, self.size - self.position))
        begin, self.position, self.n_read = self.position, self.position + n, self.n_read + n
        if begin < 44:
            return (self.header + self.noise)[begin : begin + n]
        start = (begin - 44) % (len(self.noise) // 2)
        return self.noise[start : start + n]

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("seconds", [600, 3600, 12 * 3600])
def test_no_more_of_a_long_file_is_read_than_is_used(seconds):
    file = GeneratedFile(seconds)
    decoded, warnings = decode(file, max_seconds=20)
    assert len(decoded) == 20 * 44_100
    assert warnings == ("only its first 20 s are used",)
    assert file.n_read < 3 * 20 * 44_100


# Trimming


def test_silence_around_a_tone_is_trimmed_to_within_a_frame():
    silence = np.zeros(22050, np.float32)
    wave = tone(440, 0.5)
    clip = load_trimmed(file_of(np.concatenate([silence, wave, silence])))
    # A frame of 2,048 samples counts as sound as soon as it reaches into the tone.
    assert 22050 - 2048 <= clip.start <= 22050
    assert 44100 <= clip.end <= 44100 + 2048
    assert len(clip.samples) == clip.end - clip.start
    inside = clip.samples[22050 - clip.start :][:22050]
    np.testing.assert_array_equal(inside, wave)


def test_the_threshold_is_in_db_below_the_loudest_frame():
    wave = np.concatenate([tone(440, 0.5, amplitude=0.5 * 10 ** (-40 / 20)), tone(440, 0.5)])
    start_below, _ = decoding.trim(wave, top_db=60)
    start_above, _ = decoding.trim(wave, top_db=20)
    assert start_below == 0
    assert 22050 - 2048 <= start_above <= 22050


def test_a_clip_of_one_sample_is_usable():
    clip = load_trimmed(file_of(np.array([0.5], np.float32)))
    assert (clip.start, clip.end) == (0, 1)
    assert log_mel(clip.samples, **LOG_MEL).shape == (64, 1)


def test_a_trimmed_clip_has_the_warnings_of_its_file():
    assert load_trimmed(io.BytesIO(WAV)).warnings == ()
    (warning,) = load_trimmed(io.BytesIO(WAV[:-2])).warnings
    assert warning.startswith("cut off")


# Reading


def read_clip(open_file, **options):
    defaults = {"reason": "", "suffix": ".wav", "top_db": 60, "max_seconds": 600}
    return decoding.read_clip(open_file, **{**defaults, **options})


def test_a_clip_is_read_with_the_given_options():
    wave = np.concatenate([tone(440, 0.5, amplitude=0.5 * 10 ** (-40 / 20)), tone(440, 0.5)])
    clip, reason = read_clip(lambda: file_of(wave), top_db=20, max_seconds=0.8)
    assert reason == ""
    assert clip.start > 0
    assert clip.end == round(0.8 * 44_100)
    np.testing.assert_array_equal(clip.samples, wave[clip.start : clip.end])
    _, reason = read_clip(lambda: file_of(wave), suffix=".mp3")
    assert reason.startswith("named .mp3")


def test_a_rejected_clip_is_empty_and_has_its_reason():
    def missing():
        raise UnreadableError("no such file")

    def opened():
        raise AssertionError("a clip that is rejected already is opened")

    for clip, reason, expected in [
        (*read_clip(missing), "no such file"),
        (*read_clip(lambda: io.BytesIO(b"")), "an empty file"),
        (*read_clip(opened, reason="no label"), "no label"),
    ]:
        assert reason == expected
        assert clip.samples.shape == (0,)
        assert clip.samples.dtype == np.float32
        assert (clip.start, clip.end, clip.warnings) == (0, 0, ())


# The reference


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference values at {REFERENCE}")
def test_trimmed_intervals_and_log_mels_agree_with_the_reference():
    with np.load(REFERENCE) as reference:
        for index, path in enumerate(reference["paths"]):
            with (SHARED / "data" / path).open("rb") as file:
                clip = load_trimmed(file)
            interval = reference["trim_interval"][index].tolist()
            assert [clip.start, clip.end] == interval, path
            expected = reference[f"logmel_{index:02d}"]
            mel = log_mel(clip.samples, **LOG_MEL)
            assert mel.shape == expected.shape, path
            assert np.abs(mel - expected).max() < 1e-3, path


# Unusual and damaged clips


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_samples", [1, 2, 100, 1763, 2047, 2048, 4410])
@pytest.mark.parametrize("amplitude", [1e-30, 1e-6, 1.0, 8.0])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_features_of_usable_clips_are_finite_however_short_quiet_or_offset(
    n_samples, amplitude, offset, rng
):
    wave = (rng.normal(0, amplitude / 5, n_samples) + offset).astype(np.float32)
    try:
        clip = load_trimmed(file_of(wave))
    except decoding.UnusableClipError as error:
        assert "every sample is 0.5" in str(error)  # noqa: PT017
        return
    assert np.isfinite(log_mel(clip.samples, **LOG_MEL)).all()
    assert np.isfinite(summary_features(clip.samples)).all()


def test_damaged_files_cause_no_crash_no_delay_and_no_memory_growth():
    report = fuzz(n_files=66, seed=1)
    assert report["crashes"] == []
    assert report["errors"] == {}
    assert report["slow"] == {}
    assert report["growth"] < 50
    assert {"ok", "ok, with warnings", "not readable as sound"} <= set(report["results"])
