"""Unpacking: whole or not at all, never outside its folder, never more than allowed."""

import collections
import gzip
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile

import pytest

from mask_lib.data import archives, photos

CONTENT = {
    "input/data/train/train.csv": b"id,gender,race,age,path\n",
    "input/data/train/images/a/mask1.jpg": os.urandom(3000),
    "input/data/eval/info.csv": b"ImageID,ans\n",
    "__MACOSX/data/train/._a": b"litter",
    "__MACOSX/data/eval/._a": b"litter",
}


def pack(path, content=CONTENT):
    """Write an archive in the format of its ending."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as handle:
            for name, data in content.items():
                handle.writestr(name, data)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as handle:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                handle.addfile(member, io.BytesIO(data))
    return path


def visible(folder):
    """What `folder` holds, recursively, but for the lock."""
    return [path for path in folder.rglob("*") if path.suffix != ".lock"] if folder.exists() else []


@pytest.fixture(params=["set.zip", "set.tar", "set.tar.gz", "set.tgz", "Set.ZIP"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    return pack(path.with_name(path.name.lower())).rename(path)


def test_an_archive_unpacks_and_the_data_folder_in_it_is_found(archive, tmp_path):
    found = photos.find_data(archive, tmp_path / "input")
    assert found.relative_to(tmp_path / "input").parts[1:] == ("input", "data")
    for name, data in CONTENT.items():
        assert (found.parent.parent / name).read_bytes() == data


def test_the_same_archive_is_unpacked_once_and_a_changed_one_again(archive, tmp_path):
    first = photos.find_data(archive, tmp_path / "input")
    (first / "mark").write_text("still here")
    assert photos.find_data(archive, tmp_path / "input") == first
    assert (first / "mark").exists()
    os.utime(archive, ns=(0, 0))
    second = photos.find_data(archive, tmp_path / "input")
    assert second != first and not (second / "mark").exists()


def test_an_archive_without_the_layout_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks train and eval"):
        photos.find_data(pack(tmp_path / "set.zip", {"a/b.txt": b"x"}), tmp_path / "input")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_a_member_that_would_land_outside_is_refused_and_nothing_is_kept(tmp_path, ending, name):
    archive = pack(tmp_path / f"set{ending}", CONTENT | {name: b"evil"})
    with pytest.raises(ValueError, match="land outside"):
        archives.unpack(archive, tmp_path / "input")
    assert visible(tmp_path / "input") == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("input/link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "set.tar", "w") as handle:
        handle.addfile(member)
    with pytest.raises(ValueError, match="a link or a device"):
        archives.unpack(tmp_path / "set.tar", tmp_path / "input")
    assert visible(tmp_path / "input") == []


def test_a_link_in_a_zip_is_refused(tmp_path):
    member = zipfile.ZipInfo("input/link")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as handle:
        handle.writestr(member, "/etc/passwd")
    with pytest.raises(ValueError, match="a link or a device"):
        archives.unpack(tmp_path / "set.zip", tmp_path / "input")
    assert visible(tmp_path / "input") == []


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6])
def test_a_truncated_archive_is_an_error_that_leaves_nothing(archive, tmp_path, kept):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=f"{archive.name} cannot be unpacked.*fetch it again"):
        archives.unpack(archive, tmp_path / "input")
    assert visible(tmp_path / "input") == []


@pytest.mark.parametrize("name", ["set.tar", "set.tgz"])
def test_a_tar_cut_between_two_members_is_noticed(tmp_path, name):
    with tarfile.open(pack(tmp_path / "whole.tar")) as handle:
        end = handle.getmembers()[2].offset
    cut = (tmp_path / "whole.tar").read_bytes()[:end]
    (tmp_path / name).write_bytes(gzip.compress(cut) if name.endswith("tgz") else cut)
    with pytest.raises(ValueError, match="no end mark after 2 members"):
        archives.unpack(tmp_path / name, tmp_path / "input")


@pytest.mark.parametrize("name", ["set.zip", "set.tgz"])
def test_one_wrong_byte_in_a_photo_is_noticed(tmp_path, name):
    archive = pack(tmp_path / name)
    data = bytearray(archive.read_bytes())
    data[len(data) // 3] ^= 255  # noise does not shrink: this lies within the photo's 3,000 bytes in both
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        archives.unpack(archive, tmp_path / "input")
    assert visible(tmp_path / "input") == []


def test_more_bytes_than_the_limit_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="the size limit"):
        photos.find_data(archive, tmp_path / "input", size_limit=3000)
    assert visible(tmp_path / "input") == []


def test_more_bytes_than_the_disk_has_are_refused(archive, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(10**6, 10**6 - 100, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="free space"):
        archives.unpack(archive, tmp_path / "input")


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_file_that_grows_a_hundredfold_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "RATIO_FLOOR", 10**5)
    with pytest.raises(ValueError, match="100 times its packed size"):
        archives.unpack(pack(tmp_path / name, {"train/zeros": bytes(10**6)}), tmp_path / "input")
    assert visible(tmp_path / "input") == []


def test_a_zip_with_a_password_is_refused(tmp_path):
    archive = pack(tmp_path / "set.zip")
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first member in the central directory
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="password"):
        archives.unpack(archive, tmp_path / "input")


def test_what_a_killed_process_left_is_cleared_and_not_taken_for_the_data(archive, tmp_path):
    name = archives.unpack(archive, tmp_path / "elsewhere").name
    half = tmp_path / "input" / f".{name}.tmp"
    (half / "input" / "data" / "train").mkdir(parents=True)
    (half / "input" / "data" / "leftover").write_text("half")
    found = photos.find_data(archive, tmp_path / "input")
    assert not half.exists() and not (found / "leftover").exists() and (found / "eval").is_dir()


def test_an_interruption_leaves_nothing_and_the_next_call_unpacks(archive, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted)  # what writes each file, of either kind
        with pytest.raises(KeyboardInterrupt):
            archives.unpack(archive, tmp_path / "input")
    assert visible(tmp_path / "input") == []
    assert archives.holds_data(photos.find_data(archive, tmp_path / "input"))


def test_callers_at_the_same_time_share_one_unpacking(tmp_path, monkeypatch):
    archive = pack(tmp_path / "set.zip")
    unpackings, results, unpack_whole = [], [], archives.unpack_whole

    def counted(*arguments):
        unpackings.append(arguments)
        unpack_whole(*arguments)

    monkeypatch.setattr(archives, "unpack_whole", counted)
    callers = [
        threading.Thread(target=lambda: results.append(archives.unpack(archive, tmp_path / "input"))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(unpackings) == 1 and len(results) == 4 and len(set(results)) == 1


def test_the_folder_name_is_plain_whatever_the_archive_is_called(tmp_path):
    archive = pack(tmp_path / "my set, <final> $(x).zip")
    name = archives.unpack(archive, tmp_path / "input").name
    assert name.startswith("my_set_final_x_-") and len(name) == len("my_set_final_x_-") + 8
