"""What a write keeps of what was there, and what it clears away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitwidth.artifact import temporary, write_file
from bitwidth.errors import ConfigError, FileError

LEFT = ".bitwidth-0123456789abcdef.tmp"
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["unnamed", "hidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("no O_TMPFILE here")
    return str(request.param)


# ---- permissions


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755, 0o200])
def test_the_permissions_of_the_file_that_is_replaced_are_kept(tmp_path: Path, way: str, mode: int) -> None:
    target = tmp_path / "m.bw"
    target.write_bytes(b"old")
    target.chmod(mode)
    write_file(target, b"new")
    assert target.stat().st_mode & 0o7777 == mode
    target.chmod(0o600)
    assert target.read_bytes() == b"new"


@posix
def test_a_private_file_is_never_open_to_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seen = tmp_path / "m.bw", []
    target.write_bytes(b"old")
    target.chmod(0o600)
    real = os.fchmod

    def spy(descriptor: int, mode: int) -> None:
        seen.append(os.fstat(descriptor).st_mode & 0o777)
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", spy)
    write_file(target, b"new")
    assert seen == [0o600]


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path, way: str, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_file(tmp_path / "m.bw", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "m.bw").stat().st_mode & 0o7777 == 0o666 & ~mask


# ---- links


@posix
def test_a_link_is_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "real").mkdir()
    target, link, far = tmp_path / "real" / "m.bw", tmp_path / "link.bw", tmp_path / "far.bw"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to("real/m.bw")
    far.symlink_to(link)
    write_file(far, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert far.is_symlink()
    assert not target.is_symlink()
    assert (files(tmp_path), files(tmp_path / "real")) == (["far.bw", "link.bw", "real"], ["m.bw"])


@posix
def test_a_link_that_leads_nowhere_yet(tmp_path: Path, way: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.bw").symlink_to("real/m.bw")
    write_file(tmp_path / "link.bw", b"new")
    assert (tmp_path / "link.bw").is_symlink()
    assert (tmp_path / "real" / "m.bw").read_bytes() == b"new"


@posix
def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.bw").symlink_to("b.bw")
    (tmp_path / "b.bw").symlink_to("a.bw")
    with pytest.raises(FileError, match=r"a\.bw: cannot be written: Too many levels of symbolic links"):
        write_file(tmp_path / "a.bw", b"new")
    assert files(tmp_path) == ["a.bw", "b.bw"]


@posix
def test_a_link_into_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "a.bw").symlink_to("nowhere/m.bw")
    with pytest.raises(FileError, match="No such file"):
        write_file(tmp_path / "a.bw", b"new")
    assert (tmp_path / "a.bw").is_symlink()


@posix
def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.bw")
    with pytest.raises(FileError, match="not a regular file"):
        write_file(tmp_path / "m.bw", b"new")
    assert (tmp_path / "m.bw").is_fifo()


# ---- paths


@posix
def test_a_path_of_bytes(tmp_path: Path) -> None:
    write_file(os.fsencode(tmp_path) + b"/\xff.bw", b"new")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.bw"]


@pytest.mark.parametrize("wrong", [None, 5, True, ["m.bw"]])
def test_what_is_no_path_is_told(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="a path expected"):
        write_file(wrong, b"new")


@pytest.mark.parametrize("wrong", ["a\0.bw", b"a\0.bw", "\ud800.bw"])
def test_a_path_that_no_file_can_have(wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as caught:
        write_file(wrong, b"new")
    assert str(caught.value).isprintable()
    assert files(tmp_path) == []


# ---- files that were left


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a file in the folder until it is killed."""
    code = (
        "import sys; from pathlib import Path; from bitwidth.artifact import temporary\n"
        "import os; os.__dict__.pop('O_TMPFILE', None)\n"
        "with temporary.temporary(Path(sys.argv[1]), 0o666) as (file, name):\n"
        "    file.write(b'half'); file.flush(); print(name.name, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    with process:
        yield process
        process.kill()


@posix
def test_what_a_killed_writer_left_is_removed_by_the_next(
    tmp_path: Path, way: str, writer: subprocess.Popen[bytes]
) -> None:
    assert writer.stdout is not None
    name = writer.stdout.readline().decode().strip()
    write_file(tmp_path / "m.bw", b"one")
    assert files(tmp_path) == [name, "m.bw"], "another writer holds its file: it stays"
    writer.kill()
    writer.wait()
    assert files(tmp_path) == [name, "m.bw"]
    write_file(tmp_path / "m.bw", b"two")
    assert files(tmp_path) == ["m.bw"]


@posix
def test_only_files_of_that_name_are_removed(tmp_path: Path) -> None:
    kept = [".bitwidth-0123.tmp", ".bitwidth-0123456789abcdef.tmp.bak", "bitwidth-0123456789abcdef.tmp", "x.tmp"]
    for name in [*kept, LEFT]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".bitwidth-1123456789abcdef.tmp").symlink_to("x.tmp")
    (tmp_path / ".bitwidth-2123456789abcdef.tmp").mkdir()
    os.mkfifo(tmp_path / ".bitwidth-3123456789abcdef.tmp")
    write_file(tmp_path / "m.bw", b"new")
    others = [f".bitwidth-{n}123456789abcdef.tmp" for n in (1, 2, 3)]
    assert files(tmp_path) == sorted([*kept, *others, "m.bw"])


@posix
def test_a_file_that_is_taken_for_a_left_one_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer comes between the creation of the file and its lock."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    real = temporary._lock
    taken: list[list[Path]] = []

    def late(descriptor: int) -> bool | None:
        if not taken:
            taken.append([path for path in tmp_path.iterdir() if path.name.endswith(".tmp")])
            monkeypatch.setattr(temporary, "_lock", real)
            temporary.remove_left(tmp_path)
        return real(descriptor)

    monkeypatch.setattr(temporary, "_lock", late)
    write_file(tmp_path / "m.bw", b"new")
    assert len(taken[0]) == 1
    assert (tmp_path / "m.bw").read_bytes() == b"new"
    assert files(tmp_path) == ["m.bw"]


def test_without_locks_nothing_is_removed(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_lock", lambda descriptor: None)
    (tmp_path / LEFT).write_bytes(b"")
    write_file(tmp_path / "m.bw", b"new")
    assert files(tmp_path) == [LEFT, "m.bw"]


@posix
def test_writers_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.__dict__.pop('O_TMPFILE', None); from bitwidth.artifact import write_file\n"
        "for index in range(300): write_file(sys.argv[1], bytes([index % 256]) * 1000)\n"
    )
    folder, root = tmp_path / "models", Path(__file__).parents[2]
    folder.mkdir()
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(folder / f"{name}.bw")], cwd=root) for name in ("a", "a", "b")
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert files(folder) == ["a.bw", "b.bw"]
