"""Raw folders with links, loops, damaged archives, unusual names and special files."""

import errno
import json
import os
import socket
import stat
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsat_kedro.data import raw_files
from fsat_kedro.data.raw_files import RawFolder, normalize_filename, open_raw_file, printable
from fsat_kedro.errors import InputError, UnreadableError

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.fixture
def raw(tmp_path):
    """A raw folder with one clip, beside a folder with another one of the same name."""
    for folder in ("raw/audio", "outside/audio"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.wav").write_text(folder)
    return tmp_path / "raw"


@pytest.fixture
def outside(raw):
    return raw.parent / "outside"


def clips(raw, *folders):
    return RawFolder(raw).find_clips(folders or ("audio",))


def content(path):
    with open_raw_file(path) as file:
        return file.read()


def zipped(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)


def reason_of(path):
    with pytest.raises(UnreadableError) as error:
        open_raw_file(path)
    return str(error.value)


# Links


def test_a_link_to_a_file_outside_is_found_with_a_reason(raw, outside):
    (raw / "audio" / "b.wav").symlink_to(outside / "audio" / "a.wav")
    (raw / "audio" / "c.wav").symlink_to(Path("..", "..", "outside", "nowhere.wav"))
    (raw / "audio" / "d.wav").symlink_to("b.wav")
    found = clips(raw)
    assert {name: found[name].reason for name in found} == {
        "a.wav": "",
        **dict.fromkeys(["b.wav", "c.wav", "d.wav"], "a link out of the raw folder"),
    }


def test_a_link_to_a_folder_outside_is_not_followed(raw, outside):
    (raw / "more").symlink_to(outside)
    (raw / "deeper").mkdir()
    (raw / "deeper" / "audio").symlink_to(outside / "audio")
    (outside / "audio" / "b.wav").touch()
    assert list(clips(raw)) == ["a.wav"]
    assert content(clips(raw)["a.wav"].path) == b"raw/audio"
    assert RawFolder(raw).find_external_link(("audio",)) == str(raw / "deeper" / "audio")


def test_an_archive_or_table_that_is_a_link_out_is_not_read(raw, outside):
    zipped(outside / "audio.zip", {"b.wav": "b"})
    (outside / "train.csv").touch()
    for name in ("audio.zip", "train.csv"):
        (raw / name).symlink_to(outside / name)
    assert list(clips(raw)) == ["a.wav"]
    assert RawFolder(raw).find_table(("train.csv",)) is None


def test_a_folder_whose_name_starts_with_the_raw_folders_name_is_outside(raw):
    (raw.parent / "raw_more").mkdir()
    (raw.parent / "raw_more" / "b.wav").touch()
    (raw / "audio" / "b.wav").symlink_to(raw.parent / "raw_more" / "b.wav")
    assert clips(raw)["b.wav"].reason == "a link out of the raw folder"


def test_links_that_stay_in_the_raw_folder_are_followed(raw):
    (raw / ".store").mkdir()
    (raw / ".store" / "1").write_text("from the store")
    (raw / "audio" / "b.wav").symlink_to(Path("..", ".store", "1"))
    (raw / "audio_train").symlink_to("audio")
    found = clips(raw, "audio_train")
    assert content(found["a.wav"].path) == b"raw/audio"
    assert content(found["b.wav"].path) == b"from the store"


def test_the_raw_folder_itself_may_be_a_link(raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    (raw / "audio" / "b.wav").symlink_to(raw / "audio" / "a.wav")
    found = clips(tmp_path / "link")
    assert [file.reason for file in found.values()] == ["", ""]
    assert content(found["b.wav"].path) == b"raw/audio"


def test_loops_of_links_end(raw, caplog):
    (raw / "audio" / "up").symlink_to("..")
    (raw / "audio" / "audio").symlink_to(".")
    (raw / "audio" / "itself.wav").symlink_to("itself.wav")
    (raw / "audio" / "nothing.wav").symlink_to("nowhere.wav")
    found = clips(raw)
    assert sorted(found) == ["a.wav", "itself.wav", "nothing.wav"]
    assert found["itself.wav"].reason == "neither a file nor a link to one"
    assert found["nothing.wav"].reason == "neither a file nor a link to one"
    assert caplog.messages == []


# Names


@pytest.mark.parametrize(
    "name",
    ["a b.wav", "-a.wav", "🐕.wav", "a\nb.wav", "a\tb.wav", "::.wav", "a.zip::b.wav", "%s{}.wav"],
)
@pytest.mark.parametrize("in_zip", [False, True])
def test_unusual_names_are_found_and_opened(tmp_path, name, in_zip):
    if in_zip:
        zipped(tmp_path / "audio.zip", {f"audio/{name}": "sound"})
    else:
        (tmp_path / "audio").mkdir()
        (tmp_path / "audio" / name).write_text("sound")
    found = clips(tmp_path)
    assert list(found) == [name]
    assert content(found[name].path) == b"sound"


def test_a_raw_folder_with_an_unusual_name_is_read(tmp_path):
    folder = tmp_path / "a.zip::b 🐕\n"
    (folder / "audio").mkdir(parents=True)
    (folder / "audio" / "a.wav").write_text("sound")
    assert content(clips(folder)["a.wav"].path) == b"sound"


def test_names_are_equal_in_either_unicode_form():
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}.wav"
    assert normalize_filename(decomposed) == normalize_filename("café.wav") == "café.wav"
    assert normalize_filename("A.wav") != normalize_filename("a.wav")


def bytes_in_names(folder):
    """Return whether the file system accepts any bytes as names, as on Linux but not on macOS."""
    try:
        (folder / "\udcff").touch()
    except (OSError, UnicodeError):
        return False
    (folder / "\udcff").unlink()
    return True


@pytest.fixture
def any_bytes(tmp_path):
    if not bytes_in_names(tmp_path):
        pytest.skip("this file system accepts only UTF-8 names")


@pytest.mark.usefixtures("any_bytes")
def test_a_file_name_that_is_not_utf_8_is_found_and_can_be_shown(raw):
    (raw / "audio" / "caf\udce9.wav").touch()
    assert sorted(map(printable, clips(raw))) == ["a.wav", "caf\\udce9.wav"]
    assert json.loads(json.dumps(printable("caf\udce9.wav"))) == "caf\\udce9.wav"


@pytest.mark.usefixtures("any_bytes")
def test_folders_and_archives_with_names_that_are_not_utf_8_are_read(tmp_path, caplog):
    raw = tmp_path / "\udce8"
    (raw / "\udce9" / "audio").mkdir(parents=True)
    (raw / "\udce9" / "audio" / "a.wav").write_text("in a folder")
    zipped(raw / "\udce9.zip", {"audio/b.wav": "in an archive"})
    found = clips(raw)
    assert content(found["a.wav"].path) == b"in a folder"
    assert content(found["b.wav"].path) == b"in an archive"
    listed = [name for name, *_ in RawFolder(raw).list_files()]
    assert listed == ["\\udce9.zip/audio/b.wav", "\\udce9/audio/a.wav"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb\n\r\t\x7f\x9b.wav", r"a\x1b[31mb\n\r\t\x7f\x9b.wav"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}vaw.exe", r"a\u202evaw.exe"),
        ("a\N{LINE SEPARATOR}b", r"a\u2028b"),
        ("\udcff\udce9", r"\udcff\udce9"),
        ("café 犬 🐕\N{NO-BREAK SPACE}-=\\'\".wav", "café 犬 🐕\N{NO-BREAK SPACE}-=\\'\".wav"),
    ],
)
def test_a_name_is_shown_without_what_a_terminal_obeys(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown


# Files that count


def test_the_files_of_a_folder_are_listed_once_whatever_links_lead_to_it(raw, caplog):
    (raw / "aa").symlink_to("audio")
    (raw / "audio" / "up").symlink_to("..")
    zipped(raw / "audio" / "more.zip", {"b.wav": "", "../c.wav": ""})
    (raw / "audio" / "c.wav").symlink_to("a.wav")
    listed = [name for name, *_ in RawFolder(raw).list_files()]
    assert listed == ["audio/a.wav", "audio/c.wav", "audio/more.zip/b.wav"]
    assert caplog.messages == [
        f"1 files in {raw}/audio/more.zip are left out because their names lead out of it, the "
        "first is ../c.wav",
        f"3 files are left out because links lead to them again, the first is {raw}/aa/a.wav",
    ]


def test_hidden_files_and_folders_are_ignored(raw):
    for name in (".DS_Store", ".gitkeep", "._a.wav", "Thumbs.db"):
        (raw / "audio" / name).touch()
    (raw / ".partial" / "audio").mkdir(parents=True)
    (raw / ".partial" / "audio" / "b.wav").touch()
    (raw / ".partial" / "audio.zip").write_text("the first half")
    (raw / ".audio.zip").write_text("the first half")
    zipped(raw / "audio.zip", {".cache/audio/c.wav": "", "audio/.c.wav": ""})
    assert list(clips(raw)) == ["a.wav"]


def test_only_regular_files_are_clips(raw, monkeypatch):
    (raw / "audio" / "folder.wav").mkdir()
    os.mkfifo(raw / "audio" / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket is short.
        monkeypatch.chdir(raw / "audio")
        server.bind("socket.wav")
    (raw / "audio" / "device.wav").symlink_to("/dev/zero")
    (raw / "fifo.zip").symlink_to("audio/fifo.wav")
    found = clips(raw)
    assert {name: found[name].reason for name in found if name != "a.wav"} == {
        "fifo.wav": "neither a file nor a link to one",
        "socket.wav": "neither a file nor a link to one",
        "device.wav": "a link out of the raw folder",
    }


@pytest.mark.parametrize("special", ["fifo", "device"])
def test_a_file_that_never_ends_is_refused_at_once(tmp_path, special):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reason = reason_of(str(path) if special == "fifo" else "/dev/zero")
    assert reason == "neither a file nor a link to one"


def test_a_file_that_grows_is_read_up_to_a_limit(tmp_path, small_memory, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(5000))
    status = os.stat_result((stat.S_IFREG, *[0] * 9))
    monkeypatch.setattr(os, "fstat", lambda _: status)
    assert len(content(str(path))) == 1000


def fail_to_list(monkeypatch, name, number):
    scandir = os.scandir

    def failing_scandir(folder):
        if folder.name == name:
            raise OSError(number, os.strerror(number))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing_scandir)


def test_a_folder_that_cannot_be_listed_is_skipped_with_a_warning(raw, monkeypatch, caplog):
    (raw / "lost+found").mkdir()
    fail_to_list(monkeypatch, "lost+found", errno.EACCES)
    assert list(clips(raw)) == ["a.wav"]
    assert caplog.messages == [f"{raw}/lost+found is skipped: Permission denied"]


def test_too_many_open_files_are_an_error(raw, monkeypatch):
    fail_to_list(monkeypatch, "audio", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        clips(raw)


def test_the_first_of_two_unpacked_files_of_one_name_is_used_with_a_warning(raw, caplog):
    for folder in ("b/audio", "a/audio", "a/release.audio"):
        (raw / folder).mkdir(parents=True)
        (raw / folder / "a.wav").write_text(folder)
    (raw / "c").mkdir()
    (raw / "c" / "audio").symlink_to(raw / "audio")
    found = clips(raw, "release.audio", "audio")
    assert content(found["a.wav"].path) == b"a/release.audio"
    assert caplog.messages == [
        "3 clips are ignored because others have the same names: "
        f"{raw}/a/release.audio/a.wav is used, not {raw}/audio/a.wav"
    ]


def test_the_same_clips_zipped_and_unpacked_or_under_two_names_are_no_duplicates(raw, caplog):
    zipped(raw / "audio.zip", {"a.wav": "zipped"})
    (raw / "audio_train").symlink_to("audio")
    assert content(clips(raw, "audio_train", "audio")["a.wav"].path) == b"raw/audio"
    assert caplog.messages == []


# Opening


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(raw_files, "_MAX_BYTES_IN_MEMORY", 1000)


@pytest.mark.parametrize("size", [0, 1000, 1001, 5000])
@pytest.mark.parametrize("in_zip", [False, True])
@pytest.mark.usefixtures("small_memory")
def test_large_files_are_not_read_into_memory(tmp_path, size, in_zip):
    sound = os.urandom(size)
    path = tmp_path / "a.wav"
    path.write_bytes(sound)
    zipped(tmp_path / "audio.zip", {"a.wav": sound}, zipfile.ZIP_DEFLATED)
    with open_raw_file(f"{tmp_path}/audio.zip//a.wav" if in_zip else str(path)) as file:
        assert hasattr(file, "getvalue") == (size <= 1000)
        assert file.read() == sound
        file.seek(0)
        assert file.read() == sound


@pytest.mark.usefixtures("small_memory")
def test_a_zip_bomb_is_refused_without_unpacking_it(tmp_path, monkeypatch):
    path = tmp_path / "audio.zip"
    zipped(path, {"a.wav": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    reason = reason_of(f"{path}//a.wav")
    assert reason.startswith("not unpacked, as ")
    assert reason.endswith(" bytes would become 1000000")


@pytest.mark.parametrize("method", METHODS[1:3])
def test_a_zip_bomb_that_claims_to_be_small_is_not_unpacked(tmp_path, method):
    path = tmp_path / "audio.zip"
    n_bytes = 100 * 10**6
    zipped(path, {"a.wav": bytes(n_bytes)}, method)
    claimed, small = struct.pack("<L", n_bytes), struct.pack("<L", 1000)
    path.write_bytes(path.read_bytes().replace(claimed, small))
    tracemalloc.start()
    try:
        assert "CRC" in reason_of(f"{path}//a.wav")
        assert tracemalloc.get_traced_memory()[1] < 110 * 10**6
    finally:
        tracemalloc.stop()


def test_a_member_that_claims_an_impossible_size_is_refused(tmp_path):
    path = tmp_path / "audio.zip"
    zipped(path, {"a.wav": b"x" * 12345})
    claimed = path.read_bytes().replace(struct.pack("<LL", 12345, 12345), b"\xfe\xff\xff\xff" * 2)
    path.write_bytes(claimed)
    assert (
        reason_of(f"{path}//a.wav") == "not unpacked, as 4294967294 bytes would become 4294967294"
    )


def damaged(path):
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)


def encrypted(path):
    """As if encrypted: the flag says so, in both headers of the member."""
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def with_unknown_compression(path):
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 10 : start + 12] = struct.pack("<H", 99)
    path.write_bytes(content)


def cut_off(path):
    """As if half of the compressed data were missing."""
    with zipfile.ZipFile(path) as archive:
        packed, size = archive.infolist()[0].compress_size, archive.infolist()[0].file_size
    complete, half = struct.pack("<LL", packed, size), struct.pack("<LL", packed // 2, size)
    path.write_bytes(path.read_bytes().replace(complete, half))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("harm", [damaged, encrypted, with_unknown_compression, cut_off])
def test_a_member_that_cannot_be_unpacked_is_an_unreadable_clip(tmp_path, harm, method):
    path = tmp_path / "audio.zip"
    zipped(path, {"a.wav": os.urandom(500) + bytes(500)}, method)
    harm(path)
    reason = reason_of(f"{path}//a.wav")
    assert reason.startswith("not readable")
    assert not reason.endswith(": ")


def test_a_member_beyond_the_end_of_its_archive_is_an_unreadable_clip(tmp_path):
    path = tmp_path / "audio.zip"
    zipped(path, {"a.wav": b"x" * 1234})
    sizes, longer = struct.pack("<LL", 1234, 1234), struct.pack("<LL", 9999, 9999)
    path.write_bytes(path.read_bytes().replace(sizes, longer))
    # Later releases of Python detect it earlier.
    assert reason_of(f"{path}//a.wav").startswith(
        ("not readable from its archive: EOFError", "not readable from its archive: Overlapped")
    )


def test_a_missing_file_archive_or_member_is_an_unreadable_clip(tmp_path):
    zipped(tmp_path / "audio.zip", {"a.wav": "sound"})
    assert reason_of(str(tmp_path / "a.wav")) == "not readable: No such file or directory"
    assert reason_of(f"{tmp_path}/gone.zip//a.wav") == "not readable: No such file or directory"
    assert reason_of(f"{tmp_path}/audio.zip//b.wav").startswith("not readable from its archive: ")


@contextmanager
def failing(monkeypatch, number):
    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(raw_files, "open", fail, raising=False)
        patch.setattr(raw_files, "TemporaryFile", fail)
        yield


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EISDIR])
def test_an_error_of_one_file_makes_it_an_unreadable_clip(monkeypatch, number):
    with failing(monkeypatch, number):
        assert reason_of("a.wav") == f"not readable: {os.strerror(number)}"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC])
