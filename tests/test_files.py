"""Files and folders on this machine, and objects on an S3 server of this machine."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fsspec.config import conf

from fsat_kedro import files
from fsat_kedro.errors import InputError


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """A folder or a url."""
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("url")


def write(path, content):
    with files.open_atomic(path) as file:
        file.write(content)


# Local files and objects alike


def test_a_file_appears_when_it_is_whole(root):
    path = f"{root}/new/scores.json"
    with files.open_atomic(path) as file:
        file.write(b"one")
        assert not files.exists(path)
    assert files.exists(path)
    assert files.read_range(path, 0, 3) == b"one"


def break_off_writing(path):
    with files.open_atomic(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_an_error_while_writing_leaves_the_old_content(root):
    path = f"{root}/scores.json"
    for expected in (None, b"old"):
        with pytest.raises(KeyboardInterrupt):
            break_off_writing(path)
        assert files.exists(path) == (expected is not None)
        write(path, b"old")
    assert files.read_range(path, 0, 3) == b"old"


def test_a_range_of_bytes_is_read(root):
    write(f"{root}/values", b"0123456789")
    assert files.read_range(f"{root}/values", 3, 6) == b"345"
    assert files.read_range(f"{root}/values", 3, 3) == b""


def test_files_and_folders_are_removed(root):
    for name in ("a", "folder/b", "folder/c"):
        write(f"{root}/{name}", b"content")
    files.remove(f"{root}/folder")
    files.remove(f"{root}/never there")
    assert not files.exists(f"{root}/folder/b")
    assert files.exists(f"{root}/a")
    files.remove(f"{root}/a")
    assert not files.exists(f"{root}/a")


def test_a_folder_is_as_new_as_its_newest_file(root):
    start = time.time()
    write(f"{root}/folder/old", b"")
    old = files.modified_at(f"{root}/folder/old")
    assert old == pytest.approx(start, abs=10)
    time.sleep(1.1)  # S3 gives whole seconds.
    write(f"{root}/folder/new", b"")
    new = files.modified_at(f"{root}/folder/new")
    assert files.modified_at(f"{root}/folder") == new > old
    assert files.modified_at(f"{root}/never there") is None


def test_a_probe_file_exists_until_the_block_ends(root):
    with files.probe_file(root) as probe:
        assert probe.startswith(root)
        assert files.exists(probe)
    assert not files.exists(probe)
    with files.probe_file(None) as probe:
        assert probe is None


def test_replacing_a_file_makes_it_current_for_local_copy(root, tmp_path, monkeypatch):
    path = f"{root}/mel.weights.h5"
    with files.replacing(path, tmp_path / "cache") as partial:
        partial.write_text("trained")
    with files.connected(path) as (store, _):
        monkeypatch.setattr(store, "get_file", None)  # No download.
        copy = files.local_copy(path, tmp_path / "cache")
    assert copy.name == "mel.weights.h5"
    assert copy.read_text() == "trained"


# Local copies of objects


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(url):
    """The file system object that this thread uses."""
    with files.connected(url) as (store, _):
        return store


def test_a_local_path_is_its_own_copy(tmp_path):
    path = tmp_path / "mel.weights.h5"
    assert files.local_copy(str(path), tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()


def test_copies_lie_as_the_objects_do(tmp_path):
    assert files.local_path("s3://bucket/a/b/", tmp_path) == tmp_path / "s3" / "bucket" / "a" / "b"
    assert files.local_path("/data/out", tmp_path).as_posix() == "/data/out"


def test_an_object_is_fetched_once_and_again_when_it_changes(url, store, cache, monkeypatch):
    get, downloads = store.get_file, []

    def count(name, local):
        downloads.append(name)
        get(name, local)

    monkeypatch.setattr(store, "get_file", count)
    for content in (b"one", b"two"):
        write(f"{url}/scores.json", content)
        for _ in range(2):
            assert files.local_copy(f"{url}/scores.json", cache).read_bytes() == content
    assert len(downloads) == 2


def test_an_object_of_the_same_size_and_second_is_noticed(url, cache):
    for content in (b"one", b"two", b"one"):
        write(f"{url}/scores.json", content)
        assert files.local_copy(f"{url}/scores.json", cache).read_bytes() == content


def test_a_download_that_breaks_off_does_not_pass_for_whole(url, store, cache, monkeypatch):
    path = f"{url}/scores.json"
    write(path, b"old")
    files.local_copy(path, cache)
    write(path, b"new content")

    def break_off(_, local):
        Path(local).write_bytes(b"new")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "get_file", break_off)
        with pytest.raises(KeyboardInterrupt):
            files.local_copy(path, cache)
    assert files.local_copy(path, cache).read_bytes() == b"new content"


def test_a_file_that_was_not_uploaded_is_no_copy(url, store, cache, monkeypatch):
    path = f"{url}/scores.json"
    write(path, b"uploaded")

    def break_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_file", break_off)
        with pytest.raises(KeyboardInterrupt), files.replacing(path, cache) as partial:
            partial.write_bytes(b"lost")
    assert files.local_copy(path, cache).read_bytes() == b"uploaded"


def test_an_object_replaced_while_it_is_fetched_is_fetched_again(url, store, cache, monkeypatch):
    path = f"{url}/scores.json"
    write(path, b"old")
    get, downloads = store.get_file, []

    def replace_meanwhile(name, local):
        get(name, local)
        if not downloads:
            write(path, b"new")
        downloads.append(name)

    monkeypatch.setattr(store, "get_file", replace_meanwhile)
    assert files.local_copy(path, cache).read_bytes() == b"new"
    assert len(downloads) == 2


def test_a_mapped_copy_stays_as_it_was_when_the_object_changes(url, cache):
    path = f"{url}/values.npy"
    for value in (1, 2):
        with files.open_atomic(path) as file:
            np.save(file, np.full(1000, value))
        if value == 1:
            mapped = np.load(files.local_copy(path, cache), mmap_mode="r")
    assert np.load(files.local_copy(path, cache)).max() == 2
    assert mapped.max() == 1


def test_two_that_want_one_object_fetch_it_once(url, cache, monkeypatch):
    write(f"{url}/scores.json", b"one")
    replacing, downloads = files._replacing_local, []

    def count(path):
        downloads.append(path)
        return replacing(path)

    monkeypatch.setattr(files, "_replacing_local", count)
    threads = [
        threading.Thread(target=files.local_copy, args=(f"{url}/scores.json", cache))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1


def test_a_removed_object_has_no_copy(url, cache):
    write(f"{url}/scores.json", b"one")
    files.local_copy(f"{url}/scores.json", cache)
    files.remove(f"{url}/scores.json")
    with pytest.raises(InputError, match=r"s3://.*scores\.json does not exist .*run the pipeline"):
        files.local_copy(f"{url}/scores.json", cache)


def test_a_full_disk_stays_an_error_of_the_disk(url, store, cache, monkeypatch):
    write(f"{url}/scores.json", b"one")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "get_file", fail)
    with pytest.raises(OSError, match="No space left"):
        files.local_copy(f"{url}/scores.json", cache)


# Errors of a store


def error_of(url):
    with pytest.raises(InputError) as error, files.probe_file(url):
        pass
    return str(error.value)


def test_a_missing_bucket_is_named(url):
    message = error_of("s3://no-such-bucket/run")
    assert message.startswith("s3://no-such-bucket/run does not exist (The specified bucket")
    assert "create the bucket first" in message


def test_a_store_without_an_answer_is_named_with_the_remedy(url, s3, monkeypatch):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    once = {"retries": {"max_attempts": 0}}
    nowhere = {**s3, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": once}
    monkeypatch.setitem(conf, "s3", nowhere)
    message = error_of(url)
    assert "cannot be used: Could not connect" in message
    assert "~/.config/fsspec" in message
    assert "docs/cluster.md" in message


def test_missing_credentials_are_named(url, s3, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3["endpoint_url"]})
    assert "cannot be used: Unable to locate credentials" in error_of(url)


def test_refused_access_is_named(url, store, monkeypatch):
    def refuse(*_):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store, "pipe_file", refuse)
    assert "cannot be read or written: Access Denied" in error_of(url)


@pytest.mark.parametrize(
    ("unusable", "problem"),
    [
        ("nowhere://bucket", "cannot be used: Protocol not known: nowhere"),
        ("gs://bucket", "cannot be used: Please install gcsfs"),
    ],
)
def test_an_unknown_protocol_is_named(unusable, problem):
    message = error_of(unusable)
    assert f"{unusable} {problem}" in message


def test_the_missing_package_for_s3_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsat_kedro.files.url_to_fs", missing)
    assert '--editable ".[s3]"' in error_of("s3://bucket")


# The disk


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_content_is_on_the_disk_before_it_is_renamed_and_the_name_after(
    tmp_path, monkeypatch, kind
):
    target, events = tmp_path / "output", []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def spy_replace(self, path):
        events.append("renamed")
        return replace(self, path)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    with files.replacing(target) as partial:
        if kind == "folder":
            partial.mkdir()
            (partial / "deep").mkdir()
            (partial / "deep" / "values").write_text("content")
        else:
            partial.write_text("content")
    written = [target, *target.rglob("*")]
    before, after = events[: events.index("renamed")], events[events.index("renamed") + 1 :]
    assert sorted(before) == sorted(path.stat().st_ino for path in written)
    assert after == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_a_file_system_that_cannot_sync_is_let_pass(tmp_path, monkeypatch, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            write(tmp_path / "scores.json", b"content")
        assert list(tmp_path.iterdir()) == []
    else:
        write(tmp_path / "scores.json", b"content")
        assert (tmp_path / "scores.json").read_bytes() == b"content"
