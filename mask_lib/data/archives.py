"""Finding the data folder, and unpacking an archive that comes from elsewhere without trusting it."""

import contextlib
import errno
import functools
import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from typing import IO

from mask_lib.base import files, labels

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
SIZE_LIMIT = 200 * 10**9  # bytes an archive may unpack to
RATIO_LIMIT = 100  # photos hardly shrink; a file that grows a hundredfold is no photo set
RATIO_FLOOR = 10**9  # bytes below which the ratio does not matter
MEMBER_LIMIT = 80_000  # the official set has 32,000, and a Mac packs as many again beside them
TAIL_LIMIT = 64 * 10**6  # bytes after a tar's end mark, where tar fills up a block or two
PARTS = ("train", "eval")  # of a data folder
SEARCH_DEPTH = 3  # levels; the official archive unpacks as input/data/{train,eval}
JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints"}
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is litter of an operating system or of Jupyter."""
    return name.startswith("._") or name.lower() in JUNK_NAMES


def leaves_folder(name: str) -> bool:
    """Whether a name from a table or an archive could lead out of the folder it is meant for."""
    path = PureWindowsPath(name)  # on every system: its rules are the wider ones (drives, both slashes)
    return bool(path.drive or path.root) or ".." in path.parts or "\0" in name


def holds_data(folder: Path, parts: Sequence[str] = PARTS) -> bool:
    """Whether `folder` holds the folders of some parts, train/ and eval/ unless the task calls them otherwise."""
    return all((folder / name).is_dir() for name in labels.task().photos.heads(parts))


def folders_with_data(root: Path, parts: Sequence[str] = PARTS) -> list[Path]:
    """The folders nearest to `root`, itself included, that hold the parts; [] if none is near."""
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        found = [folder for folder in level if holds_data(folder, parts)]
        if found:
            return found
        # glob passes over what may not be read.
        level = sorted(child for folder in level for child in folder.glob("*/") if not is_junk(child.name))
    return []


def unpack(archive: Path, unpack_into: Path, nested: int = 1) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz into a folder of its own inside `unpack_into`; return that folder.

    The same archive is unpacked once, one of another size or time again. One that holds an archive instead of a data
    folder is followed into that, `nested` times. Raises ValueError, and leaves nothing behind, for a broken archive, a
    member that cannot be read or written or would land outside, and more than the limits allow.
    """
    ending = next((ending for ending in ENDINGS if archive.name.lower().endswith(ending)), None)
    if not ending:
        raise ValueError(f"{archive} is neither a folder nor one of {', '.join(ENDINGS)}")
    status = archive.stat()
    plain = re.sub(r"[^\w-]+", "_", archive.name[: -len(ending)])[:80]
    folder = unpack_into / f"{plain}-{files.digest([status.st_size, status.st_mtime_ns])[:8]}"
    with files.lock(unpack_into / f".{folder.name}.lock"):
        if not folder.is_dir():
            unpack_whole(archive, folder)
    inner = [] if folders_with_data(folder) else archives_in(folder)
    return unpack(inner[0], unpack_into, nested - 1) if nested and len(inner) == 1 else folder


def archives_in(folder: Path) -> list[Path]:
    """The archives in a folder, two levels deep."""
    found = (path for pattern in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(pattern)))
    return [path for path in found if path.name.lower().endswith(ENDINGS) and not is_junk(path.name) and path.is_file()]


def unpack_whole(archive: Path, folder: Path) -> None:
    """Unpack into `folder`, whole or not at all. Call it under the lock."""
    limits = {
        "the size limit": SIZE_LIMIT,
        "the free space on the disk": shutil.disk_usage(folder.parent).free,
        f"{RATIO_LIMIT} times its packed size": max(RATIO_FLOOR, RATIO_LIMIT * archive.stat().st_size),
    }
    try:
        with files.replacing_folder(folder) as temporary:
            # By the content: endings are changed by hand.
            (extract_tar if tarfile.is_tarfile(archive) else extract_zip)(archive, temporary, limits)
    except (*BROKEN, NotImplementedError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {remedy(archive, error)}") from error


def remedy(archive: Path, error: Exception) -> str:
    """Why an archive cannot be read, and what helps."""
    with archive.open("rb") as handle:
        head = handle.read(400)
    text, what = head.decode("utf-8", "ignore"), str(error) or type(error).__name__
    if text and all(mark.isprintable() or mark.isspace() for mark in text):
        return f"it is text, such as a login page, that begins {text[:40]!r}: fetch it again, signed in if need be"
    if isinstance(error, NotImplementedError) or head.startswith((b"Rar!", b"7z\xbc\xaf")):
        return f"Python cannot read it ({what}): unpack it with 7-Zip and give the folder, or pack it as a plain zip"
    return f"it may be cut short, fetch it again ({what})"


def check_member(archive: Path, name: str, is_plain: bool, number: int, size: int, limits: dict[str, int]) -> None:
    """Raise ValueError for a member that would land outside, is neither file nor folder, or is one too many.

    number, size: of all members so far, bytes unpacked; limits: the most bytes that they may be, by what sets it.
    """
    if leaves_folder(name):
        raise ValueError(f"{archive} holds {name!r}, which would land outside its folder: do not trust this archive")
    if not is_plain:
        raise ValueError(f"{archive} holds {name!r}, a link or a device: pack plain files and folders only")
    if number > MEMBER_LIMIT:
        raise ValueError(f"{archive} holds more than {MEMBER_LIMIT:,} members: unpack it yourself and give the folder")
    for limit, most in limits.items():
        if size > most:
            raise ValueError(f"{archive} unpacks to more than {most / 1e9:.3g} GB, {limit}: nothing was kept")


def write_member(archive: Path, target: Path, name: str, open_content: Callable[[], IO[bytes]] | None) -> None:
    """Write a file, or without content make a folder. Raises ValueError for a name that cannot be, or is there."""
    try:
        (target.parent if open_content else target).mkdir(parents=True, exist_ok=True)
        if open_content:
            with open_content() as content, target.open("xb") as copy:
                shutil.copyfileobj(content, copy)
    except OSError as error:
        why = {errno.ENAMETOOLONG: "a name too long for this disk"}
        why |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "twice, as two files or a file and a folder")
        if error.errno not in why:
            raise
        raise ValueError(f"{archive} holds {name!r}, {why[error.errno]}: pack it again without that") from error


