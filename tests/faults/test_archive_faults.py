"""Archives as other systems and people make them: read where that can be, else the cause, the member and the remedy."""

import gzip
import io
import os
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import pytest
from amount import amount

from mask_lib.data import archives, photos

CONTENT = {
    "data/train/train.csv": b"id,gender,race,age,path\n",
    "data/train/images/a/mask1.jpg": b"photo" * 50,
    "data/eval/info.csv": b"ImageID,ans\n",
    "data/eval/images/b.jpg": b"photo",
}
KOREAN = {
    name.replace("/a/", "/김민지_여/").replace("b.jpg", "똠방각하 사진.jpg"): one for name, one in CONTENT.items()
}


class Unmarked(zipfile.ZipInfo):
    """A member whose name is written in `encoding`, and not marked as UTF-8."""

    encoding = "ascii"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


Content = Mapping[str, bytes] | Sequence[tuple[str, bytes]]
Build = Callable[[Path], Path]  # an archive in the folder given


def pairs(content: Content) -> Iterable[tuple[str, bytes]]:
    return content.items() if isinstance(content, Mapping) else content


def zip_of(path: Path, content: Content, encoding: str = "") -> Path:
    """A zip; with an encoding its names are written in that and not marked as UTF-8."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as handle:
        for name, data in pairs(content):
            info = (Unmarked if encoding else zipfile.ZipInfo)("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            if encoding:
                info.encoding = encoding
            handle.writestr(info, data)
    return path


def tar_of(path: Path, content: Content, encoding: str = "utf-8") -> Path:
    mode = "w:gz" if path.suffix == ".tgz" else "w"
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT, encoding=encoding) as handle:
        for name, data in pairs(content):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            handle.addfile(member, io.BytesIO(data))
    return path


def zipped(content: Content, encoding: str = "") -> Build:
    return lambda at: zip_of(at / "set.zip", content, encoding)


def tarred(content: Content, encoding: str = "utf-8") -> Build:
    return lambda at: tar_of(at / "set.tar", content, encoding)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def backslashes(content: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """Names as .NET wrote them, folders too."""
    return [("data\\", b""), *((name.replace("/", "\\"), data) for name, data in content.items())]


def nested(path: Path, inner: Path) -> Path:
    return zip_of(path, {f"download/{inner.name}": inner.read_bytes(), "__MACOSX/._set.tar": b"litter"})


READ: dict[str, tuple[Build, Mapping[str, bytes]]] = {
    "zip with backslashes": (zipped(backslashes(CONTENT)), CONTENT),
    "zip, CP949 not marked": (zipped(KOREAN, "cp949"), KOREAN),
    "zip, UTF-8 not marked": (zipped(KOREAN, "utf-8"), KOREAN),
    "zip, UTF-8": (zipped(KOREAN), KOREAN),
    "zip, CP949 and backslashes": (zipped(backslashes(KOREAN), "cp949"), KOREAN),
    "tar, CP949": (tarred(KOREAN, "cp949"), KOREAN),
    "zip named .tar.gz": (lambda at: zip_of(at / "set.zip", CONTENT).rename(at / "set.tar.gz"), CONTENT),
    "tgz named .zip": (lambda at: tar_of(at / "set.tgz", CONTENT).rename(at / "set.zip"), CONTENT),
    "tar in a zip": (lambda at: nested(at / "set.zip", tar_of(at / "inner.tar", CONTENT)), CONTENT),
    "tgz in a zip": (lambda at: nested(at / "set.zip", tar_of(at / "inner.tgz", CONTENT)), CONTENT),
    "zip in a tar": (lambda at: tarred({"set.zip": zipped(CONTENT)(at).read_bytes()})(at), CONTENT),
}


@pytest.mark.parametrize("case", READ)
def test_what_other_systems_pack_is_read(tmp_path, case):
    build, content = READ[case]
    found = photos.find_data(build(tmp_path), tmp_path / "into")
    assert {f"data/{name}": data for name, data in files_in(found).items()} == content


def deflate64(at: Path) -> Path:
    """A zip whose second member says that it is packed by method 9."""
    data = bytearray(zip_of(at / "set.zip", CONTENT).read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.index(mark, data.index(mark) + 4)
        data[start + place : start + place + 2] = struct.pack("<H", 9)
    (at / "set.zip").write_bytes(data)
    return at / "set.zip"


def written(name: str, content: bytes) -> Build:
    def write(at: Path) -> Path:
        (at / name).write_bytes(content)
        return at / name

    return write


def zeros_after(at: Path, name: str, size: int) -> Path:
    """A tar with `size` zeros behind its end."""
    whole = tar_of(at / "whole.tar", CONTENT).read_bytes()
    if name.endswith(".tar"):
        (at / name).write_bytes(whole)
        os.truncate(at / name, len(whole) + size)
    else:
        with gzip.open(at / name, "wb", compresslevel=1) as handle:
            handle.write(whole)
            for _ in range(size // 2**24):
                handle.write(bytes(2**24))
    return at / name


def garbled(encoding: str, name: str) -> Build:
    return zipped(CONTENT | {f"data/{name}": b""}, encoding)


PAGE = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"
SAME = [*CONTENT.items(), ("data/./train//train.csv", b"")]
KOREAN_LONG = CONTENT | {f"data/{'가' * 90}.jpg": b""}
NO_NAMES: dict[str, tuple[tuple[str, bytes], str]] = {  # of one member more
    "twice": (("data/train/train.csv", b"id,gender,race,age,path\nother\n"), r"holds 'data/train/train\.csv', twice"),
    "below a file": (("data/train/train.csv/x", b""), r"'data/train/train\.csv/x', twice, .*a file and a folder"),
    "over a folder": (("data/train/images", b""), r"'data/train/images', twice"),
    "long name": ((f"data/{'n' * 300}.jpg", b""), r"nnn\.jpg', a name too long"),
    "empty name": (("", b"x"), "holds ''"),
}
REFUSED: dict[str, tuple[Build, str]] = {
    f"{case}, {pack.__name__}": (pack([*CONTENT.items(), member]), words)
    for case, (member, words) in NO_NAMES.items()
    for pack in (zipped, tarred)
}
REFUSED |= {
    "Deflate64": (deflate64, r"compression method is not supported.*unpack it with 7-Zip"),
    "page named .zip": (written("set.zip", PAGE), r"it is text, such as a login page.*DOCTYPE.*signed in"),
    "page named .tar.gz": (written("set.tar.gz", PAGE), r"it is text, such as a login page"),
    "answer of a server": (written("set.zip", b'{"error": "quota"}'), r"it is text.*quota"),
    "RAR named .zip": (written("set.zip", b"Rar!\x1a\x07\x01\0" + bytes(99)), "unpack it with 7-Zip"),
    "7z named .tar": (written("set.tar", b"7z\xbc\xaf\x27\x1c" + bytes(99)), "unpack it with 7-Zip"),
    "Japanese": (garbled("shift_jis", "あいう写真.jpg"), "neither UTF-8 nor Korean"),
    "Japanese letters": (garbled("shift_jis", "あいう.jpg"), "neither UTF-8 nor Korean"),
    "Chinese": (garbled("gbk", "测试照片.jpg"), "neither UTF-8 nor Korean"),
    "Western": (garbled("cp1252", "Müller café.jpg"), "neither UTF-8 nor Korean"),
    "Western, of DOS": (garbled("cp437", "Müller café.jpg"), "neither UTF-8 nor Korean"),
    "Japanese, tar": (tarred(CONTENT | {"data/写真.jpg": b""}, "shift_jis"), "neither UTF-8 nor Korean"),
    "twice, otherwise written": (zipped(SAME), r"'data/\./train//train\.csv', twice"),
    "twice, by backslashes": (zipped([*CONTENT.items(), *backslashes(CONTENT)]), r"'data/train/train\.csv', twice"),
    "long name in bytes": (zipped(KOREAN_LONG, "cp949"), "a name too long"),
    "outside by backslashes": (zipped([*CONTENT.items(), ("..\\..\\evil.txt", b"")]), "land outside"),
    "outside in CP949": (zipped(CONTENT | {"../사진.txt": b""}, "cp949"), "land outside"),
    "zeros after the end": (lambda at: zeros_after(at, "set.tar", 10**10), "goes on for 64 MB after its end"),
    "packed zeros": (lambda at: zeros_after(at, "set.tgz", amount(2**27, 2**32)), "goes on for 64 MB after its end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_cause_and_remedy_and_leaves_nothing(tmp_path, case):
    build, words = REFUSED[case]
    archive = build(tmp_path)
    before, start = set(tmp_path.rglob("*")), time.monotonic()
    with pytest.raises(ValueError, match=words) as caught:
        photos.find_data(archive, tmp_path / "into")
    assert time.monotonic() - start < 30 and archive.name in str(caught.value)
    left = {path for path in set(tmp_path.rglob("*")) - before if path.suffix != ".lock"}
    assert left <= {tmp_path / "into"} and not list(tmp_path.parent.glob("*evil*"))


@pytest.mark.parametrize(("pack", "name"), [(zip_of, "set.zip"), (tar_of, "set.tgz")], ids=["zip", "tar"])
def test_members_are_counted_before_or_while_they_are_unpacked(tmp_path, monkeypatch, pack, name):
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 300)
    archive = pack(tmp_path / name, [(f"data/{number}", b"") for number in range(400)])
    with pytest.raises(ValueError, match="more than 300 members"):
        archives.unpack(archive, tmp_path / "into")
    assert len(files_in(tmp_path / "into")) == 1  # the lock


def test_archives_beside_each_other_or_too_deep_are_named(tmp_path):
    inner = [zip_of(tmp_path / f"{part}.zip", {"x": b""}) for part in ("train", "eval")]
    both = zip_of(tmp_path / "both.zip", {one.name: one.read_bytes() for one in inner})
    with pytest.raises(FileNotFoundError, match=r"unpack eval\.zip, train\.zip into one folder and give that"):
        photos.find_data(both, tmp_path / "into")
    deep = nested(tmp_path / "deep.zip", nested(tmp_path / "deeper.zip", tar_of(tmp_path / "deepest.tar", CONTENT)))
    with pytest.raises(FileNotFoundError, match=r"unpack deepest\.tar into one folder and give that"):
        photos.find_data(deep, tmp_path / "into")


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        archives.unpack(zip_of(tmp_path / "set.zip", CONTENT), tmp_path / "into")
    assert len(files_in(tmp_path / "into")) == 1  # the lock


def test_checksums_hold_for_what_is_written_by_hand(tmp_path):
    """A flipped bit in any member is noticed, now that `zipfile` no longer writes it."""
    whole = zip_of(tmp_path / "set.zip", {name: os.urandom(400) for name in CONTENT}).read_bytes()
    for offset in range(60, 400, amount(50, 5)):
        data = bytearray(whole)
        data[offset] ^= 1
        (tmp_path / "set.zip").write_bytes(data)
        with pytest.raises(ValueError, match="cannot be unpacked"):
            archives.unpack(tmp_path / "set.zip", tmp_path / "into")
