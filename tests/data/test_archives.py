"""Unpacking: whole or not at all, never outside its folder, never more than allowed."""

import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from mask_lib.data import archives, photos

CONTENT = {
    "input/data/train/train.csv": b"id,gender,race,age,path\n",
    "input/data/train/images/a/mask1.jpg": os.urandom(3000),
    "input/data/eval/info.csv": b"ImageID,ans\n",
    "__MACOSX/data/train/._a": b"litter",
    "__MACOSX/data/eval/._a": b"litter",
}


def pack(path, content=CONTENT, header=None):
    """Write an archive in the format of its ending; `header`: fields that each member's is given."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as handle:
            for name, data in content.items():
                handle.writestr(with_fields(zipfile.ZipInfo(name), header), data, zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as handle:
            for name, data in content.items():
                member = with_fields(tarfile.TarInfo(name), {"size": len(data)} | (header or {}))
                handle.addfile(member, io.BytesIO(data))
    return path


def with_fields(member, fields):
    for field, value in (fields or {}).items():
        setattr(member, field, value)
    return member


def visible(folder):
    """What `folder` holds, recursively, but for the lock."""
    return [path for path in folder.rglob("*") if path.suffix != ".lock"] if folder.exists() else []


@pytest.fixture(params=["set.tar", "set.tgz", "My set, <final> $(x).ZIP"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    return pack(path.with_name(path.name.lower())).rename(path)


def test_an_archive_unpacks_and_the_data_folder_in_it_is_found(archive, tmp_path):
    found = photos.find_data(archive, tmp_path / "input")
    folder, *inside = found.relative_to(tmp_path / "input").parts
    assert re.fullmatch(r"[\w-]+-[0-9a-f]{8}", folder)  # plain, whatever the archive is called
    assert inside == ["input", "data"]
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


def assert_refused(archive, tmp_path, message):
    """Nothing of it is kept, either."""
    with pytest.raises(ValueError, match=message):
        archives.unpack(archive, tmp_path / "input")
    assert visible(tmp_path / "input") == []


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_a_member_that_would_land_outside_is_refused(tmp_path, ending, name):
    assert_refused(pack(tmp_path / f"set{ending}", CONTENT | {name: b"evil"}), tmp_path, "land outside")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("set.zip", {"create_system": 3, "external_attr": (stat.S_IFLNK | 0o777) << 16}),
        *(("set.tar", {"type": kind, "linkname": "/etc/passwd"}) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)),
        *(("set.tar", {"type": kind}) for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE)),
    ],
)
def test_links_and_devices_are_refused(tmp_path, name, header):
    assert_refused(pack(tmp_path / name, {"input/link": b""}, header), tmp_path, "a link or a device")


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6])
def test_a_truncated_archive_is_refused(archive, tmp_path, kept):
    os.truncate(archive, int(archive.stat().st_size * kept))
    assert_refused(archive, tmp_path, rf"{re.escape(archive.name)} cannot be unpacked.*fetch it again")


@pytest.mark.parametrize("name", ["set.tar", "set.tgz"])
def test_a_tar_cut_between_two_members_is_noticed(tmp_path, name):
    with tarfile.open(pack(tmp_path / "whole.tar")) as handle:
        end = handle.getmembers()[2].offset
    cut = (tmp_path / "whole.tar").read_bytes()[:end]
    (tmp_path / name).write_bytes(gzip.compress(cut) if name.endswith("tgz") else cut)
    assert_refused(tmp_path / name, tmp_path, "no end mark after 2 members")


def change_byte(archive, position, mask):
    data = bytearray(archive.read_bytes())
    data[position(data)] ^= mask
    archive.write_bytes(data)
    return archive


def test_one_wrong_byte_in_a_photo_is_noticed(tmp_path):
    # Noise does not shrink: a third of the way lies within the photo's 3,000 bytes.
    archive = change_byte(pack(tmp_path / "set.tgz"), lambda data: len(data) // 3, 255)
    assert_refused(archive, tmp_path, "cannot be unpacked")


def test_a_zip_with_a_password_is_refused(tmp_path):
    # The flag of the first member in the central directory.
    archive = change_byte(pack(tmp_path / "set.zip"), lambda data: data.index(b"PK\x01\x02") + 8, 1)
    assert_refused(archive, tmp_path, "password")


def test_more_bytes_than_the_limit_or_the_disk_allows_are_refused(archive, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(archives, "SIZE_LIMIT", 3000)
        assert_refused(archive, tmp_path, "the size limit")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Mock(free=100))
    assert_refused(archive, tmp_path, "free space")


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_file_that_grows_a_hundredfold_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "RATIO_FLOOR", 10**5)
    assert_refused(pack(tmp_path / name, {"train/zeros": bytes(10**6)}), tmp_path, "100 times its packed size")


def test_callers_at_the_same_time_share_one_unpacking(tmp_path, monkeypatch):
    archive = pack(tmp_path / "set.zip")
    unpackings, unpack_whole = [], archives.unpack_whole

    def counted(*arguments):
        unpackings.append(arguments)
        unpack_whole(*arguments)

    monkeypatch.setattr(archives, "unpack_whole", counted)
    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(archives.unpack, [archive] * 4, [tmp_path / "input"] * 4))
    assert len(unpackings) == 1 and len(results) == 4 and len(set(results)) == 1