def extract_zip(archive: Path, folder: Path, limits: dict[str, int]) -> None:
    """Unpack a zip file into `folder`. `zipfile` never reads more bytes than a member's header states."""
    size = 0
    with zipfile.ZipFile(archive) as handle:
        for number, member in enumerate(files.progress(handle.infolist(), what="unpacking", unit="file"), start=1):
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the zip was not made on Unix
            # A name that is not marked as UTF-8 zipfile has taken for one of an old PC.
            raw = member.orig_filename
            name = raw if member.flag_bits & 0x800 else readable_name(archive, raw.encode("cp437"))
            size, name = size + member.file_size, name.replace("\\", "/")
            check_member(archive, name, kind in (0, stat.S_IFREG, stat.S_IFDIR), number, size, limits)
            if member.flag_bits & 1:
                raise ValueError(f"{archive} is locked by a password: unpack it yourself and give the folder")
            content = None if name.endswith("/") else functools.partial(handle.open, member)
            write_member(archive, folder / name, name, content)


def extract_tar(archive: Path, folder: Path, limits: dict[str, int]) -> None:
    """Unpack a tar file, packed or not, into `folder` in one pass: names and contents, no owners, modes or times.

    `TarFile.extract` is safe only by its filter, which Python 3.11.2 of Debian 12 has not.
    """
    size = 0
    with tarfile.open(archive) as handle:
        for number, member in enumerate(files.progress(handle, what="unpacking", unit="file"), start=1):
            size, name = size + member.size, readable_name(archive, os.fsencode(member.name))
            check_member(archive, name, member.isreg() or member.isdir(), number, size, limits)
            content = None if member.isdir() else functools.partial(handle.extractfile, member)
            write_member(archive, folder / name, name, content)
        check_end(handle)


def readable_name(archive: Path, raw: bytes) -> str:
    """A member's name that is not said to be UTF-8. Raises ValueError where it is neither that nor Korean CP949."""
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode("utf-8")
    name = raw.decode("cp949", "replace")
    foreign = [mark for mark in name if not mark.isascii()]
    # Other encodings pass for CP949 too, but give other letters, or syllables that are not of the 2,350 in use.
    korean = [mark for mark in foreign if len(mark.encode("euc_kr", "ignore")) == 2 and "가" <= mark <= "힣"]
    if 2 * len(korean) > len(foreign) and "\ufffd" not in name:
        return name
    advice = "unpack it yourself and give the folder, or pack it with names in UTF-8"
    raise ValueError(f"{archive} holds {raw!r}, a name that is neither UTF-8 nor Korean (CP949): {advice}")


def check_end(handle: tarfile.TarFile) -> None:
    """Raise tarfile.ReadError unless the archive's end mark, a block of zeros, follows the last member.

    `tarfile` misses a cut between members. Reading on lets gzip check its sum; ValueError for an end past `TAIL_LIMIT`.
    """
    handle.fileobj.seek(handle.offset)
    if handle.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end mark after {len(handle.getmembers())} members")
    tail = 0
    while block := handle.fileobj.read(2**20):
        tail += len(block)
        if tail > TAIL_LIMIT:
            raise ValueError(f"{handle.name} goes on for {TAIL_LIMIT / 1e6:.0f} MB after its end: do not trust it")


def hint(folder: Path) -> str:
    """The end of an error message: which folder to give in place of `folder`, as far as one can be seen."""
    candidates = [parent for parent in folder.parents[:SEARCH_DEPTH] if holds_data(parent)] + folders_with_data(folder)
    if not candidates and (packed := archives_in(folder)):
        return f"unpack {', '.join(path.name for path in packed[:3])} into one folder and give that"
    wanted = f"the folder that holds {', '.join(labels.task().photos.required())}"
    return f"give {candidates[0] if candidates else wanted}"
