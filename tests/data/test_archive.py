"""Archives: plain ones are unpacked, traps are refused before a byte is written."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from palate.core.errors import DataError
from palate.data.archive import extract


def zipped(path: Path, names: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in names.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            packed.writestr(entry, content)
    return path


def tarred(path: Path, members: list[tuple[str, bytes, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            packed.addfile(member, io.BytesIO(content))
    return path


def test_the_folder_around_everything_is_taken_off(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"ml/u.data": b"1", "ml/deep/x": b"2", "__MACOSX/junk": b"3"})
    folder = extract(archive, tmp_path / "ml-100k")
    assert (folder / "u.data").read_bytes() == b"1"
    assert (folder / "deep" / "x").read_bytes() == b"2"
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "ml-100k"}


def test_a_flat_archive(tmp_path: Path) -> None:
    members = [("ratings.csv", tarfile.REGTYPE, b"1"), ("books.csv", tarfile.REGTYPE, b"2")]
    folder = extract(tarred(tmp_path / "a.tgz", members), tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["books.csv", "ratings.csv"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:evil"])
def test_a_zip_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="outside the folder; refused"):
        extract(archive, tmp_path / "in" / "out")
    assert list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_tar_that_would_leave_the_folder(tmp_path: Path, absolute: bool) -> None:
    name = str(tmp_path / "evil") if absolute else "../evil"
    with pytest.raises(DataError, match="outside the folder; refused"):
        extract(tarred(tmp_path / "a.tgz", [(name, tarfile.REGTYPE, b"2")]), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_links_or_devices(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match="no plain file; refused"):
        extract(tarred(tmp_path / "a.tgz", [("x", kind, b"")]), tmp_path / "out")


def test_a_zip_with_a_link(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'x' is a link; refused"):
        extract(zipped(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode=0o120777), tmp_path / "out")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.data.archive.MAX_BYTES", 10)
    with pytest.raises(DataError, match="would unpack to"):
        extract(zipped(tmp_path / "a.zip", {"x": b"12345678901"}), tmp_path / "out")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_a_damaged_zip_leaves_nothing(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"x": b"1" * 1000})
    content = bytearray(archive.read_bytes())
    content[60:70] = b"2" * 10
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        extract(archive, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip"}
