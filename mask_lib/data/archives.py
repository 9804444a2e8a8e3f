"""Finding the data folder, and unpacking an archive that comes from elsewhere without trusting it."""

import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from filelock import FileLock

from mask_lib.base import files

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
SIZE_LIMIT = 200 * 10**9  # bytes an archive may unpack to
RATIO_LIMIT = 100  # photos hardly shrink; a file that grows a hundredfold is no photo set
RATIO_FLOOR = 10**9  # bytes below which the ratio does not matter
LAYOUT = "train/ (train.csv, images/) and eval/ (info.csv, images/)"
SEARCH_DEPTH = 3  # levels; the official archive unpacks as input/data/{train,eval}
JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints"}
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is litter of an operating system or of Jupyter."""
    return name.startswith("._") or name.lower() in JUNK_NAMES


def leaves_folder(name: str) -> bool:
    """Whether a name from a table or an archive could lead out of the folder it is meant for."""
    path = PureWindowsPath(name)  # on every system: its rules are the wider ones (drives, both slashes)
    return bool(path.drive or path.root) or ".." in path.parts or "\0" in name


def holds_data(folder: Path) -> bool:
    """Whether `folder` holds both train/ and eval/."""
    return (folder / "train").is_dir() and (folder / "eval").is_dir()


def folders_with_data(root: Path) -> list[Path]:
    """The folders nearest to `root`, itself included, that hold train/ and eval/; [] if none is near."""
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        found = [folder for folder in level if holds_data(folder)]
        if found:
            return found
        # glob passes over what may not be read.
        level = sorted(child for folder in level for child in folder.glob("*/") if not is_junk(child.name))
    return []


def unpack(archive: Path, unpack_into: Path, size_limit: int = SIZE_LIMIT) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz into a folder of its own inside `unpack_into`; return that folder.

    The same archive is unpacked once, one of another size or time again. Raises ValueError for a broken archive or
    another file, for a member that is a link, a device or would land outside, and for more bytes than `size_limit`,
    the free disk or `RATIO_LIMIT` allow; nothing is left behind then.
    """
    ending = next((ending for ending in ENDINGS if archive.name.lower().endswith(ending)), None)
    if not ending:
        raise ValueError(f"{archive} is neither a folder nor one of {', '.join(ENDINGS)}")
    status = archive.stat()
    plain = re.sub(r"[^\w-]+", "_", archive.name[: -len(ending)])[:80]
    folder = unpack_into / f"{plain}-{files.digest([status.st_size, status.st_mtime_ns])[:8]}"
    unpack_into.mkdir(parents=True, exist_ok=True)
    with FileLock(unpack_into / f".{folder.name}.lock"):
        if not folder.is_dir():
            unpack_whole(archive, folder, size_limit)
    return folder


def unpack_whole(archive: Path, folder: Path, size_limit: int) -> None:
    """Unpack beside `folder` and rename there at the end. Call it under the lock."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    # A process that was killed could not tidy up; the lock says that none is at work here now.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    limits = {
        "the size limit": size_limit,
        "the free space on the disk": shutil.disk_usage(temporary).free,
        f"{RATIO_LIMIT} times its packed size": max(RATIO_FLOOR, RATIO_LIMIT * archive.stat().st_size),
    }
    extract = extract_zip if archive.name.lower().endswith(".zip") else extract_tar
    try:
        extract(archive, temporary, limits)
        temporary.rename(folder)
        files.flush_folder(folder.parent)
    except BROKEN as error:
        raise ValueError(
            f"{archive} cannot be unpacked ({error or type(error).__name__}): it may be cut short, fetch it again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_member(archive: Path, name: str, is_plain: bool, size: int, limits: dict[str, int]) -> None:
    """Raise ValueError for a member that would land outside, is neither file nor folder, or is one too many.

    size: bytes of all members so far, unpacked; limits: the most that they may be, by what sets it.
    """
    if leaves_folder(name):
        raise ValueError(f"{archive} holds {name!r}, which would land outside its folder: do not trust this archive")
    if not is_plain:
        raise ValueError(f"{archive} holds {name!r}, a link or a device: pack plain files and folders only")
    for limit, most in limits.items():
        if size > most:
            raise ValueError(f"{archive} unpacks to more than {most / 1e9:.3g} GB, {limit}: nothing was kept")


def extract_zip(archive: Path, folder: Path, limits: dict[str, int]) -> None:
    """Unpack a zip file into `folder`. `zipfile` never writes more bytes than a member's header states."""
    with zipfile.ZipFile(archive) as handle:
        members, size = handle.infolist(), 0
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the zip was not made on Unix
            size += member.file_size
            check_member(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), size, limits)
            if member.flag_bits & 1:
                raise ValueError(f"{archive} is locked by a password: unpack it yourself and give the folder")
        for member in files.progress(members, what="unpacking", unit="file"):
            handle.extract(member, folder)


def extract_tar(archive: Path, folder: Path, limits: dict[str, int]) -> None:
    """Unpack a tar file, packed or not, into `folder` in one pass: names and contents, no owners, modes or times.

    `TarFile.extract` is safe only by its filter, which Python 3.11.2 of Debian 12 has not.
    """
    size = 0
    with tarfile.open(archive) as handle:
        for member in files.progress(handle, what="unpacking", unit="file"):
            size += member.size
            check_member(archive, member.name, member.isreg() or member.isdir(), size, limits)
            target = folder / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with handle.extractfile(member) as content, target.open("wb") as copy:
                shutil.copyfileobj(content, copy)
        check_end(handle)


def check_end(handle: tarfile.TarFile) -> None:
    """Raise tarfile.ReadError unless the archive's end mark, a block of zeros, follows the last member.

    `tarfile` takes a file cut off between two members for whole. Reading to the end lets gzip compare its checksum.
    """
    handle.fileobj.seek(handle.offset)
    if handle.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end mark after {len(handle.getmembers())} members")
    while handle.fileobj.read(2**20):
        pass


def hint(folder: Path) -> str:
    """The end of an error message: which folder to give in place of `folder`, as far as one can be seen."""
    candidates = [parent for parent in folder.parents[:SEARCH_DEPTH] if holds_data(parent)]
    candidates += folders_with_data(folder) if os.path.isdir(folder) else []
    return f"give {candidates[0] if candidates else f'the folder that holds {LAYOUT}'}"