@pytest.mark.usefixtures("small_memory")
def test_an_error_of_the_machine_is_raised(tmp_path, monkeypatch, number):
    zipped(tmp_path / "audio.zip", {"a.wav": os.urandom(2000)})
    for path in ("a.wav", f"{tmp_path}/audio.zip//a.wav"):
        with (
            failing(monkeypatch, number),
            pytest.raises(OSError, match=os.strerror(number)) as error,
        ):
            open_raw_file(path)
        assert error.value.errno == number


def test_a_memory_error_is_raised(tmp_path, monkeypatch):
    def fail(self, *arguments):
        raise MemoryError

    zipped(tmp_path / "audio.zip", {"a.wav": "sound"})
    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with pytest.raises(MemoryError):
        open_raw_file(f"{tmp_path}/audio.zip//a.wav")


def test_a_replaced_archive_is_read_again(tmp_path):
    path = tmp_path / "audio.zip"
    for number in (1, 2):
        zipped(path, {"a.wav": f"sound {number}"})
        os.utime(path, (number, number))
        assert content(f"{path}//a.wav") == b"sound %d" % number


# Archives


def test_members_are_not_unpacked_to_the_paths_in_their_names(tmp_path, caplog):
    raw = tmp_path / "raw"
    raw.mkdir()
    members = {"../audio/a.wav": "1", "/audio/b.wav": "2", "audio//c.wav": "3", "x/../\x1bd": ""}
    zipped(raw / "audio.zip", members)
    found = clips(raw)
    assert sorted(found) == ["b.wav", "c.wav"]
    assert content(found["b.wav"].path) == b"2"
    assert content(found["c.wav"].path) == b"3"
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "audio.zip"]
    assert caplog.messages == [
        f"2 files in {raw}/audio.zip are left out because their names lead out of it, the first "
        "is ../audio/a.wav"
    ]


def test_a_link_in_an_archive_is_not_followed(raw, outside):
    link = zipfile.ZipInfo("audio/b.wav")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped(raw / "audio.zip", {link: str(outside / "audio" / "a.wav")})
    assert content(clips(raw)["b.wav"].path) == str(outside / "audio" / "a.wav").encode()


@pytest.mark.parametrize("harm", [lambda path: path.write_text("no archive"), encrypted])
def test_an_unreadable_archive_is_an_error_that_names_it(raw, harm):
    path = raw / "audio.zip"
    zipped(path, {"a.wav": "sound"})
    harm(path)
    with pytest.raises(InputError) as error:
        RawFolder(raw)
    assert str(error.value).startswith(f"{path} is ")
    assert str(error.value).endswith("or remove it")


def test_an_empty_archive_has_no_clips(raw):
    zipped(raw / "more.zip", {})
    assert list(clips(raw)) == ["a.wav"]
