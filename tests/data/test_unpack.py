import stat
import zipfile
from collections import namedtuple

import pytest

from fsat_kedro.data.unpack import unpack
from fsat_kedro.errors import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def outer(tmp_path):
    """A folder in which only the unpacked folder may appear."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    return folder


def pack(path, members):
    """Write a zip archive from names or ZipInfos and their content."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def special(name, file_type):
    """Return a member that is not a plain file."""
    member = zipfile.ZipInfo(name)
    member.create_system = 3  # Unix
    member.external_attr = (file_type | 0o777) << 16
    return member


def test_the_only_folder_in_an_archive_is_returned(outer):
    archive = pack(outer / "x.zip", [("clips/1.wav", "one"), ("clips/deep/2.wav", "two")])
    content = unpack(archive, outer / "new")
    assert content == outer / "new" / "clips"
    assert (content / "1.wav").read_text() == "one"
    assert (content / "deep" / "2.wav").read_text() == "two"


def test_files_without_a_folder_are_unpacked_to_the_new_folder(outer):
    content = unpack(pack(outer / "x.zip", [("1.wav", ""), ("2.wav", "")]), outer / "new")
    assert content == outer / "new"
    assert {path.name for path in content.iterdir()} == {"1.wav", "2.wav"}


def test_macos_metadata_and_earlier_files_are_not_in_the_folder(outer):
    (outer / "new" / "old").mkdir(parents=True)
    members = [("clips/1.wav", ""), ("clips/._1.wav", ""), ("__MACOSX/clips/._1.wav", "")]
    content = unpack(pack(outer / "x.zip", members), outer / "new")
    files = [path for path in (outer / "new").rglob("*") if path.is_file()]
    assert files == [content / "1.wav"]


@pytest.mark.parametrize(
    "member",
    [
        "../evil.txt",
        "clips/../../evil.txt",
        "/somewhere/evil.txt",
        "C:/evil.txt",
        "C:evil.txt",
        "..\\evil.txt",
        "\\\\host\\share\\evil.txt",
        special("evil", stat.S_IFLNK),
        special("evil", stat.S_IFIFO),
    ],
    ids=str,
)
def test_an_archive_with_an_unsafe_member_is_refused(outer, member):
    archive = pack(outer / "x.zip", [("good.txt", "good"), (member, "../../target")])
    before = sorted(outer.parents[1].rglob("*"))
    with pytest.raises(InputError, match="not safe to unpack") as error:
        unpack(archive, outer / "new")
    assert sorted(outer.parents[1].rglob("*")) == before
    assert "x.zip" in str(error.value)
    assert repr(getattr(member, "filename", member)) in str(error.value)


def test_a_damaged_archive_is_an_error_that_names_it(outer):
    archive = pack(outer / "x.zip", [("1.wav", "one" * 100)])
    content = bytearray(archive.read_bytes())
    content[50] ^= 1
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.zip cannot be unpacked: Bad CRC"):
        unpack(archive, outer / "new")
    archive.write_bytes(content[:100])
    with pytest.raises(InputError, match=r"x\.zip cannot be unpacked: File is not a zip"):
        unpack(archive, outer / "new")


def test_too_little_space_is_an_error_before_anything_is_written(outer, monkeypatch):
    archive = pack(outer / "x.zip", [("1.wav", bytes(3000))])
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(9000, 6001, 2999))
    with pytest.raises(InputError, match=r"needs at least 3\.00kB, but .* has 3\.00kB free"):
        unpack(archive, outer / "new")
    assert not (outer / "new").exists()
